"""Schedules against their equations and against tfmot's contract."""

import fractions

import common
import numpy as np
import pytest
import tensorflow as tf

from synflow_tf import schedules

# The sparsity that each has of 0.99 after a part of its steps.
EQUATIONS = {
    schedules.ExponentialSparsity: lambda part: 1 - 0.01**part,
    schedules.LinearSparsity: lambda part: 0.99 * part,
}
ALL = pytest.mark.parametrize("cls", EQUATIONS)


@ALL
@pytest.mark.parametrize(
    "frequency, pruned, others",
    [
        (10, [10, 20, 100, 110], [0, 9, 11, 19, 111, 120]),
        (1, [10, 11, 60, 110], [0, 9, 111, 200]),
    ],
)
@pytest.mark.parametrize("dtype", [tf.int32, tf.int64])
def test_pruning_happens_from_begin_to_end_at_the_frequency(
    cls, frequency, pruned, others, dtype
):
    schedule = cls(0.9, begin_step=10, end_step=110, frequency=frequency)
    traced = tf.function(schedule)
    for step in pruned + others:
        variable = tf.Variable(step, dtype=dtype)
        for given in (
            schedule(step)[0],
            schedule(variable)[0],
            traced(variable)[0],
            schedule.should_prune(step),
        ):
            assert bool(given) == (step in pruned), step


@ALL
@pytest.mark.parametrize("step", [0, 10, 35, 60, 110, 200])
def test_the_sparsity_is_that_of_the_equation(cls, step):
    schedule = cls(0.99, begin_step=10, end_step=110, frequency=1)
    expected = EQUATIONS[cls](min(max(step - 10, 0), 100) / 100)
    np.testing.assert_allclose(float(schedule.density(step)), 1 - expected)
    np.testing.assert_allclose(schedule(step)[1], expected, atol=1e-7)
    given = schedule(tf.Variable(step))[1]
    np.testing.assert_allclose(given, expected, atol=1e-7)


@ALL
def test_the_contract_is_tensors_of_bool_and_float32_also_when_traced(cls):
    schedule = cls(0.9, begin_step=0, end_step=10, frequency=1)
    for call in (schedule, tf.function(schedule)):
        should_prune, sparsity = call(tf.constant(5, tf.int64))
        assert should_prune.dtype == tf.bool and should_prune.shape == ()
        assert sparsity.dtype == tf.float32 and sparsity.shape == ()
    np.testing.assert_array_equal(sparsity, schedule(5)[1])


@ALL
@pytest.mark.parametrize("step, sparsity", [(0, 0), (4, 0), (5, 0.9), (6, 0.9)])
def test_a_schedule_that_ends_where_it_begins_prunes_at_once(
    cls, step, sparsity
):
    schedule = cls(0.9, begin_step=5, end_step=5)
    assert float(schedule.density(step)) == pytest.approx(1 - sparsity)
    prunes, given = schedule(step)
    np.testing.assert_allclose(given, sparsity)
    assert prunes.numpy() == (step == 5)


@ALL
@pytest.mark.parametrize("sparsity", ["0", "0.001", "0.29", "0.99"])
@pytest.mark.parametrize("begin, end", [(0, 7), (0, 0), (0, 1), (10, 10)])
def test_the_last_density_is_exact(cls, sparsity, begin, end):
    schedule = cls(float(sparsity), begin_step=begin, end_step=end)
    assert schedule.density(end) == 1 - fractions.Fraction(sparsity)


@ALL
def test_densities_do_not_rise_by_rounding(cls):
    schedule = cls(2.0**-52, begin_step=0, end_step=9)
    densities = [schedule.density(step) for step in range(10)]
    assert densities == sorted(densities, reverse=True)


@ALL
@pytest.mark.parametrize(
    "name, bad",
    [
        ("final_sparsity", [-10.0, -0.001, 1.0, 10.0, float("nan")]),
        ("begin_step", [-5, -1]),
        ("end_step", [-5, -1, 4]),
        ("frequency", [-5, -1, 0]),
    ],
)
def test_arguments_out_of_range_are_refused(cls, name, bad):
    valid = {"final_sparsity": 0.5, "begin_step": 5, "end_step": 10}
    for value in bad:
        with pytest.raises(ValueError, match=f"Argument `{name}`"):
            cls(**{**valid, name: value})


@ALL
def test_the_config_is_inverse_and_loads_in_both_lines(cls, line):
    arguments = {"begin_step": 3, "end_step": 30, "frequency": 2}
    schedule = cls(0.75, **arguments)
    config = schedule.get_config()
    assert config == {
        "class_name": f"synflow_tf>{cls.__name__}",
        "config": {"final_sparsity": 0.75, **arguments},
    }
    assert cls.from_config(config).get_config() == config
    assert cls.from_config(config["config"]).get_config() == config
    saved = line.saving.serialize_keras_object(schedule)
    loaded = line.saving.deserialize_keras_object(saved)
    assert type(loaded) is cls
    assert loaded.get_config() == config


_ISINSTANCE = """
import sys
from synflow_tf import schedules
{first}
schedule = schedules.ExponentialSparsity(0.9, 0, 10)
assert "tensorflow_model_optimization" not in sys.modules or {imported}
import tensorflow_model_optimization as tfmot
base = tfmot.sparsity.keras.PruningSchedule
assert isinstance(schedule, base)
assert isinstance(schedules.LinearSparsity(0.9, 0, 10), base)
assert not isinstance(3, base)
"""


@pytest.mark.parametrize("tfmot_first", [False, True])
def test_a_schedule_is_one_of_tfmots_whichever_is_imported_first(tfmot_first):
    first = "import tensorflow_model_optimization" if tfmot_first else ""
    code = _ISINSTANCE.format(first=first, imported=tfmot_first)
    done = common.python("-c", code)
    assert done.returncode == 0, done.stderr


def test_tfmots_schedules_say_how_much_to_prune():
    import tensorflow_model_optimization as tfmot

    constant = tfmot.sparsity.keras.ConstantSparsity(0.9, 2, frequency=2)
    densities = schedules.densities(constant, 5)
    tenth = fractions.Fraction(1, 10)
    assert densities == [None, tenth, None, tenth, None]
    decay = tfmot.sparsity.keras.PolynomialDecay(
        0.5, 0.75, begin_step=0, end_step=4, power=1, frequency=1
    )
    expected = [0.4375, 0.375, 0.3125, 0.25]
    assert [float(d) for d in schedules.densities(decay, 4)] == expected


def test_a_schedule_that_never_prunes_or_falls_is_refused():
    late = schedules.LinearSparsity(0.9, 500, 600)
    with pytest.raises(ValueError, match="must prune in one of the steps"):
        schedules.densities(late, 100)

    def falling(step):
        return tf.constant(True), tf.constant(0.5) / tf.cast(step, tf.float32)

    with pytest.raises(ValueError, match="never fall"):
        schedules.densities(falling, 3)
