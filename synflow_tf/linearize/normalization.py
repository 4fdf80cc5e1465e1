"""Normalization layers that measure their input: |gamma|, and nothing else."""

import tensorflow as tf

from synflow_tf.linearize.registry import homogeneous


def _along(x, scale, axes):
    """Multiplies a tensor by one that has only some of its axes."""
    axes = sorted(axis % x.shape.rank for axis in axes)
    shape = [n if i in axes else 1 for i, n in enumerate(x.shape)]
    return x * tf.reshape(scale, shape)


@homogeneous("LayerNormalization", "RMSNormalization")
def layer_normalization(layer, weights, x):
    """The product x |gamma|."""
    gamma = getattr(layer, "gamma", None)
    if gamma is None:
        gamma = getattr(layer, "scale", None)
    if not hasattr(gamma, "shape"):
        return x
    axes = layer.axis if isinstance(layer.axis, (list, tuple)) else [layer.axis]
    return _along(x, weights[gamma], axes)


@homogeneous("GroupNormalization")
def group_normalization(layer, weights, x):
    """The product x |gamma|, along the axis of the channels."""
    if not layer.scale:
        return x
    return _along(x, weights[layer.gamma], [layer.axis])


@homogeneous("Normalization", "Rescaling", "UnitNormalization")
def identity(layer, weights, x):
    """The identity: what the layer does to the scale has no weights."""
    del layer, weights
    return x
