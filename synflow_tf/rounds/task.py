"""Decides which weights take part in pruning, and how many go by when."""

import dataclasses
import functools
import itertools
import typing

import numpy as np
import tensorflow as tf

from synflow_tf import graph as graph_lib
from synflow_tf import scorers
from synflow_tf.graph import selection
from synflow_tf.graph import variables
from synflow_tf.rounds import constraints
from synflow_tf.rounds import diagnostics
from synflow_tf.rounds import ranking


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """The weights to prune, as one vector, and the criterion bound to them.

    Attributes:
        graph: `graph.Graph`, the model.
        weights: list of `variables.Weight`, those that are ranked.
        scorer: `scorers.Scorer`.
        bound: `scorers.Bound`, which scores `weights`; None before `bind`.
        scope: "global" or "local".
        floor: `constraints.Floor`, what is kept of each weight in any case.
        findings: list of `Finding`.
        repeats: bool, whether it is worth while to trace what reads the model,
            which takes as long as several eager calls: in gradual pruning.
    """

    graph: typing.Any
    weights: list
    scorer: typing.Any
    bound: typing.Any
    scope: str
    floor: typing.Any
    findings: list
    repeats: bool = False

    def bound_to(self, weights):
        """Returns the task of some of its weights, with the criterion bound."""
        function = self.scorer.bind(self.graph.model, weights, self.graph)
        if not isinstance(function, scorers.Bound):
            if not callable(function):
                raise TypeError(
                    "Argument `scorer` must have a `bind` that returns a "
                    f"function or a `Bound`. Received: scorer={self.scorer!r}, "
                    f"whose `bind` returns {function!r}"
                )
            function = scorers.Bound(function)
        return dataclasses.replace(self, weights=weights, bound=function)

    @functools.cached_property
    def sizes(self):
        """Lists the numbers of entries of the weights."""
        return [weight.size for weight in self.weights]

    @property
    def groups(self):
        """Lists the sizes of the parts that are ranked apart."""
        return self.sizes if self.scope == "local" else [sum(self.sizes)]

    def target(self, density):
        """Counts how many of each group are removed at a density."""
        counts = [ranking.count_removed(density, n) for n in self.groups]
        return np.array(counts, np.int64)

    def removed(self, alive):
        """Counts how many of each group are removed; of a bool tensor (n,)."""
        parts = np.split(alive.numpy(), np.cumsum(self.groups)[:-1])
        return np.array([np.sum(~part) for part in parts], np.int64)

    def aside(self, scores, alive):
        """Returns what the floor keeps, bool of shape (n,), or None."""
        if not self.floor:
            return None
        parts = zip(
            self.weights, self.split(scores), self.split(alive), strict=True
        )
        kept = [tf.reshape(self.floor.of(*part), [-1]) for part in parts]
        return tf.concat(kept, axis=0)

    def start(self, masks):
        """Returns the prepared weights, a tensor (n,), 0 where masked."""
        flat = self._read()
        if masks:
            flat *= tf.cast(self.alive(masks), flat.dtype)
        return self.scorer.prepare(flat)

    @functools.cached_property
    def _read(self):
        """Returns the function that reads the weights, as a tensor (n,)."""

        def read():
            found = [variables.value(w.variable) for w in self.weights]
            found = [tf.cast(x, self.scorer.dtype) for x in found]
            return tf.concat([tf.reshape(x, [-1]) for x in found], axis=0)

        return self._traced(read)

    def alive(self, masks):
        """Returns the masks as a bool tensor of shape (n,)."""
        flat = [
            np.ravel(masks.get(w.path, np.ones(w.size, bool)))
            for w in self.weights
        ]
        return tf.constant(np.concatenate(flat))

    def split(self, flat):
        """Returns the pieces of a vector, each of its weight's shape."""
        # Slices share memory with the vector; `tf.split` would copy it.
        starts = [0, *itertools.accumulate(self.sizes[:-1])]
        return [
            tf.reshape(tf.slice(flat, [start], [weight.size]), weight.shape)
            for start, weight in zip(starts, self.weights, strict=True)
        ]

    def named(self, flat):
        """Returns the pieces of a vector as a dict of arrays by weight path."""
        pieces = np.split(flat.numpy(), np.cumsum(self.sizes)[:-1])
        pairs = zip(self.weights, pieces, strict=True)
        return {w.path: piece.reshape(w.shape) for w, piece in pairs}

    def check_finite(self):
        """Raises ValueError if a weight of the model is NaN or infinite."""
        if self._all_finite():
            return
        for weight in variables.weights(self.graph.model):
            if not _is_finite(weight):
                raise ValueError(
                    "Argument `model` must have finite weights. Received: "
                    f"model={self.graph.model.name!r}, whose weight "
                    f"{weight.path!r} has an entry that is NaN or infinite. "
                    "Initialize the model again, or load weights from before "
                    "it diverged."
                )

    @functools.cached_property
    def _all_finite(self):
        """Returns the function that tells whether all weights are finite."""
        weights = variables.weights(self.graph.model)
        return self._traced(
            lambda: tf.reduce_all([_is_finite(weight) for weight in weights])
        )

    def _traced(self, function):
        if not self.repeats:
            return function
        return tf.function(function, autograph=False)


def select(model, options):
    """Selects the weights of a model that may take part, and scores none.

    Returns a `Task` that is not bound. Raises errors as `prune` does.
    """
    graph = graph_lib.read(model, options.inputs)
    weights = selection.select(model, options.prunable, graph=graph)
    weights, unfit = constraints.fitting(weights, options.keep_n_of_m)
    floor = constraints.Floor(options.keep_n_of_m, options.min_kept)
    scorer, scope = options.scorer, options.scope
    task = Task(graph, weights, scorer, None, scope, floor, unfit)
    task.check_finite()
    return task


def bind(task, on_unscored, held):
    """Binds the criterion, and leaves out the weights that have no score.

    `held` maps weight paths to the masks that are enforced. Raises errors as
    `prune` does.
    """
    task = task.bound_to(task.weights)
    scored, found = diagnostics.check(task, on_unscored, held)
    if len(scored) < len(task.weights):
        task = task.bound_to(scored)
    return dataclasses.replace(task, findings=[*found, *task.findings])


def check_reachable(task, alive, start, asked):
    """Raises ValueError unless so many weights can be removed.

    `alive` is a bool tensor (n,); `start` and `asked` are int64 arrays, how
    many of each group are removed, and are to be.
    """
    kept = task.aside(tf.cast(alive, tf.float32), alive)
    if kept is not None:
        parts = tf.split(kept, task.groups)
        counts = [int(tf.math.count_nonzero(part)) for part in parts]
        task.floor.check(np.array(task.groups) - asked, np.array(counts))
    if np.any(asked < start):
        raise ValueError(
            "Argument `sparsity` (or `compression`, `schedule`) must ask for "
            "no fewer removed weights than model "
            f"{task.graph.model.name!r} is held to: "
            f"{int(start.sum()):,} of {sum(task.groups):,} are removed "
            "already. Received: a call that asks for "
            f"{int(asked.sum()):,} (with scope='local', for fewer of one "
            "kernel). To begin again: "
            "`synflow_tf.Masks.enforced(model).release(model)`; removed "
            "weights are 0 then, but free."
        )


def _is_finite(weight):
    value = variables.value(weight.variable)
    if not value.dtype.is_floating:
        return tf.constant(True)
    return tf.reduce_all(tf.math.is_finite(value))
