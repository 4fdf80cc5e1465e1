"""Runs the nodes of a linear graph with their rules."""

import tensorflow as tf

from synflow_tf.graph import families
from synflow_tf.graph import keras_private
from synflow_tf.graph import values
from synflow_tf.linearize import magnitudes
from synflow_tf.linearize import registry
from synflow_tf.linearize import rescaling
from synflow_tf.linearize import unchanged

# Rules of layers do not get these: scores are for inference, on one example
# without padding.
_CONTEXT = ("training", "mask")


def ones(graph, dtype):
    """Returns the input that scores are computed for, a list of tensors."""
    return [tf.ones(v.shape, dtype) for v in graph.inputs if v.is_flow]


def flow_of(outputs):
    """Returns the flow R: the sum of all outputs, a tensor of shape ()."""
    return tf.add_n([tf.reduce_sum(x) for x in outputs])


def run(graph, weights, inputs, units=None, record=None):
    """Runs a linear graph.

    Args:
        graph: `lower.LinearGraph`.
        weights: `weights.LinearWeights`.
        inputs: list of tensors, in the order of `graph.inputs`.
        units: list of tensors of shape (), what flow starts as at each of
            `graph.sources`; by default that of `weights`.
        record: None, or a dict of `graph.Value` to tensor, which all that nodes
            return is added to.

    Returns:
        list of tensors, in the order of `graph.outputs`.

    Raises:
        ValueError: if an operation has no rule, or a rule fails; it names the
            layer.
    """
    outer_unit = weights.unit
    tensors = dict(zip(graph.inputs, inputs, strict=True))
    if units is None:
        units = [outer_unit] * len(graph.sources)
    for source, unit in zip(graph.sources, units, strict=True):
        tensors[source.unit] = unit
    for node, dead in zip(graph.nodes, graph.dead, strict=True):
        if graph.sources:  # Rules of layers may run graphs themselves.
            weights.unit = tensors[graph.sources[0].unit]
        before = _inputs(node, tensors, weights)
        found = _outputs(graph, node, before, weights)
        if record is not None:
            record.update(found)
        weights.range.catch_up(tensors)
        tensors.update(found)
        for value in dead:
            tensors.pop(value, None)
        weights.range.keep(tensors)
    weights.unit = outer_unit
    return [tensors[value] for value in graph.outputs]


def _inputs(node, tensors, weights):
    """Returns the tensors that a node takes; None for an unknown index."""
    scales = families.scales_of(node)
    found = []
    for position, value in enumerate(node.inputs):
        if value in tensors or not value.is_weight:
            found.append(tensors.get(value, value.constant))
        elif position in scales:
            found.append(weights.scale(value))
        else:
            found.append(weights[value])
    return found


def _outputs(graph, node, before, weights):
    """Returns what a node returns, a dict by value, without indices."""
    try:
        outputs = _applied(graph, node, before, weights)
    except keras_private.Incompatible:
        raise
    except Exception as error:  # A rule of a user's may raise anything.
        raise ValueError(
            f"{named(node)} failed under its linear rule: {error}"
        ) from error
    return {
        value: x
        for value, x in zip(node.outputs, outputs, strict=True)
        if graph.is_plain or value.is_flow or value.is_weight
    }


def _applied(graph, node, before, weights):
    if node.type == values.READ:
        return [weights[node.variable]]
    if node.type == values.LEAF:
        weights.range.kernels += 1
        return _of_layer(node, before, weights)
    if graph.is_plain:
        return unchanged.run(node, before, weights.dtype)
    if node.type == "_Computed":
        return [weights.computed(node.extra["value"], before[0])]
    outputs = registry.run(node, before)
    if node.type in families.CONTRACTIONS:
        weights.range.kernels += 1
        if len(node.flows) - len(node.gates) == 2:  # Both are scaled.
            if node.extra.get("within"):
                return [_once_scaled(x, node, before) for x in outputs]
            weights.range.behind = tf.cast(weights.range.exponent, tf.int32)
    return outputs


def _once_scaled(x, node, before):
    """Brings a product of two flows within a gate near one of them.

    The gate is divided by itself, so any power of two may be taken from it; it
    changes no bit.
    """
    side = node.inputs.index(node.flows[-1])
    exponent = rescaling.exponent_of([before[side]])
    return x * rescaling.power_of_two(-exponent, x.dtype)


def _of_layer(node, before, weights):
    """Runs the rule of a layer; returns a flat list of tensors."""
    call = node.call
    waiting = iter([magnitudes.cast(x, weights.dtype) for x in before])
    args, kwargs = tf.nest.map_structure(
        lambda x: next(waiting) if values.is_traced(x) else x,
        (call.args, call.kwargs),
    )
    kwargs = {k: x for k, x in kwargs.items() if k not in _CONTEXT}
    rule = registry.rule_of_layer(call.layer)
    outputs = rule(call.layer, weights, *args, **kwargs)
    return [x for x in tf.nest.flatten(outputs) if x is not None]


def named(node):
    """Names a node in an error: by its layer, as the user knows that."""
    path = "/".join(layer.name for layer in node.layers)
    if node.type == values.LEAF:
        kind = type(node.call.layer).__name__
        return f"Layer {path or node.name!r} (of type {kind})"
    text = f"Operation {node.name!r} (of type {node.type})"
    if path:
        kind = type(node.layer).__name__
        text += f", part of layer {path!r} (of type {kind}),"
    return text
