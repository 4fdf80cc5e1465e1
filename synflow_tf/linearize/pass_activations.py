"""Any function computed entry by entry from one tensor is an activation.

However it is spelled: GELU as 0.5 x (1 + erf(x / sqrt 2)), swish, mish, a
squared ReLU. Where ways from one tensor meet again, and one of them is bent,
all of it is that tensor.
"""

import dataclasses

from synflow_tf.graph import families
from synflow_tf.graph import leaves


def merge(nodes):
    """Replaces spelled-out activations by the tensor they are functions of.

    Args:
        nodes: list of `graph.Node`.

    Returns:
        list of `graph.Node`, with "_Same" in the place of an activation.
    """
    producers, result = {}, []
    for node in nodes:
        root = _root(node, producers)
        if root is not None:
            node = dataclasses.replace(
                node,
                type="_Same",
                inputs=[root],
                extra={"whole": True},
            )
        producers.update((value, node) for value in node.outputs)
        result.append(node)
    return result


def _root(node, producers):
    """The tensor that a node is an activation of, or None."""
    kind = node.type
    if kind not in families.POINTWISE or kind in leaves.OPERATIONS:
        return None
    flows = [node.inputs[i] for i in families.data_of(node)]
    rest = [value for value in flows if not value.is_flow]
    flows = [value for value in flows if value.is_flow]
    if len(flows) == 1:
        before = producers.get(flows[0])
        scaled = kind in families.PRODUCTS or (
            kind in families.QUOTIENTS and node.inputs[0] is flows[0]
        )
        whole = before is not None and before.extra.get("whole")
        numbers = all(v.kind == "C" and v.size == 1 for v in rest)
        return before.inputs[0] if scaled and whole and numbers else None
    if len(flows) < 2 or rest:
        return None
    first, *others = [list(_line(value, producers)) for value in flows]
    others = [{value: ways for value, *ways in line} for line in others]
    for value, *ways in first:
        if all(value in line for line in others):
            ways = [ways, *(line[value] for line in others)]
            return value if _is_activation(node, value, ways) else None
    return None


def _is_activation(node, value, ways):
    """Whether ways from a value that meet in a node are bent."""
    if value.shape != node.outputs[0].shape:
        return False
    if any(weighted and not bent for bent, weighted in ways):
        return False
    straight = families.SUMS - {"Maximum", "Minimum", "SquaredDifference"}
    return node.type not in straight or any(bent for bent, _ in ways)


def _line(value, producers):
    """The tensors that a value is computed from entry by entry, nearest first.

    Yields:
        Triples of a value; whether the way from it is bent; and whether weights
        take part in it.
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
        rest = [x for x in node.inputs if x is not before]
        if node.type == "_Same":
            if not node.extra.get("whole"):
                return
            bent = True
        elif families.is_entrywise(node.type):
            bent |= families.is_bent(node.type)
        elif node.type in families.POINTWISE:
            scaled = node.type in families.PRODUCTS | families.QUOTIENTS
            if any(not _is_fixed(x, scaled) for x in rest):
                return
            weighted |= any(x.is_weight for x in rest)
            bent |= node.type in families.SELECTIONS | {
                "Maximum",
                "Minimum",
                "SquaredDifference",
            }
            bent |= node.type in families.QUOTIENTS and node.inputs[1] is before
        else:
            return
        value = before


def _is_fixed(value, scaled):
    """Whether an operand is known, and, if it scales, one for all entries."""
    if value.dtype.is_bool or value.is_weight:
        return True
    return value.kind == "C" and (value.size == 1 or not scaled)
