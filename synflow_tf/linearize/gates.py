"""Cuts off what feeds gates only from what carries the flow.

A gate has the value 1, whatever its size, so what it is computed from must not
be credited with the flow a second time: gradients stop where a tensor enters
the nodes that feed gates only. Every slot and node has a level: 0 on the way
to an output, 1 if all ways lead through a gate, 2 if through two, and so on.
A tensor enters where the level rises.
"""

import dataclasses

import tensorflow as tf

from synflow_tf import calls
from synflow_tf import graph as graph_lib
from synflow_tf.linearize import joins
from synflow_tf.linearize import operations


def cut(nodes, flow, outputs):
    """Inserts where gradients stop.

    Where one projection feeds both a gate and the trunk, and the gate takes a
    part of it (queries and keys of a fused projection), it is evaluated a
    second time for the gate: otherwise that part would have no score.

    Args:
        nodes: list of `graph.Node`, with `joins.Join` for their layers.
        flow: set of `graph.Slot`, those that come from the inputs.
        outputs: list of `graph.Slot`.

    Returns:
        list of `graph.Node`.
    """
    if not any(_gates(node) for node in nodes):
        return nodes
    cutter = _Cutter(nodes, flow, levels(nodes, outputs))
    for node in nodes:
        cutter.add(node)
    return cutter.nodes


def has_kernel(node, flow):
    """Whether a node multiplies with a kernel."""
    layer = node.layer
    if all(slot in flow for slot in node.inputs):
        if isinstance(layer, (graph_lib.Opaque, joins.Join)):
            layer = layer.layer
        weights = getattr(layer, "weights", ())
        return any(len(variable.shape) > 1 for variable in weights)
    if isinstance(layer, joins.Join):
        function = getattr(layer.function, "func", None)
        return function is joins.project
    return calls.operation_name(layer) in operations.PROJECTIONS


def is_size(node):
    """Whether a node only tells how large a tensor is."""
    return calls.operation_name(node.layer) in operations.SIZES


def _gates(node):
    """Those of a node's input slots that are gates, by position."""
    layer = node.layer
    return layer.gates if isinstance(layer, joins.Join) else ()


def _edges(node):
    """Pairs of an input slot, and whether it is a gate there."""
    sides = _gates(node)
    for position, arg in enumerate(node.args):
        for slot in _slots(arg):
            yield slot, position in sides
    for slot in _slots(node.kwargs):
        yield slot, False


def _slots(structure):
    flat = tf.nest.flatten(structure)
    return [x for x in flat if isinstance(x, graph_lib.Slot)]


def levels(nodes, outputs):
    """The level of each slot that is used, a dict.

    Args:
        nodes: list of `graph.Node`.
        outputs: list of `graph.Slot`.
    """
    found = dict.fromkeys(outputs, 0)
    for node in reversed(nodes):
        # What is only measured is on no way at all.
        level = len(nodes) if is_size(node) else _level_of(node, found)
        for slot, is_gate in _edges(node):
            through = level + is_gate
            found[slot] = min(found.get(slot, through), through)
    return found


def _level_of(node, levels):
    return min(levels[slot] for slot in node.outputs if slot in levels)


class _Cutter:
    """Copies nodes, with the levels kept apart."""

    def __init__(self, nodes, flow, levels):
        self.nodes = []
        self._flow = flow
        self._levels = levels
        self._producers = {s: node for node in nodes for s in node.outputs}
        self._entered = {}

    def add(self, node):
        """Appends a node, and what its inputs enter through."""
        if is_size(node):
            self.nodes.append(node)
            return
        sides = _gates(node)
        level = _level_of(node, self._levels)
        slices = calls.operation_name(node.layer) in operations.SLICES

        def enter(structure, level):
            return tf.nest.map_structure(
                lambda x: self._enter(x, level, slices), structure
            )

        args = tuple(
            enter(arg, level + (position in sides))
            for position, arg in enumerate(node.args)
        )
        kwargs = enter(node.kwargs, level)
        self.nodes.append(dataclasses.replace(node, args=args, kwargs=kwargs))

    def _enter(self, slot, level, slices):
        """What to take instead of a slot at a level."""
        if not isinstance(slot, graph_lib.Slot) or slot not in self._flow:
            return slot
        node = self._producers.get(slot)
        at = 0 if node is None else _level_of(node, self._levels)
        if at >= level:
            return slot
        if (slot, level) not in self._entered:
            part = slices or self._levels[slot] >= level
            again = self._again(slot) if part else None
            self._entered[slot, level] = again or self._stop(slot)
        return self._entered[slot, level]

    def _stop(self, slot):
        """A copy of a slot that no gradient comes back through."""
        copy = graph_lib.Slot(slot.shape, slot.dtype)
        join = joins.Join(None, joins.stop)
        self.nodes.append(graph_lib.Node(join, (slot,), {}, [copy]))
        return copy

    def _again(self, slot, sums=1):
        """A slot computed again, from the projections on, or None.

        Args:
            slot: the slot.
            sums: int, how many sums may lie between it and the projections.
        """
        node = self._producers.get(slot)
        if node is None or _gates(node):
            return None
        before = list(dict.fromkeys(x for x in node.inputs if x in self._flow))
        if has_kernel(node, self._flow):
            entered = [self._stop(x) for x in before]
        else:
            sums -= len(before) > 1
            if sums < 0:
                return None
            entered = [self._again(x, sums) for x in before]
            if None in entered:
                return None
        instead = dict(zip(before, entered, strict=True))

        def fill_in(structure):
            return tf.nest.map_structure(
                lambda x: instead[x] if _is_slot(x, instead) else x, structure
            )

        outputs = [graph_lib.Slot(s.shape, s.dtype) for s in node.outputs]
        self.nodes.append(
            dataclasses.replace(
                node,
                args=fill_in(node.args),
                kwargs=fill_in(node.kwargs),
                outputs=outputs,
            )
        )
        return outputs[node.outputs.index(slot)]


def _is_slot(x, slots):
    return isinstance(x, graph_lib.Slot) and x in slots
