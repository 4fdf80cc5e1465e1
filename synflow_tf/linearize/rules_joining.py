"""Concatenation, updates of a part, normalization that is one operation."""

import tensorflow as tf

from synflow_tf.graph import families
from synflow_tf.graph import raw
from synflow_tf.linearize import magnitudes
from synflow_tf.linearize import registry


@registry.operation(*families.CONCATENATIONS)
def concatenate(node, *tensors):
    """The concatenation of magnitudes; what is no flow starts some or is 0."""
    dtype = magnitudes.dtype_of(node, tensors)
    data = families.data_of(node)
    parts = [magnitudes.of(node.inputs[i], tensors[i], dtype) for i in data]
    if node.type in ("_Stack", "_Concat"):
        function = tf.stack if node.type == "_Stack" else tf.concat
        return function(parts, 0)
    if node.type == "Pack":
        return tf.stack(parts, node.attributes["axis"])
    axis = next(x for i, x in enumerate(tensors) if i not in data)
    return tf.concat(parts, int(axis))


@registry.operation("_Source")
def source(node, unit, *table):
    """Ones; of a table that is scored the mean of its rows' magnitudes."""
    shape = node.outputs[0].shape
    if not table:
        return tf.ones(shape, unit.dtype) * unit
    [x] = table
    if node.extra["axis"] is None:
        return x * unit
    axis = node.extra["axis"] % x.shape.rank
    row = tf.reduce_mean(x, axis)
    extra = [1] * (len(shape) - row.shape.rank)
    row = tf.reshape(row, [*row.shape[:axis], *extra, *row.shape[axis:]])
    return magnitudes.wide(row * unit, shape)


@registry.operation(
    "TensorScatterUpdate", "TensorScatterAdd", "TensorScatterMax"
)
def scatter(node, base, indices, updates):
    """The update of a part; what is no flow is 0."""
    dtype = magnitudes.dtype_of(node, [base, indices, updates])
    base, updates = (
        x if value.is_flow else tf.zeros(value.shape, dtype)
        for value, x in zip(node.inputs[::2], (base, updates), strict=True)
    )
    if indices is None:
        return base + tf.reduce_mean(updates)
    return raw.call(node, [base, indices, updates])


@registry.operation("ScatterNd")
def scatter_nd(node, indices, updates, shape):
    """Entries put where they belong, zeros around them."""
    return raw.call(node, [indices, updates, shape])


@registry.operation("XlaDynamicUpdateSlice")
def update_slice(node, base, update, start):
    """The update of a slice; what is no flow is 0."""
    dtype = magnitudes.dtype_of(node, [base, update, start])
    base, update = (
        x if value.is_flow else tf.zeros(value.shape, dtype)
        for value, x in zip(node.inputs[:2], (base, update), strict=True)
    )
    ends = [n - m for n, m in zip(base.shape, update.shape, strict=True)]
    starts = [0] * len(ends) if start is None else start.numpy().tolist()
    starts = [min(max(s, 0), e) for s, e in zip(starts, ends, strict=True)]
    around = [[s, e - s] for s, e in zip(starts, ends, strict=True)]
    inside = tf.pad(tf.ones(update.shape, dtype), around)
    return base * (1 - inside) + tf.pad(update, around)


@registry.operation("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3")
def batch_normalization(node, x, gamma, beta, mean, variance):
    """Scales by |gamma| / sqrt(variance + epsilon).

    By |gamma| alone where mean and variance are those of the input.
    """
    del beta, mean
    gamma = magnitudes.of(node.inputs[1], gamma, x.dtype)
    if not node.attributes["is_training"]:
        variance = magnitudes.of(node.inputs[4], variance, x.dtype)
        gamma *= (variance + node.attributes["epsilon"]) ** -0.5
    if node.attributes["data_format"] == "NCHW":
        gamma = tf.reshape(gamma, [-1, 1, 1])
    rest = [tf.zeros(v.shape, x.dtype) for v in node.outputs[1:]]
    return [x * gamma, *rest]
