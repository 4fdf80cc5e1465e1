"""Rules of what works entry by entry: Relu, AddV2, SelectV2, Mul, Div ..."""

import tensorflow as tf

from synflow_tf.graph import families
from synflow_tf.linearize import channels
from synflow_tf.linearize import magnitudes
from synflow_tf.linearize import registry


@registry.operation(*families.ACTIVATIONS)
def activation(node, *tensors):
    """Returns the first flow as it is; a weight where there is none."""
    x = _carrying(node, tensors)[0]
    return magnitudes.wide(x, node.outputs[0].shape)


@registry.operation("_Stop")
def stop(node, x):
    """Returns a tensor that no gradient comes back through."""
    del node
    return tf.stop_gradient(x)


@registry.operation(*families.SUMS, *families.SELECTIONS)
def add(node, *tensors):
    """Adds the flows; weights where there are none.

    What a selection selects by is not looked at.
    """
    terms = _carrying(node, tensors)
    if node.type == "BiasAdd":
        terms = [
            channels.aligned(x, node) if x.shape.rank == 1 else x for x in terms
        ]
    return magnitudes.wide(sum(terms[1:], terms[0]), node.outputs[0].shape)


def _carrying(node, tensors):
    """Returns what of a node's data is flow; weights where there is none."""
    data = [(node.inputs[i], tensors[i]) for i in families.data_of(node)]
    flows = [x for value, x in data if value.is_flow]
    return flows or [x for value, x in data if value.is_weight]


@registry.operation(*families.PRODUCTS)
def multiply(node, *tensors):
    """Multiplies one flow, or weight, with magnitudes."""
    x, y = magnitudes.of_data(node, tensors)
    return x * y


@registry.operation(*families.QUOTIENTS)
def divide(node, *tensors):
    """Divides by a magnitude; a flow below counts as an activation."""
    x, y = magnitudes.of_data(node, tensors)
    if node.inputs[1].is_flow:
        return magnitudes.wide(y, node.outputs[0].shape)
    # What a weight is divided by must not take from its score.
    return x / _not_zero(tf.stop_gradient(y))


@registry.operation("_Gate")
def gate(node, x, *tensors):
    """Multiplies with a gate, which has the value 1 and lets flow through.

    The tensors are weights that scale the gate, which are factors, and the
    gate: g / stop_gradient(g), and 1 where g is 0.
    """
    for inverse, factor in zip(node.extra["inverse"], tensors, strict=False):
        if inverse:
            factor = 1 / _not_zero(tf.stop_gradient(factor))
        x = x * factor
    if node.gates:
        g = tensors[-1]
        safe = _not_zero(g)
        opened = safe / tf.stop_gradient(safe)
        x = x * tf.where(g != 0, opened, tf.ones_like(g))
    return magnitudes.wide(x, node.outputs[0].shape)


def _not_zero(x):
    """Replaces zeros by ones."""
    return tf.where(x == 0, tf.ones_like(x), x)
