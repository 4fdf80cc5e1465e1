"""Ranking against a stable sort in NumPy."""

import fractions

import common
import hypothesis
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
    scores, alive = draw(common.scores_and_alive(st.integers(1, 60)))
    return scores, alive, draw(st.integers(0, int(alive.sum())))


def _example(scores, alive, count, dtype=None):
    """A problem that is always tried."""
    problem = np.array(scores, dtype), np.array(alive, bool), count
    return hypothesis.example(problem)


@hypothesis.settings(deadline=None, max_examples=300)
@hypothesis.given(_problems())
@_example([0.3] * 1000, [1] * 1000, 0)
@_example([0.3] * 1000, [1] * 1000, 7)
@_example([0.3] * 1000, [1] * 1000, 1000)
@_example([4e-40, 0, 3e-40], [1, 1, 1], 2, np.float32)  # below the normal range
@_example([0.0, 0.0, 0.0, 1.0, 2.0], [0, 1, 0, 1, 1], 1)
@_example([0.0, 1.0, 1.0], [0, 0, 0], 0)
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
