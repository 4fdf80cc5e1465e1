"""What holds for any model and any density, on random small graphs."""

import common
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
            common.assert_nested(masks, outer)
        outer = masks


@SLOW
@hypothesis.given(_models(blocks=["dense", "conv", "relu", "bn", "pool"]))
def test_the_scores_of_every_layer_of_a_chain_sum_to_the_flow(model):
    scores = synflow_tf.score(model)
    sums = [score.sum() for score in scores.values()]
    np.testing.assert_allclose(sums, 10**scores.log10_flow, rtol=1e-9)


@SLOW
@hypothesis.given(_models(), st.floats(0, 0.99))
def test_what_is_removed_scores_no_more_than_what_is_kept(model, sparsity):
    scores = synflow_tf.score(model)
    masks = synflow_tf.compute_masks(model, sparsity, rounds=1)
    kept = np.concatenate([scores[path][masks[path]] for path in masks])
    gone = np.concatenate([scores[path][~masks[path]] for path in masks])
    assert gone.size == 0 or gone.max() <= kept.min()


# Steps of raw operations on tensors (1, 8, 6), some with a kernel (6, 6), and
# what they are to the flow, in NumPy.
def _same(x, w):
    return x


def _looped(x, w):
    def body(i, y):
        return i + 1, tf.nn.relu(y) + 1.0

    return tf.while_loop(lambda i, y: i < 2, body, [0, x])[1]


def _normalized(x, w):
    mean = tf.reduce_mean(x, -1, keepdims=True)
    variance = tf.reduce_mean(tf.math.squared_difference(x, mean), -1)
    return (x - mean) * tf.math.rsqrt(variance[..., None] + 1e-5)


_COUNTS = np.arange(1.0, _WIDTH + 1)
_SHAPE = 1, 8, _WIDTH
_STEPS = {
    "matrix": (
        lambda x, w: tf.matmul(tf.reshape(x, [8, _WIDTH]), w)[None],
        lambda x, w: x @ w,
    ),
    "transposed": (
        lambda x, w: tf.einsum("bti,oi->bto", x, w),
        lambda x, w: x @ w.T,
    ),
    "residual": (
        lambda x, w: x - tf.tensordot(tf.nn.tanh(x), w, 1),
        lambda x, w: x + x @ w,
    ),
    "convolution": (
        lambda x, w: tf.nn.conv1d(x, tf.stack([w, 2 * w]), 1, "SAME"),
        lambda x, w: x @ w + np.pad(x, [[0, 0], [0, 1], [0, 0]])[:, 1:] @ w * 2,
    ),
    "cut": (
        lambda x, w: tf.concat([x[:, 4:], tf.matmul(x[:, :4], w[None])], 1),
        lambda x, w: np.concatenate([x[:, 4:], x[:, :4] @ w], 1),
    ),
    "mapped": (
        lambda x, w: tf.map_fn(lambda row: tf.matmul(row, w), x),
        lambda x, w: x @ w,
    ),
    "scaled": (
        lambda x, w: x * tf.constant(-_COUNTS, tf.float32) + 3.0,
        lambda x, w: x * _COUNTS,
    ),
    "gathered": (
        lambda x, w: tf.gather(x, [5, 0, 0, 2, 3, 1], axis=2),
        lambda x, w: x[:, :, [5, 0, 0, 2, 3, 1]],
    ),
    "pooled": (
        lambda x, w: x + tf.reduce_mean(x, 1, keepdims=True),
        lambda x, w: x + x.mean(1, keepdims=True),
    ),
    "running": (
        lambda x, w: tf.cumsum(x, 1, reverse=True),
        lambda x, w: x[:, ::-1].cumsum(1)[:, ::-1],
    ),
    "gelu": (lambda x, w: 0.5 * x * (1 + tf.math.erf(x / 1.41421)), _same),
    "gate": (lambda x, w: x * tf.sigmoid(tf.reverse(x, [2])), _same),
    "loop": (_looped, _same),
    "norm": (_normalized, _same),
    "selected": (
        lambda x, w: tf.where(x > 0, x, tf.reverse(x, [1])),
        lambda x, w: x + x[:, ::-1],  # Both ways count.
    ),
}
_WITH_KERNEL = list(_STEPS)[:6]


@st.composite
def _programs(draw):
    kinds = draw(st.lists(st.sampled_from(list(_STEPS)), max_size=5))
    place = draw(st.integers(0, len(kinds)))
    kinds.insert(place, draw(st.sampled_from(_WITH_KERNEL)))
    return kinds


@SLOW
@hypothesis.given(
    _programs(),
    st.sampled_from([keras, tf_keras]),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_raw_operations_score_as_their_linear_map_in_numpy(
    kinds, line, is_function, seed
):
    class Program(line.layers.Layer):
        def build(self, shape):
            self.own = [
                self.add_weight(name=f"w{i}", shape=(_WIDTH, _WIDTH))
                for i, kind in enumerate(kinds)
                if kind in _WITH_KERNEL
            ]
            self.built = True

        def steps(self, x):
            kernels = map(tf.convert_to_tensor, self.own)
            for kind in kinds:
                w = next(kernels) if kind in _WITH_KERNEL else None
                x = _STEPS[kind][0](x, w)
            return x

        def call(self, x):
            x = tf.ensure_shape(x, _SHAPE)
            return tf.function(self.steps)(x) if is_function else self.steps(x)

    program = Program()
    x = line.Input(_SHAPE[1:], batch_size=1)
    model = line.Model(x, program(x))
    rng = np.random.default_rng(seed)
    for w in program.own:
        w.assign(rng.normal(size=w.shape))
    values = [np.abs(w.numpy().astype(np.float64)) for w in program.own]

    def flow(values):
        values, x = iter(values), np.ones(_SHAPE)
        for kind in kinds:
            w = next(values) if kind in _WITH_KERNEL else None
            x = _STEPS[kind][1](x, w)
        return x.sum()

    scores = synflow_tf.score(model)
    total = flow(values)
    np.testing.assert_allclose(scores.log10_flow, np.log10(total), rtol=1e-9)
    assert len(scores) == len(values)
    for i, score in enumerate(scores.values()):
        # R is linear in each entry: what it loses without it is the score.
        row, column = rng.integers(0, _WIDTH, 2)
        less = [v.copy() for v in values]
        less[i][row, column] = 0
        np.testing.assert_allclose(
            score[row, column], total - flow(less), atol=1e-9 * total
        )
