"""Custom layers and subclassed models are opened, and left as they were."""

import common
import keras
import linear
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import synflow_tf
from synflow_tf.graph import variables


def _block(line, depth=1):
    """A layer that holds a layer that holds ... two Dense layers."""
    if depth > 1:
        inner = _block(line, depth - 1)
    else:
        inner = line.layers.Dense(4, "relu")

    def call(me, x):
        return x + me.dense(me.inner(x))

    return linear.custom(
        line, call, name="block", inner=inner, dense=line.layers.Dense(4)
    )


def _dense(line, units, name=None):
    return linear.dense(line, units, name, use_bias=False)


def _chain(line, *layers):
    return linear.randomize(linear.chain(line, *layers))


def _kernel(layer):
    return linear.magnitude(layer.kernel)


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_layers_within_layers_are_opened(line, depth):
    block = _block(line, depth)
    model = _chain(line, block)
    x = linear.positive(4)

    def expected(layer):
        # A block is x + dense(inner(x)), with the x it was given itself.
        if not hasattr(layer, "inner"):
            return x @ _kernel(layer)
        return x + expected(layer.inner) @ _kernel(layer.dense)

    linear.assert_computes(model, [x], expected(block))
    scores = synflow_tf.score(model)
    assert f"block/{'inner/' * depth}kernel" in scores
    assert len(scores) == depth + 1


# name: what a layer is called on, how it takes that, what it returns of its
# first input and of the sum, and the sum in that.
STRUCTURES = {
    "list": (
        lambda a, b: [a, b],
        lambda x: x,
        lambda a, total: [a, total],
        lambda y: y[1],
    ),
    "dict": (
        lambda a, b: {"a": a, "b": b},
        lambda x: (x["a"], x["b"]),
        lambda a, total: {"sum": total, "a": a},
        lambda y: y["sum"],
    ),
    "nested": (
        lambda a, b: {"a": [a], "b": (b,)},
        lambda x: (x["a"][0], x["b"][0]),
        lambda a, total: [{"x": total}, a],
        lambda y: y[0]["x"],
    ),
}


def _check_sum(line, function, first, second):
    """A function of two inputs is the sum of two Dense layers."""
    model = linear.functional(line, function, (4,), (5,))
    linear.randomize(model)
    a, b = linear.positive(4), linear.positive(5)
    linear.assert_computes(
        model, [a, b], a @ _kernel(first) + b @ _kernel(second)
    )
    linear.assert_conserved(model, a, b)


@pytest.mark.parametrize("case", STRUCTURES)
def test_lists_and_dicts_go_in_and_out(line, case):
    given, taken, returned, found = STRUCTURES[case]

    def call(me, x):
        a, b = taken(x)
        return returned(a, me.first(a) + me.second(b))

    first, second = _dense(line, 3), _dense(line, 3)
    layer = linear.custom(line, call, first=first, second=second)
    _check_sum(line, lambda a, b: found(layer(given(a, b))), first, second)


def test_keywords_go_in(line):
    first, second = _dense(line, 3), _dense(line, 3)

    class Both(line.layers.Layer):
        def call(self, x, other=None):
            return first(x) + second(other)

    layer = Both()
    layer.first, layer.second = first, second
    _check_sum(line, lambda a, b: layer(a, other=b), first, second)


def test_a_layer_that_is_called_twice_has_one_kernel(line):
    def call(self, x):
        return self.inner(self.inner(x))

    inner = _dense(line, 4)
    model = linear.net(line, call, np.ones((2, 4), np.float32), inner=inner)
    w, ones = _kernel(inner), np.ones(4)
    expected = w * (np.outer(ones, w @ ones) + np.outer(ones @ w, ones))
    linear.assert_close(synflow_tf.score(model)["inner/kernel"], expected)


@pytest.mark.parametrize("held", ["list", "dict", "tuple"])
def test_weights_in_lists_and_dicts_of_a_layer_are_seen(line, held):
    class Many(line.layers.Layer):
        def build(self, shape):
            made = [
                self.add_weight(name=f"w{i}", shape=(4, 4)) for i in range(3)
            ]
            if held == "dict":
                made = {str(i): w for i, w in enumerate(made)}
            self.made = tuple(made) if held == "tuple" else made
            self.built = True

        def call(self, x):
            made = self.made
            for w in made.values() if held == "dict" else made:
                x = common.ops(line).matmul(x, w)
            return x

    layer = Many(name="many")
    model = _chain(line, layer)
    w = [linear.magnitude(v) for v in layer.weights]
    product = w[0] @ w[1] @ w[2]
    x = linear.positive(4)
    linear.assert_computes(model, [x], x @ product)
    scores = synflow_tf.score(model, prunable=lambda _, weight: True)
    assert len(scores) == 3
    linear.assert_flow(scores, product.sum(), *scores)
    made = layer.made.values() if held == "dict" else layer.made
    assert [id(v) for v in made] == [id(v) for v in layer.weights]


def test_a_weight_that_is_read_transposed_has_its_score(line):
    o = common.ops(line)
    layer = linear.custom(
        line,
        lambda me, x: o.matmul(o.matmul(x, me.kernel), o.transpose(me.kernel)),
        {"kernel": (4, 3)},
        "tied",
    )
    scores = synflow_tf.score(_chain(line, layer))
    w, ones = _kernel(layer), np.ones(4)
    # R = 1 W W^T 1: by both places where W stands.
    linear.assert_close(scores["tied/kernel"], 2 * w * np.outer(ones, ones @ w))


def test_training_and_mask_are_those_of_inference(line):
    class Own(line.layers.Layer):
        def call(self, x, training=None, mask=None):
            return x * 100.0 if training or mask is not None else x * 2.0

    model = linear.chain(line, line.layers.Masking(), Own(), shape=(3, 4))
    x = linear.positive(3, 4)
    linear.assert_computes(model, [x], model.predict(x, verbose=0), rtol=1e-6)


@pytest.mark.parametrize("how", ["build", "data"])
def test_a_subclassed_model_is_built_either_way(line, how):
    class Net(line.Model):
        def __init__(self):
            super().__init__()
            self.a, self.b = _dense(line, 5), _dense(line, 3)

        def build(self, shape):
            self.a.build(shape)
            self.b.build((shape[0], 5))
            self.built = True
            if line is tf_keras:
                super().build(shape)

        def call(self, x):
            return self.b(self.a(x))

    model = Net()
    if how == "build":
        model.build((None, 4))
    else:
        model(np.ones((2, 4), np.float32))
    linear.randomize(model)
    a, b = _kernel(model.a), _kernel(model.b)
    expected = {"a/kernel": a * b.sum(1), "b/kernel": a.sum(0)[:, None] * b}
    linear.assert_close(synflow_tf.score(model), expected)


def _sum(self, left, right):
    return self.a(left) + self.b(right)


# name: a model's `call`, and what it is called on.
TWO_INPUTS = {
    "list": (lambda self, x: _sum(self, *x), lambda *x: [list(x)]),
    "dict": (
        lambda self, x: _sum(self, x["l"], x["r"]),
        lambda x, y: [{"l": x, "r": y}],
    ),
    "arguments": (_sum, lambda *x: x),
}


@pytest.mark.parametrize("how", TWO_INPUTS)
def test_a_subclassed_model_has_two_inputs(line, how):
    call, given = TWO_INPUTS[how]
    inputs = np.ones((2, 4), np.float32), np.ones((2, 5), np.float32)
    a, b = _dense(line, 3), _dense(line, 3)
    model = linear.net(line, call, *given(*inputs), a=a, b=b)
    if how == "arguments" and line is keras:
        # Keras 3 does not remember the shape of a second argument.
        with pytest.raises(ValueError, match="'right'.*`inputs=`"):
            synflow_tf.score(model)
        scores = synflow_tf.score(model, inputs=list(inputs))
    else:
        scores = synflow_tf.score(model)
    linear.assert_flow(scores, _kernel(a).sum() + _kernel(b).sum())
    linear.assert_close(
        scores, {"a/kernel": _kernel(a), "b/kernel": _kernel(b)}
    )


@pytest.mark.parametrize("subclassed", [False, True])
def test_open_sizes_are_those_of_inputs(line, subclassed):
    inner = _dense(line, 4)
    block = linear.custom(line, lambda me, x: x + me.inner(x), inner=inner)
    if subclassed:
        # It has been called on 7 steps, and is scored for them.
        seven = np.ones((2, 7, 4), np.float32)
        model = linear.net(line, lambda self, x: self.b(x), seven, b=block)
        given = [(None, 7), (np.zeros((2, 6, 4), np.float32), 6)]
    else:
        model = linear.randomize(linear.chain(line, block, shape=(None, 4)))
        with pytest.raises(ValueError, match="`inputs=`"):
            synflow_tf.score(model)
        given = [(tf.TensorSpec((1, n, 4)), n) for n in (3, 6)]
    for inputs, steps in given:
        (score,) = synflow_tf.score(model, inputs=inputs).values()
        linear.assert_close(score, steps * _kernel(inner))


def _state(model):
    """What scoring must leave alone, besides the weights."""
    return [
        (
            len(getattr(layer, "_inbound_nodes", ())),
            len(getattr(layer, "_outbound_nodes", ())),
            sorted(vars(layer)),
            len(layer.losses),
        )
        for layer in model._flatten_layers(include_self=True, recursive=True)
    ]


def test_losses_nodes_and_attributes_stay_as_they_are(line):
    layers, regularizers = line.layers, line.regularizers

    def call(me, x):
        y = me.dense(x)
        me.add_loss(common.ops(line).sum(y) * 0.01)
        return y

    plain = layers.Dense(4, activity_regularizer="l2", name="plain")
    dense = layers.Dense(
        4,
        activity_regularizer=regularizers.L2(0.1),
        kernel_regularizer=regularizers.L1(0.1),
    )
    model = _chain(line, plain, linear.custom(line, call, dense=dense))
    data = np.ones((2, 4), np.float32)

    def losses():
        model(data)
        return sorted(float(loss) for loss in model.losses)

    expected = losses()
    assert len(expected) >= 3
    before, weights = _state(model), model.get_weights()
    flow = (_kernel(plain) @ _kernel(dense)).sum()
    linear.assert_flow(synflow_tf.score(model), flow)
    masks = synflow_tf.compute_masks(model, 0.5, rounds=2, progress=False)
    assert not masks.findings
    assert _state(model) == before
    for old, new in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    linear.assert_close(losses(), expected, rtol=1e-6)


def test_the_output_of_a_layer_of_the_model_is_still_known(line):
    layers = line.layers
    block, plain = _block(line, 2), layers.Dense(4, name="plain")
    after = layers.Reshape((1, 4)), layers.LSTM(3)
    model = linear.chain(line, plain, block, *after)
    synflow_tf.score(model)
    part = line.Model(model.input, model.get_layer("plain").output)
    other = line.Model(model.input, block.output)
    data = linear.positive(4).astype(np.float32)
    kernel, bias = plain.get_weights()
    linear.assert_close(part(data), data @ kernel + bias, rtol=1e-5)
    linear.assert_close(other(data), block(part(data)), rtol=1e-5)


def test_paths_are_the_same_after_loading(line, tmp_path):
    @line.saving.register_keras_serializable(package=f"opening{line.__name__}")
    class Net(line.Model):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.stack = [_dense(line, 4), _dense(line, 4)]
            self.named = {"head": _dense(line, 2)}

        def call(self, x):
            for layer in self.stack:
                x = layer(x)
            return self.named["head"](x)

        def get_config(self):
            return {}

    _dense(line, 1)  # So that Keras' own numbers go on.
    model = Net()
    model(np.ones((1, 4), np.float32))
    linear.randomize(model)
    file = str(tmp_path / "model.keras")
    model.save(file)
    loaded = line.models.load_model(file)
    names = [layer.name for layer in model.stack]
    assert names != [layer.name for layer in loaded.stack]
    scores, again = synflow_tf.score(model), synflow_tf.score(loaded)
    paths = ["stack/0/kernel", "stack/1/kernel", "named/head/kernel"]
    assert list(scores) == list(again) == paths
    for path in paths:
        np.testing.assert_array_equal(again[path], scores[path])
    masks = synflow_tf.compute_masks(model, 0.5, rounds=2, progress=False)
    masks.apply(loaded)
    weights = variables.prunable_weights(loaded)
    kept = sum(np.count_nonzero(w.variable.numpy()) for w in weights)
    assert kept == masks.kept


def test_a_model_of_models_is_read_as_one(line):
    dense, last = _dense(line, 4), _dense(line, 4, "p")
    inner = linear.net(line, lambda self, x: self.dense(x), dense=dense)
    part = linear.chain(line, last)
    chain = line.Sequential([line.Input((4,)), inner])
    model = _chain(line, part, chain, part)
    p, x = _kernel(last), linear.positive(4)
    linear.assert_computes(model, [x], x @ p @ _kernel(dense) @ p)
    assert len(synflow_tf.score(model)) == 2
