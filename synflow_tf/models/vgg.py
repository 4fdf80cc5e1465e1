"""VGG for small images: 3x3 convolutions in five stages, one dense layer.

Source: the authors' code, `lottery_vgg`, for Tanaka et al., arXiv 2006.05467
(after facebookresearch/open_lth). Every convolution has a bias, also in front
of BatchNormalization; kernels are He normal, not truncated, biases zero. Stages
1 to 4 end with 2x2 max pooling, stage 5 with 2x2 average pooling.

The kernels are "conv1", "conv2", ..., "fc". The classifier "fc" always has 512
inputs. From 32 to 63 pixels the network is the authors'. Smaller images, for
which theirs runs out of pixels, are not pooled any more along a side of one
pixel. Larger images, for which their classifier does not fit, end with global
average pooling.

>>> vgg11((8, 8, 1)).get_layer("fc").count_params()  # 513 * 10
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


def _pool(keras, x, stage):
    """Adds the pooling at the end of a stage, as far as there are pixels."""
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


def _vgg(name, depth, normalize):
    """Returns the function that builds a VGG of a depth."""

    def build(input_shape=(32, 32, 3), classes=10, keras=None):
        keras = _shared.resolve(keras)
        _shared.check_sizes(input_shape)
        image = x = keras.Input(input_shape, name="image")
        i = 0
        for stage, convolutions in enumerate(_CONVOLUTIONS[depth]):
            for _ in range(convolutions):
                i += 1
                settings = {"name": f"conv{i}", **_shared.he_normal(keras)}
                x = keras.layers.Conv2D(
                    _FILTERS[stage], 3, padding="same", **settings
                )(x)
                if normalize:
                    x = _shared.batch_normalization(keras, f"conv{i}_bn")(x)
                x = keras.layers.ReLU(name=f"conv{i}_relu")(x)
            x = _pool(keras, x, stage + 1)
        x = keras.layers.Flatten(name="flatten")(x)
        initializers = _shared.he_normal(keras)
        x = keras.layers.Dense(classes, name="fc", **initializers)(x)
        return keras.Model(image, x, name=name)

    build.__name__ = build.__qualname__ = name
    build.__doc__ = f"Builds {name}, see `synflow_tf.models`."
    return build


vgg11 = _vgg("vgg11", 11, normalize=False)
vgg13 = _vgg("vgg13", 13, normalize=False)
vgg16 = _vgg("vgg16", 16, normalize=False)
vgg19 = _vgg("vgg19", 19, normalize=False)
vgg11_bn = _vgg("vgg11_bn", 11, normalize=True)
vgg13_bn = _vgg("vgg13_bn", 13, normalize=True)
vgg16_bn = _vgg("vgg16_bn", 16, normalize=True)
vgg19_bn = _vgg("vgg19_bn", 19, normalize=True)
