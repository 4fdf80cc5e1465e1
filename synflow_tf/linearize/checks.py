"""Checks that a linear graph is what the theory is about.

    dR/dx >= 0,    sum(x dR/dx) = R,    R(2x) = 2 R(x),    0 < R < inf

(Tanaka et al. 2020, theorem 1, needs a continuous, homogeneous network.) Inputs
whose flows are multiplied are checked one by one. An error names the layer
that breaks an equation.
"""

import math

import tensorflow as tf

from synflow_tf.graph import values as values_lib
from synflow_tf.graph import variables
from synflow_tf.linearize import executor
from synflow_tf.linearize import pass_gates
from synflow_tf.linearize import registry
from synflow_tf.linearize import rules_structure
from synflow_tf.linearize import walks

# Relative error that the equations of R may have. Both sides sum millions of
# positive terms, in another order, which costs some of the dtype's 16 or 7
# digits; a map that is not linear is wrong in the first digits.
_TOLERANCE = {tf.float64: 1e-9, tf.float32: 1e-3}
# The least entry of a tensor, relative to its largest, that still counts as 0:
# convolutions in float32 may use algorithms that subtract, and round below 0.
_NEGATIVE = {tf.float64: 0.0, tf.float32: -1e-4}
# Relative error of single values of a doubled input. Doubling is exact in
# binary, so this only allows for sums in another order, in either dtype.
_DOUBLING = 1e-6


def check(graph, weights, scored, inputs):
    """Checks a linear graph, and computes its gradients for inputs of ones.

    Returns a list of dR/dw, up to a common factor, for each tensor of `scored`,
    which are in `weights`; and one of the variables that are scales of 0 and
    count as ones.
    """
    run = _Run(graph, weights, scored, inputs)
    run.check_values()
    run.check_flow()
    run.check_gradients()
    run.check_degree()
    return run.gradients_of_scored, list(run.weights.zero_scales)


class _Run:
    """One run of a graph, with all its tensors and the flow's gradients."""

    def __init__(self, graph, weights, scored, inputs):
        self.graph, self.weights = graph, weights
        self.precision = _precision(graph, weights.dtype)
        units = {s.unit: tf.ones((), weights.dtype) for s in graph.sources}
        self.starts = dict(zip(graph.inputs, inputs, strict=True)) | units
        tensors = {}
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([*self.starts.values(), *scored])
            outputs = self._outputs(self.starts, weights, tensors)
            flow = executor.flow_of(outputs)
        found = (self.starts | tensors).items()
        self.tensors = {value: x for value, x in found if x.dtype.is_floating}
        gradients, self.gradients_of_scored = tape.gradient(
            flow,
            [list(self.tensors.values()), scored],
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
        self.gradients = dict(zip(self.tensors, gradients, strict=True))
        self.outputs = [float(tf.reduce_sum(x)) for x in outputs]
        self.flow = float(flow)

    def _outputs(self, starts, weights, record=None):
        """Runs the graph from some values of its inputs and units."""
        inputs = [starts[value] for value in self.graph.inputs]
        units = [starts[source.unit] for source in self.graph.sources]
        return executor.run(self.graph, weights, inputs, units, record)

    def check_values(self):
        """Checks that every value is finite and not negative."""
        nodes = walks.producers_of(self.graph.nodes)
        found = [v for v in self.tensors if v in nodes and v.size]
        lows = _reduced(tf.reduce_min, self.tensors, found)
        highs = _reduced(tf.reduce_max, self.tensors, found)
        for value, low, high in zip(found, lows, highs, strict=True):
            node = nodes[value]
            if not (math.isfinite(low) and math.isfinite(high)):
                raise _error(
                    node,
                    "returns values that are not finite: the flow exceeds "
                    f"the range of {self.weights.dtype.name}",
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
        """Checks that the flow is positive."""
        if self.flow > 0:
            return
        for node in self.graph.nodes:
            reached = not node.flows or _any_positive(self.tensors, node.flows)
            blocked = reached and not _any_positive(self.tensors, node.outputs)
            if blocked and any(value.is_flow for value in node.outputs):
                zero = _zero_kernels(node)
                because = f": its {zero[0]} is all zeros" if zero else ""
                what = "returns only zeros, so no flow reaches the output"
                remedy = "Initialize the model with weights other than 0."
                raise _error(node, what + because, remedy)
        raise ValueError("No flow reaches the output of the model.")

    def check_gradients(self):
        """Checks that no gradient is negative, and that every input has one."""
        values = [value for value in self.gradients if value.size]
        lows = _reduced(tf.reduce_min, self.gradients, values)
        low = {v: x for v, x in zip(values, lows, strict=True) if x < 0}
        highs = _reduced(tf.reduce_max, self.gradients, low)
        least = _NEGATIVE[self.precision]
        pairs = zip(low.items(), highs, strict=True)
        negative = {v for (v, x), high in pairs if x < least * abs(high)}
        for node in reversed(self.graph.nodes):
            if not negative.isdisjoint(node.flows):
                raise _error(
                    node,
                    "takes away from its output when its input grows "
                    "(a negative gradient), so it is not a positive map",
                )
        for value in self.graph.ignored:
            raise ValueError(
                f"Input {value.name or 'input'!r} of the model reaches none "
                "of its outputs. Leave it out of the model."
            )
        levels = pass_gates.levels(self.graph.nodes, self.graph.outputs)
        for value in self.graph.inputs:
            ungated = levels.get(value) == 0
            if ungated and not tf.reduce_any(self.gradients[value] != 0):
                self._raise_ignored()

    def _raise_ignored(self):
        """Names the layer that ignores an input."""
        for node in reversed(self.graph.nodes):
            blocked = _any_positive(self.gradients, node.outputs) and not (
                self.gradients.keys().isdisjoint(node.inputs)
                or _any_positive(self.gradients, node.inputs)
            )
            if blocked and _zero_kernels(node):
                return  # Those have no scores, which is told later.
            if blocked and node.type != "_Stop":
                raise _error(
                    node, "ignores its input: its output does not grow with it"
                )

    def check_degree(self):
        """Checks that the flow has its known degree in each source."""
        tolerance = _TOLERANCE[self.precision]
        for source in self.graph.sources:
            through = sum(
                float(tf.reduce_sum(self.starts[v] * self.gradients[v]))
                for v in (source.unit, *source.inputs)
            )
            weights = self.weights.rerun()
            outputs = self._outputs(self._doubled(source), weights)
            shift = float(weights.range.exponent - self.weights.range.exponent)
            doubled = float(executor.flow_of(outputs)) * 2**shift
            terms = list(zip(self.outputs, source.degrees, strict=True))
            expected = (
                sum(degree * flow for flow, degree in terms),
                sum(flow * 2**degree for flow, degree in terms),
            )
            pairs = zip((through, doubled), expected, strict=True)
            if not all(math.isclose(*x, rel_tol=tolerance) for x in pairs):
                self._raise_degree(doubled / self.flow, through / self.flow)

    def _doubled(self, source):
        """Returns what flow starts as, twice as much in one source."""
        doubled = dict(self.starts)
        for value in (source.unit, *source.inputs):
            doubled[value] = 2 * doubled[value]
        return doubled

    def _raise_degree(self, ratio, euler):
        """Names the first layer that does not double its output."""
        for source in self.graph.sources:
            tensors = dict(self.starts), self._doubled(source)
            for found in tensors:
                self._outputs(found, self.weights.rerun(rescale=False), found)
            for node in self.graph.nodes:
                if _changes_degree(node, *tensors):
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


def _precision(graph, dtype):
    """Returns float32 if an operation has no wider kernel, else the dtype."""
    flowing = [node for node in graph.nodes if node.flows]
    narrow = any(rules_structure.is_narrow(node, dtype) for node in flowing)
    return tf.float32 if narrow else dtype


def _reduced(reduce, tensors, values):
    """Reduces the tensors of values to floats, in one copy from the device."""
    found = [tf.cast(reduce(tensors[v]), tf.float64) for v in values]
    return tf.stack(found).numpy().tolist() if found else []


def _any_positive(tensors, values):
    """Tells whether any of some values has a positive entry."""
    known = [value for value in values if value in tensors]
    return any(tf.reduce_any(tensors[value] > 0) for value in known)


def _changes_degree(node, once, twice):
    """Tells whether a node's flows double, or stay, and its output does not."""
    flows = pass_gates.trunks(node)
    factors = {_factor(once[value], twice[value]) for value in flows}
    mixed = len(factors) > 1 and len(flows) > 2
    if not flows or None in factors or mixed:
        return False
    after = [value for value in node.outputs if value.is_flow]
    return any(_factor(once[v], twice[v]) != max(factors) for v in after)


def _factor(x, y):
    """Returns how many times as large as `x` `y` is: 1, 2, or None."""
    for factor in (1, 2):
        error = tf.abs(y - factor * x)
        if tf.reduce_all(error <= _DOUBLING * tf.abs(factor * x)):
            return factor
    return None


def _zero_kernels(node):
    """Returns the names of the kernels of a node that are all zeros."""
    found = [v for x in node.inputs for v in values_lib.variables_of(x)]
    if node.type == values_lib.LEAF:
        found = node.call.layer.weights
    return [
        v.name
        for v in found
        if len(v.shape) > 1 and not tf.reduce_any(variables.value(v) != 0)
    ]


def _error(node, what, remedy=None):
    remedy = registry.how_to(node) if remedy is None else remedy
    return ValueError(
        f"{executor.named(node)} {what}; scores would mean nothing. {remedy}"
    )
