"""The degree of homogeneity of every flow, known before anything runs.

A source has 1; a product of two flows the sum of theirs, a gate 0; what is
added must agree. Degrees are counted by source: those added are one. So an
output that multiplies the flows of different inputs (two towers and their
similarity) has degree 1 in each of them. Where degrees disagree, or one is
more than 1, the product that caused it becomes a gate.
"""

import collections
import dataclasses

from synflow_tf.graph import families
from synflow_tf.graph import values
from synflow_tf.linearize import pass_gates


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """Inputs of the model, and units, that are one source.

    Attributes:
        inputs: list of `graph.Value`, inputs of the model.
        unit: `graph.Value`, a number that flow starts as elsewhere.
        degrees: list of int, of each output in this source.
    """

    inputs: list
    unit: values.Value
    degrees: list


def settle(nodes, inputs, outputs):
    """Makes gates until every output has degree 1 in its sources.

    Args:
        nodes: list of `graph.Node`.
        inputs: list of `graph.Value`, of the model.
        outputs: list of `graph.Value`, of the model, that carry flow.

    Returns:
        list of `graph.Node`; and list of `Source`.
    """
    nodes = _attending(nodes, inputs, outputs)
    for _ in range(len(nodes) + 1):
        levels = pass_gates.levels(nodes, outputs)
        degrees = _Degrees(nodes, inputs, levels)
        blamed = degrees.blamed(outputs)
        if blamed is None:
            break
        nodes = [
            pass_gates.attending(x, blamed[1]) if x is blamed[0] else x
            for x in degrees.nodes
        ]
    return degrees.finished(inputs, outputs)


def _attending(nodes, inputs, outputs):
    """Makes gates where the flows of one source are contracted.

    From the outputs on: what feeds a gate may have any degree.
    """
    origins = {x: {x} for x in inputs if x.is_flow}
    producers = {}
    for node in nodes:
        flows = _trunks(node)
        found = set().union(*(origins.get(v, ()) for v in flows))
        if node.type == "_Source":
            found = {node.inputs[0]}
        origins.update((v, found) for v in node.outputs)
        producers.update((v, node) for v in node.outputs)
    levels = dict.fromkeys(outputs, 0)
    result = []
    for node in reversed(nodes):
        level = min((levels[v] for v in node.outputs if v in levels), default=1)
        flows = _trunks(node)
        if level == 0 and node.type in families.CONTRACTIONS and flows[1:]:
            if origins[flows[0]] & origins[flows[1]]:
                gate = pass_gates.smaller(node, producers)
                node = pass_gates.attending(node, gate)
        for position, value in enumerate(node.inputs):
            through = level + (position in node.gates)
            levels[value] = min(levels.get(value, through), through)
        result.append(node)
    return result[::-1]


def _trunks(node):
    """The flows that a node takes, those that are gates left out."""
    return [
        v
        for i, v in enumerate(node.inputs)
        if v.is_flow and i not in node.gates
    ]


class _Degrees:
    """Degrees of all values that reach an output through no gate.

    A degree is a dict of source to int.
    """

    def __init__(self, nodes, inputs, levels):
        self.nodes = nodes
        self._producers = {}
        self._parents = {}
        self._of = {x: {x: 1} for x in inputs if x.is_flow}
        self._wrong = None
        for node in nodes:
            if any(levels.get(v) == 0 for v in node.outputs):
                self._add(node)
            self._producers.update((v, node) for v in node.outputs)

    def _root(self, source):
        while source in self._parents:
            source = self._parents[source]
        return source

    def _degree(self, value):
        """The degree of a value, by source."""
        found = collections.Counter()
        for source, degree in self._of.get(value, {}).items():
            found[self._root(source)] += degree
        return found

    def _add(self, node):
        if node.type == "_Source":
            unit = node.inputs[0]
            self._of[unit] = self._of[node.outputs[0]] = {unit: 1}
            return
        flows = _trunks(node)
        if node.type in families.CONTRACTIONS and len(flows) == 2:
            one, other = map(self._degree, flows)
            self._set(node, one + other)
        elif flows:
            self._set(node, self._agreed(flows))

    def _set(self, node, degree):
        self._of.update((v, degree) for v in node.outputs if v.is_flow)

    def _agreed(self, flows):
        """The degree of what is added; sources that are added are one."""
        first = self._degree(flows[0])
        for value in flows[1:]:
            other = self._degree(value)
            if first == other:
                continue
            if sum(first.values()) == sum(other.values()) == 1:
                [one], [two] = first, other
                self._parents[two] = one
                first = self._degree(flows[0])
            elif self._wrong is None:
                self._wrong = max(
                    flows[0], value, key=lambda v: sum(self._degree(v).values())
                )
        return first

    def blamed(self, outputs):
        """The product to make a gate of, and its smaller side, or None."""
        wrong = [] if self._wrong is None else [self._wrong]
        wrong += [
            v for v in outputs if max(self._degree(v).values(), default=0) > 1
        ]
        for value in wrong:
            seen, waiting = set(), [value]
            while waiting:
                node = self._producers.get(waiting.pop(0))
                if node is None or node in seen:
                    continue
                seen.add(node)
                flows = node.flows
                product = node.type in families.CONTRACTIONS
                if product and len(flows) == 2 and not node.gates:
                    gate = pass_gates.smaller(node, self._producers)
                    return node, gate
                waiting += flows
        return None

    def finished(self, inputs, outputs):
        """The nodes with one unit for each source, and the sources."""
        found = {}
        for node in self.nodes:
            if node.type == "_Source":
                found.setdefault(self._root(node.inputs[0]), [])
        for value in inputs:
            if value.is_flow:
                found.setdefault(self._root(value), []).append(value)
        sources = {
            root: Source(
                members,
                values.Value("F", (), outputs[0].dtype),
                [self._degree(v)[root] for v in outputs],
            )
            for root, members in found.items()
        }
        nodes = [
            dataclasses.replace(
                node,
                inputs=[
                    sources[self._root(node.inputs[0])].unit,
                    *node.inputs[1:],
                ],
            )
            if node.type == "_Source"
            else node
            for node in self.nodes
        ]
        return nodes, list(sources.values())
