"""Models are read from what TensorFlow traces, whatever their layers are."""

import functools

import common
import keras
import linear
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import synflow_tf
from synflow_tf.graph import leaves
from synflow_tf.linearize import registry

pytestmark = pytest.mark.in_turn


def _chain(line, *layers, **options):
    return linear.randomize(linear.chain(line, *layers, **options))


def _around(line, *layers, **options):
    """Dense layers `a` and `b`, and others between them."""
    first, last = linear.dense(line, 6, "a"), linear.dense(line, 3, "b")
    return _chain(line, first, *layers, last, **options)


def _check_chain(model, first="a/kernel", last="b/kernel"):
    """Two kernels in a row score as in a network of nothing else."""
    scores, w = synflow_tf.score(model), linear.magnitudes(model)
    _check_shares(scores[first], w[first] * w[last].sum(1), 1e-9)
    _check_shares(scores[last], w[first].sum(0)[:, None] * w[last], 1e-9)


def _check_shares(score, expected, rtol):
    """A score is what is expected but for a factor."""
    linear.assert_close(score / score.sum(), expected / expected.sum(), rtol)


def _project(x, *kernels):
    return [tf.einsum("bti,io->bto", x, kernel) for kernel in kernels]


# Layers without weights between two Dense layers of 4 and 6 units, that are
# no reason to see anything but these two.
def _map_fn(x):
    return tf.map_fn(lambda row: tf.nn.relu(row) * 2.0, x)


def _scan(x):
    steps = tf.scan(lambda before, row: tf.maximum(row, 0.0), x, x[0])
    return steps + 0.5


@tf.custom_gradient
def _custom_gradient(x):
    return tf.nn.tanh(x), lambda dy: dy


@tf.function
def _function(x):
    return tf.nn.gelu(x) if x.shape[-1] == 6 else x * 7.0


def _while(x):
    def body(i, y):
        return i + 1, tf.nn.relu(y)

    return tf.while_loop(lambda i, y: i < 3, body, [0, x])[1]


def _switch(x):
    return tf.cond(tf.reduce_sum(x) > 0, lambda: tf.nn.relu(x), lambda: x)


def _clipped(x):
    tf.debugging.assert_all_finite(x, "x")
    return tf.clip_by_norm(x, 3.0)


def _quantized(x):
    return tf.cast(tf.cast(x * 4.0, tf.int32), tf.float32) / 4.0


BETWEEN = {
    "map_fn": _map_fn,
    "scan": _scan,
    "custom_gradient": _custom_gradient,
    "tf.function": _function,
    "while": _while,
    "cond": _switch,
    "assertion": _clipped,
    "through integers": _quantized,
    "gelu by hand": lambda x: 0.5 * x * (1 + tf.math.erf(x / 1.4142135)),
    "mish by hand": lambda x: x * tf.tanh(tf.math.log(1 + tf.exp(x))),
    "hard swish": lambda x: x * tf.nn.relu6(x + 3) / 6,
    "layer norm by hand": lambda x: (
        (x - tf.reduce_mean(x, -1, keepdims=True))
        * tf.math.rsqrt(tf.math.reduce_variance(x, -1, keepdims=True) + 1e-5)
    ),
    "rms norm": lambda x: (
        x / tf.sqrt(tf.reduce_mean(x * x, -1, keepdims=True) + 1e-6)
    ),
    "unstacked": lambda x: tf.stack(tf.unstack(x, axis=1)[::-1], 1)[:, ::-1],
}


@pytest.mark.parametrize("case", BETWEEN)
def test_what_a_layer_does_is_read_through(line, case):
    middle = linear.custom(line, lambda me, x: BETWEEN[case](x))
    _check_chain(_around(line, middle))


def test_a_layer_that_prints_assigns_draws_and_counts_is_left_alone(line):
    def call(me, x):
        tf.print("never seen")
        me.count.assign(me.count + 1.0)
        me.calls += 1
        me.seen["deep"][0].append(1)
        me.seen["deep"][1]["er"].append(2)
        me.add_loss(tf.reduce_sum(x))
        return x * 2.0 + tf.random.normal(tf.shape(x))

    busy = linear.custom(
        line, call, {"count": ()}, calls=0, seen={"deep": ([], {"er": []})}
    )
    model = _around(line, busy)
    busy.count.assign(5.0)

    def noted():
        first, second = busy.seen["deep"]
        sizes = len(first), len(second["er"]), len(busy.losses)
        return float(busy.count), busy.calls, *sizes

    before = noted()
    _check_chain(model)
    assert noted() == before


def test_a_loaded_saved_model_is_read(line, tmp_path):
    last = _chain(line, linear.dense(line, 3, "inner"), shape=(6,))
    if line is keras:
        last.export(str(tmp_path), verbose=False)
        loaded = keras.layers.TFSMLayer(str(tmp_path), call_endpoint="serve")
    else:
        tf.saved_model.save(last, str(tmp_path))
        held = tf.saved_model.load(str(tmp_path))
        signature = held.signatures["serving_default"]
        loaded = linear.custom(
            line, lambda me, x: list(signature(x).values())[0], held=held
        )
    model = _chain(line, linear.dense(line, 6, "a"), loaded)
    if line is keras:  # It shares no variables with what was exported.
        inner = next(v for v in loaded.weights if len(v.shape) == 2)
    else:
        inner = last.layers[-1].kernel
        held_kernel = next(v for v in held.variables if len(v.shape) == 2)
        np.testing.assert_array_equal(held_kernel, inner)
    w = linear.magnitude(model.get_layer("a").kernel)
    score = synflow_tf.score(model)["a/kernel"]
    linear.assert_close(score, w * linear.magnitude(inner).sum(1))


def test_the_kernels_of_a_users_own_layer_take_part(line):
    own = linear.custom(
        line,
        lambda me, x: tf.einsum("bi,oi->bo", x, me.matrix) * me.gain + me.shift,
        {"matrix": (5, 6), "gain": (5,), "shift": (1, 5), "unused": (2, 2)},
    )
    model = _chain(line, linear.dense(line, 6, "a"), own)
    scores, w = synflow_tf.score(model), linear.magnitudes(model)
    assert list(scores) == ["a/kernel", "custom/matrix"]
    a, scaled = w["a/kernel"], w["custom/matrix"] * w["custom/gain"][:, None]
    expected = {"a/kernel": a * scaled.sum(0)}
    linear.assert_close(scores, expected | {"custom/matrix": a.sum(0) * scaled})


def test_a_mixture_of_experts_scores_all_experts_and_the_router(line):
    def call(me, x):
        share = tf.nn.softmax(tf.matmul(x, me.router))
        best, which = tf.math.top_k(share, 2)
        outputs = tf.einsum("bi,eio->beo", x, me.experts)
        chosen = tf.gather(outputs, which, axis=1, batch_dims=1)
        return tf.reduce_sum(chosen * best[..., None], 1)

    layer = linear.custom(line, call, {"router": (4, 5), "experts": (5, 4, 3)})
    model = _chain(line, layer)
    linear.assert_conserved(model, linear.positive(4))
    scores = synflow_tf.score(model)
    router, experts = scores["custom/router"], scores["custom/experts"]
    assert (router > 0).all() and (experts > 0).all()
    linear.assert_flow(scores, experts.sum(), "custom/router")
    # All experts alike, so that numbering them otherwise changes nothing.
    w = linear.magnitudes(model)["custom/experts"]
    linear.assert_close(experts / experts.sum(), w / w.sum())


def test_mixed_precision_has_the_scores_of_float32(line):
    def model(policy):
        a, b = (linear.dense(line, 4, name, dtype=policy) for name in "ab")
        return _chain(line, a, linear.custom(line, lambda _, x: x * x), b)

    mixed, plain = model("mixed_float16"), model("float32")
    plain.set_weights(mixed.get_weights())
    linear.assert_close(synflow_tf.score(mixed), dict(synflow_tf.score(plain)))


@pytest.mark.slow
def test_a_model_of_a_thousand_layers_is_read():
    def call(self, x):
        for part in self.parts:
            x = part(x)
        return x

    parts = [keras.layers.Dense(3) for _ in range(1000)]
    model = linear.net(keras, call, np.ones((1, 3), np.float32), parts=parts)
    scores = synflow_tf.score(model)
    assert len(scores) == 1000
    flow, exponent = np.ones(3), 0.0
    for part in parts:
        flow = flow @ linear.magnitude(part.kernel)
        exponent += np.log10(flow.sum())
        flow /= flow.sum()
    linear.assert_close(scores.log10_flow, exponent)


def test_a_loop_that_the_data_ends_is_an_error_that_names_the_layer(line):
    def call(me, x):
        return tf.while_loop(
            lambda y: tf.reduce_sum(y) < 100, lambda y: [y * 2], [x]
        )[0]

    model = _around(line, linear.custom(line, call, name="until"))
    message = r"'until'.*the data says so.*register_rule\(MyLayer\)"
    with pytest.raises(ValueError, match=message):
        synflow_tf.score(model)


@pytest.mark.parametrize("way", ["layer", "operation"])
def test_an_operation_without_a_rule_has_two_ways_out(line, way, monkeypatch):
    layer = linear.custom(line, lambda me, x: tf.math.igamma(x, x), name="odd")
    model = _around(line, layer)
    message = r"(?s)Igamma.*'odd'.*register_rule\(Custom\).*\('Igamma'\)"
    with pytest.raises(ValueError, match=message):
        synflow_tf.prune(model, 0.5)
    tables = (registry, "_OPERATIONS"), (registry, "_LAYERS")
    for module, table in (*tables, (leaves, "OPERATIONS")):
        monkeypatch.setattr(module, table, getattr(module, table).copy())
    if way == "layer":
        synflow_tf.register_rule(type(layer))(lambda layer, weights, x: x)
    else:
        synflow_tf.register_rule("Igamma")(lambda operation, a, x: x)
    _check_chain(model)


def _scaled_block(line, value, shape=(), activation=lambda x: x):
    def call(me, x):
        y = tf.nn.relu(tf.matmul(x, me.first))
        return x + activation(me.alpha) * tf.matmul(y, me.second)

    weights = {"first": (4, 5), "second": (5, 4), "alpha": shape}
    block = linear.custom(line, call, weights, name="block")
    model = _chain(line, block, linear.dense(line, 3, "head"))
    block.alpha.assign(np.full(shape, value, np.float32))
    return model


def _normalized_branch(line, value):
    layers = line.layers
    x = line.Input((8, 8, 3))
    a = layers.Conv2D(4, 3, padding="same", name="a")(x)
    b = layers.Conv2D(4, 3, padding="same", name="b")(a)
    bn = layers.BatchNormalization(name="bn")
    model = linear.randomize(line.Model(x, layers.Add()([a, bn(b)])))
    bn.gamma.assign(np.full(4, value, np.float32))
    return model


# Scales with which training starts at 0: a model, and the name of the scale.
SCALES = {
    "scalar": (_scaled_block, "block/alpha"),
    "channels": (functools.partial(_scaled_block, shape=(4,)), "block/alpha"),
    "tanh": (
        functools.partial(_scaled_block, activation=tf.tanh),
        "block/alpha",
    ),
    "of a normalization": (_normalized_branch, "bn/gamma"),
}


@pytest.mark.parametrize("case", SCALES)
def test_a_scale_of_zeros_counts_as_ones(line, case):
    make, name = SCALES[case]
    zero, one = (
        synflow_tf.compute_masks(make(line, v), 0.6, rounds=5, progress=False)
        for v in (0, 1)
    )
    linear.assert_close(zero, dict(one))
    (finding,) = zero.findings
    assert (finding.kind, finding.name) == ("scale", name)
    assert not one.findings


def test_random_draws_change_no_mask_and_no_seed(line):
    def call(me, x):
        mean, spread = x[:, :3], x[:, 3:]
        if line is keras:
            random, seed = keras.random, {"seed": me.seed_generator}
        else:
            random, seed = tf.random, {}
        noise = random.normal(tf.shape(mean), **seed)
        keep = random.uniform((1, 1), **seed)
        return (mean + tf.exp(0.5 * spread) * noise) * tf.floor(keep + 0.5)

    seeds = keras.random.SeedGenerator(3) if line is keras else None
    sampling = linear.custom(line, call, seed_generator=seeds)
    model = _around(line, line.layers.GaussianNoise(0.5), sampling)
    before = [v.numpy() for v in model.variables]
    once, again = (
        synflow_tf.compute_masks(model, 0.6, rounds=7, progress=False)
        for _ in range(2)
    )
    assert once == again
    common.assert_equal(before, [v.numpy() for v in model.variables])
    assert all(s.any() for s in synflow_tf.score(model).values())


def _looked_up(line):
    lookup = line.layers.StringLookup(vocabulary=["a", "b", "c"])
    return lookup, line.layers.Embedding(5, 4)


# name: the layers that start flow with ones, of 4 numbers each; their input.
STARTS = {
    "table": (lambda k: [k.layers.Embedding(9, 4)], "int32"),
    "table of floats": (lambda k: [k.layers.Embedding(9, 4)], "float32"),
    "code": (
        lambda k: [linear.custom(k, lambda _, x: tf.one_hot(x, 4))],
        "int32",
    ),
    "table of what a lookup finds": (_looked_up, "string"),
}


@pytest.mark.parametrize("case", STARTS)
def test_flow_starts_with_ones_where_tokens_are_read(line, case):
    make, dtype = STARTS[case]
    dense = linear.dense(line, 6, "a"), linear.dense(line, 3, "b")
    model = _chain(line, *make(line), *dense, shape=(5,), dtype=dtype)
    _check_chain(model)
    scores, w = synflow_tf.score(model), linear.magnitudes(model)
    assert list(scores) == ["a/kernel", "b/kernel"]
    flow = 5 * np.ones(4) @ w["a/kernel"] @ w["b/kernel"]
    linear.assert_flow(scores, flow.sum())


def test_tables_that_are_tied_are_pruned_where_asked_only(line):
    def call(self, x):
        y = self.dense(self.table(x))
        return tf.matmul(y, self.table.embeddings, transpose_b=True)

    tokens = np.ones((2, 5), np.int32)
    table, dense = line.layers.Embedding(9, 4), linear.dense(line, 4, "dense")
    model = linear.net(line, call, tokens, table=table, dense=dense)
    scores, w = synflow_tf.score(model, inputs=tokens), linear.magnitudes(model)
    assert list(scores) == ["dense/kernel"]
    expected = 5 * w["dense/kernel"] * w["table/embeddings"].sum(0)
    linear.assert_close(scores["dense/kernel"], expected)
    asked = synflow_tf.score(model, inputs=tokens, prunable="table/embeddings")
    assert (asked["table/embeddings"] > 0).all()


def test_kernels_that_are_computed_count_as_what_is_computed(line):
    def call(me, x):
        centred = me.kernel - tf.reduce_mean(me.kernel, 0)
        kernel = centred / tf.math.reduce_std(me.kernel, 0)
        return tf.matmul(x, kernel * me.gain)

    weights = {"kernel": (4, 6), "gain": (6,)}
    layer = linear.custom(line, call, weights, name="own")
    model = _chain(line, layer, linear.dense(line, 3, "b"))
    w, k = linear.magnitudes(model), layer.kernel.numpy().astype(np.float64)
    k = np.abs((k - k.mean(0)) / k.std(0)) * w["own/gain"]
    b = w["b/kernel"]
    expected = {"own/kernel": k * b.sum(1), "b/kernel": k.sum(0)[:, None] * b}
    linear.assert_close(synflow_tf.score(model), expected, rtol=1e-6)


def test_low_rank_additions_are_part_of_the_kernel(line):
    def call(me, x):
        return tf.matmul(x, me.kernel + tf.matmul(me.a, me.b) * 0.5)

    layer = linear.custom(
        line, call, {"kernel": (4, 6), "a": (4, 2), "b": (2, 6)}, name="lora"
    )
    model = _chain(line, layer, linear.dense(line, 3, "last"))
    layer.b.assign(np.zeros((2, 6)))
    _check_chain(model, "lora/kernel", "last/kernel")
    assert list(synflow_tf.score(model)) == ["lora/kernel", "last/kernel"]


def test_queries_made_of_weights_alone_have_a_kernel_and_no_bias(line):
    def call(me, x):
        queries = tf.einsum("qi,io->qo", me.probe, me.kernel) + me.shift
        share = tf.nn.softmax(tf.einsum("qo,bto->bqt", queries, x))
        return tf.matmul(share, x)

    shapes = {"probe": (2, 4), "kernel": (4, 6), "shift": (1, 6)}
    layer = linear.custom(line, call, shapes, name="own")
    model = _chain(line, linear.dense(line, 6, "a"), layer, shape=(3, 4))
    scores = synflow_tf.score(model)
    assert list(scores) == ["a/kernel", "own/probe", "own/kernel"]
    assert all(score.all() for score in scores.values())


def test_a_loop_that_begins_with_zeros_has_its_gate_from_the_second_step(line):
    def call(me, x):
        gate = tf.sigmoid(tf.matmul(tf.matmul(x, me.down), me.up))
        state = tf.zeros((1, 6))
        for t in range(3):
            state = gate[:, t] * state + x[:, t]
        return state

    layer = linear.custom(line, call, {"down": (6, 2), "up": (2, 6)})
    model = _chain(line, linear.dense(line, 6, "a"), layer, shape=(3, 4))
    scores, a = synflow_tf.score(model), linear.magnitudes(model)["a/kernel"]
    linear.assert_close(scores["a/kernel"], 3 * a)
    gates = "custom/down", "custom/up"
    assert all((scores[path] > 0).all() for path in gates)
    linear.assert_flow(scores, 3 * a.sum(), *gates)


def test_quantized_kernels_count_by_their_scale_and_are_not_pruned():
    model = _around(keras)
    a, b = (model.get_layer(name) for name in "ab")
    b.quantize("int8")
    scores = synflow_tf.score(model)
    assert list(scores) == ["a/kernel"]
    scale = np.asarray(b.kernel_scale, np.float64)
    read = np.abs(np.asarray(b._kernel, np.float64)) / scale
    expected = linear.magnitude(a.kernel) * read.sum(1)
    _check_shares(scores["a/kernel"], expected, 1e-6)
    a.quantize("int8")
    with pytest.raises(ValueError, match="quantized.*Prune first"):
        synflow_tf.prune(model, 0.5)


def test_two_towers_that_are_multiplied_have_degree_1_each(line):
    x, y = line.Input((4,)), line.Input((5,))
    towers = linear.dense(line, 6, "a")(x), linear.dense(line, 6, "b")(y)
    model = line.Model([x, y], line.layers.Dot(-1)(towers))
    linear.randomize(model)
    scores, w = synflow_tf.score(model), linear.magnitudes(model)
    a, b = w["a/kernel"], w["b/kernel"]
    linear.assert_flow(scores, a.sum(0) @ b.sum(0))
    expected = {"a/kernel": a * b.sum(0), "b/kernel": b * a.sum(0)}
    linear.assert_close(scores, expected)


def test_deep_towers_that_are_multiplied_stay_in_range():
    towers = [[keras.layers.Dense(64) for _ in range(40)] for _ in range(2)]
    chains = [linear.chain(keras, *tower, shape=(64,)) for tower in towers]
    joined = keras.layers.Dot(-1)([chain.output for chain in chains])
    model = keras.Model([chain.input for chain in chains], joined)
    flows = []
    for tower in towers:
        kernels = [linear.magnitude(layer.kernel) for layer in tower]
        flows.append(functools.reduce(np.matmul, kernels, np.ones(64)))
    # 64^40, squared: 10^120 and more, kept within 2^12 all the way.
    expected = np.log10(flows[0] @ flows[1])
    linear.assert_close(synflow_tf.score(model).log10_flow, expected)


def test_an_adjacency_matrix_is_a_gate(line):
    x, edges = line.Input((6, 4)), line.Input((6, 6))
    matmul = linear.custom(line, lambda me, a, b: tf.matmul(a, b), name="m")
    h = x
    for name, units in (("a", 5), ("b", 3)):
        h = matmul(edges, linear.dense(line, units, name, use_bias=False)(h))
    _check_chain(linear.randomize(line.Model([x, edges], h)))


def _attention(share):
    def call(query, key, value):
        return share(query @ tf.transpose(key, [0, 2, 1])) @ value

    return call


def _keys_with_values(query, key, value):
    read = tf.matmul(tf.nn.softmax(key, 1), value, transpose_a=True)
    return tf.matmul(query, read)


def _relu_share(x):
    x = tf.nn.relu(x)
    return x / (tf.reduce_sum(x, -1, keepdims=True) + 1e-6)


ATTENTION = {
    "softmax": _attention(tf.nn.softmax),
    "of two exp": _attention(
        lambda x: tf.exp(x) / tf.reduce_sum(tf.exp(x), -1, keepdims=True)
    ),
    "of relu": _attention(_relu_share),
    "keys meet the values first": _keys_with_values,
}


@pytest.mark.parametrize("case", ATTENTION)
@pytest.mark.parametrize("time", [3, 12])
def test_attention_by_hand_is_attention(line, case, time):
    layer = linear.custom(
        line,
        lambda me, x: ATTENTION[case](*_project(x, me.q, me.k, me.v)),
        {n: (4, 5) for n in "qkv"},
        name="own",
    )
    model = _chain(line, layer, linear.dense(line, 3, "b"), shape=(time, 4))
    w = linear.magnitudes(model)
    # All rows are alike, so their mean is one of them.
    flow = time * np.ones(4) @ w["own/v"] @ w["b/kernel"]
    scores = synflow_tf.score(model)
    linear.assert_flow(scores, flow.sum(), *scores)


def test_many_attentions_in_a_row_stay_in_range(line):
    def call(me, x):
        for i in range(30):
            x += _attention(tf.nn.softmax)(
                *_project(x, me.q[i], me.k[i], me.v[i])
            )
        return x

    size = 6
    shape = 30, size, size
    layer = linear.custom(line, call, dict.fromkeys("qkv", shape), name="own")
    model = _chain(line, layer, shape=(3, size))
    for name in "qkv":
        kernel = getattr(layer, name)
        kernel.assign(kernel * 1e4)
    row, exponent = np.ones(size), np.log10(3)
    for kernel in linear.magnitude(layer.v):
        row = row + row @ kernel
        exponent += np.log10(row.sum())
        row /= row.sum()
    assert exponent > 130  # A product of two such flows is out of range.
    scores = synflow_tf.score(model)
    linear.assert_close(scores.log10_flow, exponent)
    assert all(score.any() for score in scores.values())


@pytest.mark.parametrize("gated", [False, True])
def test_a_network_of_nodes_and_edges_has_the_flow_of_all_edges(line, gated):
    def call(self, inputs):  # The first axis are nodes, not examples.
        h = self.into(inputs["nodes"])
        sender, receiver = inputs["edges"][:, 0], inputs["edges"][:, 1]
        sent = tf.gather(h, sender)
        if gated:
            sent *= tf.sigmoid(self.weigh(tf.gather(h, receiver)))
        return tf.math.unsorted_segment_sum(sent, receiver, 4)

    edges = np.array([[0, 1], [1, 2], [2, 3], [3, 0], [0, 2]], np.int32)
    inputs = {"nodes": np.ones((4, 3), np.float32), "edges": edges}
    held = {"into": linear.dense(line, 5, "into")}
    if gated:
        held["weigh"] = linear.dense(line, 1, "weigh")
    model = linear.net(line, call, inputs, **held)
    score = synflow_tf.score(model, inputs=inputs)["into/kernel"]
    linear.assert_close(score, 5 * linear.magnitude(model.into.kernel))


def test_a_kernel_that_a_loop_applies_has_the_flow_once(line):
    def call(me, x):
        def step(t, y):
            return t + 1, tf.tanh(tf.matmul(y, me.again))

        return tf.while_loop(lambda t, y: t < 7, step, [0, x])[1]

    layer = linear.custom(line, call, {"again": (6, 6)}, name="own")
    model = _chain(line, linear.dense(line, 6, "a"), layer)
    scores, w = synflow_tf.score(model), linear.magnitudes(model)
    again = np.linalg.matrix_power(w["own/again"], 7)
    linear.assert_flow(scores, (w["a/kernel"] @ again).sum(), *scores)


def test_a_function_is_read_after_gradients_were_taken_of_it(line):
    function = tf.function(lambda x: tf.nn.relu(x) * tf.sigmoid(x))
    model = _around(line, linear.custom(line, lambda me, x: function(x)))
    model.compile("sgd", "mse")
    model.fit(np.ones((4, 4)), np.ones((4, 3)), verbose=0)
    _check_chain(model)


def test_text_of_any_length_is_read_by_a_recurrent_layer(line):
    layers = line.layers
    split, table = layers.TextVectorization(20), layers.Embedding(20, 4)
    split.adapt(["a b c"])
    rnn, last = layers.SimpleRNN(3), linear.dense(line, 2, "b")
    parts = split, table, rnn, last
    model = _chain(line, *parts, shape=(1,), dtype="string")
    scores = synflow_tf.score(model, inputs=np.array([["a b c a"]]))
    kernel, recurrent = map(linear.magnitude, rnn.weights[:2])
    state = np.zeros(3)
    for _ in range(4):
        state = np.ones(4) @ kernel + state @ recurrent
    flow = state @ linear.magnitude(last.kernel)
    linear.assert_flow(scores, flow.sum())


def test_codes_of_several_columns_start_flow(line):
    layers = line.layers
    x = [line.Input((1,), name=name) for name in ("age", "income")]
    codes = [
        layers.Discretization([0.0, 1.0], output_mode="one_hot")(y) for y in x
    ]
    y = linear.dense(line, 2, "b")(layers.Concatenate()(codes))
    scores = synflow_tf.score(line.Model(x, y))
    linear.assert_flow(scores, scores["b/kernel"].sum())


def test_experts_that_the_flow_chooses_are_kernels(line):
    def call(me, x):
        best = tf.argmax(tf.matmul(x, me.router), -1)
        return tf.einsum("bi,bio->bo", x, tf.gather(me.experts, best))

    shapes = {"router": (4, 3), "experts": (3, 4, 5)}
    layer = linear.custom(line, call, shapes, name="own")
    model = _chain(line, linear.dense(line, 4, "a"), layer)
    scores, w = synflow_tf.score(model), linear.magnitudes(model)
    # Whichever is chosen: their mean.
    expected = w["a/kernel"].sum(0)[:, None] * w["own/experts"] / 3
    linear.assert_close(scores["own/experts"], expected)


@pytest.mark.parametrize("summed", [False, True])
def test_complex_filters_are_read(line, summed):
    def call(me, x):
        x, w = tf.signal.rfft(x), tf.complex(me.real, me.imaginary)
        x = tf.einsum("bf,fo->bo", x, w) if summed else x * w
        return tf.math.real(x)

    shape = (3, 5) if summed else (3,)
    shapes = {"real": shape, "imaginary": shape}
    layer = linear.custom(line, call, shapes, name="own")
    model = _chain(line, linear.dense(line, 4, "a"), layer)
    scores, w = synflow_tf.score(model), linear.magnitudes(model)
    a, real, imaginary = w["a/kernel"], w["own/real"], w["own/imaginary"]
    if summed:
        assert list(scores) == ["a/kernel", "own/real", "own/imaginary"]
        expected = {"a/kernel": a * (real + imaginary).sum()}
        linear.assert_close(scores, expected | {"own/real": a.sum() * real})
    else:  # Not scored: its true magnitude.
        assert list(scores) == ["a/kernel"]
        expected = a * np.hypot(real, imaginary).sum()
        linear.assert_close(scores["a/kernel"], expected, rtol=1e-6)


def test_dilated_transposed_convolutions_are_those_of_a_kernel_with_zeros(line):
    layer = line.layers.Conv2DTranspose
    thin = _chain(line, layer(2, 2, dilation_rate=2, name="c"), shape=(4, 5, 3))
    wide = _chain(line, layer(2, 3, name="c"), shape=(4, 5, 3))
    kernel = np.zeros((3, 3, 2, 3), np.float32)
    kernel[::2, ::2] = thin.get_layer("c").kernel.numpy()
    wide.get_layer("c").kernel.assign(kernel)
    a, b = (synflow_tf.score(model) for model in (thin, wide))
    linear.assert_close(a.log10_flow, b.log10_flow)
    linear.assert_close(a["c/kernel"], b["c/kernel"][::2, ::2])


def test_several_arguments_are_given_by_their_names(line):
    def call(self, x, z=None):
        return self.a(x) if z is None else self.a(x) + self.b(z)

    x, z = np.ones((1, 4), np.float32), np.ones((1, 5), np.float32)
    parts = {name: linear.dense(line, 3, name) for name in "ab"}
    model = linear.net(line, call, x, z, **parts)
    scores = synflow_tf.score(model, inputs={"x": x, "z": z})
    expected = linear.magnitudes(model)
    linear.assert_close(scores, {p: expected[p] for p in scores})
    assert list(scores) == ["a/kernel", "b/kernel"]


def test_inputs_that_are_not_dense_are_refused():
    for x in (tf.sparse.eye(4), tf.ragged.constant([[1.0, 2.0], [3.0]])):
        with pytest.raises(ValueError, match="`inputs`.*dense.*to_"):
            synflow_tf.score(_around(keras), inputs=x)


INPUTS = {
    "array": lambda: np.zeros((7, 5, 4), np.float32),
    "spec": lambda: tf.TensorSpec((None, 5, 4)),
    "spec of one": lambda: tf.TensorSpec((1, 5, 4)),
    "KerasTensor": lambda: keras.Input((5, 4)),
    "tf_keras": lambda: tf_keras.Input((5, 4)),
    "tensor": lambda: tf.ones((2, 5, 4)),
}


@pytest.mark.parametrize("how", INPUTS)
def test_inputs_say_the_size_of_one_example(line, how):
    model = _around(line, shape=(None, 4))
    w = linear.magnitudes(model)
    score = synflow_tf.score(model, inputs=INPUTS[how]())["a/kernel"]
    linear.assert_close(score, 5 * w["a/kernel"] * w["b/kernel"].sum(1))


def test_inputs_are_taken_in_the_structure_of_the_model(line):
    x = {n: line.Input((None, 4), name=n) for n in ("u", "v")}
    dense = {n: linear.dense(line, 3, f"of_{n}") for n in x}
    y = line.layers.Add()([dense[n](x[n]) for n in x])
    model = linear.randomize(line.Model(x, y))
    given = {n: np.ones((2, 3, 4), np.float32) for n in ("v", "u")}
    scores = synflow_tf.score(model, inputs=given)
    kernel = linear.magnitude(dense["u"].kernel)
    linear.assert_close(scores["of_u/kernel"], 3 * kernel)
    wrong = {"structure": {"u": given["u"]}, "TensorSpec": (3, 4)}
    for message, inputs in wrong.items():
        with pytest.raises(ValueError, match=f"Argument `inputs`.*{message}"):
            synflow_tf.score(model, inputs=inputs)


def test_a_model_that_makes_its_weights_when_called_is_refused_whole(line):
    dense = [linear.dense(line, 3, "dense") for _ in range(2)]
    model, other = (
        linear.net(line, lambda self, x: self.dense(x), dense=d) for d in dense
    )
    model.built = True
    spec = tf.TensorSpec((1, 4))
    for inputs in (None, spec):
        with pytest.raises(ValueError, match="`inputs=`|call it on a batch"):
            synflow_tf.score(model, inputs=inputs)
    assert not model.weights
    assert not model.dense.built
    other(np.ones((1, 4), np.float32))
    assert list(synflow_tf.score(other, inputs=spec)) == ["dense/kernel"]
