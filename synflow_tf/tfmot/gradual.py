"""Pruning while a wrapped model trains, at the steps of a schedule."""

import inspect

import tensorflow as tf
import tf_keras

from synflow_tf import callbacks
from synflow_tf.graph import variables
from synflow_tf.graph import wrappers


class Gradual(callbacks.SynFlowPruning):
    """Counts steps as tfmot does: the first training step is 1.

    They are in the wrappers (`pruning_step`), and so in every saved file.
    """

    def _steps_done(self):
        steps = [w.pruning_step for w in wrappers.within(self.model)]
        if not steps:
            return 1 + super()._steps_done()
        # A layer that is called twice counts twice.
        return 1 + min(int(variables.value(step)) for step in steps)

    def on_train_end(self, logs=None):
        """Masks weights, and masks, that were written back since.

        The masks of wrappers are among the weights that `EarlyStopping` puts
        back.
        """
        super().on_train_end(logs)
        if self._begun:
            self.masks.enforce(self.model)


def fit_with(model, callback):
    """Returns the `fit` of a model, with a callback in the last place."""
    method = type(model).fit
    signature = inspect.signature(method)

    def fit(*args, **kwargs):
        bound = signature.bind(model, *args, **kwargs)
        given = bound.arguments.get("callbacks")
        if isinstance(given, tf_keras.callbacks.CallbackList):
            given.append(callback)
        else:
            given = [*tf.nest.flatten(given or []), callback]
        bound.arguments["callbacks"] = given
        return method(*bound.args, **bound.kwargs)

    return fit
