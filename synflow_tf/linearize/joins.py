"""What SynFlow sees where tensors meet: sums, products and contractions.

A product of two tensors of the model multiplies the degree of homogeneity, so
one of them is taken as a gate: its value is 1, and its weights still receive
flow,

    t * g / stop_gradient(g)        (1 where g = 0).

In attention the gate are the weights Q K^T / stop_gradient(row sums).
"""

import dataclasses
import typing

import tensorflow as tf

from synflow_tf.linearize.registry import register_rule


@dataclasses.dataclass(frozen=True, eq=False)
class Join:
    """A node's layer: what a layer or operation is replaced by.

    Attributes:
        layer: what it replaces, or None.
        function: function of `LinearWeights` and the node's arguments.
        gates: tuple of int, which of the arguments are gates.
    """

    layer: typing.Any
    function: typing.Any
    gates: tuple = ()

    @property
    def name(self):
        """The name of what it replaces."""
        return "stop_gradient" if self.layer is None else self.layer.name


@register_rule(Join)
def join(layer, weights, *args, **kwargs):
    """The rule of a `Join`."""
    return layer.function(weights, *args, **kwargs)


def constant(weights, x):
    """The magnitude of something that does not come from the input."""
    x = weights[x] if hasattr(x, "assign") else tf.convert_to_tensor(x)
    if not (x.dtype.is_floating or x.dtype.is_integer):
        return x
    return tf.abs(tf.cast(x, weights.dtype))


def add(flows, weights, *operands):
    """The sum of what comes from the input; only the shape of the rest.

    Args:
        flows: tuple of bool, which operands come from the input. If none
            does, all of them count.
        weights: `LinearWeights`.
        *operands: tensors or numbers.

    Returns:
        Tensor of the shape that they have together.
    """
    total = None
    for x, flow in zip(operands, flows, strict=True):
        if not any(flows):
            x = constant(weights, x)
        elif not flow:
            if not getattr(x, "shape", ()):
                continue
            x = tf.zeros(tuple(x.shape), weights.dtype)
        total = x if total is None else total + x
    return total


def scale(inverse, weights, x, factor):
    """The product with, or quotient by, the magnitude of a constant."""
    factor = constant(weights, factor)
    # What a weight is divided by must not take from its score.
    return x / tf.stop_gradient(factor) if inverse else x * factor


def same(weights, x):
    """The identity."""
    del weights
    return x


def project(operation, flows, weights, *operands):
    """A contraction with what does not come from the input."""
    operands = [
        x if flow else constant(weights, x)
        for x, flow in zip(operands, flows, strict=True)
    ]
    return operation(*operands)


def gate(weights, x, *gates):
    """A product: all but the first have the value 1, and let flow through."""
    del weights
    for g in gates:
        x *= opened(g)
    return x


def opened(g):
    """A gate: g / stop_gradient(g), and 1 where g is 0."""
    g = tf.convert_to_tensor(g)
    is_open = g != 0
    safe = tf.where(is_open, g, tf.ones_like(g))
    return tf.where(is_open, safe / tf.stop_gradient(safe), tf.ones_like(g))


def normalized(a, axes):
    """Attention weights: a over its sums, equal where nothing scores.

    Args:
        a: tensor >= 0.
        axes: list of int, over which the weights add up to 1.

    Returns:
        Tensor of the shape of `a`.
    """
    total = tf.stop_gradient(tf.reduce_sum(a, axes, keepdims=True))
    empty = total == 0
    size = tf.size(a) // tf.size(total)
    uniform = tf.ones_like(a) / tf.cast(size, a.dtype)
    safe = tf.where(empty, tf.ones_like(total), total)
    return tf.where(empty, uniform, a / safe)


def contract(operation, side, axes, weights, *operands):
    """A contraction, one side of which are attention weights.

    Args:
        operation: function of the operands.
        side: int, which operand is the gate.
        axes: list of int, the axes of that operand that are summed over.
        weights: `LinearWeights`.
        *operands: tensors.

    Returns:
        Tensor.
    """
    del weights
    operands = list(operands)
    operands[side] = normalized(operands[side], axes)
    return operation(*operands)


def concatenate(operation, flows, origins, weights, unit, *operands):
    """A concatenation; flow starts at what does not come from the input.

    Args:
        operation: function of a list of tensors.
        flows: tuple of bool, which operands come from the input.
        origins: list, for each operand the ids of the weights it is made of.
        weights: `LinearWeights`.
        unit: tensor of shape (), what flow starts as.
        *operands: tensors.

    Returns:
        Tensor.
    """
    operands = [
        x if flow else weights.source(constant(weights, x), made_of) * unit
        for x, flow, made_of in zip(operands, flows, origins, strict=True)
    ]
    return operation(operands)


def stop(weights, x):
    """The identity, through which no gradient comes back."""
    del weights
    return tf.stop_gradient(x)


def is_stop(node):
    """Whether a node only stops gradients."""
    return isinstance(node.layer, Join) and node.layer.function is stop
