"""Rules of concatenations, scattered updates and FusedBatchNorm."""

import tensorflow as tf

from synflow_tf.graph import families
from synflow_tf.graph import raw
from synflow_tf.linearize import channels
from synflow_tf.linearize import magnitudes
from synflow_tf.linearize import registry


@registry.operation(*families.CONCATENATIONS)
def concatenate(node, *tensors):
    """Concatenates flows, and magnitudes of what is no flow."""
    data = families.data_of(node)
    found = magnitudes.of_data(node, tensors)
    parts = [found[i] for i in data]
    if node.type in ("_Stack", "_Concat"):
        function = tf.stack if node.type == "_Stack" else tf.concat
        return function(parts, 0)
    if node.type == "Pack":
        return tf.stack(parts, node.attributes["axis"])
    axis = next(x for i, x in enumerate(tensors) if i not in data)
    return tf.concat(parts, int(axis))


@registry.operation(
    "TensorScatterUpdate", "TensorScatterAdd", "TensorScatterMax"
)
def scatter(node, *tensors):
    """Updates a part; what is no flow is 0."""
    indices = tensors[1]
    base, updates = _flows(node, tensors, 0, 2)
    if indices is None:
        return base + tf.reduce_mean(updates)
    return raw.call(node, [base, indices, updates])


@registry.operation("XlaDynamicUpdateSlice")
def update_slice(node, *tensors):
    """Updates a slice; what is no flow is 0."""
    start = tensors[2]
    base, update = _flows(node, tensors, 0, 1)
    ends = [n - m for n, m in zip(base.shape, update.shape, strict=True)]
    starts = [0] * len(ends) if start is None else start.numpy().tolist()
    starts = [min(max(s, 0), e) for s, e in zip(starts, ends, strict=True)]
    around = [[s, e - s] for s, e in zip(starts, ends, strict=True)]
    inside = tf.pad(tf.ones_like(update), around)
    return base * (1 - inside) + tf.pad(update, around)


def _flows(node, tensors, *positions):
    """Returns some inputs of a node; zeros in the place of what is no flow."""
    dtype = magnitudes.dtype_of(node, tensors)
    values = [node.inputs[i] for i in positions]
    return [
        tensors[i] if value.is_flow else tf.zeros(value.shape, dtype)
        for i, value in zip(positions, values, strict=True)
    ]


@registry.operation("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3")
def batch_normalization(node, *tensors):
    """Scales by |gamma| / sqrt(variance + epsilon).

    By |gamma| alone where mean and variance are those of the input.
    """
    x, gamma, _, _, variance = magnitudes.of_data(node, tensors)
    if not node.attributes["is_training"]:
        gamma *= (variance + node.attributes["epsilon"]) ** -0.5
    rest = [tf.zeros(v.shape, x.dtype) for v in node.outputs[1:]]
    return [x * channels.aligned(gamma, node), *rest]
