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

The kernels are "conv", "block0_conv1", "block0_conv2", ..., "block3_shortcut",
..., "fc" (blocks numbered as the authors').
"""

from synflow_tf.models import _shared

_STAGES = 3


def _block(keras, x, filters, strides, name):
    """Adds a residual block of two convolutions."""
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
    """Adds a convolution padded as PyTorch's, with BatchNormalization."""
    if strides > 1 and size > 1:
        x = keras.layers.ZeroPadding2D(size // 2, name=f"{name}_pad")(x)
    padding = "same" if strides == 1 else "valid"
    settings = {"use_bias": False, "name": name, **_shared.he_normal(keras)}
    x = keras.layers.Conv2D(filters, size, strides, padding, **settings)(x)
    return _shared.batch_normalization(keras, f"{name}_bn")(x)


def _resnet(name, depth, width):
    """Returns the function that builds a ResNet of a depth and a width."""
    blocks = (depth - 2) // 6

    def build(input_shape=(32, 32, 3), classes=10, keras=None):
        keras = _shared.resolve(keras)
        image = keras.Input(input_shape, name="image")
        x = _convolution(keras, image, width, 3, 1, "conv")
        x = keras.layers.ReLU(name="conv_relu")(x)
        for i in range(_STAGES * blocks):
            filters = width * 2 ** (i // blocks)
            strides = 2 if i in (blocks, 2 * blocks) else 1
            x = _block(keras, x, filters, strides, f"block{i}")
        x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
        initializers = _shared.he_normal(keras)
        x = keras.layers.Dense(classes, name="fc", **initializers)(x)
        return keras.Model(image, x, name=name)

    build.__name__ = build.__qualname__ = name
    build.__doc__ = f"Builds {name}, see `synflow_tf.models`."
    return build


resnet20 = _resnet("resnet20", 20, 16)
resnet32 = _resnet("resnet32", 32, 16)
resnet44 = _resnet("resnet44", 44, 16)
resnet56 = _resnet("resnet56", 56, 16)
resnet110 = _resnet("resnet110", 110, 16)
wide_resnet20 = _resnet("wide_resnet20", 20, 32)
wide_resnet32 = _resnet("wide_resnet32", 32, 32)
wide_resnet44 = _resnet("wide_resnet44", 44, 32)
wide_resnet56 = _resnet("wide_resnet56", 56, 32)
wide_resnet110 = _resnet("wide_resnet110", 110, 32)
