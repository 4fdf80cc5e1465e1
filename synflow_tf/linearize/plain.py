"""The authors' variant: operations as they are, on magnitudes of variables."""

import tensorflow as tf

from synflow_tf.graph import families
from synflow_tf.graph import raw
from synflow_tf.linearize import channels
from synflow_tf.linearize import registry
from synflow_tf.linearize import rules_contractions


def run(node, tensors, dtype):
    """Runs an operation as it is, in the dtype of the flow.

    Args:
        node: `graph.Node`.
        tensors: list of tensors.
        dtype: `tf.DType`.

    Returns:
        list of tensors.
    """
    if node.operation is None:
        outputs = registry.rule_of_operation(node.type)(node, *tensors)
        return outputs if isinstance(outputs, list) else [outputs]
    if node.type in families.CONTRACTIONS:
        tensors = [
            tf.cast(x, dtype) if x.dtype.is_floating else x for x in tensors
        ]
        return [rules_contractions.apply(node, tensors)]
    if node.type.startswith("FusedBatchNorm"):
        return _batch_normalization(node, tensors, dtype)
    return channels.run(
        lambda node, tensors: raw.widened(node, tensors, dtype), node, tensors
    )


def _batch_normalization(node, tensors, dtype):
    """Batch normalization, which TensorFlow has in float32 only."""
    x, *rest = (tf.cast(t, dtype) for t in tensors)
    if node.attributes["data_format"] == "NCHW":
        rest = [tf.reshape(t, [-1, 1, 1]) for t in rest]
    gamma, beta, mean, variance = rest
    scale = gamma / tf.sqrt(variance + node.attributes["epsilon"])
    others = [tf.zeros(v.shape, dtype) for v in node.outputs[1:]]
    return [x * scale + (beta - mean * scale), *others]
