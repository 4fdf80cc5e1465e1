"""What does not carry flow, as rules take it: magnitudes, of one dtype."""

import tensorflow as tf


def of(value, x, dtype):
    """The magnitude of one input of a node.

    Args:
        value: `graph.Value`.
        x: its tensor; None for an index that depends on flow.
        dtype: `tf.DType` of the flow.

    Returns:
        Tensor: flow and weights as they are, the magnitude of constants and
        indices, ones where an index is not known.
    """
    if value.is_flow or value.is_weight:
        return x
    if x is None or value.random:
        return tf.ones(value.shape, dtype)
    if x.dtype.is_complex or x.dtype.is_floating or x.dtype.is_integer:
        return tf.cast(tf.abs(x), dtype)
    return tf.cast(x, dtype)


def all_of(node, tensors):
    """The magnitudes of all inputs of a node, a list; see `of`."""
    dtype = dtype_of(node, tensors)
    return [of(v, x, dtype) for v, x in zip(node.inputs, tensors, strict=True)]


def dtype_of(node, tensors):
    """The dtype that a node's flow, or its weights, are computed in."""
    return next(
        x.dtype
        for value, x in zip(node.inputs, tensors, strict=True)
        if value.is_flow or value.is_weight
    )


def wide(x, shape):
    """A tensor broadcast to a shape."""
    return x if tuple(x.shape) == tuple(shape) else tf.broadcast_to(x, shape)


def as_it_is(node, tensors):
    """The inputs of an operation that runs as it is.

    Floats are of the flow's dtype; an index that depends on flow is 0.
    """
    dtype = dtype_of(node, tensors)
    found = []
    for value, x in zip(node.inputs, tensors, strict=True):
        if x is None:
            x = tf.zeros(value.shape, value.dtype)
        elif x.dtype.is_floating and x.dtype != dtype:
            x = tf.cast(x, dtype)
        found.append(x)
    return found
