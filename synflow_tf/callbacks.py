"""Pruning as a callback of `model.fit`, in both Keras lines."""

from synflow_tf import masks as masks_lib
from synflow_tf import pruning
from synflow_tf import ranking


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
    on, or a second `fit` with the same callback, does not prune again.

    Args:
        sparsity: number in [0, 1), the fraction of the prunable weights to
            remove. Exactly one of this, `compression`, `schedule` and `masks`.
        masks: `Masks` to use instead of computing some.
        compression: number >= 1; see `prune`, also for all that follow.
        schedule: a schedule over rounds.
        rounds: int >= 1.
        scorer: a `scorers.Scorer`.
        scope: "global" or "local".
        prunable: which weights.
        input_shape: the size of the input.
        on_unscored: "error" or "keep".
        progress: bool.

    Attributes:
        masks: `Masks`, once training has begun; before that what was given.

    Raises:
        TypeError: if `masks` are not `Masks`.
        ValueError: if an argument is out of its range.

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
        schedule=None,
        rounds=100,
        scorer=None,
        scope="global",
        prunable=None,
        input_shape=None,
        on_unscored="error",
        progress=True,
    ):
        amount = {
            "sparsity": sparsity,
            "compression": compression,
            "schedule": schedule,
        }
        if masks is None:
            densities = pruning.round_densities(**amount, rounds=rounds)
            self._final = [d for d in densities if d is not None][-1]
        elif not isinstance(masks, masks_lib.Masks):
            raise TypeError(
                "Argument `masks` must be a `synflow_tf.Masks`. "
                f"Received: masks={masks!r}"
            )
        elif any(value is not None for value in amount.values()):
            raise ValueError(
                "Argument `masks` must be given alone: it says already what "
                f"is removed. Received: masks={masks!r} and {amount!r}"
            )
        self.masks = self._given = masks
        self._arguments = {
            **amount,
            "rounds": rounds,
            "scorer": scorer,
            "scope": scope,
            "prunable": prunable,
            "input_shape": input_shape,
            "on_unscored": on_unscored,
            "progress": progress,
        }
        self._pruned = False

    def on_train_begin(self, logs=None):
        """Starts afresh, so that one callback serves several calls of fit."""
        self._pruned = False

    def on_epoch_begin(self, epoch, logs=None):
        """Prunes the model, at the first epoch of a call of `fit`."""
        if self._pruned:
            return
        self.masks = self._given or self._present() or self._computed()
        self.masks.enforce(self.model)
        self._pruned = True

    def on_train_end(self, logs=None):
        """Masks weights that Keras has written since: moving averages."""
        if self._pruned:
            self.masks.apply(self.model)

    def _present(self):
        """The masks that the model has, if it is as sparse as asked for.

        Those that are enforced; else, in a model that was saved and restored,
        those of its zeros.
        """
        prunable = self._arguments["prunable"]
        masks = masks_lib.Masks.enforced(self.model)
        if masks is None:
            masks = masks_lib.Masks.from_model(self.model, prunable)
        sizes = [mask.size for mask in masks.values()]
        if self._arguments["scope"] == "global":
            sizes = [sum(sizes)]
        wanted = sum(ranking.count_removed(self._final, n) for n in sizes)
        return masks if masks.size - masks.kept == wanted else None

    def _computed(self):
        return pruning.compute_masks(self.model, **self._arguments)
