"""Custom layers and subclassed models are opened, and left as they were."""

import common
import keras
import linear
import numpy as np
import pytest
import tf_keras

import synflow_tf

pytestmark = pytest.mark.in_turn


def _block(line, depth=1):
    """A layer that holds a layer that holds ... two Dense layers."""
    held = {name: line.layers.Dense(4) for name in ("inner", "dense")}
    if depth > 1:
        held["inner"] = _block(line, depth - 1)
    return linear.custom(
        line, lambda me, x: x + me.dense(me.inner(x)), name="block", **held
    )


def _dense(line, units, name=None):
    return linear.dense(line, units, name, use_bias=False)


def _chain(line, *layers):
    return linear.randomize(linear.chain(line, *layers))


def _kernel(layer):
    return linear.magnitude(layer.kernel)


@pytest.mark.parametrize("depth", [1, 4])
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
        lambda a, b: [a, {"b": b}],
        lambda x: (x[0], x[1]["b"]),
        lambda a, total: [{"sum": total}, a],
        lambda y: y[0]["sum"],
    ),
    "dict": (
        lambda a, b: {"a": [a], "b": (b,)},
        lambda x: (x["a"][0], x["b"][0]),
        lambda a, total: {"sum": (a, total)},
        lambda y: y["sum"][1],
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


@pytest.mark.parametrize("held", [list, dict, tuple])
def test_weights_in_lists_and_dicts_of_a_layer_are_seen(line, held):
    def in_order(made):
        return list(made.values() if held is dict else made)

    class Many(line.layers.Layer):
        def build(self, shape):
            made = {
                n: self.add_weight(name=n, shape=(4, 4)) for n in ("v", "w")
            }
            self.made = made if held is dict else held(made.values())
            self.built = True

        def call(self, x):
            for w in in_order(self.made):
                x = common.ops(line).matmul(x, w)
            return x

    layer = Many(name="many")
    model = _chain(line, layer)
    first, second = map(linear.magnitude, layer.weights)
    x = linear.positive(4)
    linear.assert_computes(model, [x], x @ first @ second)
    scores = synflow_tf.score(model, prunable=lambda _, weight: True)
    assert len(scores) == 2
    linear.assert_flow(scores, (first @ second).sum(), *scores)
    made = in_order(layer.made)
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


def test_a_subclassed_model_can_be_built_without_data(line):
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
    model.build((None, 4))
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
    data = np.ones((2, 4), np.float32), np.ones((2, 5), np.float32)
    a, b = _dense(line, 3), _dense(line, 3)
    model = linear.net(line, call, *given(*data), a=a, b=b)
    inputs = None
    if how == "arguments" and line is keras:
        # Keras 3 does not remember the shape of a second argument.
        with pytest.raises(ValueError, match="'right'.*`inputs=`"):
            synflow_tf.score(model)
        inputs = list(data)
    scores = synflow_tf.score(model, inputs=inputs)
    linear.assert_flow(scores, _kernel(a).sum() + _kernel(b).sum())
    linear.assert_close(
        scores, {"a/kernel": _kernel(a), "b/kernel": _kernel(b)}
    )


def test_a_subclassed_model_is_scored_for_the_size_of_its_call_or_inputs(line):
    inner = _dense(line, 4)
    data = np.ones((2, 7, 4), np.float32)
    model = linear.net(line, lambda self, x: self.inner(x), data, inner=inner)
    for inputs, steps in ((None, 7), (data[:, 1:], 6)):
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
        4, activity_regularizer="l2", kernel_regularizer=regularizers.L1(0.1)
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
    common.assert_equal(weights, model.get_weights())
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


def test_a_model_of_models_is_read_as_one(line):
    dense, last = _dense(line, 4), _dense(line, 4, "p")
    inner = linear.net(line, lambda self, x: self.dense(x), dense=dense)
    part = linear.chain(line, last)
    chain = line.Sequential([line.Input((4,)), inner])
    model = _chain(line, part, chain, part)
    p, x = _kernel(last), linear.positive(4)
    linear.assert_computes(model, [x], x @ p @ _kernel(dense) @ p)
    assert len(synflow_tf.score(model)) == 2
