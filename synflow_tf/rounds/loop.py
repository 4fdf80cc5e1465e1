"""Iterative pruning: score, rank, mask, round after round.

    for t in 1 ... n:  remove the lowest scores until density(t) is left

Algorithm 1 of Tanaka et al. 2020, for any criterion.
"""

import math
import sys
import warnings

import numpy as np
import tensorflow as tf

from synflow_tf import _validation
from synflow_tf import masks as masks_lib
from synflow_tf.rounds import constraints
from synflow_tf.rounds import diagnostics
from synflow_tf.rounds import ranking
from synflow_tf.rounds import task as task_lib

_SCOPES = ("global", "local")
_ON_UNSCORED = ("error", "keep")


class Iteration:
    """The rounds of pruning a model.

    Args:
        model: a model.
        scorer: a `scorers.Scorer` or None; like all others, see `prune`.
        prunable: which weights.
        inputs: an example batch, or specs.
        scope: "global" or "local".
        on_unscored: "error" or "keep".
        keep_n_of_m: a pair of int or None, see `constraints.Floor`.
        min_kept: int >= 0, likewise.

    Attributes:
        problem: `problem.Problem`, what is pruned.
        groups: list of int, the sizes of the parts that are ranked apart.

    Raises:
        ValueError: if an argument is none of its choices, or the problem
            cannot be scored.
    """

    def __init__(
        self,
        model,
        scorer=None,
        prunable=None,
        inputs=None,
        scope="global",
        on_unscored="error",
        keep_n_of_m=None,
        min_kept=0,
    ):
        _validation.choice("scope", scope, _SCOPES)
        _validation.choice("on_unscored", on_unscored, _ON_UNSCORED)
        problem = task_lib.Problem(model, scorer, prunable, inputs)
        self.problem = problem
        self._findings = diagnostics.settle(problem, on_unscored)
        problem.weights, unfit = constraints.select(
            problem.weights, keep_n_of_m
        )
        self._findings += unfit
        self._floor = constraints.Floor(problem.weights, keep_n_of_m, min_kept)
        sizes = problem.sizes
        self.groups = sizes if scope == "local" else [sum(sizes)]

    def run(self, densities, progress=False):
        """Removes weights until a density is left, from where the model is.

        Weights whose masks are enforced are removed already and stay so;
        rounds that ask for no more than those are skipped.

        Args:
            densities: list of numbers in (0, 1] that do not rise, what is left
                after each round; None for a round that does not prune.
            progress: bool, whether to show a bar on a terminal.

        Returns:
            `Masks`.

        Raises:
            ValueError: if more weights have been removed than asked for, or
                the flow exceeds the dtype. Nothing has been changed.
        """
        problem, groups = self.problem, self.groups
        weights, alive = problem.start(), problem.alive()
        with tf.device(weights.device):
            weights *= tf.cast(alive, weights.dtype)
            removed = start = np.array(
                [
                    size - int(tf.math.count_nonzero(part))
                    for size, part in zip(
                        groups, tf.split(alive, groups), strict=True
                    )
                ]
            )
            targets = [self._target(density) for density in densities]
            self._check_reachable(targets, start, alive)
            nothing = tf.zeros(len(groups), tf.int64)
            # Anew each time: small variables that are not pruned, such as
            # moving variances, are constants of what is traced.
            step = task_lib.traced(self.one_round, (weights, alive, nothing))
            history = []
            bar = _Bar(len(densities), progress, problem.graph.line)
            for density, target in zip(densities, targets, strict=True):
                skipped = start.any() and np.all(target <= start)
                if density is not None and not skipped:
                    more = tf.constant(np.maximum(target - removed, 0))
                    weights, alive, flow = step(weights, alive, more)
                    removed = np.maximum(target, removed)
                    flow = problem.checked(flow)
                    kept = sum(groups) - int(removed.sum())
                    history.append(masks_lib.Round(float(density), kept, flow))
                bar.advance()
            _, _, flow = step(weights, alive, nothing)
        flow = problem.checked(flow)
        named = problem.named(alive)
        findings = list(self._findings)
        if flow != -math.inf:
            findings += diagnostics.empty_kernels(problem, named)
        masks = masks_lib.Masks(named, history, flow, findings)
        _warn_of_collapse(masks)
        return masks

    def _target(self, density):
        """How many weights of each group are removed at a density."""
        if density is None:
            density = 1
        counts = [ranking.count_removed(density, n) for n in self.groups]
        return np.array(counts, np.int64)

    def _check_reachable(self, targets, start, alive):
        """Raises if the last target is behind where the model is, or below."""
        asked = np.max(targets, axis=0)
        self._check_floor(asked, alive)
        if np.all(asked >= start):
            return
        model = self.problem.graph.model
        raise ValueError(
            "Argument `sparsity` (or `compression`, `schedule`) must ask for "
            f"no fewer removed weights than model {model.name!r} is held to: "
            f"{int(start.sum()):,} of {sum(self.groups):,} are removed "
            "already. Received: a call that asks for "
            f"{int(asked.sum()):,} (with scope='local', for fewer of one "
            "kernel). To begin again: "
            "`synflow_tf.Masks.enforced(model).release(model)`; removed "
            "weights are 0 then, but free."
        )

    def _check_floor(self, asked, alive):
        """Raises if so many weights cannot go without what must be kept."""
        floor = self._set_aside(tf.cast(alive, tf.float32), alive)
        if floor is None:
            return
        parts = tf.split(floor, self.groups)
        kept = [int(tf.math.count_nonzero(part)) for part in parts]
        self._floor.check(np.array(self.groups) - asked, np.array(kept))

    def one_round(self, weights, alive, more):
        """One round: score, rank, mask; all on the device, without Python.

        Args:
            weights: tensor of shape (n,), prepared weights, 0 where removed.
            alive: bool tensor of shape (n,).
            more: int64 tensor, how many to remove in each group.

        Returns:
            The new weights and alive, and log10 of the flow before the
            removals.
        """
        scores, flow = self.problem.scores(weights)
        floor = self._set_aside(scores, alive)
        free = alive if floor is None else alive & ~floor
        kept = [
            ranking.lowest(part, part_free, count)
            for part, part_free, count in zip(
                tf.split(scores, self.groups),
                tf.split(free, self.groups),
                tf.unstack(more, len(self.groups)),
                strict=True,
            )
        ]
        alive = tf.concat(kept, axis=0)
        if floor is not None:
            alive |= floor
        return weights * tf.cast(alive, weights.dtype), alive, flow

    def _set_aside(self, scores, alive):
        """What the floor keeps: bool tensor of shape (n,), or None."""
        split = self.problem.split
        floor = self._floor.of(split(scores), split(alive))
        if floor is None:
            return None
        return tf.concat([tf.reshape(x, [-1]) for x in floor], axis=0)


def _warn_of_collapse(masks):
    """Says so if no path is left through the masked model."""
    if masks.log10_flow != -math.inf:
        return
    empty = [path for path, mask in masks.items() if not mask.any()]
    warnings.warn(
        "Layer collapse: at this sparsity no path is left from the model's "
        f"inputs to its outputs ({masks!r}; without any weight: "
        f"{', '.join(empty) or 'none'}). It cannot learn. Use more `rounds` "
        "(the paper's 100) or a lower sparsity.",
        stacklevel=4,
    )


class _Bar:
    """A progress bar over rounds, on a terminal."""

    def __init__(self, rounds, wanted, line):
        self._bar = None
        if wanted and sys.stdout.isatty():
            self._bar = line.utils.Progbar(rounds, unit_name="round")

    def advance(self):
        """One round is done."""
        if self._bar is not None:
            self._bar.add(1)
