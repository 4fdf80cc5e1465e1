"""Iterative pruning: score, rank, mask, round after round.

    for t in 1 ... n:  remove the lowest scores until target(t) are removed

Algorithm 1 of Tanaka et al. 2020, for any criterion. `weights` and
`alive` are vectors (n,) of all entries that a `task.Task` ranks: what is
prepared of them, 0 where removed; and bool, False where removed.
"""

import math
import typing

import numpy as np
import tensorflow as tf

from synflow_tf import scorers
from synflow_tf.rounds import ranking


class Record(typing.NamedTuple):
    """The state after a round.

    Attributes:
        weights: tensor of shape (n,).
        alive: bool tensor of shape (n,).
        log10_flow: float, log10 of the flow R that the round scored with,
            before its removals; nan if the criterion knows none.
    """

    weights: typing.Any
    alive: typing.Any
    log10_flow: float


def rounds(step, weights, alive, targets):
    """Removes weights round by round.

    `step` is a `Step`; `targets` are int64 arrays, how many weights of each
    group are removed after each round. Yields a `Record` for each.
    """
    removed = step.task.removed(alive)
    for number, target in enumerate(targets, 1):
        counts = np.maximum(target - removed, 0)
        removed = removed + counts
        record = step(weights, alive, counts, number)
        weights, alive = record.weights, record.alive
        yield record


class Step:
    """One round of a `task.Task` as a function of tensors, traced once."""

    def __init__(self, task):
        self.task = task
        self._traced = None
        # Traced again it is a quarter of a round: what the flow needs of it.
        self._flow = lambda *args: self._traced(*args)[2]
        if task.repeats:
            self._flow = tf.function(self._flow, autograph=False)

    def __call__(self, weights, alive, counts, number):
        """Runs round `number`, from 1; returns its `Record`.

        `counts` is an int64 array, how many to remove in each group. Raises
        ValueError if a score is not finite, or the flow exceeds the dtype.
        """
        args = self._arguments(weights, alive, counts, number)
        left, alive, log10_flow, fault = self._traced(*args)
        _check(self.task, log10_flow, fault)
        return Record(left, alive, float(log10_flow))

    def log10_flow(self, weights, alive):
        """Computes log10 of the flow alone, a float."""
        nothing = np.zeros(len(self.task.groups), np.int64)
        args = self._arguments(weights, alive, nothing, 1)
        return float(self._flow(*args))

    def _arguments(self, weights, alive, counts, number):
        counts, number = (tf.constant(x, tf.int64) for x in (counts, number))
        args = weights, alive, counts, number
        if self._traced is None:
            function = tf.function(self.run, autograph=False)
            # Concrete, because TensorFlow warns of many traced functions.
            self._traced = function.get_concrete_function(*args)
        return args

    def run(self, weights, alive, counts, number):
        """Computes a round: weights, alive, log10 of the flow, the fault."""
        groups = self.task.groups
        scores, flow, fault = _scored(self.task, weights, alive, number)
        kept = self.task.aside(scores, alive)
        free = alive if kept is None else alive & ~kept
        parts = zip(
            tf.split(scores, groups),
            tf.split(free, groups),
            tf.unstack(counts, len(groups)),
            strict=True,
        )
        alive = tf.concat([ranking.lowest(*part) for part in parts], axis=0)
        if kept is not None:
            alive |= kept
        weights *= tf.cast(alive, weights.dtype)
        return weights, alive, flow.log10, fault


def score(task, weights, alive):
    """Scores the weights (n,) of a task once: a tensor (n,), and the `Flow`."""
    number = tf.constant(1, tf.int64)

    @tf.function(autograph=False)
    def run():
        return _scored(task, weights, alive, number)

    scores, flow, fault = run()
    _check(task, flow.log10, fault)
    return scores, flow


def _scored(task, weights, alive, number):
    """Returns scores (n,), the flow, and the fault, traced.

    That is the first entry that is alive and scores no finite number, or -1.
    """
    found = task.bound.score(task.split(weights), number)
    scores, flow = _checked(task, found)
    if flow is None:
        flow = scorers.Flow(tf.constant(math.nan), tf.constant(0.0))
    else:  # A flow of NaN has exceeded the dtype on the way.
        log10 = tf.where(flow.log10 < math.inf, flow.log10, math.inf)
        flow = flow._replace(log10=log10)
    scores = tf.concat([tf.reshape(s, [-1]) for s in scores], axis=0)

    def first_wrong():
        wrong = ~tf.math.is_finite(scores) & alive
        first = tf.argmax(wrong)
        return tf.where(wrong[first], first, -1)

    fine = tf.math.is_finite(tf.reduce_sum(scores))
    none = tf.constant(-1, tf.int64)
    return scores, flow, tf.cond(fine, lambda: none, first_wrong)


def _checked(task, found):
    """Returns the scores and the flow of a criterion, or raises TypeError."""
    pair = isinstance(found, tuple) and len(found) == 2
    scores, flow = found if pair else (None, None)
    wanted = [(w.shape, task.scorer.dtype) for w in task.weights]
    given = type(found).__name__
    if pair and isinstance(scores, (list, tuple)):
        given = [
            (tuple(s.shape), s.dtype.name) if tf.is_tensor(s) else s
            for s in scores
        ]
    if given != wanted or not isinstance(flow, (scorers.Flow, type(None))):
        raise TypeError(
            "Argument `scorer` must score by a function that returns a pair: "
            f"a list of tensors of these shapes and dtypes, {wanted}; and a "
            f"`Flow` or None. Received: scorer={task.scorer!r}, which gives "
            f"{given} and {flow!r}"
        )
    return scores, flow


def _check(task, log10_flow, fault):
    """Raises ValueError if a round could not be computed."""
    if log10_flow == math.inf:
        raise ValueError(
            f"The flow of model {task.graph.model.name!r} exceeds the "
            f"range of {task.scorer.dtype}, so its scores mean nothing. "
            "Use `scorer=synflow_tf.scorers.SynFlow()` with its defaults, "
            "dtype='float64' and rescale=True."
        )
    if fault >= 0:
        ends = np.cumsum(task.sizes)
        weight = task.weights[np.searchsorted(ends, int(fault), "right")]
        raise ValueError(
            "Argument `scorer` must give finite numbers, of which the lowest "
            f"are removed. Received: scorer={task.scorer!r}, whose scores of "
            f"weight {weight.path!r} have a NaN or an infinity."
        )
