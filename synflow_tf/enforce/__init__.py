"""Keeps removed weights at 0 while a model trains."""

import contextlib

from synflow_tf.enforce import constraint
from synflow_tf.enforce import gradients
from synflow_tf.enforce import workers
from synflow_tf.graph import keras_private
from synflow_tf.graph import variables


def enforce_masks(model, pairs, optimizer=None):
    """Holds weights to masks, or raises and leaves the model as it was.

    Args:
        model: a built model of either Keras line.
        pairs: list of pairs of a `variables.Weight` of it and its mask.
        optimizer: an optimizer that trains the model in a loop, or None.
    """
    gradients.check(optimizer)
    workers.check_same(pairs)
    things = _patched(model, optimizer)
    with contextlib.ExitStack() as undo:
        # What may fail comes first. No value changes before all is set.
        new = not gradients.is_patched(model)
        for weight, mask in pairs:
            before = variables.get_constraint(weight.variable)
            undo.callback(keras_private.set_constraint, weight.variable, before)
            new |= constraint.hold(weight, mask)
        for thing in things:
            if not gradients.is_patched(thing):
                undo.callback(gradients.unpatch, thing)
            gradients.patch(thing)
        trained = model.trainable_variables
        moments = [m for o in things[1:] for m in gradients.moments(o, trained)]
        for weight, mask in pairs:
            constraint.set_mask(weight, mask)
        for moment, mask in moments:
            constraint.zero(moment, mask)
        if new:
            _forget_train_function(model)
        undo.pop_all()  # nothing to undo


def release_masks(model, pairs, optimizer=None):
    """Ends `enforce_masks`; see there for the arguments."""
    gradients.check(optimizer)
    for weight, _ in pairs:
        constraint.release(weight)
    if not any(map(constraint.is_held, variables.weights(model))):
        for thing in _patched(model, optimizer):
            gradients.unpatch(thing)
    _forget_train_function(model)


def _patched(model, optimizer):
    """Lists what is patched: the model first, then its optimizers."""
    given = [] if optimizer is None else [optimizer]
    return [model, *gradients.optimizers(model), *given]


def _forget_train_function(model):
    """Makes a compiled model trace its training step anew.

    The step that Keras has traced knows the constraints of that moment only.
    """
    if model.train_function is not None:
        model.make_train_function(force=True)
