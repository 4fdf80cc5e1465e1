"""VGG for small images: 3x3 convolutions in five stages, one dense layer.

Source: the authors' code, `lottery_vgg`, for Tanaka et al., arXiv 2006.05467
(after facebookresearch/open_lth). Every convolution has a bias, also in front
of BatchNormalization; kernels are He normal, not truncated, biases zero. Stages
1 to 4 end with 2x2 max pooling, stage 5 with 2x2 average pooling.

All functions take the same arguments:

    input_shape  (height, width, channels) of one image; default (32, 32, 3),
                 CIFAR's, for which the networks are made
    classes      number of logits; default 10
    keras        the module `keras` (default) or `tf_keras`

They return a built functional model, (batch, *input_shape) -> (batch, classes),
with the kernels "conv1", "conv2", ..., "fc", and raise ValueError if `keras` is
neither module, or a size is unknown.

The classifier "fc" always has 512 inputs. From 32 to 63 pixels the network is
the authors'. Smaller images, for which theirs runs out of pixels, are not
pooled any more along a side of one pixel. Larger images, for which their
classifier does not fit, end with global average pooling.

Example:
    >>> from synflow_tf import models
    >>> models.vgg16_bn().count_params()
    14736714
    >>> models.vgg11((8, 8, 1)).get_layer("fc").count_params()  # 513 * 10
    5130
"""

from synflow_tf.models import _shared

_FILTERS = (64, 128, 256, 512, 512)
_CONVOLUTIONS = {  # depth -> how many in each stage
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}


def vgg11(input_shape=(32, 32, 3), classes=10, keras=None):
    """VGG-11, see the module."""
    return _build(11, False, input_shape, classes, keras)


def vgg13(input_shape=(32, 32, 3), classes=10, keras=None):
    """VGG-13, see the module."""
    return _build(13, False, input_shape, classes, keras)


def vgg16(input_shape=(32, 32, 3), classes=10, keras=None):
    """VGG-16, see the module."""
    return _build(16, False, input_shape, classes, keras)


def vgg19(input_shape=(32, 32, 3), classes=10, keras=None):
    """VGG-19, see the module."""
    return _build(19, False, input_shape, classes, keras)


def vgg11_bn(input_shape=(32, 32, 3), classes=10, keras=None):
    """VGG-11 with BatchNormalization, see the module."""
    return _build(11, True, input_shape, classes, keras)


def vgg13_bn(input_shape=(32, 32, 3), classes=10, keras=None):
    """VGG-13 with BatchNormalization, see the module."""
    return _build(13, True, input_shape, classes, keras)


def vgg16_bn(input_shape=(32, 32, 3), classes=10, keras=None):
    """VGG-16 with BatchNormalization, see the module."""
    return _build(16, True, input_shape, classes, keras)


def vgg19_bn(input_shape=(32, 32, 3), classes=10, keras=None):
    """VGG-19 with BatchNormalization, see the module."""
    return _build(19, True, input_shape, classes, keras)


def _build(depth, normalize, input_shape, classes, keras):
    keras = _shared.resolve(keras)
    _shared.check_sizes(input_shape)
    image = x = keras.Input(input_shape, name="image")
    i = 0
    for stage, convolutions in enumerate(_CONVOLUTIONS[depth]):
        for _ in range(convolutions):
            i += 1
            x = keras.layers.Conv2D(
                _FILTERS[stage],
                3,
                padding="same",
                name=f"conv{i}",
                **_shared.he_normal(keras),
            )(x)
            if normalize:
                x = _shared.batch_normalization(keras, f"conv{i}_bn")(x)
            x = keras.layers.ReLU(name=f"conv{i}_relu")(x)
        x = _pool(keras, x, stage + 1)
    x = keras.layers.Flatten(name="flatten")(x)
    x = keras.layers.Dense(classes, name="fc", **_shared.he_normal(keras))(x)
    suffix = "_bn" if normalize else ""
    return keras.Model(image, x, name=f"vgg{depth}{suffix}")


def _pool(keras, x, stage):
    name = f"pool{stage}"
    last = stage == len(_FILTERS)
    sides = x.shape[1:3]
    if last and max(sides) > 3:  # 2x2 pooling would leave more than one pixel
        return keras.layers.GlobalAveragePooling2D(name=name)(x)
    if max(sides) == 1:
        return x
    window = tuple(min(2, side) for side in sides)
    if last:
        return keras.layers.AveragePooling2D(window, name=name)(x)
    return keras.layers.MaxPooling2D(window, name=name)(x)
