"""Makes one of two flows that are multiplied a gate: its value is 1.

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
from synflow_tf.linearize import walks


def mark(nodes):
    """Returns the nodes, with "_Gate" in the place of products of two flows.

    Contractions of two flows are left as they are unless an activation bounds
    one of them (attention weights), or only one has passed a kernel (an
    adjacency matrix has not); see `pass_degrees`.
    """
    producers = walks.producers_of(nodes)
    weighted = walks.downstream(nodes, _has_kernel)
    return [_marked(node, producers, weighted) for node in nodes]


def _marked(node, producers, weighted):
    if len(node.flows) != 2 or node.type in leaves.OPERATIONS:
        return node
    if node.type in families.PRODUCTS:
        trunk, gate = hints.trunk_first(*node.flows, producers)
        return _gated(node, trunk, gate, False, producers)
    if node.type in families.QUOTIENTS:
        return _gated(node, *node.flows, True, producers)
    if node.type in families.CONTRACTIONS:
        one, other = (hints.bound(x, producers) for x in node.flows)
        if one != other:
            return _attended(node, node.flows[int(other > one)])
        bare = [x for x in node.flows if x not in weighted]
        if len(bare) == 1:
            return _attended(node, bare[0])
    return node


def attending(node, producers):
    """Makes the likelier side of a contraction of two flows a gate."""
    return _attended(node, hints.trunk_first(*node.flows, producers)[1])


def _attended(node, side):
    """Makes one side of a contraction attention weights, which are a gate."""
    return dataclasses.replace(node, gates=(node.inputs.index(side),))


def _gated(node, trunk, gate, inverse, producers):
    """Returns a product with a gate; weights that scale the gate still count.

    They become factors of their own, because the gate is divided by itself.
    """
    factors, inverses = [], []
    while gate in producers and len(producers[gate].flows) == 1:
        before = producers[gate]
        rest = [x for x in before.inputs if not x.is_flow]
        divides = before.type in families.QUOTIENTS and before.inputs[0].is_flow
        scales = divides or before.type in families.PRODUCTS
        if not scales or len(rest) != 1 or not rest[0].is_weight:
            break
        inverses.append(inverse != divides)
        factors += rest
        [gate] = before.flows
    return dataclasses.replace(
        node,
        type="_Gate",
        inputs=[trunk, *factors, gate],
        extra={"inverse": tuple(inverses)},
        gates=(1 + len(factors),),
    )


def contracts_two(node):
    """Tells whether a node contracts two flows."""
    return node.type in families.CONTRACTIONS and len(node.flows) == 2


def trunks(node):
    """Returns the flows that a node takes, without its gates."""
    pairs = enumerate(node.inputs)
    return [v for i, v in pairs if v.is_flow and i not in node.gates]


def levels(nodes, outputs):
    """Returns the level of each value that is used, a dict."""
    found = dict.fromkeys(outputs, 0)
    for node in reversed(nodes):
        pass_on(node, found)
    return found


def pass_on(node, found):
    """Adds the levels of what a node takes to those found from the outputs."""
    level = level_of(node, found)
    if level is not None:
        for position, value in enumerate(node.inputs):
            through = level + (position in node.gates)
            found[value] = min(found.get(value, through), through)


def level_of(node, found):
    """Returns the least level of what a node returns; None if it is unused."""
    return min((found[v] for v in node.outputs if v in found), default=None)


def _has_kernel(node):
    """Tells whether a node multiplies with weights that are contracted."""
    contracts = node.type in families.CONTRACTIONS | {"_Source"}
    weights = any(value.is_weight for value in node.inputs)
    return node.type == values.LEAF or (contracts and weights)


def cut(nodes, outputs):
    """Stops gradients where tensors enter gate-only subgraphs.

    Where one projection feeds both a gate and the trunk, and the gate takes a
    part of it (queries and keys of a fused projection), it is evaluated a
    second time for the gate: otherwise that part would have no score.
    Contractions of two flows that lead to gates only get the attribute
    "within".
    """
    cutter = _Cutter(nodes, levels(nodes, outputs))
    for node in nodes:
        cutter.add(node)
    return cutter.nodes


class _Cutter:
    """Copies nodes, with the levels kept apart."""

    def __init__(self, nodes, levels):
        self.nodes = []
        self._levels = levels
        self._producers = walks.producers_of(nodes)
        self._entered = {}

    def add(self, node):
        """Appends a node, and what its inputs enter through."""
        level = level_of(node, self._levels)
        if level is None:
            return
        # What is read at positions, such as by edges, may well be all of it.
        read = any(value.kind == values.INDEX for value in node.inputs)
        slices = node.type in families.SLICES and not read
        inputs = [
            self._enter(value, level + (position in node.gates), slices)
            for position, value in enumerate(node.inputs)
        ]
        changes = {} if inputs == node.inputs else {"inputs": inputs}
        self._append(node, level, **changes)

    def _append(self, node, level, **changes):
        if level and contracts_two(node):
            changes["extra"] = {**node.extra, "within": True}
        # A copy would have to read its attributes again.
        copy = dataclasses.replace(node, **changes) if changes else node
        self.nodes.append(copy)

    def _enter(self, value, level, slices):
        """Returns what to take instead of a value at a level."""
        if not value.is_flow:
            return value
        node = self._producers.get(value)
        at = 0 if node is None else level_of(node, self._levels)
        if at >= level:
            return value
        if (value, level) not in self._entered:
            part = slices or self._levels[value] >= level
            again = self._again(value, level) if part else None
            self._entered[value, level] = again or self._stop(value)
        return self._entered[value, level]

    def _stop(self, value):
        """Returns a copy of a value that no gradient comes back through."""
        copy = dataclasses.replace(value)
        node = self._producers.get(value)
        layers = () if node is None else node.layers
        self.nodes.append(values.Node("_Stop", [value], [copy], "stop", layers))
        return copy

    def _again(self, value, level, sums=1):
        """Returns a value computed again, from the projections on, or None.

        One sum may lie between it and the projections: an LSTM adds those of
        its input and of its state. Through more sums, along a residual stream,
        this would copy the whole network.
        """
        node = self._producers.get(value)
        if node is not None and node.type == "_Gate":  # It is 1.
            node = _opened(node)
        if node is None or node.gates or node.type == "_Source":
            return None
        before = list(dict.fromkeys(node.flows))
        if _has_kernel(node):
            entered = [self._stop(x) for x in before]
        else:
            sums -= len(before) > 1
            if sums < 0:
                return None
            entered = [self._again(x, level, sums) for x in before]
            if None in entered:
                return None
        instead = dict(zip(before, entered, strict=True))
        inputs = [instead.get(v, v) for v in node.inputs]
        outputs = [dataclasses.replace(v) for v in node.outputs]
        self._append(node, level, inputs=inputs, outputs=outputs)
        return outputs[node.outputs.index(value)]


def _opened(node):
    """Returns a product without its gate."""
    return dataclasses.replace(node, inputs=node.inputs[:-1], gates=())


def without_idle(nodes, scored):
    """Leaves out gates that no scored weight has a part in: they are 1.

    `scored` is the set of `graph.Value` that depend on scored weights.
    """
    carrying = walks.downstream(
        [node for node in nodes if node.type != "_Stop"],
        lambda n: n.type == values.LEAF or not scored.isdisjoint(n.inputs),
    )
    return [
        _opened(node)
        if node.type == "_Gate" and node.inputs[-1] not in carrying
        else node
        for node in nodes
    ]
