"""Runs one operation of a traced graph on other tensors."""

import functools
import inspect

import tensorflow as tf

from synflow_tf.graph import families
from synflow_tf.graph import keras_private


def call(node, tensors):
    """Runs the operation of a `values.Node` on a list of tensors.

    Floats may be of another dtype than in the model. Returns a flat list.
    """
    if node.type in families.GATHERS:  # A variable may come as its value.
        return [gather(node, *tensors)]
    arguments, inferred, waiting = {}, set(), list(tensors)
    attributes, definition = node.attributes, node.operation.op_def
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
    kind = node.operation.type
    function = keras_private.raw_operation(kind)
    outputs = function(**_as_parameters(kind, arguments))
    if outputs is None or isinstance(outputs, tf.Operation):
        return []
    if tf.is_tensor(outputs):
        return [outputs]
    return tf.nest.flatten(list(outputs))


def gather(node, table, indices, *axis):
    """Runs one of `families.GATHERS`."""
    if node.type.endswith("Nd"):
        return tf.gather_nd(table, indices)
    axis = int(axis[0]) if axis else 0
    dims = node.attributes.get("batch_dims", 0)
    return tf.gather(table, indices, axis=axis, batch_dims=dims)


def _as_parameters(kind, arguments):
    """Renames arguments to what `tf.raw_ops` calls them.

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
    """Returns the tensor of a `Const`."""
    return tf.constant(tf.make_ndarray(operation.get_attr("value")))


# An attribute of these says how wide the result is.
_OF_COMPLEX = {
    "Complex": tf.complex,
    "ComplexAbs": tf.abs,
    "Imag": tf.math.imag,
    "Real": tf.math.real,
}


def widened(node, tensors, dtype):
    """Runs an operation with its floats in another dtype; see `call`.

    Or in float32, where it has no kernel for that dtype.
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
