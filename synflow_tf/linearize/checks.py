"""Checks that a linear graph is what the theory is about.

    dR/dx >= 0,    sum(x dR/dx) = R,    R(2x) = 2 R(x),    0 < R < inf

(Tanaka et al. 2020, theorem 1, needs a continuous, homogeneous network.) Inputs
whose flows are multiplied are looked at one by one. An error names the layer
that breaks it.
"""

import math

import tensorflow as tf

from synflow_tf.graph import flatten
from synflow_tf.graph import values as values_lib
from synflow_tf.linearize import executor
from synflow_tf.linearize import pass_gates
from synflow_tf.linearize import registry
from synflow_tf.linearize import rules_structure

# How exact the equations must hold; float32 sums millions of terms.
_TOLERANCE = {tf.float64: 1e-9, tf.float32: 1e-3}
# What is less than nothing: convolutions in float32 may round below 0.
_NEGATIVE = {tf.float64: 0.0, tf.float32: -1e-4}


def check(graph, make_weights, scored, inputs):
    """Checks a linear graph, and scores with it.

    Args:
        graph: `lower.LinearGraph`.
        make_weights: function of nothing that makes its `LinearWeights`.
        scored: list of tensors, those of the weights that are scored.
        inputs: list of tensors of ones.

    Returns:
        list of tensors: dR/dw for each of `scored`, up to a common factor; and
        the list of variables that are scales of 0 and count as ones.

    Raises:
        ValueError: if a check fails; it names the layer.
    """
    run = _Run(graph, make_weights(), inputs, scored)
    run.check_values()
    run.check_flow()
    run.check_gradients()
    run.check_degree(make_weights)
    return run.gradients_of_scored, list(run.weights.zero_scales)


class _Run:
    """One run of a graph, with all its values and the flow's gradients."""

    def __init__(self, graph, weights, inputs, scored):
        self.graph = graph
        self.weights = weights
        self.dtype = weights.dtype
        self.precision = _precision(graph, self.dtype)
        self.inputs = inputs
        self.units = [tf.ones((), self.dtype) for _ in graph.sources]
        self.values = []
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([*inputs, *scored, *self.units])

            def record(node, before, after):
                self.values.append((node, before, after))

            outputs = executor.run(graph, weights, inputs, self.units, record)
            flow = executor.flow_of(outputs)
        inner = [
            [x for x in after if _is_float(x)] for *_, after in self.values
        ]
        outer, units, scores, self.inner_gradients = tape.gradient(
            flow,
            [inputs, self.units, scored, inner],
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
        self.gradients, self.unit_gradients = outer, units
        self.gradients_of_scored = scores
        self.outputs = [float(tf.reduce_sum(x)) for x in outputs]
        self.flow = float(flow)
        self.exponent = float(weights.exponent)

    def check_values(self):
        """Every value is finite and not negative."""
        for node, _, after in self.values:
            for x in after:
                if not _is_float(x) or not tf.size(x):
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
                if low < _NEGATIVE[self.precision] * high:
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
            if not any(v.is_flow for v in node.outputs):
                continue
            flows = [
                x for v, x in zip(node.inputs, before, strict=True) if v.is_flow
            ]
            reached = any(map(_is_positive, flows)) or not flows
            if reached and not any(map(_is_positive, after)):
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
        gradients = self._by_value()

        def negative(value):
            g = gradients.get(value)
            if g is None or not tf.size(g):
                return False
            low, high = float(tf.reduce_min(g)), float(tf.reduce_max(g))
            return low < _NEGATIVE[self.precision] * abs(high)

        for node in reversed(self.graph.nodes):
            if any(map(negative, node.flows)):
                raise _error(
                    node,
                    "takes away from its output when its input grows "
                    "(a negative gradient), so it is not a positive map",
                )
        open_ways = self._ungated()
        for value in self.graph.ignored:
            raise ValueError(
                f"Input {value.name or 'input'!r} of the model reaches none "
                "of its outputs. Leave it out of the model."
            )
        for value, g in zip(self.graph.inputs, self.gradients, strict=True):
            if value in open_ways and not tf.reduce_any(g != 0):
                self._raise_ignored(gradients)

    def _raise_ignored(self, gradients):
        """Names the layer that ignores an input."""
        for node in reversed(self.graph.nodes):
            before = [x for x in node.inputs if x in gradients]
            after = [x for x in node.outputs if x in gradients]
            blocked = before and not any(
                _is_positive(gradients[x]) for x in before
            )
            if blocked and any(_is_positive(gradients[x]) for x in after):
                if _zero_kernels(node):
                    return  # Those have no scores, which is told later.
                if node.type != "_Stop":
                    raise _error(
                        node,
                        "ignores its input: its output does not grow with it",
                    )

    def check_degree(self, make_weights):
        """The flow is homogeneous, of the known degree in each source."""
        for source, unit, along in zip(
            self.graph.sources, self.units, self.unit_gradients, strict=True
        ):
            members = set(source.inputs)
            terms = zip(
                self.graph.inputs, self.inputs, self.gradients, strict=True
            )
            through = float(unit * along) + sum(
                float(tf.reduce_sum(x * g)) for v, x, g in terms if v in members
            )
            degrees = zip(self.outputs, source.degrees, strict=True)
            expected = sum(degree * flow for flow, degree in degrees)
            euler = self._is_close(through, expected)
            degrees = zip(self.outputs, source.degrees, strict=True)
            expected = sum(flow * 2**degree for flow, degree in degrees)
            flow = self._flow_at(make_weights(), source, 2)
            if not euler or not self._is_close(flow, expected):
                ratio = flow / self.flow
                self._raise_degree(make_weights, ratio, through / self.flow)

    def _is_close(self, x, y):
        return math.isclose(x, y, rel_tol=_TOLERANCE[self.precision])

    def _flow_at(self, weights, source, factor, record=None):
        """The flow for a source so many times as large."""
        inputs = [
            factor * x if v in source.inputs else x
            for v, x in zip(self.graph.inputs, self.inputs, strict=True)
        ]
        units = [
            factor * x if other is source else x
            for other, x in zip(self.graph.sources, self.units, strict=True)
        ]
        outputs = executor.run(self.graph, weights, inputs, units, record)
        shift = float(weights.exponent) - self.exponent
        return float(executor.flow_of(outputs)) * 2**shift

    def _raise_degree(self, make_weights, ratio, euler):
        """Names the first layer that does not double its output."""
        for source in self.graph.sources:
            recorded = []
            for factor in (1, 2):
                weights = make_weights()
                weights.rescale = False
                found = {}

                def record(node, before, after, found=found):
                    found.update(zip(node.inputs, before, strict=True))
                    found.update(zip(node.outputs, after, strict=True))

                self._flow_at(weights, source, factor, record)
                recorded.append(found)
            for node in self.graph.nodes:
                if _changes_degree(node, *recorded):
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

    def _by_value(self):
        """The gradient of each value."""
        gradients = dict(zip(self.graph.inputs, self.gradients, strict=True))
        for (node, _, after), inner in zip(
            self.values, self.inner_gradients, strict=True
        ):
            pairs = zip(node.outputs, after, strict=True)
            floats = [value for value, x in pairs if _is_float(x)]
            gradients.update(zip(floats, inner, strict=True))
        return gradients

    def _ungated(self):
        """The values that have a way to an output through no gate."""
        levels = pass_gates.levels(self.graph.nodes, self.graph.outputs)
        return {value for value, level in levels.items() if level == 0}


def _precision(graph, dtype):
    """What the equations hold in: that of operations without a wider kernel."""
    for node in graph.nodes:
        operation = node.operation is not None and bool(node.flows)
        if operation and rules_structure.is_narrow(node, dtype):
            return tf.float32
    return dtype


def _changes_degree(node, once, twice):
    """Whether what a node takes doubles, or stays, and what it returns not."""
    flows = [
        value
        for position, value in enumerate(node.inputs)
        if value.is_flow and position not in node.gates
    ]
    factors = {_factor(once[value], twice[value]) for value in flows}
    if not flows or None in factors:
        return False
    one_each = len(flows) == 2 and len(factors) == 2 and 1 in factors
    if len(factors) > 1 and not one_each:
        return False
    after = {
        _factor(once[value], twice[value])
        for value in node.outputs
        if value.is_flow
    }
    return not after <= {max(factors)}


def _factor(x, y):
    """How many times as large a tensor is: 1 or 2, or None for neither."""
    for factor in (1, 2):
        if tf.reduce_all(tf.abs(y - factor * x) <= 1e-6 * tf.abs(factor * x)):
            return factor
    return None


def _zero_kernels(node):
    """The names of the kernels of a node that are all zeros."""
    if node.type == values_lib.LEAF:
        found = node.call.layer.weights
    else:
        found = [v for x in node.inputs for v in values_lib.variables_of(x)]
    return [
        variable.name
        for variable in found
        if len(variable.shape) > 1
        and not tf.reduce_any(flatten.value_of(variable) != 0)
    ]


def _is_float(x):
    return x is not None and x.dtype.is_floating


def _is_positive(x):
    return _is_float(x) and bool(tf.reduce_any(x > 0))


def _error(node, what, remedy=None):
    if remedy is None:
        remedy = registry.how_to(node)
    return ValueError(
        f"{executor.named(node)} {what}; scores would mean nothing. {remedy}"
    )
