"""Puts something else where a layer has its weights, for a while.

Part of the room that knows Keras internals.
"""

import contextlib
import inspect
import re

import tensorflow as tf

from synflow_tf import _lines

# Where Keras lists a layer's weights, for itself.
_LISTS = re.compile(r"_(non_)?trainable_(variables|weights)|_self_.*|_tracker")


@contextlib.contextmanager
def replaced_weights(layer, replacement):
    """Replaces the float weights in a layer's own attributes for a while.

    Args:
        layer: a layer; not the layers within it.
        replacement: function of a variable, what to put in its place.
    """
    attributes = vars(layer)
    before = {}
    weights = {id(variable) for variable in layer.weights}

    def replace(value):
        if id(value) in weights and tf.as_dtype(value.dtype).is_floating:
            return replacement(value)
        if isinstance(value, (list, tuple)):
            return [replace(x) for x in value]
        if isinstance(value, dict):
            return {key: replace(x) for key, x in value.items()}
        return value

    def holds_weight(value):
        if isinstance(value, dict):
            value = list(value.values())
        if isinstance(value, (list, tuple)):
            return any(holds_weight(x) for x in value)
        return id(value) in weights

    try:
        for name, value in list(attributes.items()):
            if not _LISTS.fullmatch(name) and holds_weight(value):
                before[name] = value
                attributes[name] = replace(value)
        yield
    finally:
        attributes.update(before)


@contextlib.contextmanager
def losses_kept(layers):
    """Lets Keras 3 layers be called without adding or forgetting losses.

    There a layer cannot add one that is symbolic, and any call forgets those
    of the call before.

    Args:
        layers: list of layers, of either line.
    """
    layers = [x for x in layers if isinstance(x, _lines.LINES[0].layers.Layer)]
    before = [(x, vars(x).get("add_loss"), list(x._losses)) for x in layers]
    try:
        for layer in layers:
            vars(layer)["add_loss"] = lambda loss: None
        yield
    finally:
        for layer, own, losses in before:
            vars(layer).pop("add_loss")
            if own is not None:
                vars(layer)["add_loss"] = own
            if len(layer._losses) != len(losses):
                layer._losses[:] = losses


def call_with(layer, replacement, args, kwargs):
    """Calls a layer with tensors in the place of its weights.

    Args:
        layer: a built layer; its weights are not touched.
        replacement: function of a float variable, the tensor to use for it.
        args: tuple, with tensors.
        kwargs: dict, likewise.

    Returns:
        What it returns.
    """
    if "training" in inspect.signature(layer.call).parameters:
        kwargs = {**kwargs, "training": False}
    keras = _lines.LINES[0]
    if isinstance(layer, keras.layers.Layer):
        pairs = [
            (variable, replacement(variable))
            for variable in layer.weights
            if tf.as_dtype(variable.dtype).is_floating
        ]
        subs = list(layer._flatten_layers(include_self=True, recursive=True))
        with losses_kept(subs), keras.StatelessScope(state_mapping=pairs):
            return layer.call(*args, **kwargs)
    known = {}

    def tensor(variable):
        if id(variable) not in known:
            known[id(variable)] = replacement(variable)
        return known[id(variable)]

    with contextlib.ExitStack() as stack:
        subs = layer._flatten_layers(include_self=True, recursive=True)
        for sub in list(subs):
            stack.enter_context(replaced_weights(sub, tensor))
        return layer.call(*args, **kwargs)
