"""Prepares the inputs of rules: magnitudes of what carries no flow."""

import tensorflow as tf


def of(value, x, dtype):
    """Returns the magnitude of one input of a node.

    Flow and weights stay as they are; constants and indices become magnitudes
    of `dtype`. It is ones where an index is not known (`x` is None).
    """
    if value.is_flow or value.is_weight:
        return x
    if x is None or value.random:
        return tf.ones(value.shape, dtype)
    if x.dtype.is_complex or x.dtype.is_floating or x.dtype.is_integer:
        x = tf.abs(x)
    return tf.cast(x, dtype)


def all_of(node, tensors):
    """Returns the magnitudes of all inputs of a node, a list; see `of`."""
    dtype = dtype_of(node, tensors)
    return [of(v, x, dtype) for v, x in zip(node.inputs, tensors, strict=True)]


def dtype_of(node, tensors):
    """Returns the dtype that a node's flow, or weights, are computed in."""
    pairs = zip(node.inputs, tensors, strict=True)
    return next(x.dtype for v, x in pairs if v.is_flow or v.is_weight)


def wide(x, shape):
    """Broadcasts a tensor to a shape."""
    return x if tuple(x.shape) == tuple(shape) else tf.broadcast_to(x, shape)


def as_it_is(node, tensors):
    """Returns the inputs of an operation that runs as it is.

    Floats are of the flow's dtype; an index that depends on flow is 0.
    """
    dtype = dtype_of(node, tensors)
    return [
        tf.zeros(value.shape, value.dtype)
        if x is None
        else tf.cast(x, dtype if x.dtype.is_floating else x.dtype)
        for value, x in zip(node.inputs, tensors, strict=True)
    ]
