"""Keeps removed weights at 0 while a model trains.

A mask that a callback applies between steps is not enough: Keras runs several
steps in one call. The optimizers of both Keras lines apply a variable's
constraint after every update, inside the step; the mask is one.
"""

import tensorflow as tf

from synflow_tf import variables


class MaskConstraint:
    """Sets a variable to 0 where its mask is 0, after its own constraint.

    Args:
        mask: bool array or tensor of the variable's shape.
        inner: the constraint the variable has already, or None.
    """

    def __init__(self, mask, inner=None):
        # A variable, because an array would be copied into the traced step.
        self.mask = tf.Variable(mask, trainable=False, dtype=tf.bool)
        self.inner = inner

    def __call__(self, value):
        """Returns `value`, a tensor of the mask's shape, masked."""
        if self.inner is not None:
            value = self.inner(value)
        value = tf.convert_to_tensor(value)
        return tf.where(self.mask, value, tf.zeros((), value.dtype))


def zero(variable, mask):
    """Sets the removed entries of a Keras variable to 0, once."""
    value = variables.value(variable)
    variable.assign(tf.where(mask, value, tf.zeros((), value.dtype)))


def enforce(variable, mask):
    """Sets the removed entries to 0 and keeps them so, under any optimizer."""
    zero(variable, mask)
    constraint = variables.get_constraint(variable)
    if isinstance(constraint, MaskConstraint):
        constraint.mask.assign(mask)
    else:
        constraint = MaskConstraint(mask, constraint)
        variables.set_constraint(variable, constraint)


def mask_of(variable):
    """The mask that `enforce` holds, a bool array, or None."""
    constraint = variables.get_constraint(variable)
    if isinstance(constraint, MaskConstraint):
        return constraint.mask.numpy()
    return None


def release(variable):
    """Ends `enforce`; nothing happens where there is none."""
    constraint = variables.get_constraint(variable)
    if isinstance(constraint, MaskConstraint):
        variables.set_constraint(variable, constraint.inner)
