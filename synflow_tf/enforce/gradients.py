"""Keeps the gradients of removed weights out of an optimizer.

A constraint sets removed weights to 0 after an update. What the optimizer makes
of their gradients before that reaches the weights that are kept all the same:
norms that clip, averages, momentum. With the masks inside the forward pass,

    y = f(x; w * m),    dL/dw = m * dL/d(w * m)

those gradients are 0 (the authors' masked layers, Tanaka et al. 2020). Here
they are masked where they enter the optimizer. Neither Keras line has a public
hook there: the method that takes them is replaced on the one object.
"""

import types

import tensorflow as tf

from synflow_tf.enforce import constraint as constraint_lib
from synflow_tf.graph import identity
from synflow_tf.graph import keras_private
from synflow_tf.graph import lines

_KINDS = tuple(line.optimizers.Optimizer for line in lines.LINES)
_KINDS += (lines.LINES[1].optimizers.legacy.Optimizer,)


def masked(gradients, variables):
    """Sets the gradients of removed weights to 0.

    Each is a tensor, `tf.IndexedSlices` or None. The masks are those that are
    enforced on the variables at the moment of the call.
    """
    return [
        _masked(gradient, constraint_lib.constraint_of(variable))
        for gradient, variable in zip(gradients, variables, strict=True)
    ]


def _masked(gradient, constraint):
    if gradient is None or constraint is None:
        return gradient
    if isinstance(gradient, tf.IndexedSlices):
        rows = tf.gather(constraint.mask, gradient.indices)
        return tf.IndexedSlices(
            constraint_lib.select(rows, gradient.values),
            gradient.indices,
            gradient.dense_shape,
        )
    return constraint_lib.select(constraint.mask, gradient)


def check(optimizer):
    """Raises TypeError unless it is an optimizer or None."""
    if optimizer is not None and not isinstance(optimizer, _KINDS):
        raise TypeError(
            "Argument `optimizer` must be an optimizer of `keras` or "
            f"`tf_keras`. Received: optimizer={optimizer!r} (of type "
            f"{type(optimizer)})"
        )


def optimizers(model):
    """Lists the optimizers in a model's attributes, also in lists and dicts."""
    held = [getattr(model, "optimizer", None)]
    for value in vars(model).values():
        if isinstance(value, dict):
            value = list(value.values())
        held += value if isinstance(value, (list, tuple)) else [value]
    held = [value for value in held if isinstance(value, _KINDS)]
    return list(identity.IdentitySet(held))


def patch(thing):
    """Has an optimizer, or those a model is compiled with, mask gradients."""
    for name, method in _methods(thing).items():
        method = vars(thing)[name] = types.MethodType(method, thing)
        known = hasattr(type(thing), name)
        if not known or getattr(thing, name) is not method:
            raise keras_private.Incompatible(
                thing,
                f"does not let `{type(thing).__name__}.{name}` be replaced: "
                "gradients of removed weights would not be masked",
            )


def is_patched(thing):
    """Tells whether `patch` has replaced the methods of an object."""
    return _methods(thing).keys() <= vars(thing).keys()


def unpatch(thing):
    """Takes `patch` back."""
    for name in _methods(thing):
        vars(thing).pop(name, None)


def moments(optimizer, variables):
    """Lists pairs of what an optimizer has gathered of a variable, and a mask.

    Of the variables that have masks.
    """
    return _with_masks(keras_private.gathered, optimizer, variables)


def _with_masks(find, optimizer, variables):
    held = [v for v in variables if constraint_lib.constraint_of(v)]
    return [
        (found, constraint_lib.constraint_of(variable).mask)
        for variable, found in find(optimizer, held)
    ]


def _methods(thing):
    """Returns the methods to replace on an object, by name."""
    keras, tf_keras = lines.LINES
    if isinstance(thing, (keras.Model, tf_keras.Model)):
        return {"compile": _compile}
    if isinstance(thing, tf_keras.optimizers.legacy.Optimizer):
        return {"apply_gradients": _apply_gradients}
    finalize = {"finalize_variable_values": _finalize_variable_values}
    if isinstance(thing, keras.optimizers.Optimizer):
        return {"apply": _apply, **finalize}
    return {"apply_gradients": _apply_gradients, **finalize}


# A bound method of the object itself is what `copy` binds to the copy.
def _compile(model, *args, **kwargs):
    type(model).compile(model, *args, **kwargs)
    for optimizer in optimizers(model):
        patch(optimizer)
        for moment, mask in moments(optimizer, model.trainable_variables):
            constraint_lib.zero(moment, mask)


def _apply(optimizer, grads, trainable_variables=None):
    """Masks gradients in Keras 3, whose `apply_gradients` calls `apply`."""
    grads = list(grads)
    if trainable_variables is not None:
        trainable_variables = list(trainable_variables)
    variables = trainable_variables
    if not variables:
        variables = keras_private.trainable_variables(optimizer)
    if len(grads) == len(variables):  # else Keras says what is wrong
        grads = masked(grads, variables)
    type(optimizer).apply(optimizer, grads, trainable_variables)
    _mask_averages(optimizer, variables)


def _apply_gradients(optimizer, grads_and_vars, *args, **kwargs):
    """Masks gradients in tf_keras."""
    pairs = list(grads_and_vars)
    variables = [variable for _, variable in pairs]
    grads = masked([gradient for gradient, _ in pairs], variables)
    pairs = list(zip(grads, variables, strict=True))
    step = type(optimizer).apply_gradients(optimizer, pairs, *args, **kwargs)
    _mask_averages(optimizer, variables)
    return step


def _mask_averages(optimizer, variables):
    """Masks moving averages, which are taken before constraints apply.

    Most optimizers leave a weight of 0 whose gradient is 0; some do not.
    """
    averages = _with_masks(keras_private.averages, optimizer, variables)

    def update(strategy):
        for average, mask in averages:
            strategy.extended.update(
                keras_private.tf_variable(average),
                lambda value, mask: value.assign(
                    constraint_lib.select(mask, tf.convert_to_tensor(value))
                ),
                args=(mask,),
            )

    context = tf.distribute.get_replica_context()
    if not averages or context is None:
        update(tf.distribute.get_strategy())
    else:
        context.merge_call(update)


def _finalize_variable_values(optimizer, var_list):
    """Masks the averages that are written at the end of training."""
    type(optimizer).finalize_variable_values(optimizer, var_list)
    for variable in var_list:
        constraint = constraint_lib.constraint_of(variable)
        if constraint is not None:
            constraint_lib.zero(variable, constraint.mask)
