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
    if node.type not in _IMAGES or not _are_first(node):
        return function(node, tensors)
    tensors = list(tensors)
    at = _IMAGES[node.type]
    rank = tensors[at].shape.rank
    tensors[at] = tf.transpose(tensors[at], [0, *range(2, rank), 1])
    if node.type in _TRANSPOSED:
        batch, channels, *sizes = node.outputs[0].shape
        tensors[0] = tf.constant([batch, *sizes, channels])
    back = [0, rank - 1, *range(1, rank - 1)]
    outputs = function(_channels_last(node), tensors)
    return [tf.transpose(x, back) for x in outputs]


def aligned(vector, node):
    """Shapes a vector of one number per channel to go with a node's output."""
    if not _are_first(node):
        return vector
    return tf.reshape(vector, [-1, *[1] * (len(node.outputs[0].shape) - 2)])


def _are_first(node):
    return node.attributes.get("data_format", "").startswith("NC")


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
