"""Models are read from what TensorFlow traces, whatever their layers are."""

import conformance
import keras
import linear
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import synflow_tf


def _chain(line, *layers, shape=(4,), dtype=None):
    x = y = line.Input(shape, dtype=dtype)
    for layer in layers:
        y = layer(y)
    model = line.Model(x, y)
    linear.randomize(model)
    return model


def _dense(line, units, name, **options):
    return line.layers.Dense(units, name=name, **options)


def _kernels(model):
    """The magnitudes of all kernels, by the name of the layer."""
    values = linear.magnitudes(model)
    return {
        path.removesuffix("/kernel"): value
        for path, value in values.items()
        if path.endswith("/kernel")
    }


def _check_chain(model, first, last):
    """Two kernels in a row score as in a network of nothing else."""
    scores = synflow_tf.score(model)
    a, b = scores[first], scores[last]
    w = linear.magnitudes(model)
    expected = w[first] * w[last].sum(1)
    np.testing.assert_allclose(
        a / a.sum(), expected / expected.sum(), rtol=1e-9
    )
    expected = w[first].sum(0)[:, None] * w[last]
    np.testing.assert_allclose(
        b / b.sum(), expected / expected.sum(), rtol=1e-9
    )


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
    "squared relu": lambda x: tf.square(tf.nn.relu(x)),
    "gelu by hand": lambda x: 0.5 * x * (1 + tf.math.erf(x / 1.4142135)),
    "swish by hand": lambda x: x * tf.sigmoid(1.702 * x),
    "mish by hand": lambda x: x * tf.tanh(tf.math.log(1 + tf.exp(x))),
    "hard swish": lambda x: x * tf.nn.relu6(x + 3) / 6,
    "layer norm by hand": lambda x: (
        (x - tf.reduce_mean(x, -1, keepdims=True))
        * tf.math.rsqrt(tf.math.reduce_variance(x, -1, keepdims=True) + 1e-5)
    ),
    "l2 norm": lambda x: tf.math.l2_normalize(x, -1),
    "rms norm": lambda x: (
        x / tf.sqrt(tf.reduce_mean(x * x, -1, keepdims=True) + 1e-6)
    ),
    "tensor array": lambda x: tf.stack(tf.unstack(x, axis=1)[::-1], axis=1)[
        :, ::-1
    ],
}


@pytest.mark.parametrize("case", BETWEEN)
def test_what_a_layer_does_is_read_through(line, case):
    middle = linear.custom(line, lambda me, x: BETWEEN[case](x))
    model = _chain(
        line, _dense(line, 6, "a"), middle, _dense(line, 3, "b"), shape=(4,)
    )
    _check_chain(model, "a/kernel", "b/kernel")


def test_a_layer_that_prints_assigns_draws_and_counts_is_left_alone(line):
    layers = line.layers

    class Busy(layers.Layer):
        def build(self, shape):
            self.count = self.add_weight(
                name="count", shape=(), initializer="zeros", trainable=False
            )
            self.built = True

        def call(self, x):
            tf.print("never seen")
            self.count.assign(self.count + 1.0)
            self.calls = getattr(self, "calls", 0) + 1
            self.add_loss(tf.reduce_sum(x))
            return x * 2.0 + tf.random.normal(tf.shape(x))

    busy = Busy()
    model = _chain(line, _dense(line, 6, "a"), busy, _dense(line, 3, "b"))
    busy.count.assign(5.0)
    calls = busy.calls
    losses = list(busy.losses)
    _check_chain(model, "a/kernel", "b/kernel")
    assert float(busy.count) == 5
    assert busy.calls == calls
    assert len(busy.losses) == len(losses)


def test_a_loaded_saved_model_is_read(line, tmp_path):
    last = _chain(line, _dense(line, 3, "inner"), shape=(6,))
    if line is keras:
        last.export(str(tmp_path), verbose=False)
        loaded = keras.layers.TFSMLayer(str(tmp_path), call_endpoint="serve")
    else:
        tf.saved_model.save(last, str(tmp_path))
        held = tf.saved_model.load(str(tmp_path))
        signature = held.signatures["serving_default"]
        loaded = linear.custom(
            line,
            lambda me, x: list(signature(x).values())[0],
        )
        loaded.held = held
    model = _chain(line, _dense(line, 6, "a"), loaded)
    scores = synflow_tf.score(model)
    kernel = model.get_layer("a").kernel
    if line is keras:  # It shares no variables with what was exported.
        inner = next(v for v in loaded.weights if len(v.shape) == 2)
    else:
        inner = last.layers[-1].kernel
        held_kernel = next(v for v in held.variables if len(v.shape) == 2)
        np.testing.assert_array_equal(held_kernel, inner)
    w, v = (np.abs(np.asarray(x, np.float64)) for x in (kernel, inner))
    np.testing.assert_allclose(scores["a/kernel"], w * v.sum(1), rtol=1e-9)


def test_the_cell_of_a_users_own_is_read(line):
    layers = line.layers

    class Cell(layers.Layer):
        state_size = output_size = 3

        def build(self, shape):
            self.into = self.add_weight(name="into", shape=(4, 3))
            self.back = self.add_weight(name="back", shape=(3, 3))
            self.built = True

        def call(self, x, states):
            state = states[0]
            new = tf.tanh(tf.matmul(x, self.into) + tf.matmul(state, self.back))
            return new, [new]

    model = _chain(line, layers.RNN(Cell(), name="rnn"), shape=(5, 4))
    scores = synflow_tf.score(model)
    into, back = (
        linear.magnitudes(model)[path]
        for path in ("rnn/cell/into", "rnn/cell/back")
    )
    state = np.zeros(3)
    for _ in range(5):
        state = np.ones(4) @ into + state @ back
    np.testing.assert_allclose(scores.log10_flow, np.log10(state.sum()))
    assert list(scores) == ["rnn/cell/into", "rnn/cell/back"]


def test_raw_operations_are_computed_in_float64(line):
    model = conformance.TABLE["raw_tensorflow"].build(line)
    scores = synflow_tf.score(model)
    kernels = [w for w in linear.magnitudes(model).values() if w.ndim == 2]
    assert len(kernels) == len(scores) == 3
    flow = np.ones(kernels[0].shape[0])
    for kernel in kernels:
        flow = flow @ kernel
    np.testing.assert_allclose(10**scores.log10_flow, flow.sum(), rtol=1e-12)


def test_the_kernels_of_a_users_own_layer_take_part(line):
    own = linear.custom(
        line,
        lambda me, x: tf.einsum("bi,oi->bo", x, me.matrix) * me.gain + me.shift,
        {"matrix": (5, 6), "gain": (5,), "shift": (1, 5), "unused": (2, 2)},
    )
    model = _chain(line, _dense(line, 6, "a"), own)
    scores = synflow_tf.score(model)
    assert list(scores) == ["a/kernel", "custom/matrix"]
    w = linear.magnitudes(model)
    scaled = w["custom/matrix"] * w["custom/gain"][:, None]
    np.testing.assert_allclose(
        scores["a/kernel"], w["a/kernel"] * scaled.sum(0), rtol=1e-9
    )
    np.testing.assert_allclose(
        scores["custom/matrix"], w["a/kernel"].sum(0) * scaled, rtol=1e-9
    )


def test_a_mixture_of_experts_scores_all_experts_and_the_router(line):
    def call(me, x):
        share = tf.nn.softmax(tf.matmul(x, me.router))
        best, which = tf.math.top_k(share, 2)
        outputs = tf.einsum("bi,eio->beo", x, me.experts)
        chosen = tf.gather(outputs, which, axis=1, batch_dims=1)
        return tf.reduce_sum(chosen * best[..., None], 1)

    layer = linear.custom(line, call, {"router": (4, 5), "experts": (5, 4, 3)})
    model = _chain(line, layer)
    linear.conserved(model, linear.positive(4))
    scores = synflow_tf.score(model)
    flow = 10**scores.log10_flow
    for name in ("router", "experts"):
        score = scores[f"custom/{name}"]
        assert (score > 0).all()
        np.testing.assert_allclose(score.sum(), flow, rtol=1e-9)
    # All experts alike, so that numbering them otherwise changes nothing.
    experts = linear.magnitudes(model)["custom/experts"]
    score = scores["custom/experts"]
    np.testing.assert_allclose(
        score / score.sum(), experts / experts.sum(), rtol=1e-9
    )


def test_mixed_precision_has_the_scores_of_float32(line):
    def model(policy):
        return _chain(
            line,
            _dense(line, 6, "a", dtype=policy),
            linear.custom(line, lambda me, x: tf.nn.relu(x)),
            _dense(line, 3, "b", dtype=policy),
        )

    mixed, plain = model("mixed_float16"), model("float32")
    plain.set_weights(mixed.get_weights())
    expected = synflow_tf.score(plain)
    for path, score in synflow_tf.score(mixed).items():
        np.testing.assert_allclose(score, expected[path], rtol=1e-12)


def test_a_model_of_a_thousand_layers_is_read():
    class Deep(keras.Model):
        def __init__(self):
            super().__init__()
            self.parts = [keras.layers.Dense(3) for _ in range(1000)]

        def call(self, x):
            for part in self.parts:
                x = part(x)
            return x

    model = Deep()
    model(np.ones((1, 3), np.float32))
    scores = synflow_tf.score(model)
    assert len(scores) == 1000
    flow, exponent = np.ones(3), 0.0
    for kernel in model.get_weights()[::2]:
        flow = flow @ np.abs(kernel.astype(np.float64))
        exponent += np.log10(flow.sum())
        flow /= flow.sum()
    np.testing.assert_allclose(scores.log10_flow, exponent, rtol=1e-9)


def test_a_loop_that_the_data_ends_is_an_error_that_names_the_layer(line):
    def call(me, x):
        return tf.while_loop(
            lambda y: tf.reduce_sum(y) < 100, lambda y: [y * 2], [x]
        )[0]

    model = _chain(
        line, _dense(line, 6, "a"), linear.custom(line, call, name="until")
    )
    message = r"'until'.*the data says so.*register_rule\(MyLayer\)"
    with pytest.raises(ValueError, match=message):
        synflow_tf.score(model)


@pytest.mark.parametrize("way", ["layer", "operation"])
def test_an_operation_without_a_rule_has_two_ways_out(line, way):
    from synflow_tf.graph import leaves
    from synflow_tf.linearize import registry

    layer = linear.custom(line, lambda me, x: tf.math.igamma(x, x), name="odd")
    model = _chain(line, _dense(line, 6, "a"), layer, _dense(line, 3, "b"))
    message = r"(?s)Igamma.*'odd'.*register_rule\(Custom\).*\('Igamma'\)"
    with pytest.raises(ValueError, match=message):
        synflow_tf.prune(model, 0.5)
    before = dict(registry._OPERATIONS), dict(registry._LAYERS)
    users = set(leaves.OPERATIONS)
    try:
        if way == "layer":
            synflow_tf.register_rule(type(layer))(lambda layer, weights, x: x)
        else:
            synflow_tf.register_rule("Igamma")(lambda operation, a, x: x)
        _check_chain(model, "a/kernel", "b/kernel")
    finally:
        for table, held in zip(
            (registry._OPERATIONS, registry._LAYERS), before, strict=True
        ):
            table.clear()
            table.update(held)
        leaves.OPERATIONS.clear()
        leaves.OPERATIONS.update(users)


# Scales of 0, with which training starts.
def _residual(line, scale, value):
    def call(me, x):
        y = tf.nn.relu(tf.matmul(x, me.first))
        branch = tf.matmul(y, me.second)
        if scale == "tanh":
            return x + tf.tanh(me.alpha) * branch
        return x + me.alpha * branch

    shape = () if scale in ("scalar", "tanh") else (4,)
    weights = {"first": (4, 5), "second": (5, 4), "alpha": shape}
    return linear.custom(line, call, weights, name="block")


@pytest.mark.parametrize("scale", ["scalar", "channels", "tanh"])
def test_a_scale_of_zeros_counts_as_ones(line, scale):
    def make(value):
        rng = np.random.default_rng(0)
        block = _residual(line, scale, np.float32(value))
        x = line.Input((4,))
        model = line.Model(x, _dense(line, 3, "head")(block(x)))
        block.first.assign(rng.normal(size=(4, 5)))
        block.second.assign(rng.normal(size=(5, 4)))
        model.get_layer("head").kernel.assign(rng.normal(size=(4, 3)))
        block.alpha.assign(np.full(block.alpha.shape, value, np.float32))
        return model

    zero, one = (
        synflow_tf.compute_masks(make(v), 0.5, rounds=5, progress=False)
        for v in (0, 1)
    )
    for a, b in zip(zero.values(), one.values(), strict=True):
        np.testing.assert_array_equal(a, b)
    (finding,) = zero.findings
    assert (finding.kind, finding.name) == ("scale", "block/alpha")
    assert not one.findings


def test_the_last_scale_of_a_normalization_that_is_zero_counts_as_ones(line):
    layers = line.layers

    def make(gamma):
        line.utils.set_random_seed(0)
        x = line.Input((8, 8, 3))
        a = layers.Conv2D(4, 3, padding="same", name="a")(x)
        b = layers.Conv2D(4, 3, padding="same", name="b")(a)
        b = layers.BatchNormalization(gamma_initializer=gamma, name="bn")(b)
        return line.Model(x, layers.Add()([a, b]))

    zero, one = (
        synflow_tf.compute_masks(make(g), 0.7, rounds=5, progress=False)
        for g in ("zeros", "ones")
    )
    assert [np.array_equal(zero[p], one[p]) for p in one] == [True, True]
    assert [f.name for f in zero.findings] == ["bn/gamma"]


def test_random_draws_change_no_mask_and_no_seed(line):
    layers = line.layers

    class Sampling(layers.Layer):
        def __init__(self):
            super().__init__()
            if line is keras:
                self.seed_generator = keras.random.SeedGenerator(3)

        def call(self, x):
            mean, spread = x[:, :3], x[:, 3:]
            if line is keras:
                noise = keras.random.normal(
                    tf.shape(mean), seed=self.seed_generator
                )
                keep = keras.random.uniform((1, 1), seed=self.seed_generator)
            else:
                noise = tf.random.normal(tf.shape(mean))
                keep = tf.random.uniform((1, 1))
            sample = mean + tf.exp(0.5 * spread) * noise
            return sample * tf.floor(keep + 0.5)

    model = _chain(
        line,
        _dense(line, 6, "a"),
        layers.GaussianNoise(0.5),
        Sampling(),
        _dense(line, 3, "b"),
    )
    before = [np.array(v) for v in model.variables]
    once, again = (
        synflow_tf.compute_masks(model, 0.6, rounds=7, progress=False)
        for _ in range(2)
    )
    assert once == again
    for v, old in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(np.array(v), old)
    assert all(s.any() for s in synflow_tf.score(model).values())


@pytest.mark.parametrize("dtype", ["int32", "float32"])
def test_flow_starts_at_the_table_that_tokens_are_read_from(line, dtype):
    layers = line.layers
    model = _chain(
        line,
        layers.Embedding(9, 4, name="table"),
        _dense(line, 6, "a"),
        layers.GlobalAveragePooling1D(),
        _dense(line, 3, "b"),
        shape=(5,),
        dtype=dtype,
    )
    _check_chain(model, "a/kernel", "b/kernel")
    scores = synflow_tf.score(model)
    assert list(scores) == ["a/kernel", "b/kernel"]
    w = _kernels(model)
    flow = np.ones(4) @ w["a"] @ w["b"]
    np.testing.assert_allclose(10**scores.log10_flow, flow.sum(), rtol=1e-9)


def test_a_code_starts_flow_as_ones(line):
    def call(me, x):
        return tf.one_hot(tf.cast(x, tf.int32), 4)

    model = _chain(
        line,
        linear.custom(line, call),
        _dense(line, 6, "a"),
        _dense(line, 3, "b"),
        shape=(5,),
        dtype="int32",
    )
    _check_chain(model, "a/kernel", "b/kernel")


def test_tables_that_are_tied_are_pruned_where_asked_only(line):
    layers = line.layers

    class Tied(line.Model):
        def __init__(self):
            super().__init__()
            self.table = layers.Embedding(9, 4)
            self.dense = _dense(line, 4, "dense")

        def call(self, x):
            y = self.dense(self.table(x))
            return tf.matmul(y, self.table.embeddings, transpose_b=True)

    model = Tied()
    tokens = np.ones((2, 5), np.int32)
    model(tokens)
    linear.randomize(model)
    scores = synflow_tf.score(model, inputs=tokens)
    assert list(scores) == ["dense/kernel"]
    w = linear.magnitudes(model)
    np.testing.assert_allclose(
        scores["dense/kernel"],
        5 * w["dense/kernel"] * w["table/embeddings"].sum(0),
        rtol=1e-9,
    )
    asked = synflow_tf.score(model, inputs=tokens, prunable="table/embeddings")
    assert (asked["table/embeddings"] > 0).all()


def test_what_lookups_find_is_read_by_its_size(line):
    layers = line.layers
    lookup = layers.StringLookup(vocabulary=["a", "b", "c"])
    x = line.Input((5,), dtype="string")
    y = layers.Embedding(5, 4)(lookup(x))
    y = _dense(line, 3, "b")(_dense(line, 6, "a")(y))
    model = line.Model(x, y)
    for weight in (model.get_layer(n).kernel for n in "ab"):
        weight.assign(np.random.default_rng(0).normal(size=weight.shape))
    _check_chain(model, "a/kernel", "b/kernel")
    assert list(model.predict(tf.constant([["a", "b", "z", "c", "a"]])).shape)


def test_kernels_that_are_computed_count_as_what_is_computed(line):
    def standardized(me, x):
        k = me.kernel
        k = (k - tf.reduce_mean(k, 0)) / tf.math.reduce_std(k, 0)
        return tf.matmul(x, k * me.gain)

    def normalized(me, x):
        k = me.kernel
        return tf.matmul(x, me.gain * k / tf.norm(k, axis=0))

    for call, length in ((standardized, np.std), (normalized, None)):
        layer = linear.custom(
            line, call, {"kernel": (4, 6), "gain": (6,)}, name="own"
        )
        model = _chain(line, layer, _dense(line, 3, "b"))
        k, gain = (np.asarray(layer.kernel, np.float64), np.abs(layer.gain))
        if length is np.std:
            k = (k - k.mean(0)) / k.std(0)
        else:
            k = k / np.linalg.norm(k, axis=0)
        k = np.abs(k) * gain
        b = _kernels(model)["b"]
        scores = synflow_tf.score(model)
        np.testing.assert_allclose(
            scores["own/kernel"], k * b.sum(1), rtol=1e-6
        )
        np.testing.assert_allclose(
            scores["b/kernel"], k.sum(0)[:, None] * b, rtol=1e-6
        )


def test_low_rank_additions_are_part_of_the_kernel(line):
    def call(me, x):
        return tf.matmul(x, me.kernel + tf.matmul(me.a, me.b) * 0.5)

    layer = linear.custom(
        line, call, {"kernel": (4, 6), "a": (4, 2), "b": (2, 6)}, name="lora"
    )
    model = _chain(line, layer, _dense(line, 3, "last"))
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
    model = _chain(line, _dense(line, 6, "a"), layer, shape=(3, 4))
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
    model = _chain(line, _dense(line, 6, "a"), layer, shape=(3, 4))
    a = _kernels(model)["a"]
    scores = synflow_tf.score(model)
    np.testing.assert_allclose(scores["a/kernel"], 3 * a, rtol=1e-9)
    for name in ("down", "up"):  # A gate has the flow that it lets through.
        assert (scores[f"custom/{name}"] > 0).all()
        np.testing.assert_allclose(
            scores[f"custom/{name}"].sum(), 3 * a.sum(), rtol=1e-9
        )


def test_quantized_kernels_count_by_their_scale_and_are_not_pruned():
    model = _chain(keras, _dense(keras, 6, "a"), _dense(keras, 3, "b"))
    model.get_layer("b").quantize("int8")
    last = model.get_layer("b")
    q = np.abs(np.asarray(last._kernel, np.float64))
    q = q / np.asarray(last.kernel_scale, np.float64)
    scores = synflow_tf.score(model)
    assert list(scores) == ["a/kernel"]
    a = np.abs(np.asarray(model.get_layer("a").kernel, np.float64))
    expected = a * q.sum(1)
    score = scores["a/kernel"]
    np.testing.assert_allclose(
        score / score.sum(), expected / expected.sum(), rtol=1e-6
    )
    model.get_layer("a").quantize("int8")
    with pytest.raises(ValueError, match="quantized.*Prune first"):
        synflow_tf.prune(model, 0.5)


def test_two_towers_that_are_multiplied_have_degree_1_each(line):
    layers = line.layers
    x, y = line.Input((4,)), line.Input((5,))
    a, b = _dense(line, 6, "a")(x), _dense(line, 6, "b")(y)
    model = line.Model([x, y], layers.Dot(-1)([a, b]))
    linear.randomize(model)
    scores = synflow_tf.score(model)
    w = _kernels(model)
    products = w["a"].sum(0) * w["b"].sum(0)
    np.testing.assert_allclose(10**scores.log10_flow, products.sum(), rtol=1e-9)
    np.testing.assert_allclose(
        scores["a/kernel"], w["a"] * w["b"].sum(0), rtol=1e-9
    )
    np.testing.assert_allclose(
        scores["b/kernel"], w["b"] * w["a"].sum(0), rtol=1e-9
    )


def test_deep_towers_that_are_multiplied_stay_in_range():
    sizes = 40

    def tower(x, name):
        for i in range(sizes):
            x = keras.layers.Dense(64, name=f"{name}{i}")(x)
        return x

    x, y = keras.Input((64,)), keras.Input((64,))
    product = keras.layers.Dot(-1)([tower(x, "a"), tower(y, "b")])
    model = keras.Model([x, y], product)
    scores = synflow_tf.score(model)
    flows = []
    for name in "ab":
        flow = np.ones(64)
        for i in range(sizes):
            kernel = model.get_layer(f"{name}{i}").get_weights()[0]
            flow = flow @ np.abs(kernel.astype(np.float64))
        flows.append(flow)
    # 64^40, squared: 10^120 and more, kept within 2^12 all the way.
    expected = np.log10(flows[0] @ flows[1])
    np.testing.assert_allclose(scores.log10_flow, expected, rtol=1e-9)


def test_an_adjacency_matrix_is_a_gate(line):
    x, edges = line.Input((6, 4)), line.Input((6, 6))
    matmul = linear.custom(line, lambda me, a, b: tf.matmul(a, b), name="m")
    h = matmul(edges, _dense(line, 5, "a", use_bias=False)(x))
    h = matmul(edges, _dense(line, 3, "b", use_bias=False)(h))
    model = line.Model([x, edges], h)
    linear.randomize(model)
    _check_chain(model, "a/kernel", "b/kernel")


@pytest.mark.parametrize("case", ["softmax", "of two exp", "of relu"])
@pytest.mark.parametrize("time", [3, 12])
def test_attention_by_hand_is_attention(line, case, time):
    def share(x):
        if case == "softmax":
            return tf.nn.softmax(x)
        if case == "of two exp":
            return tf.exp(x) / tf.reduce_sum(tf.exp(x), -1, keepdims=True)
        x = tf.nn.relu(x)
        return x / (tf.reduce_sum(x, -1, keepdims=True) + 1e-6)

    def call(me, x):
        query, key, value = (
            tf.einsum("bti,io->bto", x, w) for w in (me.q, me.k, me.v)
        )
        return share(query @ tf.transpose(key, [0, 2, 1])) @ value

    layer = linear.custom(line, call, {n: (4, 5) for n in "qkv"}, name="own")
    model = _chain(line, layer, _dense(line, 3, "b"), shape=(time, 4))
    w = linear.magnitudes(model)
    # All rows are alike, so their mean is one of them.
    flow = time * np.ones(4) @ w["own/v"] @ w["b/kernel"]
    scores = synflow_tf.score(model)
    np.testing.assert_allclose(10**scores.log10_flow, flow.sum(), rtol=1e-9)
    for score in scores.values():
        np.testing.assert_allclose(score.sum(), flow.sum(), rtol=1e-9)


def test_queries_are_the_gate_where_keys_meet_the_values_first(line):
    def call(me, x):
        query, key, value = (
            tf.einsum("bti,io->bto", x, w) for w in (me.q, me.k, me.v)
        )
        read = tf.matmul(tf.nn.softmax(key, 1), value, transpose_a=True)
        return tf.matmul(query, read)

    layer = linear.custom(line, call, {n: (4, 5) for n in "qkv"}, name="own")
    model = _chain(line, layer, _dense(line, 3, "b"), shape=(12, 4))
    w = linear.magnitudes(model)
    flow = 12 * np.ones(4) @ w["own/v"] @ w["b/kernel"]
    scores = synflow_tf.score(model)
    np.testing.assert_allclose(10**scores.log10_flow, flow.sum(), rtol=1e-9)
    for score in scores.values():
        np.testing.assert_allclose(score.sum(), flow.sum(), rtol=1e-9)


def test_many_attentions_in_a_row_stay_in_range(line):
    def call(me, x):
        for i in range(30):
            query, key, value = (
                tf.einsum("bti,io->bto", x, w[i]) for w in (me.q, me.k, me.v)
            )
            score = tf.matmul(query, key, transpose_b=True)
            x = x + tf.matmul(tf.nn.softmax(score), value)
        return x

    size = 6
    shape = 30, size, size
    layer = linear.custom(line, call, dict.fromkeys("qkv", shape), name="own")
    model = _chain(line, layer, shape=(3, size))
    w = linear.magnitudes(model)["own/v"] * 1e4
    for name in "qkv":
        kernel = getattr(layer, name)
        kernel.assign(kernel * 1e4)
    row, exponent = np.ones(size), np.log10(3)
    for kernel in w:
        row = row + row @ kernel
        exponent += np.log10(row.sum())
        row /= row.sum()
    assert exponent > 130  # A product of two such flows is out of range.
    scores = synflow_tf.score(model)
    np.testing.assert_allclose(scores.log10_flow, exponent, rtol=1e-9)
    assert all(score.any() for score in scores.values())


def test_a_projection_of_nodes_that_edges_read_has_the_flow_once(line):
    class Net(line.Model):
        def __init__(self):
            super().__init__()
            self.into = _dense(line, 5, "into")
            self.weigh = _dense(line, 1, "weigh")

        def call(self, inputs):
            h = self.into(inputs["nodes"])
            sender, receiver = inputs["edges"][:, 0], inputs["edges"][:, 1]
            share = tf.sigmoid(self.weigh(tf.gather(h, receiver)))
            sent = share * tf.gather(h, sender)
            return tf.math.unsorted_segment_sum(sent, receiver, 4)

    model = Net()
    edges = np.array([[0, 1], [1, 2], [2, 3], [3, 0], [0, 2]], np.int32)
    inputs = {"nodes": np.ones((4, 3), np.float32), "edges": edges}
    model(inputs)
    scores = synflow_tf.score(model, inputs=inputs)
    kernel = linear.magnitudes(model)["into/kernel"]
    np.testing.assert_allclose(scores["into/kernel"], 5 * kernel, rtol=1e-9)


def test_a_kernel_that_a_loop_applies_has_the_flow_once(line):
    def call(me, x):
        def step(t, y):
            return t + 1, tf.tanh(tf.matmul(y, me.again))

        return tf.while_loop(lambda t, y: t < 7, step, [0, x])[1]

    layer = linear.custom(line, call, {"again": (6, 6)}, name="own")
    model = _chain(line, _dense(line, 6, "a"), layer)
    scores = synflow_tf.score(model)
    flow = 10**scores.log10_flow
    w = linear.magnitudes(model)
    row = np.ones(4) @ w["a/kernel"]
    expected = row @ np.linalg.matrix_power(w["own/again"], 7)
    np.testing.assert_allclose(flow, expected.sum(), rtol=1e-9)
    for score in scores.values():
        np.testing.assert_allclose(score.sum(), flow, rtol=1e-9)


def test_a_cell_with_a_projection_of_another_width_is_scored(line):
    layers = line.layers

    class Projecting(layers.Layer):
        units = 3
        state_size = output_size = 7

        def build(self, shape):
            self.kernel = self.add_weight(name="kernel", shape=(11, 3))
            self.down = self.add_weight(name="down", shape=(3, 7))
            self.built = True

        def call(self, x, states):
            x = tf.concat([x, states[0]], -1)
            y = tf.matmul(tf.tanh(tf.matmul(x, self.kernel)), self.down)
            return y, [y]

    model = _chain(
        line, layers.RNN(Projecting()), _dense(line, 2, "b"), shape=(5, 4)
    )
    scores = synflow_tf.score(model)
    flow = 10**scores.log10_flow
    for score in scores.values():
        np.testing.assert_allclose(score.sum(), flow, rtol=1e-9)


def test_a_function_is_read_after_gradients_were_taken_of_it(line):
    class Own(line.layers.Layer):
        @tf.function
        def call(self, x):
            return tf.nn.relu(x) * tf.sigmoid(x)

    model = _chain(line, _dense(line, 6, "a"), Own(), _dense(line, 3, "b"))
    model.compile("sgd", "mse")
    model.fit(np.ones((4, 4)), np.ones((4, 3)), verbose=0)
    _check_chain(model, "a/kernel", "b/kernel")


def test_text_of_any_length_is_read_by_a_recurrent_layer(line):
    layers = line.layers
    split = layers.TextVectorization(20)
    split.adapt(["a b c"])
    x = line.Input((1,), dtype="string")
    y = layers.Embedding(20, 4)(split(x))
    y = layers.SimpleRNN(3, activation="linear", name="rnn")(y)
    model = line.Model(x, _dense(line, 2, "b")(y))
    linear.randomize(model)
    scores = synflow_tf.score(model, inputs=np.array([["a b c a"]]))
    w = linear.magnitudes(model)
    kernel, recurrent = (
        value
        for path, value in w.items()
        if path.startswith("rnn/") and value.ndim == 2
    )
    state = np.zeros(3)
    for _ in range(4):
        state = np.ones(4) @ kernel + state @ recurrent
    flow = state @ w["b/kernel"]
    np.testing.assert_allclose(10**scores.log10_flow, flow.sum(), rtol=1e-9)


def test_codes_of_several_columns_start_flow(line):
    layers = line.layers
    x = [line.Input((1,), name=name) for name in ("age", "income")]
    codes = [
        layers.Discretization([0.0, 1.0], output_mode="one_hot")(y) for y in x
    ]
    y = _dense(line, 2, "b")(layers.Concatenate()(codes))
    scores = synflow_tf.score(line.Model(x, y))
    kernel = np.abs(scores["b/kernel"])
    np.testing.assert_allclose(10**scores.log10_flow, kernel.sum(), rtol=1e-9)


def test_experts_that_the_flow_chooses_are_kernels(line):
    def call(me, x):
        best = tf.argmax(tf.matmul(x, me.router), -1)
        return tf.einsum("bi,bio->bo", x, tf.gather(me.experts, best))

    shapes = {"router": (4, 3), "experts": (3, 4, 5)}
    layer = linear.custom(line, call, shapes, name="own")
    model = _chain(line, _dense(line, 4, "a"), layer)
    scores = synflow_tf.score(model, prunable=lambda _, w: len(w.shape) > 1)
    assert "own/experts" in synflow_tf.score(model)
    w = linear.magnitudes(model)
    # Whichever is chosen: their mean.
    expected = w["a/kernel"].sum(0)[:, None] * w["own/experts"] / 3
    np.testing.assert_allclose(scores["own/experts"], expected, rtol=1e-9)


@pytest.mark.parametrize("summed", [False, True])
def test_complex_filters_are_read(line, summed):
    def call(me, x):
        x, w = tf.signal.rfft(x), tf.complex(me.real, me.imaginary)
        x = tf.einsum("bf,fo->bo", x, w) if summed else x * w
        return tf.math.real(x)

    shape = (3, 5) if summed else (3,)
    shapes = {"real": shape, "imaginary": shape}
    layer = linear.custom(line, call, shapes, name="own")
    model = _chain(line, _dense(line, 4, "a"), layer)
    scores = synflow_tf.score(model)
    w = linear.magnitudes(model)
    real, imaginary = w["own/real"], w["own/imaginary"]
    if not summed:  # Not scored: its true magnitude.
        assert list(scores) == ["a/kernel"]
        expected = w["a/kernel"] * np.hypot(real, imaginary).sum()
        np.testing.assert_allclose(scores["a/kernel"], expected, rtol=1e-6)
        return
    assert list(scores) == ["a/kernel", "own/real", "own/imaginary"]
    expected = w["a/kernel"] * (real + imaginary).sum()
    np.testing.assert_allclose(scores["a/kernel"], expected, rtol=1e-9)
    np.testing.assert_allclose(
        scores["own/real"], w["a/kernel"].sum() * real, rtol=1e-9
    )


def test_dilated_transposed_convolutions_are_those_of_a_kernel_with_zeros(line):
    layer = line.layers.Conv2DTranspose
    thin = _chain(line, layer(2, 2, dilation_rate=2, name="c"), shape=(4, 5, 3))
    wide = _chain(line, layer(2, 3, name="c"), shape=(4, 5, 3))
    kernel = np.zeros((3, 3, 2, 3), np.float32)
    kernel[::2, ::2] = thin.get_layer("c").kernel.numpy()
    wide.get_layer("c").kernel.assign(kernel)
    a, b = (synflow_tf.score(model) for model in (thin, wide))
    np.testing.assert_allclose(a.log10_flow, b.log10_flow, rtol=1e-12)
    np.testing.assert_allclose(
        a["c/kernel"], b["c/kernel"][::2, ::2], rtol=1e-9
    )


def test_containers_within_containers_are_left_alone(line):
    class Noting(line.layers.Layer):
        def __init__(self):
            super().__init__()
            self.seen = {"deep": ([], {"er": []})}

        def call(self, x):
            self.seen["deep"][0].append(1)
            self.seen["deep"][1]["er"].append(2)
            return x

    noting = Noting()
    model = _chain(line, _dense(line, 3, "a"), noting)
    before = [
        len(x) for x in (noting.seen["deep"][0], noting.seen["deep"][1]["er"])
    ]
    synflow_tf.score(model)
    deep, other = noting.seen["deep"]
    assert [len(deep), len(other["er"])] == before


def test_several_arguments_are_given_by_their_names(line):
    class Net(line.Model):
        def __init__(self):
            super().__init__()
            self.a, self.b = _dense(line, 3, "a"), _dense(line, 3, "b")

        def call(self, x, z=None):
            return self.a(x) if z is None else self.a(x) + self.b(z)

    model = Net()
    x, z = np.ones((1, 4), np.float32), np.ones((1, 5), np.float32)
    model(x, z)
    scores = synflow_tf.score(model, inputs={"x": x, "z": z})
    w = _kernels(model)
    for name in "ab":
        np.testing.assert_allclose(scores[f"{name}/kernel"], w[name], rtol=1e-9)


@pytest.mark.parametrize("make", [tf.ragged.constant, None])
def test_inputs_that_are_not_dense_are_refused(make):
    model = _chain(keras, _dense(keras, 3, "a"))
    x = tf.sparse.eye(4) if make is None else make([[1.0, 2.0], [3.0]])
    with pytest.raises(ValueError, match="`inputs`.*dense.*to_"):
        synflow_tf.score(model, inputs=x)


class _Network(keras.Model):
    """A graph network: the first axis are nodes, not examples."""

    def __init__(self):
        super().__init__(name="network")
        self.dense = keras.layers.Dense(3, name="dense")

    def call(self, inputs):
        h = self.dense(inputs["nodes"])
        sent = tf.gather(h, inputs["edges"][:, 0])
        return tf.math.unsorted_segment_sum(sent, inputs["edges"][:, 1], 6)


def test_a_batch_is_kept_where_the_model_needs_it():
    model = _Network()
    inputs = {
        "nodes": np.ones((6, 4), np.float32),
        "edges": np.array([[0, 1], [1, 2], [5, 3]], np.int32),
    }
    model(inputs)
    scores = synflow_tf.score(model, inputs=inputs)
    kernel = np.abs(np.asarray(model.dense.kernel, np.float64))
    np.testing.assert_allclose(scores["dense/kernel"], 3 * kernel, rtol=1e-9)


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
    model = _chain(
        line, _dense(line, 6, "a"), _dense(line, 3, "b"), shape=(None, 4)
    )
    w = _kernels(model)
    scores = synflow_tf.score(model, inputs=INPUTS[how]())
    expected = 5 * w["a"] * w["b"].sum(1)
    np.testing.assert_allclose(scores["a/kernel"], expected, rtol=1e-9)


def test_inputs_are_taken_in_the_structure_of_the_model(line):
    layers = line.layers
    x = {n: line.Input((None, 4), name=n) for n in ("u", "v")}
    y = layers.Add()([_dense(line, 3, f"of_{n}")(v) for n, v in x.items()])
    model = line.Model(x, y)
    linear.randomize(model)
    given = {n: np.ones((2, 3, 4), np.float32) for n in ("v", "u")}
    scores = synflow_tf.score(model, inputs=given)
    w = _kernels(model)
    np.testing.assert_allclose(scores["of_u/kernel"], 3 * w["of_u"], rtol=1e-9)
    with pytest.raises(ValueError, match="Argument `inputs`.*structure"):
        synflow_tf.score(model, inputs={"u": given["u"]})
    with pytest.raises(ValueError, match="Argument `inputs`.*TensorSpec"):
        synflow_tf.score(model, inputs=(3, 4))


def test_a_model_that_makes_its_weights_when_called_is_refused_whole(line):
    class Net(line.Model):
        def __init__(self):
            super().__init__()
            self.dense = _dense(line, 3, "dense")

        def call(self, x):
            return self.dense(x)

    model = Net()
    model.built = True
    spec = tf.TensorSpec((1, 4))
    for inputs in (None, spec):
        with pytest.raises(ValueError, match="`inputs=`|call it on a batch"):
            synflow_tf.score(model, inputs=inputs)
    assert not model.weights
    assert not model.dense.built
    model = Net()
    model(np.ones((1, 4), np.float32))
    assert list(synflow_tf.score(model, inputs=spec)) == ["dense/kernel"]
