"""What is pruned: a model's prunable weights, and how they are scored."""

import itertools
import math

import numpy as np
import tensorflow as tf

from synflow_tf import graph as graph_lib
from synflow_tf import linearize
from synflow_tf import scorers
from synflow_tf.enforce import constraint as constraint_lib
from synflow_tf.graph import selection
from synflow_tf.graph import variables


class Problem:
    """A model's prunable weights as one vector, and how they are scored."""

    def __init__(self, model, scorer, prunable, inputs):
        self.scorer = scorers.SynFlow() if scorer is None else scorer
        if not isinstance(self.scorer, scorers.Scorer):
            raise TypeError(
                "Argument `scorer` must be a `synflow_tf.scorers.Scorer`, such "
                f"as `scorers.SynFlow()`. Received: scorer={scorer!r}"
            )
        self.graph = graph_lib.read(model, inputs)
        self.weights = selection.select(model, prunable, graph=self.graph)
        self.dtype = tf.as_dtype(self.scorer.dtype)
        self.inputs = linearize.ones(self.graph, self.dtype)
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

    def inspect(self, as_ones=()):
        """Checks that scores mean something; see `scorers.Scorer.inspect`.

        Args:
            as_ones: list of `variables.Weight` to take for ones.

        Returns:
            See `scorers.Scorer.inspect`.

        Raises:
            ValueError: if they do not.
        """
        flat = self.start()
        with tf.device(flat.device):
            pieces = [
                tf.ones_like(piece) if weight in as_ones else piece
                for weight, piece in zip(
                    self.weights, self.split(flat), strict=True
                )
            ]
            return self.scorer.inspect(
                self.graph, self._variables(), pieces, self.inputs
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

    def alive(self):
        """Bool tensor of shape (n,): False where a mask is enforced."""
        return tf.concat(
            [tf.reshape(constraint_lib.alive(w), [-1]) for w in self.weights],
            axis=0,
        )

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
