"""Pruning as a callback of `model.fit`, in both Keras lines."""

import warnings

import numpy as np

from synflow_tf import _validation
from synflow_tf import masks as masks_lib
from synflow_tf import pruning
from synflow_tf import schedules
from synflow_tf.enforce import constraint as constraint_lib
from synflow_tf.graph import selection
from synflow_tf.graph import variables
from synflow_tf.rounds import constraints
from synflow_tf.rounds import ranking


class _Callback:
    """All hooks of a Keras callback, each doing nothing.

    A subclass of `keras.callbacks.Callback` fails in tf_keras, and the other
    way round, so the callback is neither: both lines call what has the hooks.
    """

    # Keras 3: does not touch a model while batches run, so need not be waited
    # for.
    async_safe = True
    # tf_keras: the logs may come as tensors.
    _supports_tf_logs = True

    model = None
    params = None

    def set_model(self, model):
        """Called by `fit` with the model."""
        self.model = model

    def set_params(self, params):
        """Called by `fit` with its parameters."""
        self.params = params

    def _nothing(self, *args, **kwargs):
        """Called by Keras; does nothing."""

    on_train_begin = on_train_end = _nothing
    on_test_begin = on_test_end = _nothing
    on_predict_begin = on_predict_end = _nothing
    on_epoch_begin = on_epoch_end = _nothing
    on_batch_begin = on_batch_end = _nothing
    on_train_batch_begin = on_train_batch_end = _nothing
    on_test_batch_begin = on_test_batch_end = _nothing
    on_predict_batch_begin = on_predict_batch_end = _nothing

    def _implements_train_batch_hooks(self):
        return False

    def _implements_test_batch_hooks(self):
        return False

    def _implements_predict_batch_hooks(self):
        return False


class SynFlowPruning(_Callback):
    """Prunes the model before its first training step, and keeps it pruned.

    The model is pruned when the first epoch begins, so that weights which
    another callback restores (`BackupAndRestore`) are there already. A model
    that is exactly as sparse as asked for keeps its masks, so a run that goes
    on, or a second `fit` with the same callback, does not prune again. A less
    sparse one is pruned further, from the masks that it is held to.

    With a `schedule` it is pruned bit by bit instead, while it trains: before
    each training step at which the schedule asks for it, the weights of that
    moment are scored, and the lowest are removed as well. Steps are counted by
    `model.optimizer.iterations`, from 0, so that a restored run goes on where
    it was; within a call of several steps (`steps_per_execution`) the model is
    pruned before the call. List the callback after those that write old
    weights back when training ends (`EarlyStopping`).

    Args:
        sparsity: number in [0, 1), the fraction of the prunable weights to
            remove. Exactly one of this, `compression`, `keep_n_of_m`,
            `schedule` and `masks`.
        masks: `Masks` to use instead of computing some.
        compression: number >= 1; see `prune`, also for all that follow.
        keep_n_of_m: a pair of int.
        schedule: a schedule over training steps, of `synflow_tf.schedules` or
            of tfmot (`PolynomialDecay(0.0, 0.9, begin_step=0, end_step=1000)`).
        rounds: int >= 1. With a schedule, no round removes more than one of
            as many from the dense model to the same sparsity would.
        scorer: a `scorers.Scorer`.
        scope: "global" or "local".
        min_kept: int >= 0.
        prunable: which weights.
        inputs: an example batch, or specs.
        on_unscored: "error" or "keep".
        progress: bool.

    Attributes:
        masks: `Masks`, once training has begun; before that what was given.

    Raises:
        TypeError: if `masks` are not `Masks`, or `schedule` is no schedule.
        ValueError: if an argument is out of its range.

    Warns:
        UserWarning: if a schedule has asked for nothing in a call of `fit`,
            though nothing was pruned.

    >>> callback = synflow_tf.SynFlowPruning(sparsity=0.9, rounds=10)
    >>> callback.masks is None
    True
    """

    def __init__(
        self,
        sparsity=None,
        *,
        masks=None,
        compression=None,
        keep_n_of_m=None,
        schedule=None,
        rounds=100,
        scorer=None,
        scope="global",
        min_kept=0,
        prunable=None,
        inputs=None,
        on_unscored="error",
        progress=True,
    ):
        if masks is not None and not isinstance(masks, masks_lib.Masks):
            raise TypeError(
                "Argument `masks` must be a `synflow_tf.Masks`. "
                f"Received: masks={masks!r}"
            )
        if schedule is not None and not callable(schedule):
            raise TypeError(
                "Argument `schedule` must be a schedule of "
                "`synflow_tf.schedules` or of tfmot. "
                f"Received: schedule={schedule!r}"
            )
        amount = {
            "sparsity": sparsity,
            "compression": compression,
            "keep_n_of_m": keep_n_of_m,
        }
        _validation.exactly_one(
            {**amount, "schedule": schedule, "masks": masks}
        )
        constraints.check(keep_n_of_m, min_kept)
        if masks is None and schedule is None:
            densities = pruning.round_densities(**amount, rounds=rounds)
            self._final = densities[-1]
        self.masks = self._given = masks
        self._schedule = schedule
        self._rounds = _validation.integer("rounds", rounds, 1)
        self._options = {
            "scorer": scorer,
            "scope": scope,
            "min_kept": min_kept,
            "prunable": prunable,
            "inputs": inputs,
            "on_unscored": on_unscored,
        }
        self._amount = {**amount, "progress": progress}
        self._forget()

    def _forget(self):
        """Starts afresh, so that one callback serves several calls of fit."""
        self._begun = False
        self._offset = None
        self._next_step = 0

    def on_train_begin(self, logs=None):
        """Forgets the call of `fit` before."""
        self._forget()

    def on_epoch_begin(self, epoch, logs=None):
        """Prunes the model, at the first epoch of a call of `fit`."""
        self._offset = None
        if self._begun:
            return
        if self._schedule is not None:
            masks = self._begun_already()
        else:
            masks = self._given or self._pruned_already() or self._computed()
        self._hold(masks)
        self._begun = True

    def on_train_batch_begin(self, batch, logs=None):
        """Prunes as far as the schedule asks by the steps that begin."""
        if self._schedule is None:
            return
        if self._offset is None:
            self._offset = self._steps_done() - batch
        begin = self._offset + batch
        end = begin + variables.steps_per_call(self.model)
        if self.params and self.params.get("steps"):  # the last call is short
            end = min(end, self._offset + self.params["steps"])
        for step in range(max(begin, self._next_step), end):
            prunes, density = schedules.at(self._schedule, step)
            wanted = self._wanted(self.masks, density)
            if prunes and wanted > _removed(self.masks):
                self._hold(self._computed_further(density))
        self._next_step = end

    def on_train_end(self, logs=None):
        """Masks weights that were written since: averages, best weights."""
        if not self._begun:
            return
        self.masks.apply(self.model)
        if self._schedule is not None and self.masks.kept == self.masks.size:
            warnings.warn(
                "Nothing was pruned: the schedule "
                f"{self._schedule!r} did not ask for it in the steps up to "
                f"{self._steps_done()} (`model.optimizer.iterations`). Check "
                "its begin_step, end_step and frequency; compile the model "
                "anew to count from 0.",
                stacklevel=2,
            )

    def _implements_train_batch_hooks(self):
        return self._schedule is not None

    def _hold(self, masks):
        masks.enforce(self.model)
        self.masks = masks

    def _steps_done(self):
        optimizer = self.model.optimizer
        return int(variables.value(optimizer.iterations))

    def _pruned_already(self):
        """The masks that the model has, if it is as sparse as asked for.

        Those that are enforced; else, in a model that was saved and restored,
        those of its zeros.
        """
        masks = self._present()
        keep_n_of_m = self._amount["keep_n_of_m"]
        if keep_n_of_m is None:
            wanted = self._wanted(masks, self._final)
            return masks if _removed(masks) == wanted else None
        weights, _ = constraints.select(self._selected(), keep_n_of_m)
        if not constraints.is_n_of_m(weights, masks, keep_n_of_m):
            return None
        return masks_lib.Masks({w.path: masks[w.path] for w in weights})

    def _begun_already(self):
        """The masks that a model has which a schedule prunes bit by bit.

        All True if it was not begun. Zeros are masks where the schedule can
        have removed as many.
        """
        masks = self._present()
        _, density = schedules.at(self._schedule, self._steps_done())
        held = masks_lib.Masks.enforced(self.model) or {}
        if any(path in held for path in masks) or _removed(
            masks
        ) <= self._wanted(masks, density):
            return masks
        return masks_lib.Masks({p: np.ones_like(m) for p, m in masks.items()})

    def _present(self):
        """The masks that the weights to prune have: enforced, else zeros."""
        held = masks_lib.Masks.enforced(self.model) or {}
        if self.masks is not None and held == self.masks:
            return held  # of a fit before, with what it left out
        weights = self._selected()
        if not any(weight.path in held for weight in weights):
            return masks_lib.of_zeros(weights)
        return masks_lib.Masks(
            {w.path: constraint_lib.alive(w) for w in weights}
        )

    def _selected(self):
        """The weights to prune, a list of `Weight`."""
        options = self._options
        return selection.select(
            self.model, options["prunable"], options["inputs"]
        )

    def _wanted(self, masks, density):
        """How many weights are removed at a density."""
        sizes = [mask.size for mask in masks.values()]
        if self._options["scope"] == "global":
            sizes = [sum(sizes)]
        return sum(ranking.count_removed(density, n) for n in sizes)

    def _computed(self):
        return pruning.compute_masks(
            self.model, rounds=self._rounds, **self._amount, **self._options
        )

    def _computed_further(self, density):
        """The masks for a density, from those that the model has."""
        return pruning.compute_masks(
            self.model,
            1 - density,
            rounds=self._rounds,
            progress=False,
            **self._options,
        )


def _removed(masks):
    return masks.size - masks.kept
