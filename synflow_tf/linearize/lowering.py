"""Turns a model's graph into the linear one that scores are computed on.

Where tensors meet, nodes are replaced by `joins`. What feeds gates only is cut
off from what carries the flow: gradients stop where tensors enter it.
"""

import dataclasses

from synflow_tf import graph as graph_lib
from synflow_tf.linearize import gates
from synflow_tf.linearize import joining


@dataclasses.dataclass(frozen=True, eq=False)
class LinearGraph:
    """Nodes that the executor runs.

    Attributes:
        nodes: list of `graph.Node`.
        inputs: list of `graph.Slot`.
        outputs: list of `graph.Slot`.
        unit: `graph.Slot`, a number that flow starts as where it does not
            start at an input; in effect one more input.
        flow: set of `graph.Slot`, those whose value comes from the inputs,
            and so grows with them.
        dead: list, for each node the list of `graph.Slot` that nothing after
            it reads.
    """

    nodes: list
    inputs: list
    outputs: list
    unit: graph_lib.Slot
    flow: set
    dead: list


def plain(graph):
    """The graph as it is, for the authors' variant."""
    unit = graph_lib.Slot((), "float32")
    return _finished(graph.nodes, graph.inputs, graph.outputs, unit)


def lower(graph):
    """The linear graph of a model.

    Args:
        graph: `graph.Graph`.

    Returns:
        `LinearGraph`.
    """
    nodes = _needed(graph.nodes, graph.outputs)
    unit = graph_lib.Slot((), "float32")
    flow = _flow(nodes, [*graph.inputs, unit])
    producers = {slot: node for node in nodes for slot in node.outputs}
    joiner = joining.Joiner(flow, producers, unit)
    nodes = [joiner.join(node) for node in nodes]
    nodes = _needed(nodes, graph.outputs)
    flow = _flow(nodes, [*graph.inputs, unit])
    nodes = gates.cut(nodes, flow, graph.outputs)
    return _finished(nodes, graph.inputs, graph.outputs, unit)


def _finished(nodes, inputs, outputs, unit):
    nodes = _needed(nodes, outputs)
    last = {slot: i for i, node in enumerate(nodes) for slot in node.outputs}
    last.update(
        (slot, i) for i, node in enumerate(nodes) for slot in node.inputs
    )
    dead = [[] for _ in nodes]
    for slot, i in last.items():
        if slot not in outputs and slot is not unit:
            dead[i].append(slot)
    flow = _flow(nodes, [*inputs, unit])
    return LinearGraph(nodes, inputs, outputs, unit, flow, dead)


def _needed(nodes, outputs):
    """Those nodes that the outputs depend on."""
    wanted = set(outputs)
    needed = []
    for node in reversed(nodes):
        if wanted.intersection(node.outputs):
            wanted.update(node.inputs)
            needed.append(node)
    return needed[::-1]


def _flow(nodes, inputs):
    """The slots whose value, not only whose size, depends on an input."""
    flow = set(inputs)
    for node in nodes:
        if flow.intersection(node.inputs) and not gates.is_size(node):
            flow.update(node.outputs)
    return flow
