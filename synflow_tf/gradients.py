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

from synflow_tf import _lines
from synflow_tf import enforcement


def masked(gradients, variables):
    """Sets the gradients of removed weights to 0.

    Args:
        gradients: list of tensors, `tf.IndexedSlices` or None.
        variables: list of the Keras variables they are of; the masks are those
            enforced on them at the moment of the call.

    Returns:
        list like `gradients`.
    """
    return [
        _masked(gradient, enforcement.constraint_of(variable))
        for gradient, variable in zip(gradients, variables, strict=True)
    ]


def _masked(gradient, constraint):
    if gradient is None or constraint is None:
        return gradient
    if isinstance(gradient, tf.IndexedSlices):
        rows = tf.gather(constraint.mask, gradient.indices)
        return tf.IndexedSlices(
            enforcement.select(rows, gradient.values),
            gradient.indices,
            gradient.dense_shape,
        )
    return enforcement.select(constraint.mask, gradient)


def follow(model):
    """Masks gradients in the optimizers of a model, now and once compiled.

    Args:
        model: a Keras model of either line, of which masks are enforced.
    """
    vars(model)["compile"] = types.MethodType(_compile, model)
    for optimizer in _optimizers(model):
        attach(optimizer, model.trainable_variables)


def unfollow(model):
    """Ends `follow`."""
    vars(model).pop("compile", None)
    for optimizer in _optimizers(model):
        detach(optimizer)


def attach(optimizer, variables):
    """Masks the gradients that an optimizer is given, from now on.

    Args:
        optimizer: an optimizer of either Keras line.
        variables: the Keras variables it trains. What it has gathered about
            their removed weights (momentum, averages) is set to 0.

    Raises:
        TypeError: if it is none.
    """
    for name, method in _methods(optimizer).items():
        vars(optimizer)[name] = types.MethodType(method, optimizer)
    _forget_removed(optimizer, variables)


def check_optimizer(optimizer):
    """Raises TypeError unless it is an optimizer or None."""
    if optimizer is not None:
        _methods(optimizer)


def detach(optimizer):
    """Ends `attach`."""
    for name in _methods(optimizer):
        vars(optimizer).pop(name, None)


# A bound method of the object itself is what `copy` binds to the copy.
def _compile(model, *args, **kwargs):
    type(model).compile(model, *args, **kwargs)
    follow(model)


def _apply(optimizer, grads, trainable_variables=None):
    """Of Keras 3: what its `apply_gradients` calls."""
    variables = trainable_variables
    if variables is None:
        variables = optimizer._trainable_variables
    else:
        variables = trainable_variables = list(variables)
    return type(optimizer).apply(
        optimizer, masked(grads, variables), trainable_variables
    )


def _apply_gradients(optimizer, grads_and_vars, *args, **kwargs):
    """Of tf_keras."""
    gradients, variables = zip(*grads_and_vars, strict=True)
    pairs = zip(masked(gradients, variables), variables, strict=True)
    return type(optimizer).apply_gradients(
        optimizer, list(pairs), *args, **kwargs
    )


def _finalize_variable_values(optimizer, var_list):
    """Masks the averages that are written at the end of training."""
    type(optimizer).finalize_variable_values(optimizer, var_list)
    for variable in var_list:
        constraint = enforcement.constraint_of(variable)
        if constraint is not None:
            enforcement.zero(variable, constraint.mask)


def _methods(optimizer):
    """The methods to replace, a dict of name to function."""
    keras, tf_keras = _lines.LINES
    if isinstance(optimizer, keras.optimizers.Optimizer):
        return {
            "apply": _apply,
            "finalize_variable_values": _finalize_variable_values,
        }
    if isinstance(optimizer, tf_keras.optimizers.Optimizer):
        return {
            "apply_gradients": _apply_gradients,
            "finalize_variable_values": _finalize_variable_values,
        }
    if isinstance(optimizer, tf_keras.optimizers.legacy.Optimizer):
        return {"apply_gradients": _apply_gradients}
    raise TypeError(
        "Argument `optimizer` must be an optimizer of `keras` or `tf_keras`. "
        f"Received: optimizer={optimizer!r} (of type {type(optimizer)})"
    )


def _optimizers(model):
    keras, tf_keras = _lines.LINES
    kinds = (
        keras.optimizers.Optimizer,
        tf_keras.optimizers.Optimizer,
        tf_keras.optimizers.legacy.Optimizer,
    )
    return [value for value in vars(model).values() if isinstance(value, kinds)]


def _forget_removed(optimizer, variables):
    """Sets what a built optimizer has gathered about removed weights to 0.

    Both lines keep it in lists, with an entry for each trainable variable.
    """
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    indices = getattr(optimizer, "_trainable_variables_indices", {})
    indices = getattr(optimizer, "_index_dict", indices)
    lists = [x for x in vars(optimizer).values() if isinstance(x, list)]
    for variable in variables:
        constraint = enforcement.constraint_of(variable)
        index = indices and indices.get(optimizer._var_key(variable))
        if constraint is None or not isinstance(index, int):
            continue
        for slots in lists:
            slot = slots[index] if index < len(slots) else None
            if getattr(slot, "shape", None) == variable.shape:
                enforcement.zero(slot, constraint.mask)
