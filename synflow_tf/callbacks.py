"""Pruning as a callback of `model.fit`, in both Keras lines."""

import dataclasses

import numpy as np

from synflow_tf import findings
from synflow_tf import masks as masks_lib
from synflow_tf import options as options_lib
from synflow_tf import pruning
from synflow_tf import schedules
from synflow_tf.graph import variables
from synflow_tf.rounds import constraints
from synflow_tf.rounds import loop
from synflow_tf.rounds import task as task_lib


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
        """Takes the model, from `fit`."""
        self.model = model

    def set_params(self, params):
        """Takes the parameters of `fit`."""
        self.params = params

    def _nothing(self, *args, **kwargs):
        """Does nothing, when Keras calls."""

    on_train_begin = on_train_end = _nothing
    on_test_begin = on_test_end = _nothing
    on_predict_begin = on_predict_end = _nothing
    on_epoch_begin = on_epoch_end = _nothing
    on_batch_begin = on_batch_end = _nothing
    on_train_batch_begin = on_train_batch_end = _nothing
    on_test_batch_begin = on_test_batch_end = _nothing
    on_predict_batch_begin = on_predict_batch_end = _nothing

    def _no(self):
        return False

    # tf_keras: which hooks are worth a call for each batch.
    _implements_train_batch_hooks = _no
    _implements_test_batch_hooks = _implements_predict_batch_hooks = _no


class SynFlowPruning(_Callback):
    """Prunes the model before its first training step, and keeps it pruned.

    The model is pruned when the first epoch begins, so that weights which
    another callback restores (`BackupAndRestore`) are there already. A model
    that is exactly as sparse as asked for keeps its masks, so a run that goes
    on, or a second `fit` with the same callback, does not prune again. A less
    sparse one is pruned further, from the masks that it is held to.

    With a `pruning_schedule` it is pruned bit by bit instead, while it trains:
    before each training step at which the schedule asks for it, the weights of
    that moment are scored, and the lowest are removed as well. Steps are
    counted by `model.optimizer.iterations`, from 0, so that a restored run goes
    on where it was; within a call of several steps (`steps_per_execution`) the
    model is pruned before the call. List the callback after those that write
    old weights back when training ends (`EarlyStopping`).

    Args:
        sparsity: number in [0, 1), the fraction of the prunable weights to
            remove. Exactly one of this, `compression`, `schedule`,
            `keep_n_of_m`, `pruning_schedule` and `masks`. See `prune` for all
            arguments that are not described here.
        pruning_schedule: a schedule over training steps, of
            `synflow_tf.schedules` or of tfmot (`PolynomialDecay(0.0, 0.9,
            begin_step=0, end_step=1000)`). No round then removes more than one
            of `rounds` from the dense model to the same sparsity would.
        masks: `Masks` to use instead of computing some.

    Attributes:
        masks: `Masks`, once training has begun; before that what was given.

    Raises:
        TypeError: if `masks` are not `Masks`, or a schedule is no schedule.
        ValueError: if an argument is out of its range.

    Warns:
        UserWarning: see `prune`; and if a schedule has asked for nothing in a
            call of `fit`, though nothing was pruned.

    >>> callback = synflow_tf.SynFlowPruning(sparsity=0.9, rounds=10)
    >>> callback.masks is None
    True
    """

    def __init__(
        self,
        sparsity=None,
        *,
        compression=None,
        schedule=None,
        keep_n_of_m=None,
        pruning_schedule=None,
        masks=None,
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
        self._options = options_lib.Options.of(locals())
        self._schedule = pruning_schedule
        self.masks = masks
        self._task = self._step = None
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
        if not self._begun:
            self._hold(self._options.masks or self._at_begin())
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
            if prunes and self._asks_for_more(density):
                self._hold(self._pruned_further(density))
        self._next_step = end

    def on_train_end(self, logs=None):
        """Masks weights that were written since: averages, best weights."""
        if not self._begun:
            return
        self.masks.apply(self.model)
        if self._schedule is not None and self.masks.kept == self.masks.size:
            findings.warn_user(
                "Nothing was pruned: the schedule "
                f"{self._schedule!r} did not ask for it in the steps up to "
                f"{self._steps_done()} (`model.optimizer.iterations`). Check "
                "its begin_step, end_step and frequency; compile the model "
                "anew to count from 0."
            )

    def _implements_train_batch_hooks(self):
        return self._schedule is not None

    def _hold(self, masks):
        masks.enforce(self.model)
        self.masks = masks

    def _steps_done(self):
        return int(variables.value(self.model.optimizer.iterations))

    def _at_begin(self):
        """Returns the masks that training begins with."""
        held = masks_lib.Masks.enforced(self.model) or {}
        if self._task is not None and self._task.graph.model is self.model:
            if self._are_held(held):
                return self.masks  # of a fit before
        else:
            self.masks = None
        self._step = None
        self._task = task = task_lib.select(self.model, self._options)
        masks = _present(task, held)
        if self._schedule is not None:
            return self._begun_already(task, masks, held)
        if self._is_pruned(task, masks):
            return masks
        task = task_lib.bind(task, self._options.on_unscored, held)
        self._task = task
        if self._is_pruned(task, masks):  # beside what has no score
            return masks_lib.Masks(
                {w.path: masks[w.path] for w in task.weights}
            )
        return self._pruned(loop.Step(task), self._options.densities, held)

    def _are_held(self, held):
        return self.masks is not None and all(
            np.array_equal(held.get(path), mask)
            for path, mask in self.masks.items()
        )

    def _is_pruned(self, task, masks):
        """Returns whether masks are just as sparse as asked for."""
        options = self._options
        if options.keep_n_of_m is not None:
            n_of_m = options.keep_n_of_m
            return constraints.is_n_of_m(task.weights, masks, n_of_m)
        final = min(d for d in options.densities if d is not None)
        return np.array_equal(
            task.removed(task.alive(masks)), task.target(final)
        )

    def _begun_already(self, task, masks, held):
        """Returns the masks of a model that a schedule prunes bit by bit.

        All True if it was not begun. Zeros are masks where the schedule can
        have removed as many.
        """
        _, density = schedules.at(self._schedule, self._steps_done())
        count = np.sum(task.removed(task.alive(masks)))
        begun = any(weight.path in held for weight in task.weights)
        if not begun and count > np.sum(task.target(density)):
            masks = {path: np.ones_like(mask) for path, mask in masks.items()}
        return masks_lib.Masks(masks)

    def _asks_for_more(self, density):
        task, alive = self._task, self._task.alive(self.masks)
        return np.sum(task.target(density)) > np.sum(task.removed(alive))

    def _pruned_further(self, density):
        """Returns the masks for a density, from those that the model has.

        What the first time has traced serves all others, unless it has left
        out weights that may have a score by now.
        """
        step, options = self._step, self._options
        if step is None or any(
            f.kind == "unscored" for f in self.masks.findings
        ):
            task = task_lib.select(self.model, options)
            task = task_lib.bind(task, options.on_unscored, self.masks)
            self._task = task = dataclasses.replace(task, repeats=True)
            step = self._step = loop.Step(task)
        step.task.check_finite()
        step.task.bound.refresh()
        return self._pruned(step, options.densities_to(density), self.masks)

    def _pruned(self, step, densities, held):
        known = self.masks.findings if self.masks is not None else ()
        progress = self._options.progress and self._schedule is None
        masks = pruning.remove(step, densities, held, progress, known)
        pruning.tell(masks, self._options, known)
        return masks


def _present(task, held):
    """Returns the masks that a model has: enforced, else those of its zeros."""
    if not any(weight.path in held for weight in task.weights):
        return masks_lib.of_zeros(task.weights)
    return masks_lib.Masks(
        {w.path: held.get(w.path, np.ones(w.shape, bool)) for w in task.weights}
    )
