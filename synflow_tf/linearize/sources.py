"""Where flow starts, if not at a float input: tables and constants."""

import tensorflow as tf

from synflow_tf import graph as graph_lib
from synflow_tf.linearize.registry import homogeneous
from synflow_tf.linearize.registry import register_rule

_CATEGORIES = ("CategoryEncoding", "Discretization", "Hashing", "IntegerLookup")
# The layers, in lower case, where flow starts.
NAMES = frozenset(name.lower() for name in ("Embedding", *_CATEGORIES))


@homogeneous("Embedding")
def embedding(layer, weights, x, unit):
    """Ones, (..., output_dim), times `unit`: every token alike.

    If scores are wanted for the table, the mean of its rows' magnitudes.
    """
    table = layer.embeddings
    row = tf.ones(table.shape[1:], weights.dtype)
    if id(table) in weights.scored:
        row = tf.reduce_mean(weights[table], axis=0)
    return tf.broadcast_to(row * unit, (*x.shape, *row.shape))


@homogeneous(*_CATEGORIES)
def category(layer, weights, x, unit):
    """Ones, of the shape of what the layer returns, times `unit`."""
    shape = layer.compute_output_shape(tuple(x.shape))
    return tf.ones(tuple(shape), weights.dtype) * unit


@register_rule(graph_lib.Read)
def read(layer, weights):
    """A weight that an opened layer computes with, or a constant."""
    if isinstance(layer.variable, tf.Tensor):
        return tf.cast(layer.variable, weights.dtype)
    return tf.convert_to_tensor(weights[layer.variable])
