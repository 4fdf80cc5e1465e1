"""Takes x - mean(x) for x.

Then the factor 1 / deviation is a gate, and layer, group, RMS and L2
normalization of any library come out as x |gamma|.
"""

import dataclasses

from synflow_tf.graph import families
from synflow_tf.graph import leaves
from synflow_tf.linearize import hints

_DIFFERENCES = frozenset(("Sub", "SquaredDifference"))
_KINDS = _DIFFERENCES | {"Add", "AddV2", "BiasAdd"}
# What a mean over the highest entries is made with, as in a sparsemax.
_IN_ORDER = families.SELECTIONS | {"Cumsum", "TopK", "TopKV2", "_Same"}
_THROUGH = (
    (families.POINTWISE - {"Maximum", "Minimum", "SquaredDifference"})
    | families.RESHAPES
    | families.REDUCTIONS
    | _IN_ORDER
    | {"Neg"}
)


def center(node, producers):
    """Replaces x - mean(x) by "_Same" of x."""
    if node.type not in _KINDS or node.type in leaves.OPERATIONS:
        return node
    if len(node.inputs) != 2 or len(node.flows) != 2:
        return node
    wanted = 1 if node.type in _DIFFERENCES else -1
    for x, y in (node.inputs, node.inputs[::-1]):
        if x.shape != node.outputs[0].shape:
            continue
        signs = {v: sign for v, sign, mean in _way(x, producers) if not mean}
        if any(
            mean and sign * signs.get(value, 0) == wanted
            for value, sign, mean in _way(y, producers)
        ):
            return dataclasses.replace(node, type="_Same", inputs=[x], extra={})
    return node


def _way(value, producers):
    """Yields the values that a value is a multiple, or a mean, of.

    With each come the sign, and whether a mean was taken. The way back passes
    nodes of one flow. The sum with a number or a bias is one, as those are
    dropped; a sum of two flows is a multiple of neither.
    """
    sign, mean = 1, False
    while True:
        yield value, sign, mean
        node = producers.get(value)
        if node is None or node.type in leaves.OPERATIONS:
            return
        flows = node.flows
        if len(flows) == 2 and node.type in families.PRODUCTS:
            flows = [hints.trunk_first(*flows, producers)[0]]
        if len(flows) != 1 or node.type not in _THROUGH:
            return
        [value] = flows
        below = len(node.inputs) > 1 and node.inputs[1] is value
        if node.type in families.QUOTIENTS and below:
            return
        if node.type == "Neg" or (node.type == "Sub" and below):
            sign = -sign
        mean |= node.type in families.REDUCTIONS
