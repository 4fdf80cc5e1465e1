"""Rules of products that are summed over: MatMul, Einsum, Conv2D ..."""

import dataclasses

import tensorflow as tf

from synflow_tf.graph import families
from synflow_tf.graph import raw
from synflow_tf.linearize import channels
from synflow_tf.linearize import magnitudes
from synflow_tf.linearize import registry


@registry.operation(*families.CONTRACTIONS)
def contract(node, *tensors):
    """Contracts magnitudes; attention weights add up to 1."""
    tensors = magnitudes.of_data(node, tensors)
    for side in node.gates:
        tensors[side] = _shares(tensors[side], _summed(node, side))
    return apply(node, tensors)


def apply(node, tensors):
    """Runs a contraction as the CPU can and has a gradient of: a tensor."""
    if node.type == "BatchMatMulV3":  # It has integers only, in the model too.
        left, right = node.attributes["adj_x"], node.attributes["adj_y"]
        return tf.matmul(*tensors, adjoint_a=left, adjoint_b=right)
    if node.type not in _CONVOLUTIONS:
        return raw.call(node, tensors)[0]
    if node.type == "Conv2DBackpropInput":
        node, tensors = _undilated(node, tensors)
    return channels.run(_grouped, node, tensors)[0]


_CONVOLUTIONS = frozenset(x for x in families.CONTRACTIONS if "Conv" in x)


def _undilated(node, tensors):
    """Puts zeros into the kernel of a transposed convolution for its dilation.

    TensorFlow on the CPU has no dilated one.
    """
    dilations = node.attributes["dilations"]
    first = node.attributes["data_format"] == "NCHW"
    rows, columns = dilations[2:] if first else dilations[1:3]
    if rows == columns == 1:
        return node, tensors
    sizes, kernel, x = tensors
    height, width, *rest = kernel.shape
    kernel = kernel[:, None, :, None]
    around = [[0, rows - 1], [0, 0], [0, columns - 1], [0, 0], [0, 0]]
    kernel = tf.pad(kernel, [[0, 0], *around])
    kernel = tf.reshape(kernel, [height * rows, width * columns, *rest])
    kernel = kernel[: (height - 1) * rows + 1, : (width - 1) * columns + 1]
    node = dataclasses.replace(
        node, extra={**node.extra, "dilations": [1, 1, 1, 1]}
    )
    return node, [sizes, kernel, x]


def _grouped(node, tensors):
    """Convolves group by group: on a CPU TensorFlow has no gradient of all.

    Groups of one channel each are a depthwise convolution.
    """
    groups = 1
    if node.type in ("Conv2D", "Conv3D"):
        x, kernel = tensors
        groups = x.shape[-1] // kernel.shape[-2]
    if groups == 1:
        return raw.call(node, tensors)
    options = node.attributes
    strides, padding = options["strides"], options["padding"]
    alike = len(set(strides[1:-1])) == 1 and padding != "EXPLICIT"
    if node.type == "Conv2D" and kernel.shape[-2] == 1 and alike:
        shape = (*kernel.shape[:2], groups, kernel.shape[-1] // groups)
        kernel = tf.reshape(kernel, shape)
        dilations = options["dilations"][1:-1]
        return [
            tf.nn.depthwise_conv2d(
                x, kernel, strides, padding, dilations=dilations
            )
        ]
    parts = tf.split(x, groups, -1), tf.split(kernel, groups, -1)
    parts = [raw.call(node, pair)[0] for pair in zip(*parts, strict=True)]
    return [tf.concat(parts, -1)]


def _shares(a, axes):
    """Divides a tensor >= 0 by its sums over axes; equal shares where all is 0.

    The sums are as constants: the shares are a gate.
    """
    total = tf.stop_gradient(tf.reduce_sum(a, axes, keepdims=True))
    empty = total == 0
    size = tf.size(a) // tf.size(total)
    uniform = tf.ones_like(a) / tf.cast(size, a.dtype)
    safe = tf.where(empty, tf.ones_like(total), total)
    return tf.where(empty, uniform, a / safe)


def _summed(node, side):
    """Returns the axes of one operand that a contraction sums over, a list."""
    if node.type == "Einsum":
        equation = node.attributes["equation"].replace(" ", "")
        inputs, _, result = equation.partition("->")
        before, dots, after = inputs.split(",")[side].partition("...")
        axes = [i for i, x in enumerate(before) if x not in result]
        if dots:
            axes += [
                i - len(after) for i, x in enumerate(after) if x not in result
            ]
        return axes
    if node.type in _CONVOLUTIONS:
        return [-1] if side == 0 else [-2]
    names = ("adj_x", "adj_y")
    if node.type == "MatMul":
        names = ("transpose_a", "transpose_b")
    last = node.attributes[names[side]] == (side == 1)
    return [-1 if last else -2]
