"""Pruning as a callback of `model.fit`, in both Keras lines."""

from synflow_tf import masks as masks_lib
from synflow_tf import pruning


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

    Takes the arguments of `synflow_tf.prune`, or masks. The model is pruned
    when the first epoch begins, so that weights which another callback
    restores (`BackupAndRestore`) are there; weights that are already as sparse
    as asked for keep their zeros, so a run that continues keeps its masks.

    Args:
        sparsity: number in [0, 1); see `prune`.
        masks: `Masks` to use instead of computing some; no other argument may
            be given then.
        **kwargs: the other arguments of `prune`.

    Attributes:
        masks: `Masks`, once training has begun; before that what was given.

    Raises:
        ValueError: if an argument is out of its range; at construction.
        TypeError: if an argument is not one of `prune`.

    >>> callback = synflow_tf.SynFlowPruning(sparsity=0.9, rounds=10)
    >>> callback.masks is None
    True
    """

    def __init__(self, sparsity=None, *, masks=None, **kwargs):
        if masks is None:
            pruning.check_arguments(sparsity, **kwargs)
        elif not isinstance(masks, masks_lib.Masks):
            raise TypeError(
                "Argument `masks` must be a `synflow_tf.Masks`. "
                f"Received: masks={masks!r}"
            )
        elif sparsity is not None or kwargs:
            raise ValueError(
                "Argument `masks` must be given alone, without the arguments "
                f"of `prune`. Received: sparsity={sparsity!r}, {kwargs!r}"
            )
        self.masks = masks
        self._given = masks
        self._arguments = {"sparsity": sparsity, **kwargs}
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
        """The masks that the model has already, if as sparse as asked for."""
        ...

    def _computed(self):
        return pruning.compute_masks(self.model, **self._arguments)
