"""Finds the skip path around an empty kernel."""

import tensorflow as tf

from synflow_tf.graph import identity
from synflow_tf.linearize import executor
from synflow_tf.linearize import walks


def skip_paths(graph, weights, inputs, variables):
    """Finds the skip paths around kernels whose weights are all removed.

    `weights` have the masks applied; `inputs` are ones. Returns for each
    variable a pair of str: the path of the layer where what it fed meets the
    flow, and of the layer that the flow comes from. Both are the variable's own
    layer if what is left of that carries flow, and "" if only other outputs do.
    """
    tensors = {}
    executor.run(graph, weights, inputs, record=tensors)
    alive = {v for v, x in tensors.items() if tf.reduce_any(x != 0)}
    alive.update(graph.inputs)
    readers = identity.IdentityDict()
    for node in graph.nodes:
        for variable in node.variables:
            readers.setdefault(variable, set()).add(node)
    return [_skip_path(graph, alive, readers[v]) for v in variables]


def _skip_path(graph, alive, readers):
    """Returns the pair of `skip_paths` for the nodes that read a variable."""
    producers = walks.producers_of(graph.nodes)
    dead = set()
    for node in graph.nodes:
        if node not in readers and dead.isdisjoint(node.inputs):
            continue
        if alive.isdisjoint(node.outputs):
            dead.update(node.outputs)
            continue
        where = through = _name(node)
        while node is not None and through == where:
            others = [v for v in node.flows if v in alive and v not in dead]
            if node in readers or not others:
                return where, where
            node = producers.get(others[0])
            through = _name(node) or where
        return where, through
    return "", ""


def _name(node):
    """Returns the path of a node's layer; "" of a stop that was put in."""
    if node is None:
        return "the input"
    if node.type == "_Stop":
        return ""
    return "/".join(layer.name for layer in node.layers) or node.name
