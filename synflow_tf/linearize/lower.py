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
    """Nodes that the executor runs.

    Attributes:
        nodes: list of `graph.Node`.
        inputs: list of `graph.Value`, those inputs of the model that are flow.
        outputs: list of `graph.Value`, those outputs that are flow.
        sources: list of `pass_degrees.Source`.
        dead: list, for each node the list of `graph.Value` that nothing after
            it reads.
        ignored: list of those `graph.Value` of `inputs` that the model itself
            does not look at.
    """

    nodes: list
    inputs: list
    outputs: list
    sources: list
    dead: list
    ignored: list


def lower(graph, scored=()):
    """The linear graph of a model.

    Args:
        graph: `graph.Graph`.
        scored: `IdentitySet` of variables that scores are wanted for.

    Returns:
        `LinearGraph`.

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
    nodes = pass_activations.merge(nodes)
    nodes = pass_centring.center(nodes)
    nodes = pass_gates.mark(nodes)
    nodes = values.needed(nodes, outputs)
    nodes, sources = pass_degrees.settle(nodes, graph.inputs, outputs)
    nodes = pass_gates.cut(nodes, outputs)
    nodes = pass_gates.without_idle(nodes, depends)
    nodes = pass_gates.within(nodes, outputs)
    nodes = values.needed(nodes, outputs)
    nodes = pass_weights.compute(nodes, depends)
    return _finished(nodes, graph, outputs, sources)


def plain(graph):
    """The graph as it is, without leaf layers, for the authors' variant.

    Args:
        graph: `graph.Graph`.

    Returns:
        `LinearGraph`.
    """
    graph = graph.opened
    return _finished(graph.nodes, graph, _outputs(graph), [])


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


def _finished(nodes, graph, outputs, sources):
    nodes = values.needed(nodes, outputs)
    last = {value: i for i, node in enumerate(nodes) for value in node.outputs}
    last.update(
        (value, i) for i, node in enumerate(nodes) for value in node.inputs
    )
    kept = {*outputs, *(source.unit for source in sources)}
    dead = [[] for _ in nodes]
    for value, i in last.items():
        if value not in kept:
            dead[i].append(value)
    inputs = [value for value in graph.inputs if value.is_flow]
    needed = values.needed(graph.nodes, outputs)
    used = {v for node in needed for v in node.inputs}
    ignored = [v for v in inputs if v not in used and v not in outputs]
    return LinearGraph(nodes, inputs, outputs, sources, dead, ignored)
