"""Walks up and down the graph, from values to the nodes around them.

A pass returns other nodes for the same values, so `Value.node` is the one of
the model; which one is in its place now is in a dict of producers.
"""


def producers_of(nodes):
    """Returns a dict of each value to the node that returns it."""
    return {value: node for node in nodes for value in node.outputs}


def upstream(value, producers):
    """Yields the nodes that bring flow to a value, the nearest first."""
    seen, waiting = set(), [value]
    while waiting:
        node = producers.get(waiting.pop(0))
        if node is not None and node not in seen:
            seen.add(node)
            yield node
            waiting += node.flows


def downstream(nodes, starts):
    """Returns the set of values that nodes with `starts(node)` have a part in.

    Args:
        nodes: list of `graph.Node`, in an order in which they can run.
        starts: function of a node to bool.
    """
    found = set()
    for node in nodes:
        if starts(node) or not found.isdisjoint(node.inputs):
            found.update(node.outputs)
    return found
