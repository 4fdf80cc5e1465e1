"""Products that are summed over: matrices, convolutions of every kind."""

import dataclasses

import tensorflow as tf

from synflow_tf.graph import families
from synflow_tf.graph import raw
from synflow_tf.linearize import channels
from synflow_tf.linearize import magnitudes
from synflow_tf.linearize import registry


@registry.operation(*families.CONTRACTIONS)
def contract(node, *tensors):
    """The contraction, with magnitudes; attention weights add up to 1."""
    dtype = magnitudes.dtype_of(node, tensors)
    data = families.data_of(node)
    tensors = [
        magnitudes.of(v, x, dtype) if i in data else x
        for i, (v, x) in enumerate(zip(node.inputs, tensors, strict=True))
    ]
    for side in node.gates:
        tensors[side] = normalized(tensors[side], _summed(node, side))
    return apply(node, tensors)


def apply(node, tensors):
    """Runs a contraction where the CPU can, and has a gradient.

    Args:
        node: `graph.Node`, of one of `families.CONTRACTIONS`.
        tensors: list of tensors.

    Returns:
        Tensor.
    """
    if node.type == "BatchMatMulV3":  # of integers, in the model
        options = node.attributes
        return tf.raw_ops.BatchMatMulV2(
            x=tensors[0],
            y=tensors[1],
            adj_x=options["adj_x"],
            adj_y=options["adj_y"],
        )
    if node.type not in _CONVOLUTIONS:
        return raw.call(node, tensors)[0]
    if node.type == "Conv2DBackpropInput":
        node, tensors = _undilated(node, tensors)
    return channels.run(_grouped, node, tensors)[0]


_CONVOLUTIONS = families.CONTRACTIONS - {
    "BatchMatMul",
    "BatchMatMulV2",
    "BatchMatMulV3",
    "Einsum",
    "MatMul",
}


def _undilated(node, tensors):
    """A transposed convolution with zeros in its kernel, not dilated.

    TensorFlow on the CPU has no other.
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
    """A convolution group by group: TensorFlow has no gradient of all on a CPU.

    Groups of one channel each are a depthwise convolution.
    """
    if node.type not in ("Conv2D", "Conv3D"):
        return raw.call(node, tensors)
    x, kernel = tensors
    groups = x.shape[-1] // kernel.shape[-2]
    if groups == 1:
        return raw.call(node, tensors)
    strides = node.attributes["strides"]
    explicit = node.attributes["padding"] == "EXPLICIT"
    alike = len(set(strides[1:-1])) == 1 and not explicit
    if node.type == "Conv2D" and kernel.shape[-2] == 1 and alike:
        shape = (*kernel.shape[:2], groups, kernel.shape[-1] // groups)
        x = tf.nn.depthwise_conv2d(
            x,
            tf.reshape(kernel, shape),
            strides,
            node.attributes["padding"],
            dilations=node.attributes["dilations"][1:-1],
        )
        return [x]
    pieces = zip(
        tf.split(x, groups, -1), tf.split(kernel, groups, -1), strict=True
    )
    return [tf.concat([raw.call(node, list(p))[0] for p in pieces], -1)]


def normalized(a, axes):
    """Attention weights: a over its sums, equal where nothing scores.

    Args:
        a: tensor >= 0.
        axes: list of int, over which the weights add up to 1.

    Returns:
        Tensor of the shape of `a`.
    """
    total = tf.stop_gradient(tf.reduce_sum(a, axes, keepdims=True))
    empty = total == 0
    size = tf.size(a) // tf.size(total)
    uniform = tf.ones_like(a) / tf.cast(size, a.dtype)
    safe = tf.where(empty, tf.ones_like(total), total)
    return tf.where(empty, uniform, a / safe)


def _summed(node, side):
    """The axes of one operand that a contraction sums over."""
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
    names = ("transpose_a", "transpose_b")
    if node.type != "MatMul":
        names = ("adj_x", "adj_y")
    flipped = node.attributes[names[side]]
    return [(-2 if flipped else -1) if side == 0 else (-1 if flipped else -2)]
