"""Where the flow goes instead, when all weights of a kernel are removed."""

import tensorflow as tf

from synflow_tf import graph as graph_lib
from synflow_tf.linearize import executor
from synflow_tf.linearize import joins


def beside(graph, weights, inputs, variables):
    """Finds the paths that carry the flow beside empty kernels.

    Args:
        graph: `lowering.LinearGraph`.
        weights: `LinearWeights`, with the masks applied.
        inputs: list of tensors of ones.
        variables: list of variables whose weights are all removed.

    Returns:
        list, for each variable a pair of str: the name of the layer where what
        it fed meets the flow, and of the layer that the flow comes from. Both
        are the weight's own layer if what is left of that carries flow.
    """
    alive = set(graph.inputs)

    def record(node, before, after):
        del before
        alive.update(
            slot
            for slot, x in zip(node.outputs, after, strict=True)
            if not x.dtype.is_floating or tf.reduce_any(x != 0)
        )

    executor.run(graph, weights, inputs, record)
    readers = {}
    for node in graph.nodes:
        for variable in _variables(node):
            readers.setdefault(id(variable), set()).add(node)
    return [_meeting(graph, alive, readers[id(v)]) for v in variables]


def _meeting(graph, alive, readers):
    producers = {slot: node for node in graph.nodes for slot in node.outputs}
    dead = set()
    for node in graph.nodes:
        reads = node in readers
        if not reads and not dead.intersection(node.inputs):
            continue
        if not alive.intersection(node.outputs):
            dead.update(node.outputs)
            continue
        if reads:
            return node.layer.name, node.layer.name
        others = [
            slot
            for slot in node.inputs
            if slot in alive and slot in graph.flow and slot not in dead
        ]
        origin = producers.get(others[0]) if others else None
        return node.layer.name, _name(origin, producers)
    return "", ""


def _name(node, producers):
    """The name of the nearest layer, not of a stop that was put in."""
    while node is not None and joins.is_stop(node):
        node = producers.get(node.inputs[0])
    return "the input" if node is None else node.layer.name


def _variables(node):
    """The variables that a node reads."""
    layer = node.layer
    if isinstance(layer, graph_lib.Read):
        return [layer.variable]
    if isinstance(layer, (graph_lib.Opaque, joins.Join)):
        layer = layer.layer
    return getattr(layer, "weights", ())
