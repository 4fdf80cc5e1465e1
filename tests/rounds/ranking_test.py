"""Ranking against a stable sort in NumPy."""

import fractions

import hypothesis
import hypothesis.extra.numpy
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies as st

from synflow_tf.rounds import ranking


def _expected(scores, alive, count):
    """Removes the `count` alive entries that a stable sort puts first."""
    order = [i for i in np.argsort(scores, kind="stable") if alive[i]]
    kept = alive.copy()
    kept[order[:count]] = False
    return kept


def _lowest(scores, alive, count):
    return ranking.lowest(
        tf.constant(scores), tf.constant(alive), tf.constant(count, tf.int64)
    ).numpy()


@st.composite
def _problems(draw):
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    size = draw(st.integers(1, 60))
    width = np.dtype(dtype).itemsize * 8
    number = st.floats(0, allow_infinity=False, allow_nan=False, width=width)
    few = st.sampled_from(draw(st.lists(number, min_size=1, max_size=4)))
    elements = draw(st.sampled_from([number, few]))
    scores = np.array(
        draw(st.lists(elements, min_size=size, max_size=size)), dtype
    )
    alive = np.array(
        draw(st.lists(st.booleans(), min_size=size, max_size=size))
    )
    alive[draw(st.integers(0, size - 1))] = True
    scores = np.abs(np.where(alive, scores, 0)).astype(dtype)
    return scores, alive, draw(st.integers(0, int(alive.sum())))


@hypothesis.settings(deadline=None, max_examples=300)
@hypothesis.given(_problems())
def test_the_lowest_scores_go_and_ties_by_index(problem):
    np.testing.assert_array_equal(_lowest(*problem), _expected(*problem))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_million_scores_over_40_decades(dtype):
    rng = np.random.default_rng(0)
    scores = (10 ** rng.uniform(-20, 20, 10**6)).astype(dtype)
    alive = rng.random(10**6) < 0.5
    scores[~alive] = 0
    for count in (0, 1, 123_456, int(alive.sum())):
        np.testing.assert_array_equal(
            _lowest(scores, alive, count), _expected(scores, alive, count)
        )


@pytest.mark.parametrize("count", [0, 1, 7, 1000])
def test_equal_scores_go_in_the_order_of_their_index(count):
    kept = _lowest(np.full(1000, 0.3), np.ones(1000, bool), count)
    np.testing.assert_array_equal(kept, np.arange(1000) >= count)


def test_scores_below_the_normal_range_are_told_apart():
    scores = np.array([4e-40, 0.0, 3e-40], np.float32)
    kept = _lowest(scores, np.ones(3, bool), 2)
    np.testing.assert_array_equal(kept, [True, False, False])


def test_weights_that_are_removed_already_stay_removed_and_do_not_count():
    alive = np.array([False, True, False, True, True])
    kept = _lowest(np.array([0.0, 0.0, 0.0, 1.0, 2.0]), alive, 1)
    np.testing.assert_array_equal(kept, [False, False, False, True, True])


def test_where_nothing_is_left_nothing_comes_back():
    kept = _lowest(np.array([0.0, 1.0, 1.0]), np.zeros(3, bool), 0)
    assert not kept.any()


def test_a_traced_ranking_equals_the_eager_one():
    rng = np.random.default_rng(1)
    scores, alive = rng.random(500), rng.random(500) < 0.8
    scores[~alive] = 0
    traced = tf.function(ranking.lowest)
    np.testing.assert_array_equal(
        traced(scores, alive, tf.constant(99, tf.int64)),
        _lowest(scores, alive, 99),
    )


@pytest.mark.parametrize(
    "density, size, removed",
    [
        (fractions.Fraction(71, 100), 100, 29),  # 0.29 * 100 = 28.99...96
        (fractions.Fraction(1, 10), 47_400, 42_660),
        (fractions.Fraction(1, 3), 3, 2),
        (fractions.Fraction(1), 10, 0),
        (0.5, 7, 3),
        (fractions.Fraction(1, 10**9), 2**40 + 1, 2**40 - 1099),
    ],
)
def test_the_number_removed_is_exact(density, size, removed):
    assert ranking.count_removed(density, size) == removed
