"""Checks that a linear graph is what the theory is about.

    dR/dx >= 0,    sum(x dR/dx) = R,    R(2x) = 2 R(x),    0 < R < inf

(Tanaka et al. 2020, theorem 1, needs a continuous, homogeneous network.) An
error names the layer that breaks it.
"""

import math

import tensorflow as tf

from synflow_tf import calls
from synflow_tf import graph as graph_lib
from synflow_tf import variables
from synflow_tf.linearize import executor
from synflow_tf.linearize import gates
from synflow_tf.linearize import joins
from synflow_tf.linearize import registry

# How exact the equations must hold; float32 sums millions of terms.
_TOLERANCE = {tf.float64: 1e-9, tf.float32: 1e-3}
# What is less than nothing: convolutions in float32 may round below 0.
_NEGATIVE = {tf.float64: 0.0, tf.float32: -1e-4}


def check(graph, make_weights, scored, inputs):
    """Checks a linear graph, and scores with it.

    Args:
        graph: `lowering.LinearGraph`.
        make_weights: function of nothing that makes its `LinearWeights`.
        scored: list of tensors, those of the weights that are scored.
        inputs: list of tensors of ones.

    Returns:
        list of tensors: dR/dw for each of `scored`, up to a common factor; and
        a list of str, the layers that ran under their own `call`.

    Raises:
        ValueError: if a check fails; it names the layer.
    """
    run = _Run(graph, make_weights(), inputs, scored)
    run.check_values()
    run.check_flow()
    run.check_gradients()
    run.check_degree(make_weights)
    return run.gradients_of_scored, list(run.opaque)


class _Run:
    """One run of a graph, with all its values and the flow's gradients."""

    def __init__(self, graph, weights, inputs, scored):
        self.graph = graph
        self.dtype = weights.dtype
        self.inputs = inputs
        self.values = []
        unit = weights.unit
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([*inputs, *scored, unit])

            def record(node, before, after):
                self.values.append((node, before, after))

            outputs = executor.run(graph, weights, inputs, record)
            flow = executor.flow_of(outputs)
        wanted = [*inputs, unit, *scored]
        inner = [
            [x for x in after if x.dtype.is_floating]
            for _, _, after in self.values
        ]
        gradients = tape.gradient(
            flow,
            [wanted, inner],
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
        outer, self.inner_gradients = gradients
        self.gradients = outer[: len(inputs)]
        self.unit, self.unit_gradient = unit, outer[len(inputs)]
        self.gradients_of_scored = outer[len(inputs) + 1 :]
        self.flow = float(flow)
        self.exponent = float(weights.exponent)
        self.opaque = weights.opaque

    def check_values(self):
        """Every value is finite and not negative."""
        for node, _, after in self.values:
            for x in after:
                if not x.dtype.is_floating:
                    continue
                low, high = float(tf.reduce_min(x)), float(tf.reduce_max(x))
                if not (math.isfinite(low) and math.isfinite(high)):
                    raise _error(
                        node,
                        "returns values that are not finite: the flow exceeds "
                        f"the range of {self.dtype.name}",
                        "Use `SynFlow()` with its defaults, "
                        "dtype='float64' and rescale=True.",
                    )
                if low < _NEGATIVE[self.dtype] * high:
                    raise _error(
                        node,
                        f"returns negative values ({low:.3g}) for a positive "
                        "input, so it is not a positive map",
                    )

    def check_flow(self):
        """The flow is positive."""
        if self.flow > 0:
            return
        for node, before, after in self.values:
            reached = any(_positive(x) for x in before) or not before
            if reached and not any(_positive(x) for x in after):
                zero = _zero_kernels(node)
                because = f": its {zero[0]} is all zeros" if zero else ""
                raise _error(
                    node,
                    "returns only zeros, so no flow reaches the output"
                    + because,
                    "Initialize the model with weights other than 0.",
                )
        raise ValueError("No flow reaches the output of the model.")

    def check_gradients(self):
        """No gradient is negative, and every input has one."""
        gradients = self._by_slot()

        def negative(slot):
            g = gradients.get(slot)
            if g is None:
                return False
            low, high = float(tf.reduce_min(g)), float(tf.reduce_max(g))
            return low < _NEGATIVE[self.dtype] * abs(high)

        for node in reversed(self.graph.nodes):
            if any(negative(x) for x in node.inputs if x in self.graph.flow):
                raise _error(
                    node,
                    "takes away from its output when its input grows "
                    "(a negative gradient), so it is not a positive map",
                )
        open_ways = _ungated(self.graph)
        for slot, g in zip(self.graph.inputs, self.gradients, strict=True):
            number = tf.as_dtype(slot.dtype)
            if not number.is_floating or tf.reduce_any(g != 0):
                continue
            if slot in open_ways or slot not in self._used():
                self._raise_ignored(slot, gradients)

    def _raise_ignored(self, slot, gradients):
        """Names the layer that ignores an input."""
        if slot not in self._used():
            name = slot.name or "input"
            raise ValueError(
                f"Input {name!r} of the model reaches none of its outputs. "
                "Leave it out of the model."
            )
        for node in reversed(self.graph.nodes):
            before = [x for x in node.inputs if x in gradients]
            after = [x for x in node.outputs if x in gradients]
            blocked = before and not any(
                _positive(gradients[x]) for x in before
            )
            if blocked and any(_positive(gradients[x]) for x in after):
                if _zero_kernels(node):
                    return  # Those have no scores, which is told later.
                if not joins.is_stop(node):
                    raise _error(
                        node,
                        "ignores its input: its output does not grow with it",
                    )

    def check_degree(self, make_weights):
        """The flow is homogeneous of degree 1."""
        terms = zip(self.inputs, self.gradients, strict=True)
        through = sum(float(tf.reduce_sum(x * g)) for x, g in terms)
        through += float(self.unit * self.unit_gradient)
        tolerance = _TOLERANCE[self.dtype]
        if self.opaque:
            tolerance = _TOLERANCE[tf.float32]
        euler = math.isclose(through, self.flow, rel_tol=tolerance)
        weights = make_weights()
        weights.unit *= 2
        outputs = executor.run(
            self.graph,
            weights,
            [2 * x for x in self.inputs],
        )
        flow = float(executor.flow_of(outputs))
        ratio = (
            flow / self.flow * 2 ** (float(weights.exponent) - self.exponent)
        )
        if euler and math.isclose(ratio, 2, rel_tol=tolerance):
            return
        self._raise_degree(make_weights, ratio, through / self.flow)

    def _raise_degree(self, make_weights, ratio, euler):
        """Names the first layer that does not double its output."""
        recorded = []
        for factor in (1, 2):
            weights = make_weights()
            weights.rescale = False
            weights.unit *= factor
            values = {}

            def record(node, before, after, values=values):
                del before
                values.update(zip(node.outputs, after, strict=True))

            inputs = [factor * x for x in self.inputs]
            values.update(zip(self.graph.inputs, inputs, strict=True))
            executor.run(self.graph, weights, inputs, record)
            recorded.append(values)
        once, twice = recorded

        def doubles(slot):
            x, y = once[slot], twice[slot]
            if not x.dtype.is_floating:
                return True
            return bool(
                tf.reduce_all(tf.abs(y - 2 * x) <= 1e-6 * tf.abs(2 * x))
            )

        open_ways = _ungated(self.graph)
        for node in self.graph.nodes:
            before = [x for x in node.inputs if x in self.graph.flow]
            if not before or not open_ways.intersection(node.outputs):
                continue
            if all(map(doubles, before)) and not all(
                map(doubles, node.outputs)
            ):
                raise _error(
                    node,
                    "does not double its output when its input doubles, so "
                    "it is not a linear map",
                )
        raise ValueError(
            "The linearized model is not homogeneous: for a doubled input its "
            f"flow is {ratio:.6g} times as large, and its gradients account "
            f"for {euler:.6g} of it. Part of the model is no linear map; "
            "register a rule with `synflow_tf.register_rule`."
        )

    def _by_slot(self):
        """The gradient of each slot."""
        gradients = dict(zip(self.graph.inputs, self.gradients, strict=True))
        for (node, _, after), inner in zip(
            self.values, self.inner_gradients, strict=True
        ):
            floats = [
                slot
                for slot, x in zip(node.outputs, after, strict=True)
                if x.dtype.is_floating
            ]
            gradients.update(zip(floats, inner, strict=True))
        return gradients

    def _used(self):
        return {slot for node in self.graph.nodes for slot in node.inputs}


def _ungated(graph):
    """The slots that have a way to an output through no gate."""
    levels = gates.levels(graph.nodes, graph.outputs)
    return {slot for slot, level in levels.items() if level == 0}


def _zero_kernels(node):
    """The names of a layer's kernels that are all zeros."""
    return [
        variable.name
        for variable in getattr(_layer(node), "weights", ())
        if len(variable.shape) > 1
        and not tf.reduce_any(variables.value(variable) != 0)
    ]


def _positive(x):
    return x.dtype.is_floating and bool(tf.reduce_any(x > 0))


def _layer(node):
    layer = node.layer
    wrapped = isinstance(layer, (graph_lib.Opaque, joins.Join))
    return layer.layer if wrapped else layer


def _error(node, what, remedy=None):
    layer = _layer(node)
    kind = "Layer"
    if calls.operation_name(layer) is not None:
        kind = "Operation"
    within = f", called by layer {node.within!r}," if node.within else ""
    reason = ""
    if isinstance(node.layer, graph_lib.Opaque):
        reason = f" It could not be opened ({node.layer.reason})."
    if remedy is None:
        remedy = registry.how_to(layer)
    return ValueError(
        f"{kind} {layer.name!r} (of type {type(layer).__name__}){within} "
        f"{what}; scores would mean nothing.{reason} {remedy}"
    )
