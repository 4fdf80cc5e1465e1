"""Holds what the networks share: Keras line, checks, settings of layers."""

import importlib
import numbers
import sys


def resolve(keras):
    """Returns the module `keras` or `tf_keras`; None stands for `keras`.

    Anything else is a ValueError, a name or `tf.keras` included: what those
    stand for depends on the environment.
    """
    if keras is None:
        return importlib.import_module("keras")
    for name in ("keras", "tf_keras"):
        if keras is sys.modules.get(name):
            return keras
    raise ValueError(
        "Argument `keras` must be the module `keras` or the module "
        f"`tf_keras`. Received: keras={keras!r}. Import one of the two and "
        "pass the module itself, or leave the argument out for Keras 3."
    )


def check_sizes(input_shape):
    """Raises ValueError unless all sizes of an input are positive integers."""
    if not all(isinstance(n, numbers.Integral) and n > 0 for n in input_shape):
        raise ValueError(
            "Argument `input_shape` must be positive integers, because the "
            "classifier of this network has a fixed number of inputs. "
            f"Received: input_shape={input_shape}. Give every size, or use a "
            "ResNet, which takes None for height and width."
        )


def he_normal(keras):
    """Returns initializers: He normal kernel, zero bias (authors' VGG, ResNet).

    The `he_normal` of Keras is cut off at two standard deviations, PyTorch's
    `kaiming_normal_` is not; the largest weights matter to a pruner. Call it
    once per layer: an initializer repeats its values when it is used twice.
    """
    return {
        "kernel_initializer": keras.initializers.VarianceScaling(
            scale=2.0, mode="fan_in", distribution="untruncated_normal"
        ),
        "bias_initializer": "zeros",
    }


def fan_in_uniform(keras, fan_in):
    """Returns initializers: kernel and bias uniform within 1 / sqrt(fan_in).

    This is PyTorch's default for Linear and Conv2d, which the authors' fc and
    conv keep. Call it once per layer, as `he_normal`.
    """
    limit = fan_in**-0.5
    uniform = keras.initializers.RandomUniform
    return {
        "kernel_initializer": uniform(-limit, limit),
        "bias_initializer": uniform(-limit, limit),
    }


def batch_normalization(keras, name):
    """Returns a BatchNormalization layer with PyTorch's defaults.

    PyTorch's momentum of 0.1 weighs the new batch, that of Keras the past: 0.9.
    """
    return keras.layers.BatchNormalization(
        momentum=0.9, epsilon=1e-5, name=name
    )
