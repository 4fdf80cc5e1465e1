"""Keeps removed weights at 0 while a model trains.

A mask that a callback applies between steps is not enough: Keras runs several
steps in one call. The optimizers of both Keras lines apply a variable's
constraint after every update, inside the step; the mask is one.
"""

import contextlib

import numpy as np
import tensorflow as tf

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
    """A tensor where its mask is True or 1, and 0 elsewhere, even of NaN."""
    return tf.math.multiply_no_nan(value, tf.cast(mask, value.dtype))


def zero(variable, mask):
    """Sets the removed entries of a Keras variable to 0, once."""
    variable.assign(select(mask, variables.value(variable)))


def enforce(weight, mask):
    """Sets the removed entries to 0 and keeps them so, under any optimizer.

    The mask of a pruning wrapper of tfmot around it is set as well: it is the
    one that the constraint applies.

    Args:
        weight: a `variables.Weight`.
        mask: bool array of its shape.

    Returns:
        bool, whether steps that have been traced before do not know of it.
    """
    variable, held = weight.variable, weight.wrapper_mask
    zero(variable, mask)
    constraint = constraint_of(variable)
    inner = variables.get_constraint(variable)
    if constraint is not None:
        if held is None or held is constraint.mask:
            _set(constraint.mask, mask)
            return False
        inner = constraint.inner
    if held is None:
        strategy = variables.strategy_of(variable)
        with strategy.scope() if strategy else contextlib.nullcontext():
            held = tf.Variable(tf.cast(mask, variable.dtype), trainable=False)
    else:
        _set(held, mask)
    variables.set_constraint(variable, MaskConstraint(held, inner))
    return True


def _set(held, mask):
    held.assign(tf.cast(mask, held.dtype))


def constraint_of(variable):
    """The `MaskConstraint` of a variable, or None."""
    constraint = variables.get_constraint(variable)
    return constraint if isinstance(constraint, MaskConstraint) else None


def is_enforced(weight):
    """Whether `enforce` holds a weight."""
    return constraint_of(weight.variable) is not None


def mask_of(weight):
    """The mask that a weight is held to, a bool array, or None.

    Args:
        weight: a `variables.Weight`, held by `enforce` or by a wrapper.
    """
    constraint = constraint_of(weight.variable)
    held = weight.wrapper_mask if constraint is None else constraint.mask
    return None if held is None else variables.value(held).numpy() != 0


def alive(weight):
    """What is not removed: the mask of a weight, all True if it has none.

    Args:
        weight: a `variables.Weight`.

    Returns:
        bool array of its shape.
    """
    mask = mask_of(weight)
    return np.ones(weight.shape, bool) if mask is None else mask


def release(weight):
    """Ends `enforce` of a weight; nothing happens where there is none."""
    constraint = constraint_of(weight.variable)
    if constraint is not None:
        variables.set_constraint(weight.variable, constraint.inner)
    if weight.wrapper_mask is not None:
        _set(weight.wrapper_mask, tf.ones(weight.shape))
