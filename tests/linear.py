"""Linearized models run by hand, for the tests of the linear rules."""

import keras
import numpy as np
import tensorflow as tf
import tf_keras

from synflow_tf import graph as graph_lib
from synflow_tf import linearize
from synflow_tf.graph import kernels as kernels_lib
from synflow_tf.graph import variables

# Where each line has its operations on symbolic tensors.
OPS = {keras: keras.ops, tf_keras: tf}


def op(line, *names):
    """The operation that a line has under one of some names."""
    names = [name for name in names if hasattr(OPS[line], name)]
    return getattr(OPS[line], names[0])


def custom(line, call, weights=(), name="custom", fill=None):
    """A layer of a user's, that SynFlow must open.

    Args:
        line: the module `keras` or `tf_keras`.
        call: function of the layer and its inputs.
        weights: dict of name to shape.
        name: str.
        fill: dict of name of a weight to its value.

    Returns:
        A layer.
    """

    class Custom(line.layers.Layer):
        def build(self, shape):
            for weight, its_shape in dict(weights).items():
                made = self.add_weight(
                    name=weight, shape=its_shape, initializer="glorot_normal"
                )
                setattr(self, weight, made)
                if fill and weight in fill:
                    made.assign(fill[weight])
            self.built = True

        def call(self, *inputs):
            return call(self, *inputs)

    return Custom(name=name)


def randomize(model, seed=0):
    """Gives every weight random values of both signs, none near 0."""
    rng = np.random.default_rng(seed)
    for weight in variables.weights(model):
        if tf.as_dtype(weight.variable.dtype).is_floating:
            sign = rng.choice([-1.0, 1.0], weight.shape)
            value = rng.uniform(0.1, 1.0, weight.shape)
            if "variance" not in weight.name:
                value *= sign
            weight.variable.assign(value)


def magnitudes(model):
    """The absolute values of all weights, float64, by path."""
    return {
        w.path: np.abs(variables.value(w.variable).numpy().astype(np.float64))
        for w in variables.weights(model)
    }


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


def conserved(model, *inputs):
    """Asserts R(2x) = 2 R(x), sum(x dR/dx) = R, and dR/dx >= 0.

    Where flow starts at constants, their ones count among x. Of models with
    one source.
    """
    graph = lowered(model)
    inputs = [tf.constant(x) for x in inputs]

    def flow(factor, watch=None):
        weights = linearize.LinearWeights({}, tf.float64, rescale=False)
        weights.unit *= factor
        if watch is not None:
            watch(weights.unit)
        outputs = linearize.run(graph, weights, [factor * x for x in inputs])
        return tf.add_n([tf.reduce_sum(y) for y in outputs]), weights.unit

    with tf.GradientTape() as tape:
        factor = tf.constant(1.0, tf.float64)
        tape.watch([*inputs, factor])
        value, unit = flow(factor, tape.watch)
    *gradients, along = tape.gradient(
        value, [*inputs, unit], unconnected_gradients="zero"
    )
    through = sum(
        float(tf.reduce_sum(x * g))
        for x, g in zip(inputs, gradients, strict=True)
    )
    through += float(unit * along)
    assert float(value) > 0
    assert all(float(tf.reduce_min(g)) >= 0 for g in gradients)
    np.testing.assert_allclose(through, float(value), rtol=1e-12)
    double, _ = flow(tf.constant(2.0, tf.float64))
    np.testing.assert_allclose(float(double), 2 * float(value), rtol=1e-12)
