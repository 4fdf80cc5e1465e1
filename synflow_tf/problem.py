"""What is pruned: a model's prunable weights, and how they are scored."""

import itertools
import math
import warnings

import numpy as np
import tensorflow as tf

from synflow_tf import enforcement
from synflow_tf import findings
from synflow_tf import graph as graph_lib
from synflow_tf import linearize
from synflow_tf import scorers
from synflow_tf import variables

# More zero scores than this share in round 1 are worth a warning.
_MANY = 0.05
_OPAQUE = "runs as it is, with absolute weights: it has no rule, and what it "
_OPAQUE += "does could not be followed"


class Problem:
    """A model's prunable weights as one vector, and how they are scored."""

    def __init__(self, model, scorer, prunable, input_shape):
        self.scorer = scorers.SynFlow() if scorer is None else scorer
        if not isinstance(self.scorer, scorers.Scorer):
            raise TypeError(
                "Argument `scorer` must be a `synflow_tf.scorers.Scorer`, such "
                f"as `scorers.SynFlow()`. Received: scorer={scorer!r}"
            )
        self.graph = graph_lib.read(model, linearize.is_leaf, input_shape)
        self.weights = variables.prunable_weights(model, prunable)
        self.dtype = tf.as_dtype(self.scorer.dtype)
        self.inputs = linearize.ones(self.graph, self.dtype)
        self.findings = []
        for weight in variables.weights(model):
            value = variables.value(weight.variable)
            if value.dtype.is_floating and not np.isfinite(value).all():
                raise ValueError(
                    "Argument `model` must have finite weights. Received: "
                    f"model={model.name!r}, whose weight {weight.path!r} has "
                    "an entry that is NaN or infinite. Initialize the model "
                    "again, or load weights from before it diverged."
                )

    @property
    def sizes(self):
        """List of int, the numbers of entries of the weights."""
        return [weight.size for weight in self.weights]

    def inspect(self):
        """Checks that scores mean something; see `scorers.Scorer.inspect`.

        Returns:
            See `scorers.Scorer.inspect`.

        Raises:
            ValueError: if they do not.
        """
        flat = self.start()
        with tf.device(flat.device):
            return self.scorer.inspect(
                self.graph, self._variables(), self.split(flat), self.inputs
            )

    def settle(self, on_unscored):
        """Inspects, and decides about weights without scores.

        Args:
            on_unscored: "error", or "keep", which leaves them out.

        Raises:
            ValueError: if a check fails, or no weight has a score.
        """
        inspected = self.inspect()
        if inspected is None:
            return
        scores, opaque = inspected
        self.findings += [
            findings.Finding("opaque", name, _OPAQUE) for name in opaque
        ]
        zeros = {
            weight: _zeros(weight, score)
            for weight, score in zip(self.weights, scores, strict=True)
        }
        # A kernel that is masked already may well be empty.
        unscored = [
            w
            for w, share in zeros.items()
            if share == 1 and enforcement.mask_of(w.variable) is None
        ]
        if unscored and (on_unscored == "error" or len(unscored) == len(zeros)):
            raise ValueError(
                f"No flow passes through {len(unscored)} of {len(zeros)} "
                f"prunable weights of model {self.graph.model.name!r}: "
                f"{_listed(w.path for w in unscored)}; {_why(unscored[0])} "
                "They would all be removed. Leave them out with `prunable=`, "
                "or keep them as they are with `on_unscored='keep'`; if a "
                "layer around them does more than it should, give it a rule "
                "with `synflow_tf.register_rule`."
            )
        self.findings += [
            findings.Finding("unscored", w.path, f"kept as it is: {_why(w)}")
            for w in unscored
        ]
        self.findings += [
            findings.Finding(
                "zeros", w.path, f"{share:.1%} of its weights score 0"
            )
            for w, share in zeros.items()
            if _MANY < share < 1
        ]
        self._warn_of_zeros()
        self.weights = [w for w in self.weights if w not in unscored]

    def report_empty(self, masks):
        """Notes the kernels that masks empty, and warns of them.

        Args:
            masks: dict of weight path to bool array.
        """
        empty = [w for w in self.weights if not masks[w.path].any()]
        if not empty:
            return
        weights = linearize.LinearWeights(
            {
                id(w.variable): tf.abs(
                    tf.cast(variables.value(w.variable), self.dtype)
                )
                * tf.cast(masks[w.path], self.dtype)
                for w in self.weights
            },
            self.dtype,
        )
        graph = linearize.lower(self.graph)
        places = linearize.beside(
            graph, weights, self.inputs, [w.variable for w in empty]
        )
        for weight, (where, through) in zip(empty, places, strict=True):
            text = f"empty; at {where!r} the flow comes through {through!r}"
            if not where:
                text = "empty; other outputs of the model carry the flow"
            elif where == through:
                text = f"empty; the rest of {where!r} carries the flow"
            self.findings.append(findings.Finding("empty", weight.path, text))
        listed = [str(f) for f in self.findings if f.kind == "empty"]
        more = f" ... ({len(listed) - 6} more)" if listed[6:] else ""
        warnings.warn(
            f"All weights of {len(empty)} of {len(masks)} kernels are removed;"
            f" other paths carry the flow. {'; '.join(listed[:6])}{more}",
            stacklevel=4,
        )

    def _warn_of_zeros(self):
        many = [f.name for f in self.findings if f.kind == "zeros"]
        if many:
            warnings.warn(
                f"More than {_MANY:.0%} of the weights score exactly 0 in "
                f"{len(many)} kernels ({_listed(many)}) and are removed first."
                " Usually the input is so small that they only see padding "
                "(say a larger `input_shape`), weights elsewhere are 0, or "
                "float32 is too narrow.",
                stacklevel=5,
            )

    def _variables(self):
        return [weight.variable for weight in self.weights]

    def start(self, masks=None):
        """The prepared weights, tensor of shape (n,), 0 where masked."""
        pieces = []
        for weight in self.weights:
            value = variables.value(weight.variable)
            if value.dtype != tf.float64:
                value = tf.cast(value, tf.float32)
            if masks is not None and weight.path in masks:
                value *= tf.cast(masks[weight.path], value.dtype)
            pieces.append(tf.reshape(value, [-1]))
        if len({piece.dtype for piece in pieces}) > 1:
            pieces = [tf.cast(piece, tf.float64) for piece in pieces]
        flat = tf.concat(pieces, axis=0)
        return self.scorer.prepare(tf.cast(flat, self.dtype))

    def split(self, flat):
        """The pieces of a vector, each of its weight's shape."""
        # Slices share memory with the vector; `tf.split` would copy it.
        sizes = self.sizes
        starts = [0, *itertools.accumulate(sizes[:-1])]
        pieces = [
            tf.slice(flat, [start], [size])
            for start, size in zip(starts, sizes, strict=True)
        ]
        return [
            tf.reshape(piece, weight.shape)
            for piece, weight in zip(pieces, self.weights, strict=True)
        ]

    def scores(self, flat):
        """Scores for weights, both of shape (n,), and the `scorers.Flow`."""
        scores, flow = self.scorer.score(
            self.graph, self._variables(), self.split(flat), self.inputs
        )
        self.has_flow = flow is not None
        if not self.has_flow:
            nothing = tf.zeros((), tf.float64)
            flow = scorers.Flow(nothing + math.nan, nothing)
        return tf.concat([tf.reshape(s, [-1]) for s in scores], axis=0), flow

    def named(self, flat):
        """The pieces of a vector as a dict of arrays by weight path."""
        pieces = self.split(flat)
        return {
            w.path: p.numpy() for w, p in zip(self.weights, pieces, strict=True)
        }

    def checked(self, flow):
        """log10 of the flow as a float, if it did not overflow."""
        flow = float(flow.log10)
        if self.has_flow and (math.isnan(flow) or flow == math.inf):
            raise ValueError(
                f"The flow of model {self.graph.model.name!r} exceeds the "
                f"range of {self.scorer.dtype}, so its scores mean nothing. "
                "Use `scorer=synflow_tf.scorers.SynFlow()` with its defaults, "
                "dtype='float64' and rescale=True."
            )
        return flow


def traced(function, args):
    """A function of tensors, traced once for arguments like `args`."""
    function = tf.function(function, autograph=False)
    # A concrete function, because TensorFlow warns of many traced ones.
    return function.get_concrete_function(*args)


def _zeros(weight, score):
    """The share of a weight's entries other than 0 that score 0."""
    nonzero = variables.value(weight.variable) != 0
    count = tf.math.count_nonzero(nonzero)
    zeros = tf.math.count_nonzero(nonzero & (score == 0))
    return float(zeros / count) if count else 1.0


def _why(weight):
    """Why no flow passes through a weight."""
    if not tf.reduce_any(variables.value(weight.variable) != 0):
        return f"all entries of {weight.path!r} are 0."
    return (
        f"{weight.path!r} is multiplied by 0, or its layer "
        f"{weight.layer.name!r} is not on a way from input to output."
    )


def _listed(names, most=6):
    names = [repr(name) for name in names]
    return ", ".join(names[:most]) + (" ..." if names[most:] else "")
