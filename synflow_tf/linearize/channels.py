"""Moves the channels of images last, as TensorFlow on the CPU wants them."""

import copy

import tensorflow as tf

_TRANSPOSED = ("Conv2DBackpropInput", "Conv3DBackpropInputV2")
# The types of operations on images, and which of their inputs is the image.
_IMAGES = dict.fromkeys(_TRANSPOSED, 2) | dict.fromkeys(
    """
    AvgPool AvgPool3D Conv2D Conv3D DepthToSpace DepthwiseConv2dNative MaxPool
    MaxPool3D SpaceToDepth
    """.split(),
    0,
)


def run(function, node, tensors):
    """Returns `function(node, tensors)`, run with the channels last."""
    text = node.attributes.get("data_format", "")
    if node.type not in _IMAGES or not text.startswith("NC"):
        return function(node, tensors)
    tensors = list(tensors)
    at = _IMAGES[node.type]
    tensors[at] = last(tensors[at])
    if node.type in _TRANSPOSED:
        batch, channels, *sizes = node.outputs[0].shape
        tensors[0] = tf.constant([batch, *sizes, channels])
    return [first(x) for x in function(_channels_last(node), tensors)]


def _channels_last(node):
    """Returns a copy of a node, whose attributes have the channels last."""
    node = copy.copy(node)
    found = dict(node.attributes)
    for name in ("ksize", "strides", "dilations"):
        if name in found:
            batch, channels, *rest = found[name]
            found[name] = [batch, *rest, channels]
    pads = found.get("explicit_paddings")
    if pads:
        found["explicit_paddings"] = [*pads[:2], *pads[4:], *pads[2:4]]
    text = found["data_format"]
    found["data_format"] = text[0] + text[2:] + "C"
    node.attributes = found
    return node


def last(x):
    """Moves the second axis to the end."""
    return tf.transpose(x, [0, *range(2, x.shape.rank), 1])


def first(x):
    """Undoes `last`."""
    rank = x.shape.rank
    return tf.transpose(x, [0, rank - 1, *range(1, rank - 1)])
