"""Puts layers into tfmot's wrappers, which then hold masks of this library."""

import dataclasses
import warnings

import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras

from synflow_tf import enforce
from synflow_tf.graph import identity
from synflow_tf.graph import keras_private
from synflow_tf.graph import variables
from synflow_tf.graph import wrappers

# The step at which tfmot's own pruning, by magnitude, would begin: never.
NEVER = 2**31 - 1


def is_graph(layer):
    """Returns whether a layer is a model of which each layer can be wrapped."""
    if isinstance(layer, tf_keras.Sequential):
        return True
    is_model = isinstance(layer, tf_keras.Model)
    return is_model and keras_private.is_graph_network(layer)


def leaves(model):
    """The layers of a model, and of those in it, that are no models to open."""
    found = []
    for layer in model.layers:
        found += leaves(layer) if is_graph(layer) else [layer]
    return found


def check(model):
    """Raises if a wrapper of a model prunes by itself."""
    for wrapper in wrappers.within(model):
        if getattr(wrapper.pruning_schedule, "begin_step", 0) < NEVER:
            raise ValueError(
                "Argument `to_prune` must not be pruned by magnitude too. "
                f"Received: model {model.name!r}, whose layer {wrapper.name!r} "
                f"has the schedule {wrapper.pruning_schedule!r}. Take its "
                "wrappers off: `tfmot.sparsity.keras.strip_pruning(model)`."
            )


def wrap_model(model, masks):
    """Puts the layers of a model into wrappers, and enforces masks.

    Args:
        model: a functional or sequential model of tf_keras.
        masks: `Masks` of it.

    Returns:
        A model of the same layers; `model` itself if no layer is wrapped anew.
    """
    pruned = _ids(model, masks)
    schedule = _never(masks)
    made = identity.IdentityDict()

    def wrapped(layer):
        if layer not in made:
            made[layer] = (
                tf_keras.models.clone_model(layer, clone_function=wrapped)
                if is_graph(layer)
                else _wrap(layer, pruned, schedule)
            )
        return made[layer]

    if any(_can_hold(layer, pruned) for layer in leaves(model)):
        model = wrapped(model)
    around = wrappers.within(model)
    wrappers.name_apart(around)
    masks.enforce(model)
    _warn_of_others(model, masks, wrappers.masks(around))
    return model


def wrap_layers(layers, model, masks):
    """Puts single layers into wrappers, and enforces masks.

    Args:
        layers: list of layers of a model.
        model: the model.
        masks: `Masks` of weights of the layers.

    Returns:
        list like `layers`.
    """
    pruned = _ids(model, masks)
    schedule = _never(masks)
    result = [_build(_wrap(layer, pruned, schedule)) for layer in layers]
    around = list(filter(wrappers.is_wrapper, result))
    wrappers.name_apart(around)
    masks.enforce(model)
    held = wrappers.masks(around)
    within = [
        (dataclasses.replace(w, wrapper_mask=held[w.variable]), masks[w.path])
        for w in variables.weights(model)
        if w.variable in held and w.path in masks
    ]
    enforce.enforce_masks(model, within)
    _warn_of_others(model, masks, held)
    return result


def _ids(model, masks):
    """The variables that masks are of, an `IdentityDict` to their paths."""
    return identity.IdentityDict(
        (w.variable, w.path)
        for w in variables.weights(model)
        if w.path in masks
    )


def _never(masks):
    return tfmot.sparsity.keras.ConstantSparsity(masks.sparsity, NEVER)


def _wrap(layer, pruned, schedule):
    """A layer in a wrapper if it has weights to prune, else as it is."""
    if isinstance(layer, tf_keras.layers.InputLayer):  # in a list of layers
        return type(layer).from_config(layer.get_config())
    if not _can_hold(layer, pruned):
        return layer
    return tfmot.sparsity.keras.prune_low_magnitude(
        layer, schedule, dtype=layer.dtype_policy
    )


def _can_hold(layer, pruned):
    """Whether a new wrapper around a layer has a mask for a pruned weight.

    Args:
        layer: a layer.
        pruned: `IdentityDict` with the pruned variables as keys.
    """
    # Files with wrapped attention cannot be loaded by tfmot 0.8.1.
    attention = isinstance(layer, tf_keras.layers.MultiHeadAttention)
    if attention or wrappers.is_wrapper(layer):
        return False
    if hasattr(type(layer), "get_prunable_weights"):
        return any(v in pruned for v in layer.get_prunable_weights())
    registry = keras_private.of_tfmot(
        "sparsity.keras.prune_registry", "PruneRegistry"
    )
    if not registry.supports(layer):
        return False
    layer = registry.make_prunable(layer)
    return any(v in pruned for v in layer.get_prunable_weights())


def _build(layer):
    """Builds a wrapper around a layer that is built, outside of a model."""
    if wrappers.is_wrapper(layer) and not layer.built:
        with tf.name_scope(layer.name):
            layer.build(keras_private.build_input_shape(layer.layer))
    return layer


def _warn_of_others(model, masks, held):
    """Lists the weights with masks that no wrapper holds."""
    ids = _ids(model, masks)
    paths = [path for key, path in ids.items() if key not in held]
    if paths:
        some = ", ".join(map(repr, paths[:6]))
        warnings.warn(
            f"tfmot's wrappers do not hold {len(paths)} of the pruned weights "
            f"({some}{' ...' if paths[6:] else ''}). A constraint keeps what "
            "is removed of them at 0; files do not contain it. After loading "
            "one, call `synflow_tf.Masks.from_model(model).enforce(model)`.",
            stacklevel=4,
        )
