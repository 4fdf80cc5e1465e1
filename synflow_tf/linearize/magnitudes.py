"""Prepares the inputs of rules: magnitudes, dtypes, shapes."""

import tensorflow as tf

from synflow_tf.graph import families


def of_data(node, tensors):
    """Returns a node's inputs, a list: magnitudes of all but sizes and axes.

    Constants and indices get the dtype of the flow, and are ones where they
    are not known (None) or drawn. Flow and weights are magnitudes already.
    """
    dtype = dtype_of(node, tensors)
    tensors = list(tensors)
    for i in families.data_of(node):
        value, x = node.inputs[i], tensors[i]
        if value.is_flow or value.is_weight:
            continue
        if x is None or value.random:
            x = tf.ones(value.shape, dtype)
        elif not x.dtype.is_bool:
            x = tf.abs(x)
        tensors[i] = tf.cast(x, dtype)
    return tensors


def dtype_of(node, tensors):
    """Returns the dtype that a node's flow, or weights, are computed in."""
    pairs = zip(node.inputs, tensors, strict=True)
    return next(x.dtype for v, x in pairs if v.is_flow or v.is_weight)


def wide(x, shape):
    """Broadcasts a tensor to a shape."""
    return x if tuple(x.shape) == tuple(shape) else tf.broadcast_to(x, shape)


def cast(x, dtype):
    """Casts a tensor of floats; returns anything else, and None, as it is."""
    return x if x is None or not x.dtype.is_floating else tf.cast(x, dtype)
