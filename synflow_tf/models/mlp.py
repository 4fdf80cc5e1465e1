"""The two small networks without normalization: fc and conv.

Source: the authors' code, `mlp`, for Tanaka et al., arXiv 2006.05467. Both
keep PyTorch's default initialization: weights and biases, which are therefore
not zero, are uniform within 1 / sqrt(fan_in).
"""

from synflow_tf.models import _shared

_UNITS = 100
_HIDDEN = 5
_FILTERS = 32
_CONVOLUTIONS = 2


def fc(input_shape=(28, 28, 1), classes=10, keras=None):
    """Builds the dense network: "fc1" to "fc6", 100 hidden units, ReLU."""
    keras = _shared.resolve(keras)
    _shared.check_sizes(input_shape)
    image = keras.Input(input_shape, name="image")
    x = keras.layers.Flatten(name="flatten")(image)
    for i in range(1, _HIDDEN + 1):
        x = _dense(keras, x, _UNITS, f"fc{i}")
        x = keras.layers.ReLU(name=f"fc{i}_relu")(x)
    x = _dense(keras, x, classes, f"fc{_HIDDEN + 1}")
    return keras.Model(image, x, name="fc")


def conv(input_shape=(28, 28, 1), classes=10, keras=None):
    """Builds the convolutional one: "conv1", "conv2" (32 filters), "fc"."""
    keras = _shared.resolve(keras)
    _shared.check_sizes(input_shape)
    image = x = keras.Input(input_shape, name="image")
    for i in range(1, _CONVOLUTIONS + 1):
        initializers = _shared.fan_in_uniform(keras, 9 * x.shape[-1])
        x = keras.layers.Conv2D(
            _FILTERS, 3, padding="same", name=f"conv{i}", **initializers
        )(x)
        x = keras.layers.ReLU(name=f"conv{i}_relu")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    x = _dense(keras, x, classes, "fc")
    return keras.Model(image, x, name="conv")


def _dense(keras, x, units, name):
    initializers = _shared.fan_in_uniform(keras, x.shape[-1])
    return keras.layers.Dense(units, name=name, **initializers)(x)
