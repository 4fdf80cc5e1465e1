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

    Returns the nodes, with one unit for each source, and a list of `Source`.
    """
    units = [node.inputs[0] for node in nodes if node.type == "_Source"]
    starts = units + [value for value in inputs if value.is_flow]
    nodes = _without_squares(nodes, starts, outputs)
    while True:  # Each turn makes a gate of a node that has none, so it ends.
        producers = walks.producers_of(nodes)
        degrees = _Degrees(nodes, starts, pass_gates.levels(nodes, outputs))
        products = (
            node
            for value in degrees.wrong(outputs)
            for node in walks.upstream(value, producers)
            if pass_gates.contracts_two(node) and not node.gates
        )
        product = next(products, None)
        if product is None:
            return _with_sources(nodes, degrees, starts, inputs, outputs)
        gated = pass_gates.attending(product, producers)
        nodes = [gated if node is product else node for node in nodes]


def _with_sources(nodes, degrees, starts, inputs, outputs):
    """Returns nodes with one unit for each source, and the list of `Source`."""
    sources = {}
    for value in starts:
        root = degrees.root(value)
        if root not in sources:
            unit = values.Value(values.FLOW, (), outputs[0].dtype)
            in_outputs = [degrees.of(v)[root] for v in outputs]
            sources[root] = Source([], unit, in_outputs)
        if value in inputs:
            sources[root].inputs.append(value)
    result = []
    for node in nodes:
        if node.type == "_Source":
            unit = sources[degrees.root(node.inputs[0])].unit
            read = [unit, *node.inputs[1:]]
            node = dataclasses.replace(node, inputs=read)
        result.append(node)
    return result, list(sources.values())


def _without_squares(nodes, starts, outputs):
    """Makes gates where two flows of one source are contracted.

    From the outputs on: what feeds a gate may have any degree.
    """
    origins = {value: {value} for value in starts}
    for node in nodes:
        flows = pass_gates.trunks(node)
        found = set().union(*(origins.get(v, ()) for v in flows))
        origins.update(dict.fromkeys(node.outputs, found))
    producers = walks.producers_of(nodes)
    levels = dict.fromkeys(outputs, 0)
    result = []
    for node in reversed(nodes):
        ungated = pass_gates.contracts_two(node) and not node.gates
        if ungated and pass_gates.level_of(node, levels) == 0:
            one, other = node.flows
            if origins[one] & origins[other]:
                node = pass_gates.attending(node, producers)
        pass_gates.pass_on(node, levels)
        result.append(node)
    return result[::-1]


class _Degrees:
    """Degrees of all values that reach an output through no gate.

    A degree is a dict of source to int.
    """

    def __init__(self, nodes, starts, levels):
        self._parents = {}  # of sources that are added, as a forest
        self._of = {value: {value: 1} for value in starts}
        self._disagreeing = []
        for node in nodes:
            flows = pass_gates.trunks(node)
            if flows and any(levels.get(v) == 0 for v in node.outputs):
                degree = self._returned(node, flows)
                self._of.update((v, degree) for v in node.outputs if v.is_flow)

    def root(self, source):
        """Returns the source that a source is one with."""
        while source in self._parents:
            source = self._parents[source]
        return source

    def of(self, value):
        """Returns the degree of a value."""
        found = collections.Counter()
        for source, degree in self._of.get(value, {}).items():
            found[self.root(source)] += degree
        return found

    def _returned(self, node, flows):
        """Returns the degree of what a node returns; sums make sources one."""
        first, *others = map(self.of, flows)
        if pass_gates.contracts_two(node) and others:
            return first + others[0]
        for value in flows[1:]:
            other = self.of(value)
            if first == other:
                continue
            if first.total() == other.total() == 1:
                [one], [two] = first, other
                self._parents[two] = one
                first = self.of(flows[0])
            else:
                pair = flows[0], value
                higher = max(pair, key=lambda v: self.of(v).total())
                self._disagreeing.append(higher)
        return first

    def wrong(self, outputs):
        """Returns the values whose degrees disagree, or are more than 1."""
        squares = [
            v for v in outputs if max(self.of(v).values(), default=0) > 1
        ]
        return self._disagreeing[:1] + squares
