"""Turns a model's graph into the linear one that scores are computed on.

One pass after the other over the nodes, before any of them runs; see the first
lines of each `pass_*`.
"""

import dataclasses

from synflow_tf.graph import values
from synflow_tf.linearize import executor
from synflow_tf.linearize import pass_activations
from synflow_tf.linearize import pass_centring
from synflow_tf.linearize import pass_degrees
from synflow_tf.linearize import pass_gates
from synflow_tf.linearize import pass_sources
from synflow_tf.linearize import pass_weights


@dataclasses.dataclass(frozen=True, eq=False)
class LinearGraph:
    """Nodes that the executor runs; `inputs` and `outputs` are flow."""

    is_plain: bool  # whether nodes run as they are, and not under rules
    nodes: list
    inputs: list
    outputs: list
    sources: list  # of `pass_degrees.Source`
    dead: list  # for each node, the values that no node after it takes
    ignored: list  # of the inputs, those that the model does not look at


def lower(graph, scored=()):
    """Returns the `LinearGraph` of a `graph.Graph`.

    `scored` is the `IdentitySet` of variables that scores are wanted for.

    Raises:
        ValueError: if no output of the model is flow.
    """
    outputs = _outputs(graph)
    nodes = [
        node
        for node in graph.nodes
        if any(v.is_flow or v.is_weight for v in node.outputs)
    ]
    nodes = values.needed(nodes, outputs)
    depends = pass_weights.depending(nodes, scored)
    nodes = pass_sources.start(nodes, depends)
    nodes = _replaced(nodes, pass_activations.merge)
    nodes = _replaced(nodes, pass_centring.center)
    nodes = pass_gates.mark(nodes)
    nodes = values.needed(nodes, outputs)
    nodes, sources = pass_degrees.resolve(nodes, graph.inputs, outputs)
    nodes = pass_gates.cut(nodes, outputs)
    nodes = pass_gates.without_idle(nodes, depends)
    nodes = values.needed(nodes, outputs)
    nodes = pass_weights.compute(nodes, depends)
    return _finished(False, nodes, graph, outputs, sources)


def plain(graph):
    """Returns the graph as it is, without leaf layers: the authors' variant."""
    graph = graph.opened
    return _finished(True, graph.nodes, graph, _outputs(graph), [])


def _outputs(graph):
    outputs = [value for value in graph.outputs if value.is_flow]
    if not outputs:
        why = ""
        if graph.cut:
            why = f" {executor.named(graph.cut[-1])} multiplies by zeros."
        raise ValueError(
            "Argument `model` must have an output of a float type that "
            "depends on its input. Received: outputs of types "
            f"{[v.dtype.name for v in graph.outputs]} that do not, or are "
            f"indices.{why} Score the model that these are computed from."
        )
    return outputs


def _replaced(nodes, replace):
    """Replaces nodes one by one, by what `replace(node, producers)` returns.

    That is most often the node; `producers` maps values to nodes before it.
    """
    producers, result = {}, []
    for node in nodes:
        node = replace(node, producers)
        producers.update(dict.fromkeys(node.outputs, node))
        result.append(node)
    return result


def _finished(is_plain, nodes, graph, outputs, sources):
    """Returns the `LinearGraph` of the nodes that outputs need."""
    nodes = values.needed(nodes, outputs)
    last = {}
    for i, node in enumerate(nodes):
        last.update(dict.fromkeys([*node.outputs, *node.inputs], i))
    kept = {*outputs, *(source.unit for source in sources)}
    dead = [[] for _ in nodes]
    for value, i in last.items():
        if value not in kept:
            dead[i].append(value)
    inputs = [value for value in graph.inputs if value.is_flow]
    used = {v for n in values.needed(graph.nodes, outputs) for v in n.inputs}
    ignored = [v for v in inputs if v not in used and v not in outputs]
    return LinearGraph(is_plain, nodes, inputs, outputs, sources, dead, ignored)
