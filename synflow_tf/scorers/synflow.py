r"""Synaptic flow: theta * dR/dtheta of the linearized model.

    S(theta) = dR/dtheta * theta                  (Tanaka et al. 2020, eq. 1)
    R = 1^T ( prod_l |theta^[l]| ) 1              (eq. 2)

Reference implementation: `Pruners/pruners.py` of ganguli-lab/Synaptic-Flow.
"""

import math

import tensorflow as tf

from synflow_tf import _validation
from synflow_tf import findings
from synflow_tf import linearize
from synflow_tf.graph import identity
from synflow_tf.graph import variables
from synflow_tf.scorers import base

_VARIANTS = ("homogeneous", "authors")
_DTYPES = ("float64", "float32")
_SCALE = "0 in every entry, as training starts from it: counted as ones"


class SynFlow(base.Scorer):
    """Synaptic saliency of the linearized model, needing no data.

    Args:
        variant: "homogeneous" drops everything that is not a positive linear
            map: biases, moving means and activations. The flow is then
            conserved (paper, theorem 1) also in trained models and in those
            with activations that saturate; hence the default. "authors"
            computes what the reference implementation does: the model as it
            is, with the absolute value of every entry of its state. For a
            freshly initialized ReLU network without biases they agree.
        dtype: "float64", because near ties decide over 100 rounds: in float32
            up to 16 % of the kept weights of a ResNet-20 differ. "float32" is
            about twice as fast.
        rescale: bool, whether to keep the values of deep networks within the
            range of the dtype, by powers of two. It changes no ranking;
            False is for measuring that.

    Raises:
        ValueError: if an argument is none of those.

    >>> synflow_tf.scorers.SynFlow(dtype="float32").variant
    'homogeneous'
    """

    def __init__(self, variant="homogeneous", dtype="float64", rescale=True):
        super().__init__()
        self.variant = _validation.choice("variant", variant, _VARIANTS)
        self.rescale = bool(rescale)
        self.dtype = _validation.choice("dtype", dtype, _DTYPES)

    def prepare(self, weight):
        """Computes the absolute value: all that a linearized weight is."""
        return tf.abs(weight)

    def bind(self, model, weights, graph):
        """Linearizes the model, once; see `Scorer.bind`."""
        del model
        return _LinearizedModel(self, weights, graph)


class _LinearizedModel(base.Bound):
    """The linear graph of a model, and how its weights score in it."""

    def __init__(self, scorer, weights, graph):
        super().__init__(self._score)
        self._graph = graph
        self._variables = [weight.variable for weight in weights]
        self._is_linear = scorer.variant == "homogeneous"
        lowered = self._lower() if self._is_linear else linearize.plain(graph)
        self._lowered = lowered
        dtype = tf.as_dtype(scorer.dtype)
        self._inputs = linearize.ones(lowered, dtype)
        self._weights = linearize.LinearWeights(
            [(variable, None) for variable in self._variables],
            dtype,
            rescale=scorer.rescale and self._is_linear,
        )
        self._is_fresh = False

    def _lower(self):
        scored = identity.IdentitySet(self._variables)
        return linearize.lower(self._graph, scored)

    def _score(self, tensors, round):
        """Scores by one gradient; see `Scorer.bind`."""
        del round
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(tensors)
            linear = self._linear(tensors)
            outputs = linearize.run(self._lowered, linear, self._inputs)
            flow = linearize.flow_of(outputs)
        gradients = tape.gradient(
            flow, tensors, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        repeated = identity.IdentityDict()
        if self._is_linear:
            repeated.update((variable, 1) for variable in self._graph.repeated)
            repeated.update(linear.repeated)
        triples = zip(tensors, gradients, self._variables, strict=True)
        scores = [
            _once(tf.abs(w * g), flow, repeated.get(variable))
            for w, g, variable in triples
        ]
        log10 = tf.math.log(tf.cast(flow, tf.float64)) / math.log(10.0)
        log10 += linear.range.exponent * math.log10(2.0)
        return scores, base.Flow(log10, linear.range.exponent)

    def check(self, tensors):
        """Checks the linearized model; see `Bound.check`."""
        if not self._is_linear:
            return None
        gradients, zero_scales = linearize.check(
            self._lowered, self._linear(tensors), tensors, self._inputs
        )
        self.findings = self._of_scales(zero_scales)
        # One by one, so that both are not in memory at once.
        return [w * gradients.pop(0) for w in tensors]

    def _of_scales(self, scales):
        if not scales:
            return []
        weights = variables.weights(self._graph.model)
        paths = identity.IdentityDict((w.variable, w.path) for w in weights)
        names = [paths.get(scale, scale.name) for scale in scales]
        return [findings.Finding("scale", name, _SCALE) for name in names]

    def why_unscored(self, weight):
        """Says why no flow passes; see `Bound.why_unscored`."""
        if not tf.reduce_any(variables.value(weight.variable) != 0):
            return f"all entries of {weight.path!r} are 0."
        if not self._graph.uses(weight.variable):
            return f"no output of the model depends on {weight.path!r}."
        return (
            f"{weight.path!r} is multiplied by 0, or its layer "
            f"{weight.layer.name!r} is not on a way from input to output."
        )

    def explain(self, empty, tensors):
        """Finds the paths that carry the flow; see `Bound.explain`."""
        lowered = self._lowered if self._is_linear else self._lower()
        weights = self._linear(tensors, rescale=True)
        kernels = [weight.variable for weight in empty]
        places = linearize.skip_paths(lowered, weights, self._inputs, kernels)
        found = []
        for weight, (where, through) in zip(empty, places, strict=True):
            text = f"empty; at {where!r} the flow comes through {through!r}"
            if not where:
                text = "empty; other outputs of the model carry the flow"
            elif where == through:
                text = f"empty; the rest of {where!r} carries the flow"
            found.append(findings.Finding("empty", weight.path, text))
        return found

    def refresh(self):
        """Reads what is not scored anew; see `Bound.refresh`."""
        if not self._is_fresh:  # Finds what a run reads.
            dtype = self._weights.dtype
            ones = [tf.ones(v.shape, dtype) for v in self._variables]
            linearize.run(self._lowered, self._linear(ones), self._inputs)
            self._is_fresh = True
        self._weights.refresh()

    def _linear(self, tensors, rescale=None):
        """Returns the weights for a run of the graph."""
        pairs = zip(self._variables, tensors, strict=True)
        return self._weights.rerun(pairs, rescale)


def _once(scores, flow, gates):
    """Divides the scores of a kernel by how often a path passes it.

    The kernels of a loop, or of a recurrent layer, are passed at each step: so
    their scores sum to many times the flow, and all other layers would be
    removed before them. Here they sum to the flow, gate by gate.
    """
    if gates is None:
        return scores
    parts = tf.reshape(scores, [*scores.shape[:-1], gates, -1])
    axes = [*range(len(scores.shape) - 1), len(scores.shape)]
    times = tf.reduce_sum(parts, axes, keepdims=True) / flow
    return tf.reshape(parts / tf.maximum(times, 1), scores.shape)
