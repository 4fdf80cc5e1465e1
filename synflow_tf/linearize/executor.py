"""Runs the nodes of a linear graph with their rules."""

import tensorflow as tf

from synflow_tf.graph import families
from synflow_tf.graph import keras_private
from synflow_tf.graph import values
from synflow_tf.linearize import plain
from synflow_tf.linearize import registry
from synflow_tf.linearize import rescaling

# What Keras passes to layers that ask for it; scores are for inference, on one
# example without padding.
_CONTEXT = ("training", "mask")


def ones(graph, dtype):
    """The input that scores are computed for: ones.

    Args:
        graph: `graph.Graph`, or `lower.LinearGraph`.
        dtype: `tf.DType`.

    Returns:
        list of tensors, for those inputs that are flow.
    """
    return [tf.ones(v.shape, dtype) for v in graph.inputs if v.is_flow]


def flow_of(outputs):
    """The flow R: the sum of all outputs, a tensor of shape ()."""
    return tf.add_n([tf.reduce_sum(x) for x in outputs])


def run(graph, weights, inputs, units=None, record=None):
    """Runs a linear graph.

    Args:
        graph: `lower.LinearGraph`.
        weights: `weights.LinearWeights`.
        inputs: list of tensors, in the order of `graph.inputs`.
        units: list of tensors of shape (), what flow starts as at each of
            `graph.sources`; by default that of `weights`.
        record: None, or a function that is called with each node, and the
            lists of its input and output tensors, None where there is none.

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
        outputs = _outputs(node, before, weights)
        if record is not None:
            record(node, before, outputs)
        for value in dead:
            tensors.pop(value, None)
        if weights.range.pending is not None:
            weights.range.divide(tensors, weights.range.pending)
            weights.range.pending = None
        tensors.update(
            (value, x)
            for value, x in zip(node.outputs, outputs, strict=True)
            if x is not None and value not in dead
        )
        weights.range.keep(tensors)
    weights.unit = outer_unit
    return [tensors[value] for value in graph.outputs]


def _inputs(node, tensors, weights):
    """The tensors that a node takes; None for an index that is not known."""
    scales = () if weights.as_authors else families.scales_of(node)
    found = []
    for position, value in enumerate(node.inputs):
        if value in tensors:
            x = tensors[value]
        elif value.constant is not None:
            x = value.constant
        elif not value.is_weight:
            x = None
        elif position in scales:
            x = weights.scale(value)
        else:
            x = weights.plain(value)
        found.append(x)
    return found


def _outputs(node, before, weights):
    """The tensors that a node returns; None for what is no number of ours."""
    try:
        found = _applied(node, before, weights)
    except keras_private.Incompatible:
        raise
    except Exception as error:  # A user's rule may raise anything.
        raise ValueError(
            f"{named(node)} failed under its linear rule: {error}"
        ) from error
    if weights.as_authors:
        return found
    return [
        x if value.is_flow or value.is_weight else None
        for value, x in zip(node.outputs, found, strict=True)
    ]


def _applied(node, before, weights):
    if node.type == values.READ:
        return [weights[node.variable]]
    if node.type == values.LEAF:
        weights.range.kernels += 1
        return _of_layer(node, before, weights)
    if weights.as_authors:
        return plain.run(node, before, weights.dtype)
    if node.type == "_Computed":
        return [weights.computed(node.extra["value"], before[0])]
    rule = registry.rule_of_operation(node.type)
    if rule is None:
        raise registry.NoRule(node)
    outputs = rule(node, *before)
    outputs = outputs if isinstance(outputs, (list, tuple)) else [outputs]
    if node.type in families.CONTRACTIONS:
        weights.range.kernels += 1
        if len(node.flows) - len(node.gates) == 2:  # Both are scaled.
            if node.extra.get("within"):
                return [_once_scaled(x, node, before) for x in outputs]
            weights.range.pending = tf.cast(weights.range.exponent, tf.int32)
    return list(outputs)


def _once_scaled(x, node, before):
    """A product of two flows within a gate, where one scale is enough.

    The gate is divided by itself: so one of the flows is brought near 1, by a
    power of two, which changes no bit.
    """
    side = node.inputs.index(node.flows[-1])
    exponent = rescaling.exponent_of([before[side]])
    return x * rescaling.power_of_two(-exponent, x.dtype)


def _of_layer(node, before, weights):
    """What a layer's own rule returns, a flat list."""
    call = node.call
    waiting = iter(
        tf.cast(x, weights.dtype)
        if x is not None and x.dtype.is_floating
        else x
        for x in before
    )
    args, kwargs = tf.nest.map_structure(
        lambda x: next(waiting) if values.is_traced(x) else x,
        (call.args, call.kwargs),
    )
    kwargs = {k: x for k, x in kwargs.items() if k not in _CONTEXT}
    rule = registry.rule_of_layer(call.layer)
    outputs = rule(call.layer, weights, *args, **kwargs)
    return [x for x in tf.nest.flatten(outputs) if x is not None]


def named(node):
    """How errors call a node: by its layer, as the user knows that."""
    path = "/".join(layer.name for layer in node.layers)
    if node.type == values.LEAF:
        kind = type(node.call.layer).__name__
        return f"Layer {path or node.name!r} (of type {kind})"
    within = ""
    if path:
        kind = type(node.layer).__name__
        within = f", part of layer {path!r} (of type {kind}),"
    return f"Operation {node.name!r} (of type {node.type}){within}"
