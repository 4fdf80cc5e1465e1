"""Runs one operation of a traced graph on other tensors."""

import functools
import inspect

import tensorflow as tf

from synflow_tf.graph import keras_private


def call(node, tensors):
    """Runs the operation of a node.

    Args:
        node: `values.Node` of an operation.
        tensors: list of tensors, its inputs; floats may be of another dtype
            than in the model.

    Returns:
        list of tensors, flat.
    """
    arguments = {}
    inferred = set()
    waiting = list(tensors)
    attributes = node.attributes
    definition = node.operation.op_def
    for argument in definition.input_arg:
        counts = {argument.number_attr, argument.type_list_attr} - {""}
        inferred |= counts | {argument.type_attr}
        if not counts:
            arguments[argument.name] = waiting.pop(0)
            continue
        count = attributes[counts.pop()]
        count = count if isinstance(count, int) else len(count)
        arguments[argument.name] = waiting[:count]
        waiting = waiting[count:]
    for attribute in definition.attr:
        if attribute.name not in inferred:
            arguments[attribute.name] = attributes[attribute.name]
    outputs = keras_private.raw_operation(node.operation.type)(
        **_as_parameters(node.operation.type, arguments)
    )
    if outputs is None or isinstance(outputs, tf.Operation):
        return []
    if tf.is_tensor(outputs):
        return [outputs]
    return tf.nest.flatten(list(outputs))


def _as_parameters(kind, arguments):
    """Arguments under the names that `tf.raw_ops` has for them.

    They differ for a few operations (Squeeze, Mean, Split), in order.
    """
    names = _parameters(kind)
    other = [name for name in arguments if name not in names]
    free = [name for name in names if name not in arguments]
    renamed = dict(zip(other, free, strict=False))
    return {renamed.get(k, k): value for k, value in arguments.items()}


@functools.cache
def _parameters(kind):
    parameters = inspect.signature(keras_private.raw_operation(kind)).parameters
    return [name for name in parameters if name != "name"]


def constant(operation):
    """The tensor of a `Const`."""
    return tf.constant(tf.make_ndarray(operation.get_attr("value")))


# An attribute of these says how wide the result is.
_OF_COMPLEX = {
    "Complex": tf.complex,
    "ComplexAbs": tf.abs,
    "Imag": tf.math.imag,
    "Real": tf.math.real,
}


def widened(node, tensors, dtype):
    """Runs an operation with its float inputs in a wider dtype.

    Args:
        node: see `call`.
        tensors: list of tensors.
        dtype: `tf.DType`, of the inputs and outputs that are floats. An
            operation that has no kernel for it runs in float32.

    Returns:
        list of tensors.
    """
    wide = [_as(x, dtype) for x in tensors]
    if node.type == "Cast" and node.outputs[0].dtype.is_floating:
        return wide
    if node.type in _OF_COMPLEX:
        return [_OF_COMPLEX[node.type](*wide)]
    if not keras_private.has_kernel(node.type, dtype):
        wide = [_as(x, tf.float32) for x in tensors]
    outputs = call(node, wide)
    return [_as(x, dtype) for x in outputs]


def _as(x, dtype):
    return tf.cast(x, dtype) if x.dtype.is_floating else x
