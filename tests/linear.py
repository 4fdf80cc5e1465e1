"""Linearized models run by hand, for the tests of the linear rules."""

import numpy as np
import tensorflow as tf

from synflow_tf import graph as graph_lib
from synflow_tf import linearize
from synflow_tf.graph import kernels as kernels_lib
from synflow_tf.graph import variables


def chain(line, *layers, shape=(4,), dtype=None):
    """One layer after the other, as a functional model."""
    x = y = line.Input(shape, dtype=dtype)
    for layer in layers:
        y = layer(y)
    return line.Model(x, y)


def functional(line, function, *shapes):
    """What a function makes of inputs of some shapes, as a model."""
    inputs = [line.Input(shape) for shape in shapes]
    return line.Model(inputs if inputs[1:] else inputs[0], function(*inputs))


def dense(line, units, name, **options):
    """A Dense layer with a name."""
    return line.layers.Dense(units, name=name, **options)


def custom(line, function, weights=(), name="custom", **held):
    """A layer of a user's, that SynFlow must open.

    Args:
        line: the module `keras` or `tf_keras`.
        function: its `call`, of the layer and its inputs.
        weights: dict of name to shape.
        name: str.
        **held: its other attributes.

    Returns:
        A layer.
    """

    class Custom(line.layers.Layer):
        def __init__(self):
            super().__init__(name=name)
            _set(self, held)

        def build(self, shape):
            made = {
                weight: self.add_weight(
                    name=weight, shape=size, initializer="glorot_normal"
                )
                for weight, size in dict(weights).items()
            }
            _set(self, made)
            self.built = True

        def call(self, *inputs):
            return function(self, *inputs)

    return Custom()


def net(line, function, *inputs, **held):
    """A subclassed model.

    Args:
        line: the module `keras` or `tf_keras`.
        function: its `call`; tf_keras wants the name `self`.
        *inputs: what it is called on; it has random weights then.
        **held: its attributes.

    Returns:
        A model.
    """

    class Net(line.Model):
        call = function

        def __init__(self):
            super().__init__()
            _set(self, held)

    model = Net()
    if not inputs:
        return model
    model(*inputs)
    return randomize(model)


def _set(instance, attributes):
    for name, value in attributes.items():
        setattr(instance, name, value)


def randomize(model, signs=(-1.0, 1.0)):
    """Gives every weight random values of some signs, none near 0."""
    rng = np.random.default_rng(0)
    for weight in variables.weights(model):
        if tf.as_dtype(weight.variable.dtype).is_floating:
            sign = rng.choice(signs, weight.shape)
            value = rng.uniform(0.1, 1.0, weight.shape)
            if "variance" not in weight.name:
                value *= sign
            weight.variable.assign(value)
    return model


def magnitude(variable):
    """The absolute values of a weight, float64."""
    return np.abs(variables.value(variable).numpy().astype(np.float64))


def magnitudes(model):
    """The absolute values of all weights, float64, by path."""
    return {w.path: magnitude(w.variable) for w in variables.weights(model)}


def positive(*shape, seed=1):
    """An input > 0, one example."""
    return np.random.default_rng(seed).uniform(0.1, 1.0, (1, *shape))


def lowered(model, inputs=None):
    """The linear graph of a model, scored for its kernels."""
    graph = graph_lib.read(model, inputs)
    return linearize.lower(graph, kernels_lib.contracted(graph))


def run(model, *inputs, rescale=False):
    """The outputs of the linearized model, float64 arrays."""
    weights = linearize.LinearWeights({}, tf.float64, rescale=rescale)
    inputs = [tf.constant(x) for x in inputs]
    outputs = linearize.run(lowered(model), weights, inputs)
    scale = 2.0 ** float(weights.range.exponent)
    return [output.numpy() * scale for output in outputs]


def run_as_authors(model, *inputs):
    """The outputs of the authors' variant: the model, all weights positive."""
    weights = linearize.LinearWeights({}, tf.float64, rescale=False)
    graph = linearize.plain(graph_lib.read(model))
    return linearize.run(graph, weights, [tf.constant(x) for x in inputs])


def assert_computes(model, inputs, *expected, rtol=1e-12):
    """Asserts what the linearized model's outputs are, axes of 1 aside."""
    outputs = run(model, *inputs)
    for output, value in zip(outputs, expected, strict=True):
        assert_close(np.squeeze(output), np.squeeze(value), rtol)


def assert_close(values, expected, rtol=1e-12):
    """Asserts what an array is, or some arrays of a dict."""
    if not isinstance(expected, dict):
        values, expected = {"": values}, {"": expected}
    for name, value in expected.items():
        np.testing.assert_allclose(values[name], value, rtol=rtol, err_msg=name)


def assert_flow(scores, flow, *paths, rtol=1e-11):
    """Asserts what R is, and that the scores of some kernels sum to it."""
    assert_close(10**scores.log10_flow, flow, rtol)
    assert_close(
        {p: scores[p].sum() for p in paths}, dict.fromkeys(paths, flow), rtol
    )


def assert_conserved(model, *inputs, rescale=False):
    """Asserts R(2x) = 2 R(x), sum(x dR/dx) = R, and dR/dx >= 0.

    Where flow starts at constants, their ones count among x. Of models with
    one source.
    """
    graph = lowered(model)
    inputs = [tf.constant(x) for x in inputs]

    def flow(factor, watch=lambda tensors: None):
        weights = linearize.LinearWeights({}, tf.float64, rescale=rescale)
        weights.unit *= factor
        sources = [*(factor * x for x in inputs), weights.unit]
        watch(sources)
        outputs = linearize.run(graph, weights, sources[:-1])
        value = tf.add_n([tf.reduce_sum(y) for y in outputs])
        return value, sources, 2.0 ** float(weights.range.exponent)

    with tf.GradientTape() as tape:
        value, sources, scale = flow(tf.constant(1.0, tf.float64), tape.watch)
    gradients = tape.gradient(value, sources, unconnected_gradients="zero")
    assert 0 < float(value) < np.inf
    assert all(float(tf.reduce_min(g)) >= 0 for g in gradients)
    pairs = zip(sources, gradients, strict=True)
    assert_close(sum(float(tf.reduce_sum(x * g)) for x, g in pairs), value)
    double, _, other = flow(tf.constant(2.0, tf.float64))
    assert_close(other / scale * double, 2 * value)
