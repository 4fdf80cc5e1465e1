"""ResNet for CIFAR: three stages of residual blocks of two 3x3 convolutions.

Source: the authors' code, `lottery_resnet`, for Tanaka et al., arXiv
2006.05467 (after facebookresearch/open_lth), which follows He et al., arXiv
1512.03385. The first block of stages 2 and 3 halves the image; its shortcut is
a 1x1 convolution with BatchNormalization. No convolution has a bias; kernels
are He normal, not truncated. Strided convolutions are padded by one pixel on
both sides, as in PyTorch ("same" would pad one side only).

    depth          20  32  44  56  110
    blocks/stage    3   5   7   9   18    (depth - 2) / 6
    filters        16, 32, 64; wide: 32, 64, 128

All functions take the same arguments:

    input_shape  (height, width, channels) of one image, height and width may
                 be None; default (32, 32, 3), CIFAR's
    classes      number of logits; default 10
    keras        the module `keras` (default) or `tf_keras`

They return a built functional model, (batch, *input_shape) -> (batch, classes),
with the kernels "conv", "block0_conv1", "block0_conv2", ..., "block3_shortcut",
..., "fc" (blocks numbered as the authors'), and raise ValueError if `keras` is
neither module.

Example:
    >>> from synflow_tf import models
    >>> models.resnet20().count_params()
    274042
"""

from synflow_tf.models import _shared

_STAGES = 3


def resnet20(input_shape=(32, 32, 3), classes=10, keras=None):
    """ResNet-20, see the module."""
    return _build("resnet20", 20, 16, input_shape, classes, keras)


def resnet32(input_shape=(32, 32, 3), classes=10, keras=None):
    """ResNet-32, see the module."""
    return _build("resnet32", 32, 16, input_shape, classes, keras)


def resnet44(input_shape=(32, 32, 3), classes=10, keras=None):
    """ResNet-44, see the module."""
    return _build("resnet44", 44, 16, input_shape, classes, keras)


def resnet56(input_shape=(32, 32, 3), classes=10, keras=None):
    """ResNet-56, see the module."""
    return _build("resnet56", 56, 16, input_shape, classes, keras)


def resnet110(input_shape=(32, 32, 3), classes=10, keras=None):
    """ResNet-110, see the module."""
    return _build("resnet110", 110, 16, input_shape, classes, keras)


def wide_resnet20(input_shape=(32, 32, 3), classes=10, keras=None):
    """ResNet-20 of twice the width, see the module."""
    return _build("wide_resnet20", 20, 32, input_shape, classes, keras)


def wide_resnet32(input_shape=(32, 32, 3), classes=10, keras=None):
    """ResNet-32 of twice the width, see the module."""
    return _build("wide_resnet32", 32, 32, input_shape, classes, keras)


def wide_resnet44(input_shape=(32, 32, 3), classes=10, keras=None):
    """ResNet-44 of twice the width, see the module."""
    return _build("wide_resnet44", 44, 32, input_shape, classes, keras)


def wide_resnet56(input_shape=(32, 32, 3), classes=10, keras=None):
    """ResNet-56 of twice the width, see the module."""
    return _build("wide_resnet56", 56, 32, input_shape, classes, keras)


def wide_resnet110(input_shape=(32, 32, 3), classes=10, keras=None):
    """ResNet-110 of twice the width, see the module."""
    return _build("wide_resnet110", 110, 32, input_shape, classes, keras)


def _build(name, depth, width, input_shape, classes, keras):
    keras = _shared.resolve(keras)
    blocks = (depth - 2) // 6
    image = keras.Input(input_shape, name="image")
    x = _convolution(keras, image, width, 3, 1, "conv")
    x = keras.layers.ReLU(name="conv_relu")(x)
    for i in range(_STAGES * blocks):
        strides = 2 if i in (blocks, 2 * blocks) else 1
        x = _block(keras, x, width * 2 ** (i // blocks), strides, f"block{i}")
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    x = keras.layers.Dense(classes, name="fc", **_shared.he_normal(keras))(x)
    return keras.Model(image, x, name=name)


def _block(keras, x, filters, strides, name):
    shortcut = x
    x = _convolution(keras, x, filters, 3, strides, f"{name}_conv1")
    x = keras.layers.ReLU(name=f"{name}_conv1_relu")(x)
    x = _convolution(keras, x, filters, 3, 1, f"{name}_conv2")
    if strides > 1:
        shortcut = _convolution(
            keras, shortcut, filters, 1, strides, f"{name}_shortcut"
        )
    # The shortcut comes second: `model.layers` then has it after conv2.
    x = keras.layers.Add(name=f"{name}_add")([x, shortcut])
    return keras.layers.ReLU(name=f"{name}_relu")(x)


def _convolution(keras, x, filters, size, strides, name):
    """A convolution padded as PyTorch's, with BatchNormalization."""
    if strides > 1 and size > 1:
        x = keras.layers.ZeroPadding2D(size // 2, name=f"{name}_pad")(x)
    x = keras.layers.Conv2D(
        filters,
        size,
        strides,
        padding="same" if strides == 1 else "valid",
        use_bias=False,
        name=name,
        **_shared.he_normal(keras),
    )(x)
    return _shared.batch_normalization(keras, f"{name}_bn")(x)
