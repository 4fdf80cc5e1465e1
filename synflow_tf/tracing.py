"""What Keras does when a layer is called: the calls of layers within it.

A functional model has them stored. Any other layer is called on symbolic
inputs, with symbolic inputs in the place of its own weights, and the calls are
read off what comes out. Part of the room that knows Keras internals.
"""

import collections
import contextlib
import dataclasses
import inspect
import re
import typing

import tensorflow as tf

from synflow_tf import _lines
from synflow_tf import replacing


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


@dataclasses.dataclass(frozen=True, eq=False)
class Trace:
    """What a layer does, on symbolic tensors.

    Attributes:
        slots: dict of id of symbolic tensor to `Slot`, its inputs.
        reads: list of (symbolic tensor, variable or constant).
        calls: list of `Call`, in an order in which they can run.
        outputs: list of symbolic tensors, flat.
    """

    slots: dict
    reads: list
    calls: list
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
        _call_of(node)
        for depth in sorted(by_depth, reverse=True)
        for node in by_depth[depth]
        if not node.is_input
    ]


def _call_of(node):
    """A Keras node as a `Call`."""
    if hasattr(node, "operation"):  # Keras 3
        layer = node.operation
        args, kwargs = node.arguments.args, node.arguments.kwargs
    else:
        layer = node.layer
        args, kwargs = node.call_args, node.call_kwargs
    return Call(layer, args, kwargs, _tensors(node.outputs))


def trace(layer, line, args, kwargs):
    """Calls a layer on symbolic inputs and reads off what it does.

    Args:
        layer: a built layer of either line; it is left as it was.
        line: its Keras line.
        args: tuple, with a `Slot` for each tensor.
        kwargs: dict, likewise.

    Returns:
        `Trace`.

    Raises:
        Exception: whatever the layer's `call` raises on symbolic tensors.
    """
    symbols, args, kwargs = _symbols(layer, line, args, kwargs)
    with _left_as_it_was(layer, line), _symbolic_weights(layer, line) as reads:
        outputs = []
        for x in tf.nest.flatten(layer.call(*args, **kwargs)):
            if x is None:
                continue
            if not hasattr(x, "_keras_history"):
                constant, x = x, _input(line, tuple(x.shape), x.dtype)
                reads.append((x, constant))
            outputs.append(x)
        calls = _calls_before(outputs)
    used = {id(x) for x in outputs}
    for a_call in calls:
        used.update(map(id, tf.nest.flatten((a_call.args, a_call.kwargs))))
    reads = [(x, variable) for x, variable in reads if id(x) in used]
    # The pairs keep the tensors alive, whose ids are the keys.
    slots = _Slots((id(x), slot) for x, slot in symbols)
    slots.tensors = [x for x, _ in symbols]
    return Trace(slots, reads, calls, outputs)


class _Slots(dict):
    """A dict with an attribute for the tensors that its keys are ids of."""


def call(layer, line, args, kwargs):
    """Calls a layer as one, on symbolic inputs.

    Args:
        layer: a built layer.
        line: its Keras line.
        args: tuple, with a `Slot` for each tensor.
        kwargs: dict, likewise.

    Returns:
        list of symbolic tensors, what it returns, flat.

    Raises:
        ValueError: if it cannot be called so.
    """
    _, args, kwargs = _symbols(layer, line, args, kwargs)
    try:
        with _left_as_it_was(layer, line):
            return _tensors(layer(*args, **kwargs))
    except Exception as error:
        raise ValueError(
            "Argument `model` must be callable on inputs of shape "
            f"{[x.shape for x in _tensors((args, kwargs))]}. Received: "
            f"model={layer.name!r} (of type {type(layer).__name__}), which "
            f"failed: {error}. Give the right sizes as `input_shape=`, or "
            "build it as `Model(inputs, outputs)`."
        ) from error


def _symbols(layer, line, args, kwargs):
    """Symbolic tensors in the place of slots, and for inference."""
    symbols = []

    def stand_in(x):
        if not isinstance(x, Slot):
            return x
        shape = tuple(x.shape)
        if shape and shape[0] is None:
            shape = (1, *shape[1:])
        tensor = _input(line, shape, x.dtype)
        symbols.append((tensor, x))
        return tensor

    args = tf.nest.map_structure(stand_in, tuple(args))
    kwargs = {
        key: tf.nest.map_structure(stand_in, value)
        for key, value in kwargs.items()
        if key not in ("training", "mask")
    }
    if "training" in inspect.signature(layer.call).parameters:
        kwargs["training"] = False
    return symbols, args, kwargs


class _Sliceable(_lines.LINES[0].KerasTensor):
    """A symbolic tensor that takes `x[:3]`; Keras 3 wants a tuple there."""

    def __getitem__(self, key):
        key = key if isinstance(key, (tuple, list)) else (key,)
        return super().__getitem__(key)


def _input(line, shape, dtype):
    """A symbolic tensor."""
    tensor = line.Input(batch_shape=shape, dtype=dtype, name="synflow")
    if line is _lines.LINES[0]:
        tensor.__class__ = _Sliceable
    return tensor


def _tensors(structure):
    return [
        x for x in tf.nest.flatten(structure) if hasattr(x, "_keras_history")
    ]


def _calls_before(outputs):
    """The calls that symbolic tensors come from, in order."""
    calls = {}
    waiting = list(reversed(outputs))
    while waiting:
        tensor = waiting[-1]
        history = tensor._keras_history
        node = history[0]._inbound_nodes[history[1]]
        if id(node) in calls or node.is_input:
            waiting.pop()
            continue
        this = _call_of(node)
        missing = []
        for x in _tensors((this.args, this.kwargs)):
            operation, index = x._keras_history[:2]
            before = operation._inbound_nodes[index]
            if not before.is_input and id(before) not in calls:
                missing.append(x)
        if missing:
            waiting.extend(reversed(missing))
        else:
            calls[id(node)] = this
    return list(calls.values())


@contextlib.contextmanager
def _left_as_it_was(layer, line):
    """Forgets what Keras notes when it calls layers symbolically.

    The calls and losses, in the layer and those within it, and the names that
    it makes up: the user's next layer is named as if nothing had happened.
    """
    lists = []
    subs = list(layer._flatten_layers(include_self=True, recursive=True))
    for sub in subs:
        for name in ("_inbound_nodes", "_outbound_nodes"):
            nodes = getattr(sub, name, None)
            if isinstance(nodes, list):
                lists.append((nodes, len(nodes)))
    counts = _name_counts(line)
    before = dict(counts)
    try:
        with replacing.losses_kept(subs):
            yield
    finally:
        for nodes, length in lists:
            del nodes[length:]
        counts.clear()
        counts.update(before)


def _name_counts(line):
    """How often Keras has used each name, a dict that it goes on with."""
    try:
        if line is _lines.LINES[0]:
            from keras.src.backend.common import global_state

            return global_state.get_global_attribute(
                "object_name_uids",
                default=collections.defaultdict(int),
                set_to_default=True,
            )
        from tf_keras.src import backend

        return backend.get_default_graph_uid_map()
    except (AttributeError, ImportError):  # private, so it may move
        return {}


@contextlib.contextmanager
def _symbolic_weights(layer, line):
    """Puts symbolic tensors where a layer has its own weights.

    So that what it computes from a weight alone, a transpose or a sum, is seen
    as well. Yields a list of (symbolic tensor, variable).
    """
    reads = []
    known = {}

    def stand_in(variable):
        if id(variable) not in known:
            dtype = tf.as_dtype(variable.dtype).name
            tensor = _input(line, tuple(variable.shape), dtype)
            known[id(variable)] = tensor
            reads.append((tensor, variable))
        return known[id(variable)]

    with replacing.replaced_weights(layer, stand_in):
        yield reads
