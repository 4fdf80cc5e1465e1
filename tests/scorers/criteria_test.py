"""A criterion of a user's: a seed, a round number, signed scores, data."""

import fractions
import functools

import common
import keras
import linear
import numpy as np
import pytest
import tensorflow as tf

import synflow_tf


class Random(synflow_tf.scorers.Scorer):
    """Other scores for each seed and round, of both signs."""

    def __init__(self, seed):
        super().__init__()
        self.seed = seed

    def bind(self, model, weights, graph):
        def score(tensors, round):
            seed = (self.seed, round)
            return [
                tf.random.stateless_normal(w.shape, seed, dtype=w.dtype)
                for w in tensors
            ], None

        return score


class Gradient(synflow_tf.scorers.Scorer):
    """The signed w * dL/dw of a batch of data, as in GraSP's first order."""

    dtype = "float32"
    needs_data = True

    def bind(self, model, weights, graph):
        x, y = next(iter(self.data))

        def score(tensors, round):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(tf.square(model(x) - y))
            variables = [w.variable.value for w in weights]
            gradients = tape.gradient(loss, variables)
            return [
                w * g for w, g in zip(tensors, gradients, strict=True)
            ], None

        return score


class Constant(synflow_tf.scorers.Scorer):
    """The scores that it is given, whatever the weights are."""

    def bind(self, model, weights, graph):
        return lambda tensors, round: (
            [tf.constant(self.data[w.path], "float64") for w in weights],
            None,
        )


def _model():
    keras.utils.set_random_seed(1)
    layers = [linear.dense(keras, n, f"d{n}") for n in (6, 3)]
    return linear.chain(keras, *layers)


def _data(model):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(32, 4)).astype("float32")
    y = rng.normal(size=(32, 3)).astype("float32")
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(32)


def _normals(seed, round):
    return [
        tf.random.stateless_normal(shape, (seed, round), dtype=tf.float64)
        for shape in ((4, 6), (6, 3))
    ]


def _flat(arrays):
    return np.concatenate([np.ravel(x) for x in arrays])


@pytest.mark.parametrize("seed", [0, 1])
def test_random_scores_come_from_the_seed_and_the_round(seed):
    scores = synflow_tf.score(_model(), scorer=Random(seed))
    np.testing.assert_array_equal(
        _flat(scores.values()), _flat(_normals(seed, 1))
    )
    assert np.isnan(scores.log10_flow)


def test_each_round_removes_the_lowest_signed_scores_of_its_own():
    masks = synflow_tf.compute_masks(_model(), 0.5, rounds=2, scorer=Random(3))
    kept = np.ones(42, bool)
    for round, density in ((1, 0.5**0.5), (2, 0.5)):
        scores = np.where(kept, _flat(_normals(3, round)), -np.inf)
        removed = int((1 - density) * 42)
        kept[np.argsort(scores, kind="stable")[:removed]] = False
    np.testing.assert_array_equal(_flat(masks.values()), kept)
    assert np.isnan(masks.log10_flow)


def test_a_criterion_may_compute_from_data():
    model = _model()
    data = _data(model)
    masks = synflow_tf.compute_masks(
        model, 0.5, rounds=1, scorer=Gradient(data)
    )
    (x, y) = next(data.as_numpy_iterator())
    first, second = (layer.kernel.numpy() for layer in model.layers[1:])
    hidden = x @ first
    error = 2 * (hidden @ second - y) / y.size
    scores = _flat(
        [first * (x.T @ (error @ second.T)), second * (hidden.T @ error)]
    )
    assert (scores < 0).any() and (scores > 0).any()
    lowest = np.argsort(scores)[:21]
    assert not _flat(masks.values())[lowest].any()
    assert masks.kept == 21


def test_a_criterion_without_the_data_it_needs_is_refused():
    model = _model()
    before = common.state(model)
    for call in (synflow_tf.prune, synflow_tf.compute_masks):
        with pytest.raises(ValueError, match=r"`scorer`.*`Gradient\(data\)`"):
            call(model, 0.5, scorer=Gradient())
    with pytest.raises(ValueError, match="`scorer` must have the data"):
        synflow_tf.SynFlowPruning(0.5, scorer=Gradient())
    assert common.state(model) == before


def test_a_score_that_is_nan_is_refused_with_the_name_of_its_weight():
    model = _model()
    scores = {"d6/kernel": np.ones((4, 6)), "d3/kernel": np.ones((6, 3))}
    scores["d3/kernel"][2, 1] = np.nan
    prune = functools.partial(synflow_tf.prune, sparsity=0.5)
    for call in (synflow_tf.score, prune):
        with pytest.raises(
            ValueError, match="`scorer`.*'d3/kernel' have a NaN"
        ):
            call(model, scorer=Constant(scores))
    assert synflow_tf.Masks.enforced(model) is None


def test_scores_below_zero_go_before_zero_and_ties_in_order():
    scores = {"d6/kernel": np.zeros((4, 6)), "d3/kernel": np.zeros((6, 3))}
    scores["d6/kernel"][0, :2] = -0.0, -1e-310
    scores["d3/kernel"][5, 2] = -1e300
    for count, gone in ((2, [1, 41]), (4, [0, 1, 2, 41])):
        sparsity, scorer = fractions.Fraction(count, 42), Constant(scores)
        masks = synflow_tf.compute_masks(
            _model(), sparsity, rounds=1, scorer=scorer
        )
        removed = np.flatnonzero(~_flat(masks.values()))
        np.testing.assert_array_equal(removed, gone)


def test_no_criterion_but_synflow_enters_linearize(monkeypatch):
    def enter(*args, **kwargs):
        raise AssertionError("entered")

    for name in ("lower", "plain", "check", "run", "LinearWeights"):
        monkeypatch.setattr(synflow_tf.linearize, name, enter)
    masks = synflow_tf.prune(_model(), 0.5, rounds=2, scorer=Random(0))
    assert masks.kept == 21
    with pytest.raises(AssertionError, match="entered"):
        synflow_tf.compute_masks(_model(), 0.5, rounds=2)


def test_a_criterion_prunes_in_fit_and_gradually():
    schedule = synflow_tf.schedules.ExponentialSparsity(0.5, 0, 4, 2)
    for amount in (
        {"sparsity": 0.5, "rounds": 2},
        {"pruning_schedule": schedule},
    ):
        model = _model()
        model.compile("sgd", "mse")
        callback = synflow_tf.SynFlowPruning(scorer=Random(0), **amount)
        data = _data(model).unbatch().batch(4)
        model.fit(data, callbacks=[callback], verbose=0)
        assert callback.masks.kept == 21
        assert common.revived(model, callback.masks) == 0


class _Wrong(synflow_tf.scorers.Scorer):
    """Gives what it is told instead of scores; `data` makes it of tensors."""

    def bind(self, model, weights, graph):
        return lambda tensors, round: self.data(tensors)


WRONG = {
    "one missing": lambda x: (x[1:], None),
    "another order": lambda x: (x[::-1], None),
    "another shape": lambda x: ([tf.transpose(w) for w in x], None),
    "another dtype": lambda x: ([tf.cast(w, "float32") for w in x], None),
    "no gradient": lambda x: ([None for _ in x], None),
    "no pair": lambda x: x,
    "no flow": lambda x: (x, 1.0),
    "nothing": lambda x: None,
    "infinity": lambda x: ([w / 0 for w in x], None),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_what_are_no_scores_is_refused_and_changes_nothing(wrong):
    model = _model()
    before = common.state(model)
    with pytest.raises((TypeError, ValueError), match="`scorer` must"):
        synflow_tf.prune(model, 0.5, rounds=2, scorer=_Wrong(wrong))
    assert synflow_tf.Masks.enforced(model) is None
    assert common.state(model) == before


def test_what_cannot_score_is_refused():
    class Unbound(synflow_tf.scorers.Scorer):
        def bind(self, model, weights, graph):
            return None

    class Half(Random):
        dtype = "float16"

    for scorer in (Unbound(), Half(0)):
        with pytest.raises((TypeError, ValueError), match="`scorer"):
            synflow_tf.prune(_model(), 0.5, rounds=2, scorer=scorer)


def test_kernels_that_a_criterion_empties_are_told():
    scores = {"d6/kernel": np.zeros((4, 6)), "d3/kernel": np.ones((6, 3))}
    with pytest.warns(UserWarning, match="All weights of 1 kernels.*d6/kern"):
        masks = synflow_tf.compute_masks(
            _model(), fractions.Fraction(24, 42), scorer=Constant(scores)
        )
    assert [f[:2] for f in masks.findings] == [("empty", "d6/kernel")]
