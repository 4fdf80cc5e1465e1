"""Linear rules of the Keras layers without weights."""

import tensorflow as tf

from synflow_tf.linearize import channels
from synflow_tf.linearize.registry import builtin


@builtin(
    "Activation",
    "ELU",
    "LeakyReLU",
    "ReLU",
    "Softmax",
    "ThresholdedReLU",
)
def activation(layer, weights, x, mask=None):
    """The identity; in the authors' variant the activation itself."""
    del mask
    return layer.call(x) if weights.affine else x


@builtin(
    "ActivityRegularization",
    "AlphaDropout",
    "Dropout",
    "GaussianDropout",
    "AugMix",
    "AutoContrast",
    "GaussianNoise",
    "Identity",
    "Masking",
    "RandAugment",
    *(
        f"Random{what}"
        for what in """
        Brightness ColorDegeneration ColorJitter Contrast ElasticTransform
        Erasing Flip GaussianBlur Grayscale Height Hue Invert Perspective
        Posterization Rotation Saturation Sharpness Shear Translation Width
        Zoom
        """.split()
    ),
    "SpatialDropout1D",
    "SpatialDropout2D",
    "SpatialDropout3D",
)
def identity(layer, weights, x):
    """What the layer does at inference: nothing."""
    del layer, weights
    return x


@builtin(
    *(
        f"Adaptive{how}Pooling{rank}D"
        for how in ("Average", "Max")
        for rank in (1, 2, 3)
    ),
    "Add",
    "Average",
    "AveragePooling1D",
    "CenterCrop",
    "Concatenate",
    "Cropping1D",
    "Cropping2D",
    "Cropping3D",
    "Flatten",
    "GlobalAveragePooling1D",
    "GlobalAveragePooling2D",
    "GlobalAveragePooling3D",
    "GlobalMaxPooling1D",
    "GlobalMaxPooling2D",
    "GlobalMaxPooling3D",
    "Dot",
    "Lambda",
    "MaxPooling1D",
    "Maximum",
    "Minimum",
    "Multiply",
    "Permute",
    "RepeatVector",
    "Reshape",
    "UpSampling1D",
    "UpSampling3D",
    "ZeroPadding1D",
    "ZeroPadding2D",
    "ZeroPadding3D",
)
def itself(layer, weights, x):
    """Layers that are linear and positive, or a maximum, already.

    Those where tensors meet are replaced (`joins`) where they are not.
    """
    del weights
    return layer.call(x)


@builtin("Subtract")
def subtract(layer, weights, x):
    """The sum: the magnitude of what comes from both sides."""
    del layer
    return x[0] - x[1] if weights.affine else x[0] + x[1]


@builtin("UpSampling2D")
def up_sampling_2d(layer, weights, x):
    """Interpolation; see `resized`."""
    if layer.interpolation == "nearest":
        return layer.call(x)
    x = channels.last(layer, x)
    height, width = (
        n * factor for n, factor in zip(x.shape[1:3], layer.size, strict=True)
    )
    x = resized(x, height, width, layer.interpolation, weights.affine)
    return channels.back(layer, x)


@builtin("Resizing")
def resizing(layer, weights, x):
    """Interpolation; see `resized`."""
    x = channels.last(layer, x)
    x = resized(
        x, layer.height, layer.width, layer.interpolation, weights.affine
    )
    return channels.back(layer, x)


def resized(x, height, width, method, signed=False):
    """Resizes images by one matrix for each axis, in the dtype of `x`.

    TensorFlow resizes in float32 only, which ends at 1e38. What it does to a
    line of pixels is a matrix with entries in [0, 1] (up to the ringing of
    the cubic and Lanczos kernels, whose magnitude is taken).

    Args:
        x: tensor, (1, height, width, channels).
        height: int, the new one.
        width: int, the new one.
        method: str, what `tf.image.resize` takes.
        signed: bool, whether to keep the sign of the ringing.

    Returns:
        Tensor.
    """
    rows = _interpolation(x.shape[1], height, method, x.dtype)
    columns = _interpolation(x.shape[2], width, method, x.dtype)
    if not signed:
        rows, columns = tf.abs(rows), tf.abs(columns)
    return tf.einsum("nhwc,hp,wq->npqc", x, rows, columns)


def _interpolation(size, new, method, dtype):
    """The matrix, (size, new), that resizes a line of pixels."""
    lines = tf.eye(size)[:, :, None, None]
    lines = tf.image.resize(lines, (new, 1), method)
    return tf.cast(lines[:, :, 0, 0], dtype)


@builtin("AveragePooling2D", "AveragePooling3D")
def average_pooling(layer, weights, x):
    """The mean of each window."""
    del weights
    return _pool(layer, x, tf.nn.avg_pool2d)


@builtin("MaxPooling2D", "MaxPooling3D")
def max_pooling(layer, weights, x):
    """The maximum of each window."""
    del weights
    return _pool(layer, x, tf.nn.max_pool2d)


def _pool(layer, x, pool):
    """Pools in 2D; in 3D over height and width, then over depth.

    The same, and TensorFlow pools three dimensions in float32 only.
    """
    size, strides = tuple(layer.pool_size), tuple(layer.strides)
    padding = layer.padding.upper()
    x = channels.last(layer, x)
    if len(size) == 2:
        x = pool(x, size, strides, padding)
    else:
        _, depth, height, width, features = x.shape
        x = tf.reshape(x, (-1, height, width, features))
        x = pool(x, size[1:], strides[1:], padding)
        _, height, width, _ = x.shape
        x = tf.reshape(x, (-1, depth, height * width, features))
        x = pool(x, (size[0], 1), (strides[0], 1), padding)
        x = tf.reshape(x, (-1, x.shape[1], height, width, features))
    return channels.back(layer, x)
