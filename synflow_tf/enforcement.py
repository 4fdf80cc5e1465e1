"""Keeps removed weights at 0 while a model trains.

A mask that a callback applies between steps is not enough: Keras runs several
steps in one call. The optimizers of both Keras lines apply a variable's
constraint after every update, inside the step; the mask is one.
"""

import contextlib

import tensorflow as tf

from synflow_tf import variables


class MaskConstraint:
    """Sets a variable to 0 where its mask is 0, after its own constraint.

    Args:
        mask: bool array of the variable's shape.
        dtype: the dtype of the variable. The mask is held in it, as 1 and 0: a
            product takes half the time of a selection by bools.
        inner: the constraint the variable has already, or None.
    """

    def __init__(self, mask, dtype, inner=None):
        # A variable, because an array would be copied into the traced step.
        self.mask = tf.Variable(tf.cast(mask, dtype), trainable=False)
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


def enforce(variable, mask):
    """Sets the removed entries to 0 and keeps them so, under any optimizer.

    Args:
        variable: a Keras variable.
        mask: bool array of its shape.

    Returns:
        bool, whether steps that have been traced before do not know of it.
    """
    zero(variable, mask)
    constraint = constraint_of(variable)
    if constraint is not None:
        constraint.mask.assign(tf.cast(mask, variable.dtype))
        return False
    inner = variables.get_constraint(variable)
    strategy = variables.strategy_of(variable)
    with strategy.scope() if strategy else contextlib.nullcontext():
        constraint = MaskConstraint(mask, variable.dtype, inner)
    variables.set_constraint(variable, constraint)
    return True


def constraint_of(variable):
    """The `MaskConstraint` of a variable, or None."""
    constraint = variables.get_constraint(variable)
    return constraint if isinstance(constraint, MaskConstraint) else None


def mask_of(variable):
    """The mask that `enforce` holds, a bool array, or None."""
    constraint = constraint_of(variable)
    return None if constraint is None else constraint.mask.numpy().astype(bool)


def release(variable):
    """Ends `enforce`; nothing happens where there is none."""
    constraint = constraint_of(variable)
    if constraint is not None:
        variables.set_constraint(variable, constraint.inner)
