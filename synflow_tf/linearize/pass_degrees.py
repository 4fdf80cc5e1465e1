"""Makes gates until every output has degree of homogeneity 1 in each source.

The degrees of all values are known before anything runs: a source has 1; a
product of two flows the sum of theirs, a gate 0; what is added must agree. They
are counted by source: those added are one. So an output that multiplies the
flows of different inputs (two towers and their similarity) has degree 1 in each
of them. Where degrees disagree, or one is more than 1, the product that caused
it becomes a gate.
"""

import collections
import dataclasses

from synflow_tf.graph import families
from synflow_tf.graph import values
from synflow_tf.linearize import pass_gates
from synflow_tf.linearize import walks


@dataclasses.dataclass(frozen=True, eq=False)
class Source:
    """What flow starts as, if all of it has one degree."""

    inputs: list  # of the model
    unit: values.Value  # a number, what flow starts as at tables and codes
    degrees: list  # int, of each output in this source


def resolve(nodes, inputs, outputs):
    """Makes gates of the products that give an output another degree than 1.

    Returns the nodes, and a list of `Source`.
    """
    nodes = _without_squares(nodes, inputs, outputs)
    # Each turn makes one gate of a node that has none.
    for _ in range(len(nodes) + 1):
        levels = pass_gates.levels(nodes, outputs)
        degrees = _Degrees(nodes, inputs, levels)
        product, gated = degrees.wrong_product(outputs)
        if product is None:
            break
        nodes = [gated if node is product else node for node in nodes]
    return degrees.finished(inputs, outputs)


def _without_squares(nodes, inputs, outputs):
    """Makes gates where two flows of one source are contracted.

    From the outputs on: what feeds a gate may have any degree.
    """
    origins = {x: {x} for x in inputs if x.is_flow}
    producers = {}
    for node in nodes:
        flows = pass_gates.trunks(node)
        found = set().union(*(origins.get(v, ()) for v in flows))
        if node.type == "_Source":
            found = {node.inputs[0]}
        origins.update(dict.fromkeys(node.outputs, found))
        producers.update(dict.fromkeys(node.outputs, node))
    levels = dict.fromkeys(outputs, 0)
    result = []
    for node in reversed(nodes):
        flows = pass_gates.trunks(node)
        product = node.type in families.CONTRACTIONS and len(flows) > 1
        if product and pass_gates.level_of(node, levels) == 0:
            if origins[flows[0]] & origins[flows[1]]:
                node = pass_gates.attending(node, producers)
        pass_gates.pass_on(node, levels)
        result.append(node)
    return result[::-1]


class _Degrees:
    """Degrees of all values that reach an output through no gate.

    A degree is a dict of source to int.
    """

    def __init__(self, nodes, inputs, levels):
        self._nodes = nodes
        self._producers = {}
        self._parents = {}  # of sources that are added, as a forest
        self._of = {x: {x: 1} for x in inputs if x.is_flow}
        self._wrong = []
        for node in nodes:
            if any(levels.get(v) == 0 for v in node.outputs):
                self._add(node)
            self._producers.update(dict.fromkeys(node.outputs, node))

    def _root(self, source):
        while source in self._parents:
            source = self._parents[source]
        return source

    def _degree(self, value):
        """Returns the degree of a value, by source."""
        found = collections.Counter()
        for source, degree in self._of.get(value, {}).items():
            found[self._root(source)] += degree
        return found

    def _add(self, node):
        """Notes the degrees of what a node returns."""
        flows = pass_gates.trunks(node)
        if node.type == "_Source":
            unit = node.inputs[0]
            self._of[unit] = self._of[node.outputs[0]] = {unit: 1}
        elif flows:
            if node.type in families.CONTRACTIONS and len(flows) == 2:
                one, other = map(self._degree, flows)
                degree = one + other
            else:
                degree = self._agreed(flows)
            self._of.update((v, degree) for v in node.outputs if v.is_flow)

    def _agreed(self, flows):
        """Returns the degree of a sum; sources that are added are one."""
        first = self._degree(flows[0])
        for value in flows[1:]:
            other = self._degree(value)
            if first == other:
                continue
            if first.total() == other.total() == 1:
                [one], [two] = first, other
                self._parents[two] = one
                first = self._degree(flows[0])
            else:
                self._wrong.append(
                    max(flows[0], value, key=lambda v: self._degree(v).total())
                )
        return first

    def wrong_product(self, outputs):
        """Returns the product nearest to a wrong degree, and it with a gate."""
        degrees = {v: self._degree(v).values() for v in outputs}
        squares = [
            v for v, found in degrees.items() if max(found, default=0) > 1
        ]
        for value in self._wrong[:1] + squares:
            for node in walks.upstream(value, self._producers):
                product = node.type in families.CONTRACTIONS
                if product and len(node.flows) == 2 and not node.gates:
                    return node, pass_gates.attending(node, self._producers)
        return None, None

    def finished(self, inputs, outputs):
        """Returns the nodes with one unit for each source, and the sources."""
        units = [n.inputs[0] for n in self._nodes if n.type == "_Source"]
        inputs = [value for value in inputs if value.is_flow]
        sources = {}
        for value in units + inputs:
            root = self._root(value)
            if root not in sources:
                unit = values.Value("F", (), outputs[0].dtype)
                degrees = [self._degree(v)[root] for v in outputs]
                sources[root] = Source([], unit, degrees)
            if value in inputs:
                sources[root].inputs.append(value)
        nodes = list(self._nodes)
        for i, node in enumerate(nodes):
            if node.type == "_Source":
                unit = sources[self._root(node.inputs[0])].unit
                ones = [unit, *node.inputs[1:]]
                nodes[i] = dataclasses.replace(node, inputs=ones)
        return nodes, list(sources.values())
