"""Custom layers and subclassed models are opened, and left as they were."""

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
    layers = line.layers

    class Block(layers.Layer):
        def __init__(self, depth, **kwargs):
            super().__init__(**kwargs)
            if depth > 1:
                self.inner = Block(depth - 1)
            else:
                self.inner = layers.Dense(4, "relu")
            self.dense = layers.Dense(4)

        def build(self, shape):
            self.inner.build(shape)
            self.dense.build(shape)
            self.built = True

        def call(self, x, training=None, mask=None):
            y = self.dense(self.inner(x))
            return x + y if training is not True else x

    return Block(depth)


def _model(line, function, *shapes, **inner):
    """A subclassed model with Dense layers (or others) as attributes."""

    class Net(line.Model):
        def __init__(self):
            super().__init__()
            for name, layer in inner.items():
                setattr(self, name, layer)

        def call(self, x, training=None, mask=None):
            return function(self, x)

    model = Net()
    inputs = [np.ones((2, *shape), np.float32) for shape in shapes]
    model(inputs if len(inputs) > 1 else inputs[0])
    linear.randomize(model)
    return model


def _dense(line, units, **options):
    return line.layers.Dense(units, use_bias=False, **options)


def _kernel(layer):
    return np.abs(layer.kernel.numpy().astype(np.float64))


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_layers_within_layers_are_opened(line, depth):
    block = _block(line, depth)
    x = line.Input((4,))
    model = line.Model(x, block(x))
    linear.randomize(model)
    expected = x = linear.positive(4)
    chain = [block]
    while hasattr(chain[-1], "inner"):
        chain.append(chain[-1].inner)
    expected = x @ _kernel(chain[-1])
    for layer in chain[-2::-1]:
        # A block is x + dense(inner(x)), with the x it was given itself.
        expected = x + expected @ _kernel(layer.dense)
    (output,) = linear.run(model, x)
    np.testing.assert_allclose(output, expected, rtol=1e-12)
    scores = synflow_tf.score(model)
    inner = "/".join(["inner"] * depth)
    assert f"{block.name}/{inner}/kernel" in scores
    assert len(scores) == depth + 1


# name: what a layer is called on, and returns, in nested structures.
STRUCTURES = {
    "list": lambda layer, a, b: layer([a, b])[1],
    "dict": lambda layer, a, b: layer({"a": a, "b": b})["sum"],
    "keywords": lambda layer, a, b: layer(a, other=b),
    "nested": lambda layer, a, b: layer({"a": [a], "b": (b,)})[0]["x"],
}


@pytest.mark.parametrize("case", STRUCTURES)
def test_lists_dicts_and_keywords_go_in_and_out(line, case):
    first, second = _dense(line, 3, name="f"), _dense(line, 3, name="s")

    class Both(line.layers.Layer):
        def __init__(self):
            super().__init__(name="both")
            self.first, self.second = first, second

        def build(self, *args, **kwargs):
            self.first.build((None, 4))
            self.second.build((None, 5))
            self.built = True

        def call(self, x, other=None):
            if case == "list":
                a, b = x
            elif case == "keywords":
                a, b = x, other
            elif case == "dict":
                a, b = x["a"], x["b"]
            else:
                (a,), (b,) = x["a"], x["b"]
            total = self.first(a) + self.second(b)
            return {
                "list": [a, total],
                "keywords": total,
                "dict": {"sum": total, "a": a},
                "nested": [{"x": total}, a],
            }[case]

    inputs = [line.Input((n,)) for n in (4, 5)]
    model = line.Model(inputs, STRUCTURES[case](Both(), *inputs))
    linear.randomize(model)
    a, b = linear.positive(4), linear.positive(5)
    (output,) = linear.run(model, a, b)
    expected = a @ _kernel(first) + b @ _kernel(second)
    np.testing.assert_allclose(output, expected, rtol=1e-12)
    linear.conserved(model, a, b)


def test_a_layer_that_is_called_twice_has_one_kernel(line):
    inner = _dense(line, 4)
    model = _model(line, lambda me, x: me.inner(me.inner(x)), (4,), inner=inner)
    w = _kernel(inner)
    scores = synflow_tf.score(model)
    ones = np.ones(4)
    expected = w * (np.outer(ones, w @ ones) + np.outer(ones @ w, ones))
    np.testing.assert_allclose(scores["inner/kernel"], expected, rtol=1e-12)


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
                x = linear.op(line, "matmul")(x, w)
            return x

    layer = Many(name="many")
    x = line.Input((4,))
    model = line.Model(x, layer(x))
    linear.randomize(model)
    w = [np.abs(v.astype(np.float64)) for v in layer.get_weights()]
    x = linear.positive(4)
    (output,) = linear.run(model, x)
    np.testing.assert_allclose(output, x @ w[0] @ w[1] @ w[2], rtol=1e-12)
    scores = synflow_tf.score(model, prunable=lambda _, weight: True)
    flow = (np.ones(4) @ w[0] @ w[1] @ w[2]).sum()
    assert len(scores) == 3
    for score in scores.values():
        np.testing.assert_allclose(score.sum(), flow, rtol=1e-12)
    made = layer.made.values() if held == "dict" else layer.made
    assert [id(v) for v in made] == [id(v) for v in layer.weights]


def test_a_weight_that_is_read_transposed_has_its_score(line):
    matmul, turn = linear.op(line, "matmul"), linear.op(line, "transpose")
    layer = linear.custom(
        line,
        lambda me, x: matmul(matmul(x, me.kernel), turn(me.kernel)),
        {"kernel": (4, 3)},
        "tied",
    )
    x = line.Input((4,))
    model = line.Model(x, layer(x))
    linear.randomize(model)
    w, ones = _kernel(layer), np.ones(4)
    scores = synflow_tf.score(model)
    # R = 1 W W^T 1: by both places where W stands.
    expected = 2 * w * np.outer(ones, ones @ w)
    np.testing.assert_allclose(scores["tied/kernel"], expected, rtol=1e-12)


def test_training_and_mask_are_those_of_inference(line):
    layers = line.layers

    class Own(layers.Layer):
        def call(self, x, training=None, mask=None):
            return x * 100.0 if training or mask is not None else x * 2.0

    x = line.Input((3, 4))
    y = Own()(layers.Masking()(x))
    model = line.Model(x, y)
    x = linear.positive(3, 4)
    (output,) = linear.run(model, x)
    np.testing.assert_allclose(output, model.predict(x, verbose=0), rtol=1e-6)


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
    scores = synflow_tf.score(model)
    np.testing.assert_allclose(scores["a/kernel"], a * b.sum(1), rtol=1e-12)
    np.testing.assert_allclose(
        scores["b/kernel"], a.sum(0)[:, None] * b, rtol=1e-12
    )


@pytest.mark.parametrize("how", ["list", "dict", "arguments"])
def test_a_subclassed_model_has_two_inputs(line, how):
    class Net(line.Model):
        def __init__(self):
            super().__init__()
            self.a, self.b = _dense(line, 3), _dense(line, 3)

        if how == "arguments":

            def call(self, left, right):
                return self.a(left) + self.b(right)

        else:

            def call(self, x):
                left, right = x if how == "list" else (x["l"], x["r"])
                return self.a(left) + self.b(right)

    model = Net()
    left, right = np.ones((2, 4), np.float32), np.ones((2, 5), np.float32)
    if how == "list":
        model([left, right])
    elif how == "dict":
        model({"l": left, "r": right})
    else:
        model(left, right)
    linear.randomize(model)
    if how == "arguments" and line is keras:
        # Keras 3 does not remember the shape of a second argument.
        with pytest.raises(ValueError, match="'right'.*`inputs=`"):
            synflow_tf.score(model)
        scores = synflow_tf.score(model, inputs=[left, right])
    else:
        scores = synflow_tf.score(model)
    flow = _kernel(model.a).sum() + _kernel(model.b).sum()
    np.testing.assert_allclose(10**scores.log10_flow, flow, rtol=1e-9)
    np.testing.assert_allclose(scores["a/kernel"], _kernel(model.a), rtol=1e-12)
    np.testing.assert_allclose(scores["b/kernel"], _kernel(model.b), rtol=1e-12)


@pytest.mark.parametrize("subclassed", [False, True])
def test_open_sizes_are_those_of_inputs(line, subclassed):
    layers = line.layers
    inner = _dense(line, 4)

    class Block(layers.Layer):
        def __init__(self):
            super().__init__(name="block")
            self.inner = inner

        def build(self, shape):
            self.inner.build(shape)
            self.built = True

        def call(self, x):
            return x + self.inner(x)

    if subclassed:
        block = Block()
        model = _model(line, lambda me, x: me.block(x), (7, 4), block=block)
        # It has been called on 7 steps, and is scored for them.
        six = np.zeros((2, 6, 4), np.float32)
        expected = [
            (synflow_tf.score(model), 7),
            (synflow_tf.score(model, inputs=six), 6),
        ]
    else:
        x = line.Input((None, 4))
        model = line.Model(x, Block()(x))
        linear.randomize(model)
        with pytest.raises(ValueError, match="`inputs=`"):
            synflow_tf.score(model)
        expected = [
            (synflow_tf.score(model, inputs=tf.TensorSpec((1, n, 4))), n)
            for n in (3, 6)
        ]
    for scores, steps in expected:
        (score,) = scores.values()
        np.testing.assert_allclose(score, steps * _kernel(inner), rtol=1e-12)


def _state(model):
    """What scoring must leave alone, besides the weights."""
    flat = list(model._flatten_layers(include_self=True, recursive=True))
    return [
        (
            len(getattr(layer, "_inbound_nodes", ())),
            len(getattr(layer, "_outbound_nodes", ())),
            sorted(k for k in vars(layer)),
            len(layer.losses),
        )
        for layer in flat
    ]


def test_losses_nodes_and_attributes_stay_as_they_are(line):
    layers = line.layers

    class Own(layers.Layer):
        def __init__(self):
            super().__init__(name="own")
            self.dense = layers.Dense(
                4,
                activity_regularizer=line.regularizers.L2(0.1),
                kernel_regularizer=line.regularizers.L1(0.1),
            )

        def build(self, shape):
            self.dense.build(shape)
            self.built = True

        def call(self, x):
            y = self.dense(x)
            self.add_loss(linear.op(line, "reduce_sum", "sum")(y) * 0.01)
            return y

    x = line.Input((4,))
    y = layers.Dense(4, activity_regularizer="l2", name="plain")(x)
    own = Own()
    model = line.Model(x, own(y))
    linear.randomize(model)
    data = np.ones((2, 4), np.float32)
    model(data)
    losses = sorted(float(loss) for loss in model.losses)
    before, weights = _state(model), model.get_weights()
    scores = synflow_tf.score(model)
    kernels = [_kernel(model.get_layer("plain")), _kernel(own.dense)]
    flow = (kernels[0] @ kernels[1]).sum()
    np.testing.assert_allclose(scores.log10_flow, np.log10(flow), rtol=1e-12)
    masks = synflow_tf.compute_masks(model, 0.5, rounds=2, progress=False)
    assert not masks.findings
    assert _state(model) == before
    for old, new in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    model(data)
    again = sorted(float(loss) for loss in model.losses)
    assert len(losses) >= 3
    np.testing.assert_allclose(again, losses, rtol=1e-6)


def test_the_output_of_a_layer_of_the_model_is_still_known(line):
    layers = line.layers
    block = _block(line, 2)
    x = line.Input((4,))
    y = layers.Dense(4, name="plain")(x)
    model = line.Model(x, layers.LSTM(3)(layers.Reshape((1, 4))(block(y))))
    synflow_tf.score(model)
    part = line.Model(model.input, model.get_layer("plain").output)
    other = line.Model(model.input, block.output)
    data = linear.positive(4).astype(np.float32)
    kernel, bias = model.get_layer("plain").get_weights()
    np.testing.assert_allclose(part(data), data @ kernel + bias, rtol=1e-5)
    np.testing.assert_allclose(other(data), block(part(data)), rtol=1e-5)


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
    assert list(again) == list(scores)
    assert list(scores) == [
        "stack/0/kernel",
        "stack/1/kernel",
        "named/head/kernel",
    ]
    for path in scores:
        np.testing.assert_array_equal(again[path], scores[path])
    masks = synflow_tf.compute_masks(model, 0.5, rounds=2, progress=False)
    masks.apply(loaded)
    weights = variables.prunable_weights(loaded)
    kept = sum(np.count_nonzero(w.variable.numpy()) for w in weights)
    assert kept == masks.kept


def test_a_model_of_models_is_read_as_one(line):

    class Inner(line.Model):
        def __init__(self):
            super().__init__()
            self.dense = _dense(line, 4)

        def call(self, x):
            return self.dense(x)

    x = line.Input((4,))
    part = line.Model(x, _dense(line, 4, name="p")(x), name="part")
    chain = line.Sequential([line.Input((4,)), Inner()])
    x = line.Input((4,))
    model = line.Model(x, part(chain(part(x))))
    linear.randomize(model)
    p = _kernel(part.get_layer("p"))
    inner = _kernel(chain.layers[-1].dense)
    x = linear.positive(4)
    (output,) = linear.run(model, x)
    np.testing.assert_allclose(output, x @ p @ inner @ p, rtol=1e-12)
    assert len(synflow_tf.score(model)) == 2
