"""Which of two flows that are multiplied is the gate, as far as can be told."""

from synflow_tf.graph import families


def bound(value, producers):
    """How likely a value is a gate, by the activation that bounds it.

    Args:
        value: `graph.Value`.
        producers: dict of `graph.Value` to the `graph.Node` that returns it.

    Returns:
        int, see `families.BOUNDED`; 0 if none does.
    """
    while True:
        node = producers.get(value)
        if node is None:
            return 0
        flows = node.flows
        if node.type in families.QUOTIENTS:
            if _is_share(node, producers):
                return families.BOUNDED["Softmax"]
            if len(flows) == 1 and node.inputs[1] is flows[0]:
                return families.BOUNDED["Reciprocal"]
        # The maximum of a pair is what `clip_by_value` ends with.
        if node.type in families.BOUNDED:
            return families.BOUNDED[node.type]
        through = (
            node.type in families.RESHAPES | families.REDUCTIONS
            or node.type in families.SLICES | families.POINTWISE
            or node.type in ("Neg", "Sqrt", "Square", "TopKV2", "_Same")
            and not node.extra.get("whole")
        )
        if len(flows) != 1 or not through:
            return 0
        [value] = flows


def _is_share(node, producers):
    """Whether a quotient is of something by its own sum: a softmax."""
    above, below = node.inputs[:2]
    exp = producers.get(above)
    seen = 0
    while below.is_flow and seen < 8:
        before = producers.get(below)
        again = (
            before is not None
            and exp is not None
            and (before.type == exp.type and before.inputs == exp.inputs)
        )
        if below is above or again:
            return seen > 0
        if before is None or len(before.flows) != 1:
            return False
        seen += 1
        [below] = before.flows
    return False


def trunk_first(one, other, producers):
    """Two factors in order: the trunk, then the gate.

    The gate is bounded by an activation; else it is the one that is not what
    attention has read (queries, where keys met the values first); else the
    smaller one; else the one that is computed from the other; else the second.
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


def _is_read(value, producers):
    """Whether a value is what attention weights have read."""
    while True:
        node = producers.get(value)
        if node is None:
            return False
        if node.type in families.CONTRACTIONS and node.gates:
            return True
        through = families.RESHAPES | families.POINTWISE
        if len(node.flows) != 1 or node.type not in through:
            return False
        [value] = node.flows


def _comes_from(value, origin, producers):
    """Whether a value is computed from another."""
    seen, waiting = set(), [value]
    while waiting:
        value = waiting.pop()
        if value is origin:
            return True
        node = producers.get(value)
        if node is not None and node not in seen:
            seen.add(node)
            waiting.extend(node.flows)
    return False
