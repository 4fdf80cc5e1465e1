"""A traced round sees what training has changed since, of any weight."""

import common
import linear
import numpy as np
import pytest

import synflow_tf
from synflow_tf import schedules

STEPS = 3


def _model(line):
    """Kernels that are pruned, and scales of batch normalization that train."""
    line.utils.set_random_seed(0)
    a, b = linear.dense(line, 6, "a"), linear.dense(line, 4, "b")
    scale = line.layers.BatchNormalization(name="scale")
    model = linear.chain(line, a, scale, b, shape=(5,))
    model.compile(line.optimizers.SGD(0.5), "mse")
    return model


@pytest.mark.parametrize("prunable", [None, "b"])
def test_later_events_score_with_the_weights_of_their_moment(line, prunable):
    schedule = schedules.LinearSparsity(0.9, 0, STEPS, 1)
    arguments = {"rounds": 1, "prunable": prunable}
    callback = synflow_tf.SynFlowPruning(pruning_schedule=schedule, **arguments)
    model, expected, rng = _model(line), [], np.random.default_rng(0)

    class Watch(line.callbacks.Callback):
        """Changes what is not pruned, and computes the masks of the step anew.

        On a model of the same weights.
        """

        def on_train_batch_begin(self, batch, logs=None):
            scale = model.get_layer("scale")
            values = scale.get_weights()
            values[0] = np.exp(rng.normal(0, 3, 6))
            scale.set_weights(values)
            copy = _model(line)
            copy.set_weights(model.get_weights())
            expected.append(callback.masks)
            if batch:
                callback.masks.enforce(copy)
                density = schedule.density(batch)
                expected[-1] = synflow_tf.compute_masks(
                    copy, 1 - density, **arguments
                )

    seen = []
    look = line.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: seen.append(callback.masks)
    )
    x, y = rng.normal(size=(2, 4 * STEPS, 5)).astype("float32")
    common.fit(model, x, y[:, :4], Watch(), callback, look)
    assert seen[1:] == expected[1:]
    assert [masks.kept < masks.size for masks in seen] == [False, True, True]
