"""Takes any function computed entry by entry from one tensor for an activation.

However it is spelled: GELU as 0.5 x (1 + erf(x / sqrt 2)), swish, mish, a
squared ReLU. Where ways from one tensor meet again, and one of them is bent
(no line through 0), all of it is that tensor.
"""

import dataclasses

from synflow_tf.graph import families
from synflow_tf.graph import leaves

# Of two tensors, these are bent; a sum or difference of lines is a line.
_BENT = families.SELECTIONS | {"Maximum", "Minimum", "SquaredDifference"}
_SCALINGS = families.PRODUCTS | families.QUOTIENTS


def merge(node, producers):
    """Replaces an activation by "_Same" of the tensor it is computed from."""
    if node.type not in families.POINTWISE or node.type in leaves.OPERATIONS:
        return node
    data = [node.inputs[i] for i in families.data_of(node)]
    flows = [value for value in data if value.is_flow]
    rest = [value for value in data if not value.is_flow]
    root = None
    if len(flows) == 1:
        root = _scaled(node, flows[0], rest, producers)
    elif flows and not rest:
        root = _meeting(node, flows, producers)
    if root is None:
        return node
    return dataclasses.replace(
        node, type="_Same", inputs=[root], extra={"whole": True}
    )


def _scaled(node, flow, rest, producers):
    """Returns the root of an activation that a node multiplies by numbers."""
    before = producers.get(flow)
    if before is None or not before.extra.get("whole"):
        return None
    above = node.type in families.PRODUCTS or node.inputs[0] is flow
    numbers = all(v.kind == "C" and v.size == 1 for v in rest)
    scaled = node.type in _SCALINGS and above and numbers
    return before.inputs[0] if scaled else None


def _meeting(node, flows, producers):
    """Returns the nearest tensor that all flows come from, if one is bent."""
    lines = [
        {value: way for value, *way in _line(flow, producers)} for flow in flows
    ]
    for value in lines[0]:
        if all(value in line for line in lines):
            ways = [line[value] for line in lines]
            return value if _is_activation(node, value, ways) else None
    return None


def _is_activation(node, value, ways):
    """Tells whether ways from a value that meet in a node are bent."""
    if value.shape != node.outputs[0].shape or [False, True] in ways:
        return False
    straight = node.type in families.SUMS - _BENT
    return not straight or any(bent for bent, _ in ways)


def _line(value, producers):
    """Yields the tensors that a value is computed from, nearest first.

    With each comes whether the way from it is bent, and whether weights take
    part in that. The way back passes nodes of one flow that work entry by
    entry. The sum with a number or a bias is one, as it only shifts an
    activation; a sum of two flows is none, as it depends on another tensor.
    """
    bent = weighted = False
    while True:
        yield value, bent, weighted
        node = producers.get(value)
        if node is None or len(node.flows) != 1 or len(node.outputs) != 1:
            return
        [before] = node.flows
        if before.shape != value.shape or node.type in leaves.OPERATIONS:
            return
        if node.type == "_Same" and not node.extra.get("whole"):
            return
        if families.is_entrywise(node.type):
            bent |= families.is_bent(node.type)
        elif node.type in families.POINTWISE:
            rest = [x for x in node.inputs if x is not before]
            scaled = node.type in _SCALINGS
            if not all(_is_fixed(x, scaled) for x in rest):
                return
            weighted |= any(x.is_weight for x in rest)
            bent |= node.type in _BENT
            bent |= node.type in families.QUOTIENTS and node.inputs[1] is before
        else:
            return
        value = before


def _is_fixed(value, scaled):
    """Tells whether an operand is known, and, if it scales, a single number."""
    if value.dtype.is_bool or value.is_weight:
        return True
    return value.kind == "C" and (value.size == 1 or not scaled)
