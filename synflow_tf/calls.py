"""What Keras has stored about layers, and the calls of them in a model.

Part of the room that knows Keras internals.
"""

import dataclasses
import re
import typing

import tensorflow as tf

from synflow_tf import _lines


@dataclasses.dataclass(frozen=True, eq=False)
class Slot:
    """Stands for the tensor that one node returns and others take.

    Attributes:
        shape: tuple of int or None, batch dimension first.
        dtype: str, what the model was built with.
        name: str, of an input of the model.
    """

    shape: tuple
    dtype: str
    name: str = ""


@dataclasses.dataclass(frozen=True, eq=False)
class Call:
    """One call of a layer, on symbolic tensors.

    Attributes:
        layer: the layer, or operation.
        args: tuple.
        kwargs: dict.
        outputs: list of symbolic tensors, flat.
    """

    layer: typing.Any
    args: tuple
    kwargs: dict
    outputs: list


def slot_of(tensor, name=""):
    """The `Slot` for a symbolic tensor."""
    dtype = tensor.dtype
    dtype = getattr(dtype, "name", str(dtype))
    unknown = getattr(tensor.shape, "rank", 0) is None
    return Slot(() if unknown else tuple(tensor.shape), dtype, name)


def operation_name(layer):
    """The name of an operation, such as "true_divide".

    Args:
        layer: what a node calls.

    Returns:
        str, or None if `layer` is no operation: the class of a Keras 3
        operation in lower case, the last part of the TensorFlow symbol of an
        operation layer of tf_keras.
    """
    keras, tf_keras = _lines.LINES
    if isinstance(layer, keras.Operation):
        if isinstance(layer, keras.layers.Layer):
            return None
        return re.sub(
            r"(?<=[a-z0-9])(?=[A-Z])", "_", type(layer).__name__
        ).lower()
    if not isinstance(layer, tf_keras.layers.Layer):
        return None
    if type(layer).__name__ in ("TFOpLambda", "SlicingOpLambda"):
        symbol = layer.symbol or getattr(layer.function, "__name__", "unknown")
        return symbol.rpartition(".")[2]
    if type(layer).__name__ in ("ClassMethod", "InstanceMethod"):
        return getattr(layer, "method_name", None) or layer.attr_name
    return (
        layer.attr_name if type(layer).__name__ == "InstanceProperty" else None
    )


def as_functional(layer):
    """Returns the functional model that a layer is, or None.

    Args:
        layer: a layer of either line.

    Returns:
        The layer itself if it is a functional model, the functional model
        inside if it is a sequential one, None if it is no model or its graph
        is not known (also if it has a `call` of its own).
    """
    for cls in type(layer).__mro__:
        if cls.__name__ in ("Functional", "Sequential"):
            break
    else:
        return None
    if type(layer).call is not cls.call:
        return None
    # Keras 3 keeps a functional model in a sequential one; in tf_keras the
    # sequential model is a functional one once its input shape is known.
    functional = getattr(layer, "_functional", layer)
    return functional if getattr(functional, "_nodes_by_depth", None) else None


def stored_calls(functional):
    """The calls that a functional model consists of, in order."""
    by_depth = functional._nodes_by_depth
    return [
        call_of(node)
        for depth in sorted(by_depth, reverse=True)
        for node in by_depth[depth]
        if not node.is_input
    ]


def call_of(node):
    """A Keras node as a `Call`."""
    if hasattr(node, "operation"):  # Keras 3
        layer = node.operation
        args, kwargs = node.arguments.args, node.arguments.kwargs
    else:
        layer = node.layer
        args, kwargs = node.call_args, node.call_kwargs
    return Call(layer, args, kwargs, tensors_in(node.outputs))


def tensors_in(structure):
    """The symbolic tensors in a structure, a flat list."""
    return [
        x for x in tf.nest.flatten(structure) if hasattr(x, "_keras_history")
    ]
