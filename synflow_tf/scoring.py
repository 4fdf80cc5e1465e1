"""Scores a model's prunable weights, all of them as one vector."""

import collections.abc
import itertools
import math

import numpy as np
import tensorflow as tf

from synflow_tf import graph as graph_lib
from synflow_tf import linearize
from synflow_tf import scorers
from synflow_tf import variables


def score(model, *, scorer=None, masks=None, prunable=None, input_shape=None):
    """Scores the prunable weights of a model once.

    The sum of all scores, and the flow, are also used as a proxy for the
    quality of an architecture (Abdelfattah et al. 2021).

    Args:
        model: a built model of Keras 3 or tf_keras; it is not changed.
        scorer: what each weight is worth; by default `scorers.SynFlow()`.
        masks: `Masks` of weights taken as removed, or None.
        prunable: which weights; see `prune`.
        input_shape: the size of the input; see `prune`.

    Returns:
        `Scores`.

    Raises:
        TypeError: see `prune`.
        ValueError: see `prune`; and if `masks` are not of this model.

    >>> model = synflow_tf.models.fc(input_shape=(8, 8, 1))
    >>> scores = synflow_tf.score(model)
    >>> scores["fc6/kernel"].shape
    (100, 10)
    """
    problem = Problem(model, scorer, prunable, input_shape)
    if masks is not None:
        masks.check(model)
    weights = problem.start(masks)
    with tf.device(weights.device):
        flat, flow = traced(problem.scores, (weights,))(weights)
    return Scores(
        problem.named(tf.cast(flat, tf.float64)), problem.checked(flow)
    )


class Scores(collections.abc.Mapping):
    """Scores of a model's prunable weights, by path.

    A mapping from weight path to a float64 array >= 0 of the weight's shape,
    in the order of `model.weights`.

    Args:
        scores: dict of str to array.
        log10_flow: float, log10 of the flow R; -inf if no path carries flow.

    Attributes:
        log10_flow: float.
    """

    def __init__(self, scores, log10_flow):
        self._scores = dict(scores)
        self.log10_flow = log10_flow

    def __getitem__(self, path):
        return self._scores[path]

    def __iter__(self):
        return iter(self._scores)

    def __len__(self):
        return len(self._scores)

    def __repr__(self):
        return (
            f"<Scores of {len(self)} weights, log10 of the flow "
            f"{self.log10_flow:.6g}>"
        )


class Problem:
    """A model's prunable weights as one vector, and how they are scored."""

    def __init__(self, model, scorer, prunable, input_shape):
        self.scorer = scorers.SynFlow() if scorer is None else scorer
        if not isinstance(self.scorer, scorers.Scorer):
            raise TypeError(
                "Argument `scorer` must be a `synflow_tf.scorers.Scorer`, such "
                f"as `scorers.SynFlow()`. Received: scorer={scorer!r}"
            )
        self.graph = graph_lib.read(model)
        self.weights = variables.prunable_weights(model, prunable)
        self.sizes = [weight.size for weight in self.weights]
        self.starts = [0, *itertools.accumulate(self.sizes[:-1])]
        self.dtype = tf.as_dtype(self.scorer.dtype)
        self.inputs = linearize.ones(self.graph, input_shape, self.dtype)
        for weight in variables.weights(model):
            value = variables.value(weight.variable)
            if value.dtype.is_floating and not np.isfinite(value).all():
                raise ValueError(
                    "Argument `model` must have finite weights. Received: "
                    f"model={model.name!r}, whose weight {weight.path!r} has "
                    "an entry that is NaN or infinite. Initialize the model "
                    "again, or load weights from before it diverged."
                )

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
        pieces = [
            tf.slice(flat, [start], [size])
            for start, size in zip(self.starts, self.sizes, strict=True)
        ]
        return [
            tf.reshape(piece, weight.shape)
            for piece, weight in zip(pieces, self.weights, strict=True)
        ]

    def scores(self, flat):
        """Scores for weights, both of shape (n,), and log10 of the flow."""
        scores, flow = self.scorer.score(
            self.graph,
            [weight.variable for weight in self.weights],
            self.split(flat),
            self.inputs,
        )
        self.has_flow = flow is not None
        if not self.has_flow:
            flow = tf.constant(math.nan, tf.float64)
        return tf.concat([tf.reshape(s, [-1]) for s in scores], axis=0), flow

    def named(self, flat):
        """The pieces of a vector as a dict of arrays by weight path."""
        pieces = self.split(flat)
        return {
            w.path: p.numpy() for w, p in zip(self.weights, pieces, strict=True)
        }

    def checked(self, flow):
        """log10 of the flow as a float, if it did not overflow."""
        flow = float(flow)
        if self.has_flow and (math.isnan(flow) or flow == math.inf):
            raise ValueError(
                f"The flow of model {self.graph.model.name!r} exceeds the "
                f"range of {self.scorer.dtype}, so its scores mean nothing. "
                "Use `scorer=synflow_tf.scorers.SynFlow(dtype='float64')`; if "
                "that is not enough, leave layers out with `prunable=`."
            )
        return flow


def traced(function, args):
    """A function of tensors, traced once for arguments like `args`."""
    function = tf.function(function, autograph=False)
    # A concrete function, because TensorFlow warns of many traced ones.
    return function.get_concrete_function(*args)
