"""Where images have their channels; TensorFlow on the CPU wants them last."""

import tensorflow as tf

_POOLS = "AvgPool AvgPool3D DepthToSpace MaxPool MaxPool3D SpaceToDepth".split()
_CONVOLUTIONS = "Conv2D Conv3D DepthwiseConv2dNative".split()
_TRANSPOSED = "Conv2DBackpropInput Conv3DBackpropInputV2".split()
# Which input the images are.
_IMAGES = dict.fromkeys(_POOLS + _CONVOLUTIONS, 0)
_IMAGES.update(dict.fromkeys(_TRANSPOSED, 2))


class _Last:
    """A node of channels first as one of channels last."""

    def __init__(self, node):
        self.type, self.operation = node.type, node.operation
        self.inputs, self.outputs = node.inputs, node.outputs
        self.attributes = dict(node.attributes)
        for name in ("ksize", "strides", "dilations"):
            if name in self.attributes:
                batch, channels, *rest = self.attributes[name]
                self.attributes[name] = [batch, *rest, channels]
        pads = self.attributes.get("explicit_paddings") or []
        if pads:
            pads = [*pads[:2], *pads[4:], *pads[2:4]]
            self.attributes["explicit_paddings"] = pads
        text = self.attributes["data_format"]
        self.attributes["data_format"] = text[0] + text[2:] + "C"


def run(function, node, tensors):
    """Runs an operation, with the channels last.

    Args:
        function: function of a node and a list of tensors that runs it.
        node: `graph.Node` of an operation.
        tensors: list of tensors.

    Returns:
        list of tensors.
    """
    text = node.attributes.get("data_format", "")
    if node.type not in _IMAGES or not text.startswith("NC"):
        return function(node, tensors)
    tensors = list(tensors)
    at = _IMAGES[node.type]
    tensors[at] = last(tensors[at])
    if node.type in _TRANSPOSED:
        batch, channels, *sizes = node.outputs[0].shape
        tensors[0] = tf.constant([batch, *sizes, channels])
    return [first(x) for x in function(_Last(node), tensors)]


def last(x):
    """Moves the second axis to the end."""
    return tf.transpose(x, [0, *range(2, x.shape.rank), 1])


def first(x):
    """Undoes `last`."""
    rank = x.shape.rank
    return tf.transpose(x, [0, rank - 1, *range(1, rank - 1)])
