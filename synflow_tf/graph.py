"""Reads a Keras model, of either line, as one flat list of nodes.

Nested models are inlined and shared layers stay shared. Together with
`variables` this is the room that knows how Keras stores a model.
"""

import dataclasses
import typing

import tensorflow as tf

from synflow_tf import _lines


@dataclasses.dataclass(frozen=True, eq=False)
class Slot:
    """Stands for the tensor that one node returns and others take.

    Attributes:
        shape: tuple of int or None, batch dimension first.
        dtype: str, what the model was built with.
    """

    shape: tuple
    dtype: str


@dataclasses.dataclass(frozen=True, eq=False)
class Node:
    """One call of one layer.

    Attributes:
        layer: the layer (or Keras 3 operation) that is called.
        args: tuple, its positional arguments; a `Slot` stands for each
            tensor, at any depth of lists and dicts.
        kwargs: dict, its keyword arguments, likewise.
        outputs: list of `Slot`, flat.
    """

    layer: typing.Any
    args: tuple
    kwargs: dict
    outputs: list


@dataclasses.dataclass(frozen=True, eq=False)
class Graph:
    """A model as nodes in an order in which they can run.

    Attributes:
        model: the Keras model.
        line: its Keras line, the module `keras` or `tf_keras`.
        nodes: list of `Node`.
        inputs: list of `Slot`, flat, in the order of `model.inputs`.
        outputs: list of `Slot`, flat, in the order of `model.outputs`.
    """

    model: typing.Any
    line: typing.Any
    nodes: list
    inputs: list
    outputs: list


def check_built(model):
    """Raises ValueError unless the model has its weights."""
    if not model.built:
        raise ValueError(
            "Argument `model` must be built: its weights do not exist yet. "
            f"Received: model={model.name!r}. Start it with an Input layer, "
            "or call `model.build(input_shape)` or the model on a batch."
        )


def read(model):
    """Reads a model as a graph.

    Args:
        model: a built functional or sequential model of Keras 3 or tf_keras.

    Returns:
        `Graph`.

    Raises:
        TypeError: if `model` is not a Keras model, or a layer in it is of the
            other Keras line.
        ValueError: if `model` is not built, or has no graph (a subclassed
            model).
    """
    line = _lines.line_of(model)
    check_built(model)
    functional = as_functional(model)
    if functional is None:
        raise ValueError(
            "Argument `model` must be a functional or sequential model with "
            f"known inputs. Received: model={model.name!r} (of type "
            f"{type(model).__name__}), whose layers are connected in Python "
            "only. Build it as `Model(inputs, outputs)`."
        )
    inputs = [_slot(x) for x in functional.inputs]
    nodes = []
    outputs = _inline(functional, inputs, nodes, line)
    return Graph(model, line, nodes, inputs, outputs)


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


def _slot(tensor):
    dtype = tensor.dtype
    return Slot(tuple(tensor.shape), getattr(dtype, "name", str(dtype)))


def _inline(functional, inputs, nodes, line):
    """Appends the nodes of a functional model.

    Args:
        functional: a functional model.
        inputs: list of `Slot`, what it is called on.
        nodes: list of `Node`, appended to in the order of execution.
        line: the Keras line that every layer must be of.

    Returns:
        list of `Slot`, what it returns, flat.
    """
    slots = {
        id(x): slot for x, slot in zip(functional.inputs, inputs, strict=True)
    }

    def fill_in(structure):
        return tf.nest.map_structure(lambda x: slots.get(id(x), x), structure)

    by_depth = functional._nodes_by_depth
    for depth in sorted(by_depth, reverse=True):
        for node in by_depth[depth]:
            if node.is_input:
                continue
            layer, args, kwargs = _call_of(node)
            _check_line(layer, line)
            args, kwargs = fill_in(args), fill_in(kwargs)
            symbolic = tf.nest.flatten(node.outputs)
            inner = as_functional(layer)
            if inner is None:
                outputs = [_slot(x) for x in symbolic]
                nodes.append(Node(layer, tuple(args), dict(kwargs), outputs))
            else:
                value = args[0] if args else kwargs["inputs"]
                value = _in_order_of_inputs(inner, value)
                outputs = _inline(inner, value, nodes, line)
            slots.update(zip(map(id, symbolic), outputs, strict=True))
    return [slots[id(x)] for x in functional.outputs]


def _call_of(node):
    """The layer that a Keras node calls, with its arguments."""
    if hasattr(node, "operation"):  # Keras 3
        return node.operation, node.arguments.args, node.arguments.kwargs
    return node.layer, node.call_args, node.call_kwargs


def _in_order_of_inputs(functional, value):
    """Flattens what a nested model is called on, in its inputs' order."""
    if not isinstance(value, dict):
        return tf.nest.flatten(value)
    struct = functional.input
    if isinstance(struct, dict):
        keys = {id(x): key for key, x in struct.items()}
    else:
        keys = {id(x): x.name for x in functional.inputs}
    return [value[keys[id(x)]] for x in functional.inputs]


def _check_line(layer, line):
    for other in _lines.LINES:
        if other is not line and isinstance(layer, other.layers.Layer):
            raise TypeError(
                "Argument `model` must be of one Keras line throughout. "
                f"Received: a {line.__name__} model with the "
                f"{other.__name__} layer {layer.name!r}. Take the layer from "
                f"`{line.__name__}.layers`."
            )
