"""Attention: the weights are a gate, softmax(Q K^T) being Q K^T over its sums.

Keras' own attention layers need no rule: they are opened, and what comes out
is treated like attention that a user spells out.
"""

import tensorflow as tf

from synflow_tf import calls
from synflow_tf.linearize import joins


def dot_product(node):
    """The function, and the arguments, for an operation Keras has for it."""
    names = ("query", "key", "value")
    given = dict(zip(names, node.args, strict=False))
    given.update((k, v) for k, v in node.kwargs.items() if k in names)
    return _dot_product, [given[name] for name in names]


def _dot_product(weights, query, key, value):
    """Of shapes (1, t, heads, d), (1, s, heads', d), (1, s, heads', d)."""
    del weights
    heads = query.shape[2] // key.shape[2]
    key, value = (tf.repeat(x, heads, axis=2) for x in (key, value))
    scores = tf.einsum("bthd,bshd->bhts", query, key)
    return tf.einsum("bhts,bshd->bthd", joins.normalized(scores, [-1]), value)


def contraction(node, name, operands):
    """What a contraction of two tensors does.

    Args:
        node: `graph.Node`, of one of `operations.CONTRACTIONS`.
        name: str, which one.
        operands: list of two, those of its arguments that are contracted.

    Returns:
        A function of two tensors, and a pair of lists of int: the axes of each
        that are summed over.
    """
    flat = tf.nest.flatten((node.args, node.kwargs))
    positions = []
    for operand in operands:
        positions.append(
            next(
                i
                for i, x in enumerate(flat)
                if x is operand and i not in positions
            )
        )

    def operation(*tensors):
        filled = list(flat)
        for position, tensor in zip(positions, tensors, strict=True):
            filled[position] = tensor
        args, kwargs = tf.nest.pack_sequence_as(
            (node.args, node.kwargs), filled
        )
        return node.layer.call(*args, **kwargs)

    return operation, _axes(node, name, flat)


def _axes(node, name, flat):
    if name == "einsum":
        texts = [x for x in flat if isinstance(x, str)]
        equation = getattr(node.layer, "subscripts", None) or texts[0]
        return _einsum_axes(equation.replace(" ", ""))
    if name == "inner":
        return [-1], [-1]
    if calls.operation_name(node.layer) is None:
        axes = node.layer.axes
        axes = (axes, axes) if isinstance(axes, int) else axes
        return [axes[0]], [axes[1]]
    flip = [
        any(
            node.kwargs.get(f"{how}_{side}") for how in ("transpose", "adjoint")
        )
        for side in "ab"
    ]
    return [-2 if flip[0] else -1], [-1 if flip[1] else -2]


def _einsum_axes(equation):
    """The axes of each operand that are not in the result."""
    inputs, _, result = equation.partition("->")
    axes = []
    for labels in inputs.split(","):
        before, dots, after = labels.partition("...")
        here = [i for i, x in enumerate(before) if x not in result]
        if dots:
            here += [
                i - len(after) for i, x in enumerate(after) if x not in result
            ]
        axes.append(here)
    return tuple(axes)
