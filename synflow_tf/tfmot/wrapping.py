"""Puts layers into tfmot's wrappers, which then hold masks of this library."""

import dataclasses

import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras

from synflow_tf import enforce
from synflow_tf import findings
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
    """Lists the layers of a model and of graphs in it, without those graphs."""
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
    """Puts the layers of a model into wrappers, and enforces its masks.

    Returns a model of the same layers; `model` if no layer is wrapped anew.
    """
    pruned = _paths(model, masks)
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
    """Puts layers of a model into wrappers, and enforces masks of theirs."""
    pruned = _paths(model, masks)
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


def _paths(model, masks):
    """Returns the paths of masks, an `IdentityDict` by variable."""
    found = [w for w in variables.weights(model) if w.path in masks]
    return identity.IdentityDict((w.variable, w.path) for w in found)


def _never(masks):
    return tfmot.sparsity.keras.ConstantSparsity(masks.sparsity, NEVER)


def _wrap(layer, pruned, schedule):
    """Returns a layer in a wrapper if it has weights to prune, or as it is."""
    if isinstance(layer, tf_keras.layers.InputLayer):  # in a list of layers
        return type(layer).from_config(layer.get_config())
    if not _can_hold(layer, pruned):
        return layer
    return tfmot.sparsity.keras.prune_low_magnitude(
        layer, schedule, dtype=layer.dtype_policy
    )


def _can_hold(layer, pruned):
    """Returns whether a new wrapper of a layer would mask `pruned` weights."""
    # Files with wrapped attention cannot be loaded by tfmot 0.8.1.
    attention = isinstance(layer, tf_keras.layers.MultiHeadAttention)
    if attention or wrappers.is_wrapper(layer):
        return False
    if hasattr(type(layer), "get_prunable_weights"):
        return any(v in pruned for v in layer.get_prunable_weights())
    module = "sparsity.keras.prune_registry"
    registry = keras_private.of_tfmot(module, "PruneRegistry")
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
    """Warns of weights with masks that no wrapper holds."""
    paths = _paths(model, masks).items()
    paths = [path for variable, path in paths if variable not in held]
    if paths:
        findings.warn_user(
            f"tfmot's wrappers do not hold {len(paths)} of the pruned weights "
            f"({findings.listed(map(repr, paths))}). A constraint keeps what "
            "is removed of them at 0; files do not contain it. After loading "
            "one, call `synflow_tf.Masks.from_model(model).enforce(model)`."
        )
