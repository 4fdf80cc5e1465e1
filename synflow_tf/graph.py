"""Reads a Keras model, of either line, as one flat list of nodes.

Nested models are inlined, shared layers stay shared, pruning wrappers are left
out, and a layer whose `call` is the user's own is opened: what it does becomes
nodes as well (`tracing`).
Together with `calls`, `tracing`, `signatures`, `replacing` and `variables` this
is the room that knows how Keras stores a model.
"""

import dataclasses
import functools
import typing

import tensorflow as tf

from synflow_tf import _lines
from synflow_tf import calls as calls_lib
from synflow_tf import signatures
from synflow_tf import tracing
from synflow_tf import wrappers
from synflow_tf.calls import Slot as Slot


@dataclasses.dataclass(frozen=True, eq=False)
class Node:
    """One call of one layer.

    Attributes:
        layer: what is called: a layer, an operation, a
            `Read` or an `Opaque`.
        args: tuple, its positional arguments; a `Slot` stands for each
            tensor, at any depth of lists and dicts.
        kwargs: dict, its keyword arguments, likewise.
        outputs: list of `Slot`, flat.
        within: str, the name of the opened layer that calls it, or "".
    """

    layer: typing.Any
    args: tuple
    kwargs: dict
    outputs: list
    within: str = ""

    @functools.cached_property
    def inputs(self):
        """List of `Slot`, those among the arguments, flat."""
        flat = tf.nest.flatten((self.args, self.kwargs))
        return [x for x in flat if isinstance(x, Slot)]


@dataclasses.dataclass(frozen=True, eq=False)
class Read:
    """A node's layer: reads a weight that an opened layer computes with.

    Attributes:
        variable: the Keras variable, or a constant.
        name: str, the name of the layer that was opened.
    """

    variable: typing.Any
    name: str


@dataclasses.dataclass(frozen=True, eq=False)
class Opaque:
    """A node's layer: one that has no rule and could not be opened.

    Attributes:
        layer: the layer.
        reason: str, why not.
    """

    layer: typing.Any
    reason: str

    @property
    def name(self):
        """The layer's name."""
        return self.layer.name


@dataclasses.dataclass(frozen=True, eq=False)
class Graph:
    """A model as nodes in an order in which they can run.

    Attributes:
        model: the Keras model.
        line: its Keras line, the module `keras` or `tf_keras`.
        nodes: list of `Node`.
        inputs: list of `Slot`, flat, in the order of `model.inputs`; all
            sizes but the batch's are known.
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


def read(model, leaf=lambda layer: False, input_shape=None):
    """Reads a model as a graph.

    Args:
        model: a built model of Keras 3 or tf_keras.
        leaf: function of a layer, whether it is to stay one node.
        input_shape: None, or the shape of the input without the batch
            dimension; for several inputs a list of such, in the order of
            `model.inputs`. Needed where the model leaves a size open.

    Returns:
        `Graph`.

    Raises:
        TypeError: if `model` is not a Keras model, or a layer in it is of the
            other Keras line.
        ValueError: if `model` is not built, if a size is open or `input_shape`
            does not fit, or if it cannot be called on inputs of that shape.
    """
    line = _lines.line_of(model)
    check_built(model)
    args, kwargs = signatures.signature(model, line, input_shape)
    reader = _Reader(line, leaf)
    outputs = reader.read(model, args, kwargs)
    flat = tf.nest.flatten((args, kwargs))
    inputs = [x for x in flat if isinstance(x, Slot)]
    return Graph(model, line, reader.nodes, inputs, outputs)


def read_layer(layer, line, leaf, args, kwargs):
    """Reads one layer, without a rule of its own, as a graph.

    Args:
        layer: a built layer.
        line: its Keras line.
        leaf: see `read`.
        args: tuple, what it is called on; a `Slot` for each tensor.
        kwargs: dict, likewise.

    Returns:
        `Graph`.
    """
    reader = _Reader(line, leaf)
    outputs = reader.read(layer, args, kwargs)
    flat = tf.nest.flatten((args, kwargs))
    inputs = [x for x in flat if isinstance(x, Slot)]
    return Graph(layer, line, reader.nodes, inputs, outputs)


class _Reader:
    """Appends to `nodes` what layers do."""

    def __init__(self, line, leaf):
        self.nodes = []
        self._within = ""
        self._line = line
        self._leaf = leaf

    def read(self, layer, args, kwargs, symbolic=None):
        """Reads a call of a layer.

        Args:
            layer: the layer.
            args: tuple, with a `Slot` for each tensor.
            kwargs: dict, likewise.
            symbolic: list of the symbolic tensors that it returned when its
                model was built, if it was.

        Returns:
            list of `Slot`, what it returns, flat.
        """
        layer = wrappers.inside(layer)
        self._check_line(layer)
        if self._leaf(layer):
            if symbolic is None:
                symbolic = tracing.call(layer, self._line, args, kwargs)
            return self._append(layer, args, kwargs, symbolic)
        functional = calls_lib.as_functional(layer)
        if functional is not None:
            given = args[0] if args else kwargs["inputs"]
            given = _in_order_of_inputs(functional, given)
            sizes = [n for x in functional.inputs for n in x.shape[1:]]
            if None not in sizes:
                return self._inline(functional, given)
        return self._open(layer, args, kwargs, symbolic)

    def _append(self, layer, args, kwargs, symbolic):
        outputs = [calls_lib.slot_of(x) for x in symbolic]
        self.nodes.append(
            Node(layer, tuple(args), dict(kwargs), outputs, self._within)
        )
        return outputs

    def _inline(self, functional, inputs):
        """The nodes that a functional model has stored."""
        slots = dict(zip(map(id, functional.inputs), inputs, strict=True))
        self._replay(calls_lib.stored_calls(functional), slots)
        return [slots[id(x)] for x in functional.outputs]

    def _open(self, layer, args, kwargs, symbolic):
        """The nodes that come out of a layer's `call`."""
        try:
            trace = tracing.trace(layer, self._line, args, kwargs)
        except Exception as error:
            if symbolic is None:
                symbolic = tracing.call(layer, self._line, args, kwargs)
            opaque = Opaque(layer, f"{type(error).__name__}: {error}")
            return self._append(opaque, args, kwargs, symbolic)
        outside, self._within = self._within, layer.name
        slots = {id(tensor): slot for tensor, slot in trace.inputs}
        for tensor, value in trace.reads:
            read = Read(value, layer.name)
            [slots[id(tensor)]] = self._append(read, (), {}, [tensor])
        self._replay(trace.calls, slots)
        self._within = outside
        return [slots[id(x)] for x in trace.outputs]

    def _replay(self, calls, slots):
        """Reads calls in their order; `slots` goes by id of the tensors."""

        def fill_in(structure):
            return tf.nest.map_structure(
                lambda x: slots.get(id(x), x), structure
            )

        for call in calls:
            outputs = self.read(
                call.layer,
                fill_in(call.args),
                fill_in(call.kwargs),
                call.outputs,
            )
            ids = map(id, call.outputs)
            slots.update(zip(ids, outputs, strict=True))

    def _check_line(self, layer):
        for other in _lines.LINES:
            if other is not self._line and isinstance(
                layer, other.layers.Layer
            ):
                raise TypeError(
                    "Argument `model` must be of one Keras line throughout. "
                    f"Received: a {self._line.__name__} model with the "
                    f"{other.__name__} layer {layer.name!r}. Take the layer "
                    f"from `{self._line.__name__}.layers`."
                )


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
