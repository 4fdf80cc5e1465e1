"""Finds where tensors of a model meet, and which of them are gates."""

import dataclasses
import functools

import tensorflow as tf

from synflow_tf import calls
from synflow_tf import graph as graph_lib
from synflow_tf.linearize import attention
from synflow_tf.linearize import gates
from synflow_tf.linearize import joins
from synflow_tf.linearize import operations
from synflow_tf.linearize import registry
from synflow_tf.linearize import sources


def name_of(layer):
    """The name that says what a layer or an operation does, or None.

    The operation's name; for Keras' own merging layers that of the operation.
    """
    name = calls.operation_name(layer) or registry.name_of(layer)
    return name and name.lower()


class Joiner:
    """Replaces nodes where tensors meet.

    Args:
        flow: set of `graph.Slot`, those whose value comes from the inputs.
        producers: dict of `graph.Slot` to the `graph.Node` that returns it.
        unit: `graph.Slot`; see `lowering.LinearGraph`.
    """

    def __init__(self, flow, producers, unit):
        self._flow = flow
        self._unit = unit
        self._producers = producers

    def join(self, node):
        """The node, or one with a `joins.Join` in its place."""
        layer = node.layer
        if isinstance(layer, (graph_lib.Read, graph_lib.Opaque)):
            return node
        name = name_of(layer)
        if name in sources.NAMES:
            return dataclasses.replace(node, args=(*node.args, self._unit))
        if not any(self._flows(node.inputs)) and _are_integers(node.outputs):
            return node  # Arithmetic with sizes.
        if name == "dot_product_attention":
            function, args = attention.dot_product(node)
            return _node(node, function, args, (0, 1))
        if name in operations.SELECTIONS:
            return self._sum(node, _operands(node)[1:])
        if name in operations.SUMS:
            return self._sum(node, _operands(node))
        if name in operations.PRODUCTS:
            return self._product(node)
        if name in operations.QUOTIENTS:
            return self._quotient(node)
        if name in operations.CONTRACTIONS:
            return self._contraction(node, name)
        if name in operations.CONCATENATIONS:
            return self._concatenation(node)
        return node

    def _flows(self, operands):
        return tuple(
            isinstance(x, graph_lib.Slot) and x in self._flow for x in operands
        )

    def _sum(self, node, operands):
        flows = self._flows(operands)
        return _node(node, functools.partial(joins.add, flows), operands)

    def _product(self, node):
        operands = _operands(node)
        flows = self._flows(operands)
        pairs = list(zip(operands, flows, strict=True))
        through = [x for x, flow in pairs if flow]
        factors = [x for x, flow in pairs if not flow]
        if len(through) > 1 and not factors:
            through = self._trunk_first(through)
            sides = range(1, len(through))
            return _node(node, joins.gate, through, sides)
        if len(operands) != 2:
            return node
        if not through:
            through, factors = factors[:1], factors[1:]
        function = functools.partial(joins.scale, False)
        return _node(node, function, [*through, *factors])

    def _quotient(self, node):
        x, y = _operands(node)[:2]
        above, below = self._flows((x, y))
        if above and below:
            return _node(node, joins.gate, [x, y], (1,))
        if below:
            # The shape is that of both.
            function = functools.partial(joins.add, (False, True))
            return _node(node, function, [x, y])
        function = functools.partial(joins.scale, True)
        return _node(node, function, [x, y])

    def _concatenation(self, node):
        if node.args and isinstance(node.args[0], (list, tuple)):
            operands = list(node.args[0])
        else:
            return node
        flows = self._flows(operands)
        if all(flows) or not any(flows):
            return node
        rest, kwargs = node.args[1:], node.kwargs

        def operation(tensors):
            return node.layer.call(tensors, *rest, **kwargs)

        origins = [
            () if f else self._reads(x)
            for x, f in zip(operands, flows, strict=True)
        ]
        function = functools.partial(
            joins.concatenate, operation, flows, origins
        )
        return _node(node, function, [self._unit, *operands])

    def _reads(self, slot):
        """The ids of the weights that something is computed from."""
        node = self._producers.get(slot) if _is_slot(slot) else None
        if node is None:
            return frozenset()
        if isinstance(node.layer, graph_lib.Read):
            return frozenset([id(node.layer.variable)])
        return frozenset().union(*map(self._reads, node.inputs))

    def _contraction(self, node, name):
        operands = _operands(node)
        if name != "einsum":
            operands = operands[:2]  # Axes may follow.
        flows = self._flows(operands)
        if len(operands) != 2 and (all(flows) or sum(flows) > 1):
            return node
        operation, axes = attention.contraction(node, name, operands)
        if not all(flows):
            function = functools.partial(joins.project, operation, flows)
            return _node(node, function, operands)
        hints = [self._bound(x) for x in operands]
        if hints[0] == hints[1]:
            return node
        side = int(hints[1] > hints[0])
        function = functools.partial(
            joins.contract, operation, side, axes[side]
        )
        return _node(node, function, operands, (side,))

    def _trunk_first(self, operands):
        """Sorts the operands of a product: the trunk, then the gates."""

        def likely_gate(position):
            x = operands[position]
            size = 1
            for n in x.shape[1:]:
                size *= n or 2**20
            below = any(self._comes_from(x, y) for y in operands if y is not x)
            return self._bound(x), -size, below, position

        order = sorted(range(len(operands)), key=likely_gate)
        return [operands[i] for i in order]

    def _bound(self, slot):
        """How likely it is that a slot is a gate, by its activation."""
        while True:
            node = self._producers.get(slot)
            if node is None:
                return 0
            name = name_of(node.layer)
            if name == "relu":
                return 2 * (getattr(node.layer, "max_value", None) is not None)
            if name in ("activation", "dense", "conv1d", "conv2d", "conv3d"):
                name = getattr(node.layer.activation, "__name__", None)
            if name in operations.BOUNDED:
                return operations.BOUNDED[name]
            before = [x for x in node.inputs if x in self._flow]
            if name in operations.ACTIVATIONS or len(before) != 1:
                return 0
            if gates.has_kernel(node, self._flow):
                return 0
            [slot] = before

    def _comes_from(self, slot, origin):
        """Whether a slot is computed from another."""
        seen = set()
        waiting = [slot]
        while waiting:
            slot = waiting.pop()
            if slot is origin:
                return True
            node = self._producers.get(slot)
            if node is not None and node not in seen:
                seen.add(node)
                waiting.extend(node.inputs)
        return False


def _is_slot(x):
    return isinstance(x, graph_lib.Slot)


def _are_integers(slots):
    return all(tf.as_dtype(slot.dtype).is_integer for slot in slots)


def _node(node, function, args, sides=()):
    join = joins.Join(node.layer, function, tuple(sides))
    return dataclasses.replace(node, layer=join, args=tuple(args), kwargs={})


def _operands(node):
    """What a node takes: tensors and constants, flat, without options."""
    if node.args and isinstance(node.args[0], (list, tuple)):
        return list(node.args[0])
    values = [*node.args]
    values += [v for k, v in node.kwargs.items() if k in _TENSORS]
    return [
        x for x in values if x is not None and not isinstance(x, (str, bool))
    ]


# The keywords under which operations take tensors.
_TENSORS = frozenset("a b bias condition inputs scalar value x x1 x2 y".split())
