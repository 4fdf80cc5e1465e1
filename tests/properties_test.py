"""What holds for any model and any density, on random small graphs."""

import hypothesis
import keras
import numpy as np
import tensorflow as tf
import tf_keras
from hypothesis import strategies as st

import synflow_tf
from synflow_tf.graph import variables

SLOW = hypothesis.settings(
    deadline=None,
    max_examples=15,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
_WIDTH = 6
_BLOCKS = ["dense", "conv", "relu", "bn", "residual", "two ways", "pool"]


def _block(line, kind, x):
    layers = line.layers
    if kind == "dense":
        return layers.Dense(_WIDTH, "relu")(x)
    if kind == "conv":
        return layers.Conv1D(_WIDTH, 3, padding="same")(x)
    if kind == "relu":
        return layers.ReLU()(x)
    if kind == "bn":
        return layers.BatchNormalization()(x)
    if kind == "residual":
        return layers.Add()([x, layers.Dense(_WIDTH)(x)])
    if kind == "two ways":
        ways = [layers.Dense(3)(x), layers.Dense(_WIDTH - 3, "tanh")(x)]
        return layers.Concatenate()(ways)
    return layers.AveragePooling1D(2, padding="same")(x)


@st.composite
def _models(draw, blocks=_BLOCKS):
    line = draw(st.sampled_from([keras, tf_keras]))
    inputs = x = line.Input((8, _WIDTH))
    kinds = draw(st.lists(st.sampled_from(blocks), min_size=1, max_size=5))
    for kind in kinds:
        x = _block(line, kind, x)
    x = line.layers.Dense(2)(line.layers.Flatten()(x))
    model = line.Model(inputs, x)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    for weight in variables.weights(model):
        if weight.name == "kernel":
            weight.variable.assign(rng.normal(size=weight.shape))
    return model


@SLOW
@hypothesis.given(
    _models(), st.floats(0, 0.99), st.sampled_from(["global", "local"])
)
def test_counts_are_exact_and_masks_nested(model, sparsity, scope):
    schedule = synflow_tf.schedules.LinearSparsity(sparsity, 0, 4, 1)
    outer = None
    for rounds in (2, 4):
        masks = synflow_tf.compute_masks(
            model, schedule=schedule, rounds=rounds, scope=scope
        )
        density = schedule.density(rounds)
        sizes = [mask.size for mask in masks.values()]
        groups = [sum(sizes)] if scope == "global" else sizes
        removed = sum(int((1 - density) * n) for n in groups)
        assert masks.size - masks.kept == removed
        if outer is not None:
            assert not any(np.any(masks[p] & ~outer[p]) for p in masks)
        outer = masks


@SLOW
@hypothesis.given(_models(blocks=["dense", "conv", "relu", "bn", "pool"]))
def test_the_scores_of_every_layer_of_a_chain_sum_to_the_flow(model):
    scores = synflow_tf.score(model)
    sums = [score.sum() for score in scores.values()]
    np.testing.assert_allclose(sums, 10**scores.log10_flow, rtol=1e-9)


class _Scaled(synflow_tf.scorers.SynFlow):
    """SynFlow of an input of `factor` instead of ones."""

    def __init__(self, factor):
        super().__init__()
        self._factor = factor

    def score(self, graph, variables, weights, inputs):
        inputs = [tf.cast(self._factor, x.dtype) * x for x in inputs]
        return super().score(graph, variables, weights, inputs)


@SLOW
@hypothesis.given(_models(), st.integers(-30, 30), st.floats(0.1, 0.95))
def test_masks_do_not_change_with_a_power_of_two_on_the_input(
    model, power, sparsity
):
    plain = synflow_tf.compute_masks(model, sparsity, rounds=5)
    scaled = synflow_tf.compute_masks(
        model, sparsity, rounds=5, scorer=_Scaled(2.0**power)
    )
    assert scaled == plain


@SLOW
@hypothesis.given(_models(), st.floats(0, 0.99))
def test_what_is_removed_scores_no_more_than_what_is_kept(model, sparsity):
    scores = synflow_tf.score(model)
    masks = synflow_tf.compute_masks(model, sparsity, rounds=1)
    kept = np.concatenate([scores[path][masks[path]] for path in masks])
    gone = np.concatenate([scores[path][~masks[path]] for path in masks])
    assert gone.size == 0 or gone.max() <= kept.min()
