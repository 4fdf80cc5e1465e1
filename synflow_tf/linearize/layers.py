"""Linear rules of the Keras layers that have weights.

Each computes its layer's own map with the tensors that `weights` gives for the
variables. Biases, moving means and activations count in the authors' variant
only (`weights.affine`).
"""

import tensorflow as tf

from synflow_tf.linearize import channels
from synflow_tf.linearize.registry import builtin

_CHANNELS_LAST = {1: "NWC", 2: "NHWC", 3: "NDHWC"}


def _finish(layer, weights, x):
    """Adds bias and activation, where the variant has them."""
    if not weights.affine:
        return x
    if layer.bias is not None:
        x += weights[layer.bias]
    return layer.activation(x)


def _padding(layer, x):
    """The padding that TensorFlow knows, and what causal needs in front."""
    if layer.padding != "causal":
        return x, layer.padding.upper()
    size, step = layer.kernel_size[0], layer.dilation_rate[0]
    return tf.pad(x, [[0, 0], [step * (size - 1), 0], [0, 0]]), "VALID"


@builtin("Dense")
def dense(layer, weights, x):
    """The product x W."""
    kernel = weights[layer.kernel]
    if x.shape.rank == 2:
        x = tf.matmul(x, kernel)
    else:
        x = tf.tensordot(x, kernel, [[-1], [0]])
    return _finish(layer, weights, x)


@builtin("EinsumDense")
def einsum_dense(layer, weights, x):
    """The layer's equation."""
    x = tf.einsum(layer.equation, x, weights[layer.kernel])
    return _finish(layer, weights, x)


@builtin("Conv1D", "Conv2D", "Conv3D")
def conv(layer, weights, x):
    """Convolution of any rank, grouped or not."""
    x = channels.last(layer, x)
    kernel = weights[layer.kernel]
    depthwise = layer.groups > 1 and kernel.shape[-2] == 1 and layer.rank < 3
    if depthwise and len(set(layer.strides)) == 1:
        # A group of one channel each; one by one would take seconds.
        shape = (*layer.kernel_size, layer.groups, -1)
        x = _depthwise(layer, x, tf.reshape(kernel, shape))
        return channels.back(layer, _finish(layer, weights, x))
    x, padding = _padding(layer, x)

    def convolve(x, kernel):
        return tf.nn.convolution(
            x,
            kernel,
            layer.strides,
            padding,
            # TensorFlow's eager gradient of a 3D convolution wants it said.
            data_format=_CHANNELS_LAST[layer.rank],
            dilations=layer.dilation_rate,
        )

    if layer.groups == 1:
        x = convolve(x, kernel)
    else:
        # TensorFlow has no gradient of a grouped convolution on the CPU.
        pieces = tf.split(x, layer.groups, axis=-1)
        kernels = tf.split(kernel, layer.groups, axis=-1)
        x = tf.concat(list(map(convolve, pieces, kernels)), axis=-1)
    x = _finish(layer, weights, x)
    return channels.back(layer, x)


@builtin("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose")
def conv_transpose(layer, weights, x):
    """Transposed convolution of any rank."""
    shape = tuple(layer.compute_output_shape(tuple(x.shape)))
    if layer.data_format == "channels_first":
        shape = (shape[0], *shape[2:], shape[1])
    x = tf.nn.conv_transpose(
        channels.last(layer, x),
        weights[layer.kernel],
        shape,
        layer.strides,
        layer.padding.upper(),
        dilations=layer.dilation_rate,
    )
    x = _finish(layer, weights, x)
    return channels.back(layer, x)


def _depthwise(layer, x, kernel):
    """Depthwise convolution, of rank 1 as one over a height of 1."""
    x, padding = _padding(layer, x)
    strides, dilations = tuple(layer.strides), tuple(layer.dilation_rate)
    flat = x.shape.rank == 3
    if flat:
        x, kernel = x[:, None], kernel[None]
        strides, dilations = strides * 2, (1, *dilations)
    x = tf.nn.depthwise_conv2d(
        x, kernel, (1, *strides, 1), padding, dilations=dilations
    )
    return x[:, 0] if flat else x


@builtin("DepthwiseConv1D", "DepthwiseConv2D")
def depthwise_conv(layer, weights, x):
    """Every channel convolved by itself."""
    kernel = getattr(layer, "depthwise_kernel", None)  # tf_keras
    kernel = weights[layer.kernel if kernel is None else kernel]
    x = _depthwise(layer, channels.last(layer, x), kernel)
    x = _finish(layer, weights, x)
    return channels.back(layer, x)


@builtin("SeparableConv1D", "SeparableConv2D")
def separable_conv(layer, weights, x):
    """A depthwise convolution, then one of size 1."""
    x = channels.last(layer, x)
    x = _depthwise(layer, x, weights[layer.depthwise_kernel])
    x = tf.nn.convolution(x, weights[layer.pointwise_kernel])
    x = _finish(layer, weights, x)
    return channels.back(layer, x)


@builtin("BatchNormalization", "SyncBatchNormalization")
def batch_normalization(layer, weights, x):
    """Scales by |gamma| / sqrt(moving_variance + epsilon)."""
    axes = layer.axis if isinstance(layer.axis, (list, tuple)) else [layer.axis]
    axes = [axis % x.shape.rank for axis in axes]
    shape = [n if i in axes else 1 for i, n in enumerate(x.shape)]

    def along(tensor):
        last = axes == [x.shape.rank - 1]
        return tensor if last else tf.reshape(tensor, shape)

    scale = (weights[layer.moving_variance] + layer.epsilon) ** -0.5
    if layer.scale:
        scale *= weights[layer.gamma]
    if weights.affine:
        x -= along(weights[layer.moving_mean])
    x *= along(scale)
    if weights.affine and layer.center:
        x += along(weights[layer.beta])
    return x


@builtin("PReLU")
def prelu(layer, weights, x):
    """The identity; in the authors' variant x for x > 0, |alpha| x below."""
    if not weights.affine:
        return x
    return tf.nn.relu(x) - weights[layer.alpha] * tf.nn.relu(-x)
