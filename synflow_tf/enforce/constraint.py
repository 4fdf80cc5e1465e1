"""Keeps removed weights at 0 while a model trains.

A mask that a callback applies between steps is not enough: Keras runs several
steps in one call. The optimizers of both Keras lines apply a variable's
constraint after every update, inside the step; the mask is one.
"""

import contextlib

import numpy as np
import tensorflow as tf

from synflow_tf.graph import keras_private
from synflow_tf.graph import variables


class MaskConstraint:
    """Sets a variable to 0 where its mask is 0, after its own constraint.

    Args:
        mask: variable of 1 and 0, of the shape and dtype of the other (a
            product takes half the time of a selection by bools, and an array
            would be copied into the traced step).
        inner: the constraint the variable has already, or None.
    """

    def __init__(self, mask, inner=None):
        self.mask = mask
        self.inner = inner

    def __call__(self, value):
        """Returns `value`, a tensor of the mask's shape, masked."""
        if self.inner is not None:
            value = self.inner(value)
        return select(self.mask, tf.convert_to_tensor(value))


def select(mask, value):
    """Returns `value` where a mask is True or 1, else 0, even where NaN."""
    return tf.math.multiply_no_nan(value, tf.cast(mask, value.dtype))


def zero(variable, mask):
    """Sets the removed entries of a Keras variable to 0, once."""
    variable.assign(select(mask, variables.value(variable)))


def hold(weight, mask):
    """Gives a weight the constraint that will hold it to `mask`.

    The mask of a pruning wrapper of tfmot around it is the one applied. No
    value of either changes before `set_mask`.

    Args:
        weight: a `variables.Weight`.
        mask: bool array of its shape.

    Returns:
        bool, whether the constraint is new: steps traced before lack it.
    """
    constraint, held = constraint_of(weight.variable), weight.wrapper_mask
    if constraint is not None and (held is None or held is constraint.mask):
        return False
    if held is None:
        strategy = variables.strategy_of(weight.variable)
        with strategy.scope() if strategy else contextlib.nullcontext():
            held = tf.cast(mask, weight.variable.dtype)
            held = tf.Variable(held, trainable=False)
    inner = variables.get_constraint(weight.variable)
    if constraint is not None:
        inner = constraint.inner
    held = MaskConstraint(held, inner)
    keras_private.set_constraint(weight.variable, held)
    return True


def set_mask(weight, mask):
    """Sets a weight's removed entries to 0, and the mask that it is held to."""
    zero(weight.variable, mask)
    _set(constraint_of(weight.variable).mask, mask)


def _set(held, mask):
    held.assign(tf.cast(mask, held.dtype))


def constraint_of(variable):
    """Returns the `MaskConstraint` of a variable, or None."""
    constraint = variables.get_constraint(variable)
    return constraint if isinstance(constraint, MaskConstraint) else None


def is_held(weight):
    """Returns whether a constraint holds a weight to a mask."""
    return constraint_of(weight.variable) is not None


def mask_of(weight):
    """Returns the mask that a weight is held to, a bool array, or None.

    By a constraint, or by a wrapper of tfmot.
    """
    constraint = constraint_of(weight.variable)
    held = weight.wrapper_mask if constraint is None else constraint.mask
    return None if held is None else variables.value(held).numpy() != 0


def alive(weight):
    """Returns the mask of a weight, all True if it has none."""
    mask = mask_of(weight)
    return np.ones(weight.shape, bool) if mask is None else mask


def release(weight):
    """Takes a weight's mask away, and gives it its own constraint back."""
    constraint = constraint_of(weight.variable)
    if constraint is not None:
        keras_private.set_constraint(weight.variable, constraint.inner)
    if weight.wrapper_mask is not None:
        _set(weight.wrapper_mask, tf.ones(weight.shape))
