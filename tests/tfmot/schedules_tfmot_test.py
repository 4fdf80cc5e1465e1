"""Our schedules inside tensorflow-model-optimization (tfmot).

The first part asks of our schedules what the tests of tfmot (0.8.1,
`pruning_schedule_test.py`) ask of its own, case by case.
"""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import synflow_tf
from synflow_tf import schedules

CLASSES = [schedules.ExponentialSparsity, schedules.LinearSparsity]
ALL = pytest.mark.parametrize("cls", CLASSES)


@ALL
@pytest.mark.parametrize(
    "begin_step, end_step",
    [(-1, 1000), (-5, 1000), (10, -5), (10, -1), (10, 5)],
)
def test_steps_that_are_no_range_are_refused(cls, begin_step, end_step):
    with pytest.raises(ValueError, match="_step` must be an integer >= "):
        cls(0.8, begin_step, end_step, 10)


@ALL
@pytest.mark.parametrize(
    "begin_step, end_step",
    [(0, 1000), (1, 1000), (100, 1000), (0, 0), (0, 1), (10, 10), (10, 20)],
)
def test_steps_that_are_a_range_are_taken(cls, begin_step, end_step):
    schedule = cls(0.8, begin_step, end_step, 10)
    assert float(schedule.density(end_step)) == 0.2


@ALL
@pytest.mark.parametrize("frequency", [0, -1, -5])
def test_the_frequency_is_positive(cls, frequency):
    with pytest.raises(ValueError, match="`frequency` must be"):
        cls(0.8, 10, 1000, frequency)


@ALL
@pytest.mark.parametrize("sparsity", [-0.001, -1.0, -10.0, 1.0, 10.0])
def test_a_sparsity_outside_0_to_1_is_refused(cls, sparsity):
    with pytest.raises(ValueError, match="`final_sparsity` must be"):
        cls(sparsity, 0, 10)


@ALL
@pytest.mark.parametrize("sparsity", [0.0, 0.001, 0.5, 0.99])
def test_a_sparsity_from_0_to_below_1_is_taken(cls, sparsity):
    np.testing.assert_allclose(cls(sparsity, 0, 10)(10)[1], sparsity)


@ALL
@pytest.mark.parametrize(
    "step, frequency, expected",
    [
        (90, 1, False),
        (99, 1, False),
        (100, 1, True),
        (110, 1, True),
        (200, 1, True),
        (201, 1, False),
        (210, 1, False),
        (100, 10, True),
        (109, 10, False),
        (110, 10, True),
        (111, 10, False),
    ],
)
@pytest.mark.parametrize("dtype", [tf.int32, tf.int64])
def test_it_prunes_in_its_range_at_its_frequency(
    cls, step, frequency, expected, dtype
):
    schedule = cls(0.8, 100, 200, frequency)
    variable = tf.Variable(step, dtype=dtype)
    assert schedule(variable)[0].numpy() == expected
    assert tf.function(schedule)(variable)[0].numpy() == expected


@pytest.mark.parametrize("step", [100, 102, 105, 110])
@pytest.mark.parametrize(
    "cls, sparsity",
    [
        (schedules.ExponentialSparsity, lambda p: 1 - 0.2**p),
        (schedules.LinearSparsity, lambda p: 0.8 * p),
    ],
)
def test_the_sparsity_is_that_of_its_equation(cls, sparsity, step):
    schedule = cls(0.8, 100, 110, 2)
    given = schedule(tf.Variable(step))[1]
    np.testing.assert_allclose(given, sparsity((step - 100) / 10), atol=1e-7)


@ALL
def test_a_config_loads_as_tfmots_wrapper_loads_it(cls):
    schedule = cls(0.75, 10, 20, 5)
    loaded = tf_keras.utils.legacy.deserialize_keras_object(
        schedule.get_config(), custom_objects={}
    )
    assert type(loaded) is cls
    assert vars(loaded) == vars(schedule)


# The second part: the whole pipeline by magnitude, with our schedules.


@pytest.fixture(name="data", scope="module")
def _data():
    rng = np.random.default_rng(0)
    x = rng.random((32, 6)).astype("float32")
    return x, rng.random((32, 4)).astype("float32")


@ALL
@pytest.mark.parametrize("suffix", [".h5", ".keras", ""])
def test_magnitude_pruning_follows_our_schedule_and_goes_on_after_loading(
    cls, suffix, data, tmp_path
):
    import tensorflow_model_optimization as tfmot

    model = tf_keras.Sequential(
        [tf_keras.Input((6,)), tf_keras.layers.Dense(10, name="a")]
    )
    model.add(tf_keras.layers.Dense(4, name="b"))
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
