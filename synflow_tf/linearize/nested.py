"""Runs a layer within a rule: the cell, or the wrapped layer, of a wrapper."""

import tensorflow as tf

from synflow_tf import _lines
from synflow_tf import graph as graph_lib
from synflow_tf.linearize import executor
from synflow_tf.linearize import lowering
from synflow_tf.linearize import registry


def is_leaf(layer):
    """Whether a layer stays one node: it has a rule, or is an operation."""
    return registry.find(layer) is not None


def linear(layer, *args):
    """The linear graph of a layer.

    Args:
        layer: a built layer.
        *args: tensors, or lists of tensors, of the shapes it is called on.

    Returns:
        `lowering.LinearGraph`.
    """
    line = next(x for x in _lines.LINES if isinstance(layer, x.layers.Layer))

    def slot(x):
        return graph_lib.Slot(tuple(x.shape), line.backend.floatx())

    slots = tf.nest.map_structure(slot, args)
    graph = graph_lib.read_layer(layer, line, is_leaf, slots, {})
    return lowering.lower(graph)


def apply(layer, weights, x):
    """Runs a layer on one tensor, and keeps the values in range.

    Args:
        layer: a built layer.
        weights: `executor.LinearWeights`.
        x: tensor.

    Returns:
        list of tensors, what it returns; and an int tensor of shape (): they
        are 2 to the power of minus this times what they are.
    """
    exponent = weights.exponent
    weights.exponent = tf.zeros_like(exponent)
    outputs = executor.run(linear(layer, x), weights, [x])
    shift = weights.exponent
    weights.exponent = exponent
    return outputs, tf.cast(shift, tf.int32)
