"""Activations, sums, selections, products and quotients."""

import tensorflow as tf

from synflow_tf.graph import families
from synflow_tf.linearize import magnitudes
from synflow_tf.linearize import registry


@registry.operation(*families.ACTIVATIONS)
def activation(node, *tensors):
    """The identity."""
    flow = [i for i, v in enumerate(node.inputs) if v.is_flow]
    flow += [i for i, v in enumerate(node.inputs) if v.is_weight]
    return magnitudes.wide(tensors[flow[0]], node.outputs[0].shape)


@registry.operation("_Stop")
def stop(node, x):
    """The identity, through which no gradient comes back."""
    del node
    return tf.stop_gradient(x)


@registry.operation(*families.SUMS, *families.SELECTIONS)
def add(node, *tensors):
    """The sum of the flows; of weights where there are none.

    What a selection selects by is not looked at.
    """
    data = families.data_of(node)
    terms = [i for i in data if node.inputs[i].is_flow]
    terms = terms or [i for i in data if node.inputs[i].is_weight]
    total = None
    for i in terms:
        x = tensors[i]
        if i and _is_bias(node, x):
            x = tf.reshape(x, [-1, *[1] * (len(node.inputs[0].shape) - 2)])
        total = x if total is None else total + x
    return magnitudes.wide(total, node.outputs[0].shape)


def _is_bias(node, x):
    """Whether one of the terms is along the channels, and they come first."""
    first = node.attributes.get("data_format") == "NCHW"
    return node.type == "BiasAdd" and first and x.shape.rank == 1


@registry.operation(*families.PRODUCTS)
def multiply(node, *tensors):
    """The product of one flow, or weight, and magnitudes."""
    x, y = magnitudes.all_of(node, tensors)
    return x * y


@registry.operation(*families.QUOTIENTS)
def divide(node, *tensors):
    """The quotient by a magnitude; below, a flow is as an activation."""
    x, y = magnitudes.all_of(node, tensors)
    if node.inputs[1].is_flow:
        return magnitudes.wide(y, node.outputs[0].shape)
    # What a weight is divided by must not take from its score.
    y = tf.stop_gradient(y)
    return x / tf.where(y == 0, tf.ones_like(y), y)


@registry.operation("_Gate")
def gate(node, x, *tensors):
    """A product: the gate has the value 1, and lets flow through.

    Weights that scale the gate are factors.
    """
    for inverse, factor in zip(node.extra["inverse"], tensors, strict=False):
        if inverse:
            factor = tf.stop_gradient(factor)
            factor = 1 / tf.where(factor == 0, tf.ones_like(factor), factor)
        x = x * factor
    if node.gates:
        x = x * opened(tensors[-1])
    return magnitudes.wide(x, node.outputs[0].shape)


def opened(g):
    """A gate: g / stop_gradient(g), and 1 where g is 0."""
    is_open = g != 0
    safe = tf.where(is_open, g, tf.ones_like(g))
    return tf.where(is_open, safe / tf.stop_gradient(safe), tf.ones_like(g))
