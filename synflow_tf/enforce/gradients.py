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
from synflow_tf.graph import lines

_AVERAGES = "_model_variables_moving_average"


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


def follow(model):
    """Masks gradients in the optimizers of a model, now and once compiled.

    Args:
        model: a Keras model of either line, of which masks are enforced.

    Returns:
        bool, whether it was not followed before.
    """
    new = "compile" not in vars(model)
    vars(model)["compile"] = types.MethodType(_compile, model)
    for optimizer in _optimizers(model):
        attach(optimizer, model.trainable_variables)
    return new


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
    for slot, mask in _slots(optimizer, variables, _is_gathered):
        constraint_lib.zero(slot, mask)


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
    grads = list(grads)
    if trainable_variables is not None:
        trainable_variables = list(trainable_variables)
    variables = trainable_variables or optimizer._trainable_variables
    if len(grads) == len(variables):  # else Keras says what is wrong
        grads = masked(grads, variables)
    type(optimizer).apply(optimizer, grads, trainable_variables)
    _mask_averages(optimizer, variables)


def _apply_gradients(optimizer, grads_and_vars, *args, **kwargs):
    """Of tf_keras."""
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
    slots = _slots(optimizer, variables, _AVERAGES.__eq__)

    def update(strategy):
        for slot, mask in slots:
            strategy.extended.update(
                getattr(slot, "_value", slot),  # of Keras 3
                lambda value, mask: value.assign(
                    constraint_lib.select(mask, tf.convert_to_tensor(value))
                ),
                args=(mask,),
            )

    context = tf.distribute.get_replica_context()
    if not slots or context is None:
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


def _methods(optimizer):
    """The methods to replace, a dict of name to function."""
    keras, tf_keras = lines.LINES
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
    """The optimizers in a model's attributes, also in lists and dicts."""
    keras, tf_keras = lines.LINES
    kinds = (
        keras.optimizers.Optimizer,
        tf_keras.optimizers.Optimizer,
        tf_keras.optimizers.legacy.Optimizer,
    )
    held = []
    for value in vars(model).values():
        if isinstance(value, dict):
            value = list(value.values())
        held += value if isinstance(value, (list, tuple)) else [value]
    return [value for value in held if isinstance(value, kinds)]


def _is_gathered(name):
    """Whether the entries of an optimizer's list may be set to 0."""
    # `_variables` has all of them in a row; Ftrl divides by accumulators.
    return name not in ("_variables", "_accumulators")


def _slots(optimizer, variables, wanted):
    """What an optimizer keeps for variables that have masks.

    Both lines keep it in lists, with an entry for each trainable variable.

    Args:
        optimizer: an optimizer, built or not.
        variables: Keras variables.
        wanted: function of the name of such a list -> bool.

    Returns:
        list of pairs: the entry, a variable of the same shape, and the mask.
    """
    parts = getattr(optimizer, "optimizers", None)  # keras' MultiOptimizer
    if hasattr(optimizer, "inner_optimizer"):
        parts = [optimizer.inner_optimizer]
    if parts is not None:
        return [x for part in parts for x in _slots(part, variables, wanted)]
    indices = getattr(optimizer, "_trainable_variables_indices", {})
    indices = getattr(optimizer, "_index_dict", indices)
    found = []
    for variable in variables:
        constraint = constraint_lib.constraint_of(variable)
        index = indices and indices.get(optimizer._var_key(variable))
        if constraint is None or not isinstance(index, int):
            continue
        for name, slots in vars(optimizer).items():
            if not isinstance(slots, list) or not wanted(name):
                continue
            slot = slots[index] if index < len(slots) else None
            if getattr(slot, "shape", None) == variable.shape:
                found.append((slot, constraint.mask))
    return found
