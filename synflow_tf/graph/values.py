"""Holds what a graph is made of: values of four kinds, and nodes between them.

C  constant  known now, whatever the input is
W  weight    made of variables alone
I  index     depends on the input, and carries no flow
F  flow      depends on the input: what scores are about
"""

import dataclasses
import functools
import math
import typing

import tensorflow as tf

CONSTANT, WEIGHT, INDEX, FLOW = "CWIF"


@dataclasses.dataclass(eq=False)
class Value:
    """What one node returns and others take.

    Attributes:
        kind: `CONSTANT`, `WEIGHT`, `INDEX` or `FLOW`.
        shape: tuple of int.
        dtype: `tf.DType`, that of the model; flow is computed in another.
        constant: its value, if that is known: of a constant always, of an
            index unless it depends on flow. Else None. A tensor, or what a
            resource or a list of tensors stands for.
        node: `Node` that returns it, or None.
        name: str, of an input of the model.
        random: bool, whether it was drawn.
    """

    kind: str
    shape: tuple
    dtype: tf.DType
    constant: typing.Any = None
    node: typing.Any = None
    name: str = ""
    random: bool = False

    @property
    def is_flow(self):
        """Returns whether it is flow."""
        return self.kind == FLOW

    @property
    def is_weight(self):
        """Returns whether it is made of variables alone."""
        return self.kind == WEIGHT

    @property
    def size(self):
        """Returns the number of its entries, an int."""
        return math.prod(self.shape)


@dataclasses.dataclass(eq=False)
class Node:
    """One operation, or one layer that has a rule of its own.

    Attributes:
        type: str, the name of the operation in TensorFlow, such as "MatMul";
            `READ` for a variable, `LEAF` for a layer; other names begin with
            an underscore and are of those that `linearize` puts in.
        inputs: list of `Value`.
        outputs: list of `Value`.
        name: str, the name of the operation in the traced graph.
        layers: tuple of layers whose calls it is part of, outermost first.
        operation: `tf.Operation`, or None.
        variable: the variable that a `READ` reads.
        call: `trace.Call` of a `LEAF`.
        extra: dict, attributes of nodes that are no operations.
        gates: tuple of int, which inputs are gates.
    """

    type: str
    inputs: list
    outputs: list
    name: str = ""
    layers: tuple = ()
    operation: typing.Any = None
    variable: typing.Any = None
    call: typing.Any = None
    extra: dict = dataclasses.field(default_factory=dict)
    gates: tuple = ()

    @functools.cached_property
    def attributes(self):
        """Returns the operation's attributes, a dict; strings are str."""
        if self.operation is None:
            return self.extra
        found = {
            attribute.name: _text(self.operation.get_attr(attribute.name))
            for attribute in self.operation.op_def.attr
        }
        return {**found, **self.extra}

    @property
    def layer(self):
        """Returns the innermost layer that it is part of, or None."""
        return self.layers[-1] if self.layers else None

    @property
    def variables(self):
        """Lists the variables that it reads."""
        if self.type == READ:
            return [self.variable]
        return self.call.layer.weights if self.type == LEAF else []

    @property
    def flows(self):
        """Lists those inputs that are flow."""
        return [value for value in self.inputs if value.is_flow]


READ, LEAF = "_Read", "_Leaf"


def _text(value):
    return value.decode() if isinstance(value, bytes) else value


def known(tensor, kind=CONSTANT, random=False):
    """Returns the value of a tensor, or of an array or number, known now."""
    x = tf.convert_to_tensor(tensor)
    return Value(kind, tuple(x.shape), x.dtype, x, random=random)


def needed(nodes, outputs):
    """Lists those of some nodes, in order, that some values depend on."""
    wanted = set(outputs)
    found = []
    for node in reversed(nodes):
        if not wanted.isdisjoint(node.outputs):
            wanted.update(node.inputs)
            found.append(node)
    return found[::-1]


def variables_of(value):
    """Lists the variables that a value is made of, if it is a weight."""
    found, seen, waiting = [], set(), [value]
    while waiting:
        value = waiting.pop()
        if value in seen or value.node is None or not value.is_weight:
            continue
        seen.add(value)
        if value.node.type == READ:
            found.append(value.node.variable)
        waiting.extend(value.node.inputs)
    return found


def strongest(found):
    """Returns the kind of what is made of values with no product of them."""
    kinds = {value.kind for value in found}
    return next((kind for kind in (FLOW, WEIGHT) if kind in kinds), INDEX)


def is_traced(x):
    """Returns whether something is a tensor of a traced graph."""
    return tf.is_tensor(x) and hasattr(x, "op") and not hasattr(x, "numpy")


def traced_in(structure):
    """Lists the tensors of a traced graph in a structure."""
    return list(filter(is_traced, tf.nest.flatten(structure)))
