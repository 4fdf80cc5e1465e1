"""Layers that could not be opened: as they are, with absolute weights."""

import tensorflow as tf

from synflow_tf import graph as graph_lib
from synflow_tf import replacing
from synflow_tf.linearize.registry import register_rule

# What is added, as Keras and its users call it.
_ADDED = ("beta", "bias", "moving_mean")


@register_rule(graph_lib.Opaque)
def opaque(node_layer, weights, *args, **kwargs):
    """The layer's own `call`, on the magnitudes of its weights.

    In the dtype of its weights. Biases are 0, but for the authors' variant.
    """
    layer = node_layer.layer
    weights.opaque[layer.name] = None
    dtype = tf.as_dtype(layer.variable_dtype)

    def magnitude(variable):
        name = variable.name.partition(":")[0].rpartition("/")[2]
        own = tf.as_dtype(variable.dtype)
        if name in _ADDED and not weights.affine:
            return tf.zeros(variable.shape, own)
        return tf.cast(weights[variable], own)

    def converted(structure, dtype):
        return tf.nest.map_structure(
            lambda x: tf.cast(x, dtype) if _is_float(x) else x, structure
        )

    outputs = replacing.call_with(
        layer,
        magnitude,
        converted(args, dtype),
        converted(kwargs, dtype),
    )
    return converted(outputs, weights.dtype)


def _is_float(x):
    return tf.is_tensor(x) and x.dtype.is_floating
