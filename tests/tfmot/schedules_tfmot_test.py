"""Our schedules inside tensorflow-model-optimization (tfmot)."""

import numpy as np
import pytest
import tf_keras

import synflow_tf
from synflow_tf import schedules


@pytest.mark.parametrize(
    "cls", [schedules.ExponentialSparsity, schedules.LinearSparsity]
)
@pytest.mark.parametrize("suffix", [".h5", ".keras", ""])
def test_magnitude_pruning_follows_our_schedule_and_goes_on_after_loading(
    cls, suffix, tmp_path
):
    import tensorflow_model_optimization as tfmot

    layers = tf_keras.layers.Dense(10), tf_keras.layers.Dense(4)
    model = tf_keras.Sequential([tf_keras.Input((6,)), *layers])
    schedule = cls(0.9, begin_step=0, end_step=10, frequency=1)
    wrapped = tfmot.sparsity.keras.prune_low_magnitude(model, schedule)
    wrapped.compile("sgd", "mse")
    step = tfmot.sparsity.keras.UpdatePruningStep()

    def removed(model):
        return [
            int(np.sum(layer.pruning_vars[0][1] == 0)) for layer in model.layers
        ]

    def expected(step):
        # tfmot rounds what is kept, in float32.
        return [n - round(float(schedule.density(step)) * n) for n in (60, 40)]

    rng = np.random.default_rng(0)
    data = rng.random((32, 6)), rng.random((32, 4))
    wrapped.fit(*data, batch_size=8, callbacks=[step], verbose=0)
    assert removed(wrapped) == expected(4)
    path = str(tmp_path / f"model{suffix}")
    wrapped.save(path)
    with tfmot.sparsity.keras.prune_scope():
        loaded = tf_keras.models.load_model(path)
    assert removed(loaded) == expected(4)
    loaded.fit(*data, batch_size=8, epochs=2, callbacks=[step], verbose=0)
    assert removed(loaded) == expected(10)
    stripped = tfmot.sparsity.keras.strip_pruning(loaded)
    masks = synflow_tf.Masks.from_model(stripped)
    assert masks.size - masks.kept == sum(expected(10))
