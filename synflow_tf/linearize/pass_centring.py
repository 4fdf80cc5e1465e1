"""What has its own mean taken away from it is itself: x - mean(x) is x.

Then the factor 1 / deviation is a gate, and layer, group, RMS and L2
normalization of any library come out as x |gamma|.
"""

import dataclasses

from synflow_tf.graph import families
from synflow_tf.graph import leaves
from synflow_tf.linearize import hints

# What a mean over the highest entries is made with, as in a sparsemax.
_IN_ORDER = families.SELECTIONS | {"Cumsum", "TopK", "TopKV2", "_Same"}
_DIFFERENCES = frozenset(("Sub", "SquaredDifference"))
_KINDS = _DIFFERENCES | {"Add", "AddV2", "BiasAdd"}


def center(nodes):
    """Replaces differences from a mean by what it is the mean of.

    Args:
        nodes: list of `graph.Node`.

    Returns:
        list of `graph.Node`, with "_Same" in their place.
    """
    producers, result = {}, []
    for node in nodes:
        value = _centred(node, producers)
        if value is not None:
            node = dataclasses.replace(
                node, type="_Same", inputs=[value], extra={}
            )
        producers.update((value, node) for value in node.outputs)
        result.append(node)
    return result


def _centred(node, producers):
    """What a node takes a mean of, and away from, or None."""
    if node.type not in _KINDS or node.type in leaves.OPERATIONS:
        return None
    if len(node.inputs) != 2 or len(node.flows) != 2:
        return None
    wanted = 1 if node.type in _DIFFERENCES else -1
    for x, y in (node.inputs, node.inputs[::-1]):
        if x.shape != node.outputs[0].shape:
            continue
        signs = {
            value: sign
            for value, sign, reduced in _way(x, producers)
            if not reduced
        }
        for value, sign, reduced in _way(y, producers):
            if reduced and sign * signs.get(value, 0) == wanted:
                return x
    return None


def _way(value, producers):
    """The values that a value is a multiple, or a mean, of.

    Yields:
        Triples of a value, the sign, and whether a mean was taken.
    """
    sign, reduced = 1, False
    while True:
        yield value, sign, reduced
        node = producers.get(value)
        if node is None or node.type in leaves.OPERATIONS:
            return
        flows = node.flows
        if len(flows) == 2 and node.type in families.PRODUCTS:
            flows = [hints.trunk_first(*flows, producers)[0]]
        if len(flows) != 1:
            return
        [before] = flows
        if node.type in families.REDUCTIONS:
            reduced = True
        elif node.type in families.QUOTIENTS:
            if node.inputs[0] is not before:
                return
        elif node.type == "Neg" or (
            node.type == "Sub" and node.inputs[1] is before
        ):
            sign = -sign
        elif node.type in ("Maximum", "Minimum", "SquaredDifference"):
            return
        elif (
            node.type
            not in families.RESHAPES | families.SUMS | families.PRODUCTS
            and node.type not in _IN_ORDER
        ):
            return
        value = before
