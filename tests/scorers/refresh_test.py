"""A traced round sees what training has changed since, of any weight."""

import numpy as np
import pytest

import synflow_tf
from synflow_tf import schedules

STEPS = 3


def _model(line):
    """Kernels that are pruned, and scales of batch normalization that train."""
    line.utils.set_random_seed(0)
    layers = line.layers
    model = line.Sequential(
        [
            line.Input((5,)),
            layers.Dense(6, name="a"),
            layers.BatchNormalization(name="scale"),
            layers.Dense(4, name="b"),
        ]
    )
    model.compile(line.optimizers.SGD(0.5), "mse")
    return model


@pytest.mark.parametrize("prunable", [None, "b"])
def test_later_events_score_with_the_weights_of_their_moment(line, prunable):
    schedule = schedules.LinearSparsity(0.9, 0, STEPS, 1)
    arguments = {"rounds": 1, "prunable": prunable}
    callback = synflow_tf.SynFlowPruning(pruning_schedule=schedule, **arguments)
    model, before = _model(line), []

    class Watch(line.callbacks.Callback):
        """Computes the masks of a step anew, on a model of the same weights."""

        def on_train_batch_begin(self, batch, logs=None):
            copy = _model(line)
            copy.set_weights(model.get_weights())
            if callback.masks.kept < callback.masks.size:
                callback.masks.enforce(copy)
            before.append(
                synflow_tf.compute_masks(
                    copy, 1 - schedule.density(batch), **arguments
                )
                if batch
                else callback.masks
            )

    seen = []
    watch = line.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: seen.append(callback.masks)
    )
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 4 * STEPS, 5)).astype("float32")
    model.fit(x, y[:, :4], 4, verbose=0, callbacks=[Watch(), callback, watch])
    assert seen[1:] == before[1:]
    assert seen[-1].kept < seen[0].kept
    gamma = model.get_layer("scale").get_weights()[0]
    assert np.any(gamma != 1)
