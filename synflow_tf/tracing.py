"""What Keras does when a layer is called: the calls of layers within it.

A functional model has them stored. Any other layer is called on symbolic
inputs, with symbolic inputs in the place of its own weights, and the calls are
read off what comes out. Part of the room that knows Keras internals.
"""

import collections
import contextlib
import dataclasses
import inspect

import tensorflow as tf

from synflow_tf import _lines
from synflow_tf import calls as calls_lib
from synflow_tf import replacing


@dataclasses.dataclass(frozen=True, eq=False)
class Trace:
    """What a layer does, on symbolic tensors.

    Attributes:
        inputs: list of (symbolic tensor, `Slot`).
        reads: list of (symbolic tensor, variable or constant).
        calls: list of `Call`, in an order in which they can run.
        outputs: list of symbolic tensors, flat.
    """

    inputs: list
    reads: list
    calls: list
    outputs: list


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
    return Trace(symbols, reads, calls, outputs)


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
            return calls_lib.tensors_in(layer(*args, **kwargs))
    except Exception as error:
        shapes = [x.shape for x in calls_lib.tensors_in((args, kwargs))]
        raise ValueError(
            "Argument `model` must be callable on inputs of shape "
            f"{shapes}. Received: "
            f"model={layer.name!r} (of type {type(layer).__name__}), which "
            f"failed: {error}. Give the right sizes as `input_shape=`, or "
            "build it as `Model(inputs, outputs)`."
        ) from error


def _symbols(layer, line, args, kwargs):
    """Symbolic tensors in the place of slots, and for inference."""
    symbols = []

    def stand_in(x):
        if not isinstance(x, calls_lib.Slot):
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
        this = calls_lib.call_of(node)
        missing = []
        for x in calls_lib.tensors_in((this.args, this.kwargs)):
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
