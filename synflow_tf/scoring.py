"""Scores a model's prunable weights."""

import collections.abc

import numpy as np
import tensorflow as tf

from synflow_tf import options as options_lib
from synflow_tf.rounds import loop
from synflow_tf.rounds import task as task_lib


def score(model, *, scorer=None, masks=None, prunable=None, inputs=None):
    """Scores the prunable weights of a model once.

    The sum of all scores, and the flow, are also used as a proxy for the
    quality of an architecture (Abdelfattah et al. 2021).

    Args:
        model: a built model of Keras 3 or tf_keras; it is not changed.
        scorer: what each weight is worth; by default `scorers.SynFlow()`.
        masks: `Masks` of weights taken as removed, or None.
        prunable: which weights; see `prune`.
        inputs: an example batch, or specs; see `prune`.

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
    options = options_lib.Options(
        scorer=scorer, prunable=prunable, inputs=inputs
    )
    task = task_lib.select(model, options)
    task = task.bound_to(task.weights)
    if masks is not None:
        masks.check(model)
    else:
        task.bound.check(task.split(task.start({})))
    weights = task.start(masks or {})
    with tf.device(weights.device):
        scores, flow = loop.score(task, weights, task.alive(masks or {}))
    exponent = int(flow.exponent)
    scores = task.named(tf.cast(scores, tf.float64))
    return Scores(
        {path: np.ldexp(array, exponent) for path, array in scores.items()},
        float(flow.log10),
        task.bound.findings,
    )


class Scores(collections.abc.Mapping):
    """Scores of a model's prunable weights, by path.

    A mapping from weight path to a float64 array of the weight's shape, in the
    order of `model.weights`. SynFlow's are >= 0. Of a network so deep that a
    score exceeds 1e308, it is inf; `log10_flow` is exact all the same.

    Args:
        scores: dict of str to array.
        log10_flow: float, log10 of the flow R; -inf if no path carries flow,
            nan if the criterion knows none.
        findings: iterable of `Finding`.

    Attributes:
        log10_flow: float.
        findings: tuple of `Finding`: scales that counted as ones.
    """

    def __init__(self, scores, log10_flow, findings=()):
        self._scores = dict(scores)
        self.log10_flow = log10_flow
        self.findings = tuple(findings)

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
