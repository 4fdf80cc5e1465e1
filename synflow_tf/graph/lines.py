"""Tells the two Keras lines apart, Keras 3 and tf_keras.

An object's class says which line it is of, never the environment, and
`tf.keras` is never touched.
"""

import itertools

import keras
import tf_keras

from synflow_tf.graph import keras_private

LINES = (keras, tf_keras)


def line_of(model):
    """Returns the Keras line of a model: the module `keras` or `tf_keras`.

    Raises:
        TypeError: if `model` is not a model of either, or if Keras 3 does not
            run on TensorFlow.
    """
    for line in LINES:
        if isinstance(model, line.Model):
            break
    else:
        raise TypeError(
            "Argument `model` must be a `keras.Model` (Keras 3) or a "
            "`tf_keras.Model` (Keras 2). "
            f"Received: model={model!r} (of type {type(model)}). If this is a "
            "layer, wrap it: `keras.Sequential([keras.Input(shape), layer])`."
        )
    if line is keras and keras.backend.backend() != "tensorflow":
        raise TypeError(
            "Argument `model` must run on TensorFlow. Received: a Keras 3 "
            f"model on the backend {keras.backend.backend()!r}. Set "
            "KERAS_BACKEND=tensorflow before Keras is imported."
        )
    return line


def register_serializable(cls):
    """Makes a class loadable by the `load_model` of both Keras lines."""
    for line in LINES:
        line.saving.register_keras_serializable(package="synflow_tf")(cls)
    return cls


def registered_name(cls):
    """Returns the name under which a class was registered, or its own."""
    return keras.saving.get_registered_name(cls)


def check_one_line(model, line):
    """Raises TypeError if a layer in a model is of the other line."""
    (other,) = set(LINES) - {line}
    layers = [model, *keras_private.layers_within(model)]
    for held in itertools.chain(*(vars(layer).values() for layer in layers)):
        if isinstance(held, other.layers.Layer):
            raise TypeError(
                "Argument `model` must be of one Keras line throughout. "
                f"Received: a {line.__name__} model with the {other.__name__} "
                f"layer {held.name!r}. Take the layer from "
                f"`{line.__name__}.layers`."
            )


class NotBuilt(ValueError):
    """The error of a model that does not have all its weights yet."""

    def __init__(self, model):
        super().__init__(
            "Argument `model` must be built: its weights do not exist yet. "
            f"Received: model={model.name!r}. Start it with an Input layer, "
            "or call it on a batch."
        )


def check_built(model):
    """Raises ValueError unless the model has its weights."""
    if not model.built:
        raise NotBuilt(model)
