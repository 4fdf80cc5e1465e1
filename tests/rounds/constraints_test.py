"""N of every M weights are kept, and some of each kernel, as asked for."""

import fractions
import functools

import common
import hypothesis
import keras
import linear
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from hypothesis import strategies as st
from hypothesis.extra import numpy as hypothesis_numpy

import synflow_tf
from synflow_tf.graph import variables
from synflow_tf.rounds import constraints

pytestmark = pytest.mark.in_turn


def _layers(line):
    """Layers that take 2 of 4, by the kind of their model."""
    layers = line.layers
    simple = layers.SimpleRNN(4, name="simple")
    return {
        "dense": [
            line.Input((8,)),
            layers.Dense(16, "relu", name="hidden"),
            layers.Dense(6, name="head"),
        ],
        "einsum": [
            line.Input((3, 8)),
            layers.EinsumDense("abc,cde->abde", (None, 4, 16), name="parts"),
            layers.EinsumDense("abde,def->abf", (None, 16), name="merges"),
            layers.EinsumDense("...x,yx->...y", 6, name="reversed"),
        ],
        "1d": [
            line.Input((5, 8)),
            layers.Conv1D(16, 2, name="conv"),
            layers.Conv1DTranspose(24, 2, name="transposed"),
            layers.SeparableConv1D(6, 2, name="separable"),
        ],
        "2d": [
            line.Input((4, 4, 8)),
            layers.Conv2D(16, 2, name="conv"),
            layers.Conv2D(32, 2, groups=2, name="grouped"),
            layers.Conv2DTranspose(24, 2, name="transposed"),
            layers.SeparableConv2D(6, 2, name="separable"),
        ],
        "3d": [
            line.Input((3, 3, 3, 8)),
            layers.Conv3D(16, 2, name="conv"),
            layers.Conv3DTranspose(6, 2, name="transposed"),
        ],
        "recurrent": [
            line.Input((2, 4)),
            layers.LSTM(4, return_sequences=True, name="lstm"),
            layers.RNN(layers.GRUCell(4), return_sequences=True, name="rnn"),
            layers.Bidirectional(simple, name="both"),
        ],
    }


# The axis of the input channels of each kernel.
AXES = {
    "dense": {"hidden/kernel": 0, "head/kernel": 0},
    "einsum": {"parts/kernel": 0, "merges/kernel": 1, "reversed/kernel": 1},
    "attention": {
        **{f"mha/{x}_dense/kernel": 0 for x in ("query", "key", "value")},
        "mha/output_dense/kernel": 1,
        "head/kernel": 0,
    },
    "1d": {
        "conv/kernel": 1,
        "transposed/kernel": 2,
        "separable/pointwise_kernel": 1,
    },
    "2d": {
        "conv/kernel": 2,
        "grouped/kernel": 2,
        "transposed/kernel": 3,
        "separable/pointwise_kernel": 2,
    },
    "3d": {"conv/kernel": 3, "transposed/kernel": 4},
    "recurrent": {
        f"{cell}/{weight}": 0
        for cell in (
            "lstm/cell",
            "rnn/cell",
            "both/forward_layer/cell",
            "both/backward_layer/cell",
        )
        for weight in ("kernel", "recurrent_kernel")
    },
}


def _model(line, kind):
    line.utils.set_random_seed(0)
    if kind != "attention":
        return line.Sequential(_layers(line)[kind])
    attention = line.layers.MultiHeadAttention(2, 8, name="mha")
    head = linear.dense(line, 6, "head")
    return linear.functional(line, lambda x: head(attention(x, x)), (3, 8))


def _image_model(line):
    """A model of which N of M fits the kernels "second" and "head" only."""
    line.utils.set_random_seed(0)
    return linear.chain(
        line,
        line.layers.Conv2D(8, 2, name="first"),
        line.layers.DepthwiseConv2D(2, name="depthwise"),
        line.layers.Conv2D(8, 2, activation="relu", name="second"),
        line.layers.Flatten(),
        linear.dense(line, 4, "head"),
        shape=(5, 5, 3),
    )


def _residual(line):
    """A model of 224 weights whose branch scores low beside the skip."""
    line.utils.set_random_seed(0)
    a = linear.dense(line, 8, "a", activation="relu")
    b = linear.dense(line, 8, "b")

    def residual(x):
        x = linear.dense(line, 8, "stem")(x)
        x = line.layers.Add()([x, b(a(x))])
        return linear.dense(line, 4, "head")(x)

    model = linear.functional(line, residual, (8,))
    for layer in (a, b):
        layer.kernel.assign(0.01 * layer.kernel)
    return model


def _train(model, *callbacks, epochs=1):
    line = keras if isinstance(model, keras.Model) else tf_keras
    rng = np.random.default_rng(0)
    x = rng.normal(size=(32, *model.input_shape[1:])).astype("float32")
    y = rng.integers(0, 4, 32)
    if not getattr(model, "optimizer", None):
        loss = line.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(line.optimizers.Adam(0.01), loss, jit_compile=False)
    common.fit(model, x, y, *callbacks, batch_size=8, epochs=epochs)


def _in_rows(array, axis, m):
    """Each `m` consecutive entries along an axis as one row."""
    return np.moveaxis(array, axis, -1).reshape(-1, m)


def _out_of_rows(rows, axis, shape):
    moved = np.moveaxis(np.empty(shape, bool), axis, -1).shape
    return np.moveaxis(rows.reshape(moved), -1, axis)


def _highest(scores, alive, count):
    """The alive entries of each row that a stable sort puts last."""
    kept = np.zeros(scores.shape, bool)
    for row, order in enumerate(np.argsort(scores, axis=1, kind="stable")):
        order = [i for i in order if alive[row, i]]
        kept[row, order[max(len(order) - count, 0) :]] = True
    return kept


def _check_rows(masks, axes, n, m):
    assert set(masks) == set(axes)
    for path, mask in masks.items():
        kept = _in_rows(mask, axes[path], m).sum(axis=1)
        np.testing.assert_array_equal(kept, n)


def _all(masks):
    """A mask of nothing removed for each path."""
    return {path: np.ones(np.shape(mask), bool) for path, mask in masks.items()}


def _sizes(masks):
    return [int(mask.sum()) for mask in masks.values()]


def _floor(scores, alive, axes, keep_n_of_m=None, min_kept=0, **_):
    """What is set aside of each kernel."""
    if keep_n_of_m is None:
        return {
            path: _highest(
                score.reshape(1, -1), alive[path].reshape(1, -1), min_kept
            ).reshape(score.shape)
            for path, score in scores.items()
        }
    n, m = keep_n_of_m
    return {
        path: _out_of_rows(
            _highest(
                _in_rows(scores[path], axis, m),
                _in_rows(alive[path], axis, m),
                n,
            ),
            axis,
            scores[path].shape,
        )
        for path, axis in axes.items()
    }


def _without_lowest(scores, alive, floor, left):
    """Removes the lowest scores that are not set aside until some are left."""
    flat = [
        np.concatenate([part[path].ravel() for path in alive])
        for part in (scores, alive, floor)
    ]
    scores, kept, floor = flat
    order = [
        i for i in np.argsort(scores, kind="stable") if kept[i] and not floor[i]
    ]
    kept[order[: kept.sum() - left]] = False
    ends = np.cumsum([mask.size for mask in alive.values()])[:-1]
    return {
        path: part.reshape(alive[path].shape)
        for path, part in zip(alive, np.split(kept, ends), strict=True)
    }


@pytest.mark.parametrize("kind", AXES)
def test_2_of_every_4_along_the_input_channels_are_kept(kind, line):
    model, axes = _model(line, kind), AXES[kind]
    masks = synflow_tf.compute_masks(
        model, keep_n_of_m=(2, 4), rounds=2, scorer=common.Magnitude()
    )
    _check_rows(masks, axes, 2, 4)
    assert 2 * masks.kept == masks.size
    # These scores are the same in each round.
    values = common.values(model)
    for path, axis in axes.items():
        rows = _in_rows(np.abs(values[path]), axis, 4)
        highest = _highest(rows, np.ones(rows.shape, bool), 2)
        found = _in_rows(masks[path], axis, 4)
        np.testing.assert_array_equal(found, highest)


@pytest.mark.parametrize(
    "kind, n, m, rounds, scope",
    [
        ("dense", 1, 4, 1, "global"),
        ("1d", 4, 8, 3, "global"),
        ("dense", 2, 4, 100, "global"),
        ("3d", 2, 4, 5, "local"),
    ],
)
def test_exactly_n_of_every_m_are_kept(kind, n, m, rounds, scope, line):
    masks = synflow_tf.compute_masks(
        _model(line, kind), keep_n_of_m=(n, m), rounds=rounds, scope=scope
    )
    _check_rows(masks, AXES[kind], n, m)
    assert len(masks.history) == rounds
    assert masks.history[-1].kept == masks.kept == masks.size * n // m


def test_of_equal_scores_in_a_row_the_last_are_kept(line):
    # Each entry scores 1: it is read by one output, from an input of 1.
    layer = linear.dense(line, 3, "dense", kernel_initializer="ones")
    model = linear.chain(line, layer, shape=(8,))
    masks = synflow_tf.compute_masks(model, keep_n_of_m=(1, 4), rounds=2)
    expected = np.isin(np.arange(8), (3, 7))[:, None] & np.ones(3, bool)
    np.testing.assert_array_equal(masks["dense/kernel"], expected)


@pytest.mark.parametrize(
    "arguments, left",
    [
        ({"keep_n_of_m": (2, 4)}, fractions.Fraction(1, 2)),
        ({"compression": 4, "min_kept": 12}, fractions.Fraction(1, 4)),
        # 24 are left, 6 of each of 4 kernels: nothing is left to choose.
        (
            {"compression": fractions.Fraction(28, 3), "min_kept": 6},
            fractions.Fraction(3, 28),
        ),
    ],
)
def test_each_round_removes_the_lowest_scores_that_are_not_set_aside(
    arguments, left, line
):
    model = _residual(line)
    masks = synflow_tf.compute_masks(model, rounds=3, **arguments)
    alive = _all(masks)
    axes = dict.fromkeys(alive, 0)
    for density in (float(left) ** (1 / 3), float(left) ** (2 / 3), left):
        scores = synflow_tf.score(model, masks=synflow_tf.Masks(alive))
        floor = _floor(scores, alive, axes, **arguments)
        kept = masks.size - int((1 - density) * masks.size)
        alive = _without_lowest(scores, alive, floor, kept)
    assert masks == synflow_tf.Masks(alive)


def test_kernels_that_do_not_fit_stay_as_they_are_and_are_named(line):
    model = _image_model(line)
    paths = [w.path for w in variables.prunable_weights(model)]
    unfit = [p for p in paths if p.partition("/")[0] in ("first", "depthwise")]
    assert len(unfit) == 2
    before = common.values(model)
    masks = synflow_tf.prune(model, keep_n_of_m=(2, 4), rounds=2)
    assert list(masks) == [p for p in paths if p not in unfit]
    found = [f for f in masks.findings if f.kind == "unstructured"]
    assert [f.name for f in found] == unfit
    assert "not 2 of 4: its 3 input channels" in found[0].text
    assert "no axis of input channels" in found[1].text
    assert all(path in str(masks) for path in unfit)
    after = common.values(model)
    for path in unfit:
        np.testing.assert_array_equal(after[path], before[path])
    assert list(synflow_tf.Masks.enforced(model)) == list(masks)


def test_what_is_no_kernel_does_not_fit(line):
    table = line.layers.Embedding(8, 8, name="table")
    dense = linear.dense(line, 4, "dense", bias_initializer="ones")
    model = linear.chain(line, table, dense, shape=(3,), dtype="int32")
    masks = synflow_tf.compute_masks(
        model, keep_n_of_m=(2, 4), rounds=2, prunable=["table", "dense"]
    )
    assert list(masks) == ["dense/kernel"]
    assert [(f.kind, f.name) for f in masks.findings] == [
        ("unstructured", "table/embeddings")
    ]


def test_a_model_of_which_no_kernel_fits_is_refused(line):
    model = _image_model(line)
    before = common.state(model)
    for prunable in ("first", "depthwise"):
        with pytest.raises(
            ValueError,
            match=rf"`keep_n_of_m` must fit at least one .*{prunable}/.*kernel",
        ):
            synflow_tf.prune(model, keep_n_of_m=(2, 4), prunable=prunable)
    for m in (3, 16):
        with pytest.raises(ValueError, match="8 input channels are no mult"):
            synflow_tf.prune(model, keep_n_of_m=(2, m), prunable="second")
    assert common.state(model) == before


def test_removed_weights_of_n_of_m_are_zero_while_a_model_trains(line):
    model = _image_model(line)
    masks = synflow_tf.prune(model, keep_n_of_m=(2, 4), rounds=3)
    before = common.values(model)
    revived, check = common.watch(line, lambda: common.revived(model, masks))
    _train(model, check, epochs=2)
    assert revived == [0] * 8
    after = common.values(model)
    for path, mask in masks.items():
        np.testing.assert_array_equal(after[path] != 0, mask)
        assert np.any(after[path] != before[path])


@functools.cache
def _resnet20(line):
    line.utils.set_random_seed(0)
    return synflow_tf.models.resnet20((8, 8, 3), keras=line)


def test_min_kept_of_1_leaves_no_kernel_of_a_resnet_empty(line):
    options = {"compression": 1000, "rounds": 3}
    with pytest.warns(UserWarning, match="kernels are removed"):
        bare = synflow_tf.compute_masks(_resnet20(line), **options)
    assert min(_sizes(bare)) == 0
    assert any(f.kind == "empty" for f in bare.findings)
    masks = synflow_tf.compute_masks(_resnet20(line), min_kept=1, **options)
    assert min(_sizes(masks)) == 1
    assert not any(f.kind == "empty" for f in masks.findings)
    assert masks.kept == bare.kept == masks.size - masks.size * 999 // 1000
    assert np.isfinite(masks.log10_flow)


def test_a_kernel_smaller_than_min_kept_keeps_all_of_it(line):
    line.utils.set_random_seed(0)
    # Low scores, so that the floor alone keeps them; equal, so that it matters
    # how ties are cut.
    low = line.initializers.Constant(1e-3)
    small = linear.dense(line, 1, "small", kernel_initializer=low)
    wide, head = linear.dense(line, 30, "wide"), linear.dense(line, 4, "head")
    merge = line.layers.Concatenate()
    model = linear.functional(
        line, lambda x: head(merge([small(x), wide(x)])), (3,)
    )
    masks = synflow_tf.compute_masks(model, sparsity=0.9, rounds=3, min_kept=5)
    assert masks.size - masks.kept == 195  # floor(0.9 (3 + 90 + 124))
    assert masks["small/kernel"].all()
    assert masks["wide/kernel"].sum() >= 5 and masks["head/kernel"].sum() >= 5


def test_min_kept_holds_in_the_local_scope(line):
    model = _residual(line)
    # 1 of 32 and 2 of 64 are left of a kernel.
    options = {"sparsity": 0.965, "scope": "local", "rounds": 3}
    masks = synflow_tf.compute_masks(model, min_kept=2, **options)
    assert _sizes(masks) == [3, 3, 3, 2]


@pytest.mark.parametrize(
    "scope, min_kept, compression, sizes",
    [
        ("local", 4, 10, [7, 7, 7, 4]),
        # Of 224 weights 24 are left: 23.1 is rounded up.
        ("global", 6, fractions.Fraction(2240, 231), [6, 6, 6, 6]),
    ],
)
def test_rounds_that_find_nothing_but_the_floor_change_nothing(
    scope, min_kept, compression, sizes, line
):
    masks = synflow_tf.compute_masks(
        _residual(line),
        compression=compression,
        scope=scope,
        min_kept=min_kept,
        rounds=100,
    )
    # The round before the last has met the floor already.
    assert masks.history[-2].kept == sum(sizes)
    assert _sizes(masks) == sizes


def test_pruning_further_with_min_kept_keeps_masks_nested(line):
    model = _residual(line)
    outer, inner = (
        synflow_tf.prune(model, sparsity, rounds=3, min_kept=3)
        for sparsity in (0.5, 0.9)
    )
    assert (outer.kept, inner.kept) == (224 - 112, 224 - 201)
    assert min(_sizes(outer)) >= min(_sizes(inner)) == 3
    common.assert_nested(inner, outer)
    assert synflow_tf.Masks.enforced(model) == inner
    assert common.revived(model, inner) == 0


@pytest.mark.parametrize("alive", [0, 1])
@pytest.mark.filterwarnings("ignore:All weights of 1 of 4 kernels")
def test_min_kept_gives_nothing_back_that_was_removed(alive, line):
    model = _residual(line)
    held = _all(synflow_tf.score(model))
    held["a/kernel"][:] = False
    held["a/kernel"][2, 5:] = np.arange(3) < alive
    synflow_tf.Masks(held).enforce(model)
    masks = synflow_tf.prune(model, sparsity=0.9, rounds=3, min_kept=3)
    np.testing.assert_array_equal(masks["a/kernel"], held["a/kernel"])
    assert masks.size - masks.kept == 201
    assert min(_sizes(masks)[2:]) >= 3


def test_n_of_m_goes_on_from_masks_that_leave_enough(line):
    model, axes = _model(line, "dense"), AXES["dense"]
    outer, inner, again = (
        synflow_tf.prune(model, keep_n_of_m=(n, 4), rounds=2) for n in (3, 1, 1)
    )
    _check_rows(outer, axes, 3, 4)
    _check_rows(inner, axes, 1, 4)
    common.assert_nested(inner, outer)
    assert again == inner


@pytest.mark.parametrize("scope", ["global", "local"])
def test_n_of_m_of_one_kernel_stays_when_all_others_follow(scope, line):
    model, axes = _model(line, "dense"), AXES["dense"]
    first = synflow_tf.prune(
        model, keep_n_of_m=(2, 4), rounds=1, prunable="hidden"
    )
    masks = synflow_tf.prune(model, keep_n_of_m=(2, 4), rounds=2, scope=scope)
    _check_rows(masks, axes, 2, 4)
    np.testing.assert_array_equal(
        masks["hidden/kernel"], first["hidden/kernel"]
    )


def test_n_of_m_refuses_masks_that_leave_too_few_until_they_are_released(line):
    model, axes = _model(line, "dense"), AXES["dense"]
    held = _all(synflow_tf.score(model))
    held["hidden/kernel"][4:7, 3] = False
    synflow_tf.Masks(held).enforce(model)
    before = common.state(model)
    for scope in ("global", "local"):
        with pytest.raises(
            ValueError,
            match=r"keep_n_of_m=\(2, 4\) and .* fewer than 2 of some 4.*elease",
        ):
            synflow_tf.prune(model, keep_n_of_m=(2, 4), scope=scope)
    assert common.state(model) == before
    synflow_tf.Masks.enforced(model).release(model)
    masks = synflow_tf.prune(model, keep_n_of_m=(2, 4), rounds=2)
    _check_rows(masks, axes, 2, 4)


# Of the 224 weights 23 are left; locally 4 of the 32 of the head.
@pytest.mark.parametrize("scope, min_kept", [("global", 6), ("local", 5)])
def test_a_min_kept_larger_than_what_is_left_is_refused(scope, min_kept, line):
    model = _residual(line)
    before = common.state(model)
    with pytest.raises(
        ValueError,
        match=rf"`min_kept` must leave enough .*min_kept={min_kept}, which",
    ):
        synflow_tf.prune(model, sparsity=0.9, scope=scope, min_kept=min_kept)
    assert common.state(model) == before


@pytest.mark.parametrize(
    "arguments",
    [
        {"keep_n_of_m": (2, 4)},
        {"compression": 10, "min_kept": 3},
    ],
)
def test_the_callback_takes_both_arguments(arguments, line):
    model = _residual(line)
    expected = synflow_tf.compute_masks(model, rounds=3, **arguments)
    callback = synflow_tf.SynFlowPruning(rounds=3, **arguments)
    _train(model, callback)
    assert callback.masks == expected
    assert common.revived(model, expected) == 0


def test_the_callback_finds_n_of_m_again_in_restored_weights(line):
    model, restored = _image_model(line), _image_model(line)
    masks = synflow_tf.prune(model, keep_n_of_m=(2, 4), rounds=2)
    restored.set_weights(model.get_weights())
    callback = synflow_tf.SynFlowPruning(keep_n_of_m=(2, 4), rounds=2)
    for _ in range(2):
        _train(restored, callback)
        assert callback.masks == masks
        assert common.revived(restored, masks) == 0


def _half(line, enforced):
    """A model of which half is removed, but not 2 of every 4."""
    model = _model(line, "dense")
    masks = synflow_tf.compute_masks(model, sparsity=0.5, rounds=2)
    rows = _in_rows(masks["hidden/kernel"], 0, 4).sum(axis=1)
    assert rows.min() < 2 < rows.max()
    return masks.enforce(model) if enforced else masks.apply(model)


def test_the_callback_refuses_enforced_masks_that_are_no_n_of_m(line):
    model = _half(line, enforced=True)
    callback = synflow_tf.SynFlowPruning(keep_n_of_m=(2, 4), rounds=2)
    with pytest.raises(ValueError, match="fewer than 2 of some 4"):
        _train(model, callback)


def test_the_callback_takes_no_zeros_for_n_of_m_that_are_none(line):
    model = _half(line, enforced=False)
    callback = synflow_tf.SynFlowPruning(keep_n_of_m=(2, 4), rounds=2)
    _train(model, callback)
    _check_rows(callback.masks, AXES["dense"], 2, 4)


@st.composite
def _problems(draw):
    shapes = hypothesis_numpy.array_shapes(min_dims=2, max_dims=3, max_side=9)
    scores, alive = draw(common.scores_and_alive(shapes))
    return scores, alive, draw(st.integers(0, scores.shape[1]))


def _example(row, alive, count, dtype=None):
    """A problem of one row that is always tried."""
    problem = np.array([row], dtype), np.array([alive], bool), count
    return hypothesis.example(problem)


@hypothesis.settings(deadline=None, max_examples=200)
@hypothesis.given(_problems())
@_example([1.0, 1.0, 1.0, 1.0], [1, 0, 0, 1], 3)
@_example([1.0, 1.0, 1.0, 1.0], [0, 0, 0, 0], 3)
@_example([4e-40, 0, 3e-40], [1, 1, 1], 1, np.float32)  # below the normal range
@_example([4e-310, 0, 3e-310], [1, 1, 1], 1)
def test_the_highest_are_found_and_of_equal_ones_the_last(problem):
    scores, alive, count = problem
    rows = [_in_rows(part, 1, scores.shape[1]) for part in (scores, alive)]
    expected = _out_of_rows(_highest(*rows, count), 1, scores.shape)
    found = constraints.highest(tf.constant(scores), tf.constant(alive), count)
    np.testing.assert_array_equal(found, expected)
