"""Where the flow goes instead, when all weights of a kernel are removed."""

import tensorflow as tf

from synflow_tf.graph import identity
from synflow_tf.linearize import executor


def skip_paths(graph, weights, inputs, variables):
    """Finds the paths that carry the flow beside empty kernels.

    Args:
        graph: `lower.LinearGraph`.
        weights: `LinearWeights`, with the masks applied.
        inputs: list of tensors of ones.
        variables: list of variables whose weights are all removed.

    Returns:
        list, for each variable a pair of str: the path of the layer where what
        it fed meets the flow, and of the layer that the flow comes from. Both
        are the weight's own layer if what is left of that carries flow.
    """
    alive = set(graph.inputs)

    def record(node, before, after):
        del before
        alive.update(
            value
            for value, x in zip(node.outputs, after, strict=True)
            if x is not None and tf.reduce_any(x != 0)
        )

    executor.run(graph, weights, inputs, record=record)
    readers = identity.IdentityDict()
    for node in graph.nodes:
        for variable in node.variables:
            readers.setdefault(variable, set()).add(node)
    return [_meeting(graph, alive, readers[v]) for v in variables]


def _meeting(graph, alive, readers):
    producers = {value: node for node in graph.nodes for value in node.outputs}
    dead = set()
    for node in graph.nodes:
        if node not in readers and dead.isdisjoint(node.inputs):
            continue
        if alive.isdisjoint(node.outputs):
            dead.update(node.outputs)
            continue
        where = _name(node)
        through = where
        while node is not None and through == where:
            others = [v for v in node.flows if v in alive and v not in dead]
            if node in readers or not others:
                return where, where
            node = producers.get(others[0])
            through = _name(node) or where
        return where, through
    return "", ""


def _name(node):
    """The path of the layer of a node; "" of a stop that was put in."""
    if node is None:
        return "the input"
    if node.type == "_Stop":
        return ""
    return "/".join(layer.name for layer in node.layers) or node.name
