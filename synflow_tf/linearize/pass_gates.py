"""Where two flows are multiplied, one is a gate: its value is 1.

    t * g / stop_gradient(g)        (1 where g = 0)

A product of two flows would multiply the degree of homogeneity. What feeds
gates only must not be credited with the flow a second time: gradients stop
where a value enters it. Every value has a level: 0 on the way to an output, 1
if all ways lead through a gate, 2 if through two; it enters where that rises.
"""

import dataclasses

from synflow_tf.graph import families
from synflow_tf.graph import leaves
from synflow_tf.graph import values
from synflow_tf.linearize import hints


def mark(nodes):
    """Says which inputs of products are gates.

    Contractions of two flows are left as they are unless an activation bounds
    one of them (attention weights), or only one has passed a kernel (an
    adjacency matrix has not); see `pass_degrees`.

    Args:
        nodes: list of `graph.Node`.

    Returns:
        list of `graph.Node`, with "_Gate" in the place of products.
    """
    producers, result, weighted = {}, [], set()
    for node in nodes:
        producers.update((value, node) for value in node.outputs)
        if len(node.flows) == 2 and node.type not in leaves.OPERATIONS:
            node = _marked(node, producers, weighted)
        if has_kernel(node) or not weighted.isdisjoint(node.inputs):
            weighted.update(node.outputs)
        result.append(node)
    return result


def _marked(node, producers, weighted):
    kind = node.type
    if kind in families.PRODUCTS:
        trunk, gate = hints.trunk_first(*node.flows, producers)
        return _gated(node, trunk, gate, False, producers)
    if kind in families.QUOTIENTS:
        return _gated(node, *node.flows, True, producers)
    if kind in families.CONTRACTIONS:
        bounds = [hints.bound(x, producers) for x in node.flows]
        if bounds[0] != bounds[1]:
            side = node.flows[int(bounds[1] > bounds[0])]
            return attending(node, side)
        bare = [x for x in node.flows if x not in weighted]
        if len(bare) == 1:
            return attending(node, bare[0])
    return node


def attending(node, side):
    """A contraction, one side of which are attention weights: a gate."""
    return dataclasses.replace(node, gates=(node.inputs.index(side),))


def smaller(node, producers):
    """The side of a contraction of two flows that is likelier a gate."""
    return hints.trunk_first(*node.flows, producers)[1]


def _gated(node, trunk, gate, inverse, producers):
    """A product with a gate; weights that only scale the gate still count."""
    factors, inverses = [], []
    while True:
        before = producers.get(gate)
        if before is None or len(before.flows) != 1:
            break
        rest = [x for x in before.inputs if not x.is_flow]
        if len(rest) != 1 or not rest[0].is_weight:
            break
        if before.type in families.PRODUCTS:
            inverses.append(inverse)
        elif before.type in families.QUOTIENTS and before.inputs[0].is_flow:
            inverses.append(not inverse)
        else:
            break
        factors += rest
        [gate] = before.flows
    return dataclasses.replace(
        node,
        type="_Gate",
        inputs=[trunk, *factors, gate],
        extra={"inverse": tuple(inverses)},
        gates=(1 + len(factors),),
    )


def cut(nodes, outputs):
    """Inserts where gradients stop.

    Where one projection feeds both a gate and the trunk, and the gate takes a
    part of it (queries and keys of a fused projection), it is evaluated a
    second time for the gate: otherwise that part would have no score.

    Args:
        nodes: list of `graph.Node`.
        outputs: list of `graph.Value`.

    Returns:
        list of `graph.Node`.
    """
    if not any(node.gates for node in nodes):
        return nodes
    cutter = _Cutter(nodes, levels(nodes, outputs))
    for node in nodes:
        cutter.add(node)
    return cutter.nodes


def within(nodes, outputs):
    """Says which products of two flows lead to gates only.

    Args:
        nodes: list of `graph.Node`, cut.
        outputs: list of `graph.Value`.

    Returns:
        list of `graph.Node`, with "within" in the `extra` of those.
    """
    found = levels(nodes, outputs)
    return [
        dataclasses.replace(node, extra={**node.extra, "within": True})
        if node.type in families.CONTRACTIONS
        and len(node.flows) == 2
        and _level_of(node, found)
        else node
        for node in nodes
    ]


def levels(nodes, outputs):
    """The level of each value that is used, a dict.

    Args:
        nodes: list of `graph.Node`.
        outputs: list of `graph.Value`.
    """
    found = dict.fromkeys(outputs, 0)
    for node in reversed(nodes):
        level = _level_of(node, found)
        if level is None:
            continue
        for position, value in enumerate(node.inputs):
            through = level + (position in node.gates)
            found[value] = min(found.get(value, through), through)
    return found


def _level_of(node, levels):
    return min((levels[v] for v in node.outputs if v in levels), default=None)


def has_kernel(node):
    """Whether a node multiplies with weights that are contracted."""
    if node.type == values.LEAF:
        return True
    weights = any(value.is_weight for value in node.inputs)
    return weights and node.type in families.CONTRACTIONS | {"_Source"}


class _Cutter:
    """Copies nodes, with the levels kept apart."""

    def __init__(self, nodes, levels):
        self.nodes = []
        self._levels = levels
        self._producers = {v: node for node in nodes for v in node.outputs}
        self._entered = {}

    def add(self, node):
        """Appends a node, and what its inputs enter through."""
        level = _level_of(node, self._levels)
        if level is None:
            return
        # What is read at positions, such as by edges, may well be all of it.
        read = any(value.kind == values.INDEX for value in node.inputs)
        slices = node.type in families.SLICES and not read
        inputs = [
            self._enter(value, level + (position in node.gates), slices)
            for position, value in enumerate(node.inputs)
        ]
        self.nodes.append(dataclasses.replace(node, inputs=inputs))

    def _enter(self, value, level, slices):
        """What to take instead of a value at a level."""
        if not value.is_flow:
            return value
        node = self._producers.get(value)
        at = 0 if node is None else _level_of(node, self._levels)
        if at >= level:
            return value
        if (value, level) not in self._entered:
            part = slices or self._levels[value] >= level
            again = self._again(value) if part else None
            self._entered[value, level] = again or self._stop(value)
        return self._entered[value, level]

    def _stop(self, value):
        """A copy of a value that no gradient comes back through."""
        copy = dataclasses.replace(value)
        node = self._producers.get(value)
        layers = () if node is None else node.layers
        self.nodes.append(values.Node("_Stop", [value], [copy], "stop", layers))
        return copy

    def _again(self, value, sums=1):
        """A value computed again, from the projections on, or None.

        Args:
            value: the value.
            sums: int, how many sums may lie between it and the projections.
        """
        node = self._producers.get(value)
        if node is not None and node.type == "_Gate":  # It is 1.
            inputs = [
                x for i, x in enumerate(node.inputs) if i not in node.gates
            ]
            node = dataclasses.replace(node, inputs=inputs, gates=())
        if node is None or node.gates or node.type == "_Source":
            return None
        before = list(dict.fromkeys(node.flows))
        if has_kernel(node):
            entered = [self._stop(x) for x in before]
        else:
            sums -= len(before) > 1
            if sums < 0:
                return None
            entered = [self._again(x, sums) for x in before]
            if None in entered:
                return None
        instead = dict(zip(before, entered, strict=True))
        outputs = [dataclasses.replace(v) for v in node.outputs]
        inputs = [instead.get(v, v) for v in node.inputs]
        self.nodes.append(
            dataclasses.replace(node, inputs=inputs, outputs=outputs)
        )
        return outputs[node.outputs.index(value)]


def without_idle(nodes, scored):
    """Leaves out gates that no scored weight has a part in: they are 1.

    Args:
        nodes: list of `graph.Node`, cut.
        scored: set of `graph.Value` that depend on scored weights.

    Returns:
        list of `graph.Node`.
    """
    carrying = set(scored)
    result = []
    for node in nodes:
        if node.type == "_Gate" and node.inputs[-1] not in carrying:
            node = dataclasses.replace(node, inputs=node.inputs[:-1], gates=())
        leaf = node.type == values.LEAF
        if node.type != "_Stop" and (
            leaf or not carrying.isdisjoint(node.inputs)
        ):
            carrying.update(node.outputs)
        result.append(node)
    return result
