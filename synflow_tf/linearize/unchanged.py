"""Runs operations as they are: what weights are made of, and `plain` graphs."""

import tensorflow as tf

from synflow_tf.graph import families
from synflow_tf.graph import raw
from synflow_tf.linearize import channels
from synflow_tf.linearize import magnitudes
from synflow_tf.linearize import registry
from synflow_tf.linearize import rules_contractions


def run(node, tensors, dtype):
    """Runs the operation of a node, all floats in `dtype`: a list of tensors.

    Nodes that are no operations of TensorFlow run under their rule.
    """
    if node.operation is None:
        return registry.run(node, tensors)
    if node.type in families.CONTRACTIONS:
        tensors = [magnitudes.cast(x, dtype) for x in tensors]
        return [rules_contractions.apply(node, tensors)]
    if node.type.startswith("FusedBatchNorm"):
        return _batch_normalization(node, tensors, dtype)
    return channels.run(
        lambda node, tensors: raw.widened(node, tensors, dtype), node, tensors
    )


def _batch_normalization(node, tensors, dtype):
    """Normalizes in `dtype`: TensorFlow's own operation has float32 only."""
    x, *vectors = (tf.cast(t, dtype) for t in tensors)
    gamma, beta, mean, variance = (
        channels.aligned(vector, node) for vector in vectors
    )
    scale = gamma / tf.sqrt(variance + node.attributes["epsilon"])
    others = [tf.zeros(v.shape, dtype) for v in node.outputs[1:]]
    return [x * scale + (beta - mean * scale), *others]
