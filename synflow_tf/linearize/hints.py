"""Guesses which of two flows that are multiplied is the gate."""

from synflow_tf.graph import families
from synflow_tf.linearize import walks

# What leaves a bounded value bounded, up to a factor.
_THROUGH = (
    families.RESHAPES
    | families.REDUCTIONS
    | families.SLICES
    | families.POINTWISE
    | {"Neg", "Sqrt", "Square", "TopKV2", "_Same"}
)
# How many operations may lie between the numerator and the denominator of a
# softmax that is spelled out: a sum, an epsilon, and what shapes them.
_SHARE_LENGTH = 8


def trunk_first(one, other, producers):
    """Returns two factors in order: the trunk, then the gate.

    The first of these that tells them apart, the surest first:
    1. An activation bounds the gate, by what bounds it most: only weights for
       something else are squeezed into a range.
    2. The gate is not what attention has read. Where keys met the values first
       (linear attention), that product is the trunk, though it may be smaller
       than the queries.
    3. The gate is smaller: one number for a whole channel, say.
    4. The gate is computed from the trunk, as in x * f(x).
    5. The gate is the second, as most code has it.
    """
    keys = [
        (bound(x, producers), not _is_read(x, producers), -x.size)
        for x in (one, other)
    ]
    if keys[0] == keys[1]:
        keys = [
            _comes_from(x, y, producers)
            for x, y in ((one, other), (other, one))
        ]
    return (one, other) if keys[0] <= keys[1] else (other, one)


def bound(value, producers):
    """Returns how likely a value is a gate, by the activation that bounds it.

    An int, see `families.BOUNDED`; 0 if none does.
    """
    for node in _above(value, producers):
        if node.type in families.QUOTIENTS:
            if _is_share(node, producers):
                return families.BOUNDED["Softmax"]
            if node.flows == [node.inputs[1]]:
                return families.BOUNDED["Reciprocal"]
        # The maximum of a pair is what `clip_by_value` ends with.
        if node.type in families.BOUNDED:
            return families.BOUNDED[node.type]
        if node.type not in _THROUGH or node.extra.get("whole"):
            break
    return 0


def _above(value, producers):
    """Yields the nodes that a value comes through, while they take one flow."""
    while value in producers:
        node = producers[value]
        yield node
        if len(node.flows) != 1:
            return
        [value] = node.flows


def _is_share(node, producers):
    """Tells whether a quotient is of something by its own sum: a softmax."""
    above, below = node.inputs[:2]
    exp = producers.get(above)
    for length in range(_SHARE_LENGTH):
        if not below.is_flow:
            return False
        before = producers.get(below)
        again = exp and before and before.inputs == exp.inputs
        if below is above or (again and before.type == exp.type):
            return length > 0
        if before is None or len(before.flows) != 1:
            return False
        [below] = before.flows
    return False


def _is_read(value, producers):
    """Tells whether a value is what attention weights have read."""
    for node in _above(value, producers):
        if node.type in families.CONTRACTIONS and node.gates:
            return True
        if node.type not in families.RESHAPES | families.POINTWISE:
            break
    return False


def _comes_from(value, origin, producers):
    """Tells whether a value is computed from another."""
    return any(origin in n.flows for n in walks.upstream(value, producers))
