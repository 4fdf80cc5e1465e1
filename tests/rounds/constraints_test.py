"""N of every M weights are kept, and some of each kernel, as asked for."""

import fractions
import functools
import re

import common
import hypothesis
import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from hypothesis import strategies as st

import synflow_tf
from synflow_tf.graph import variables
from synflow_tf.rounds import constraints


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
        "mha/query_dense/kernel": 0,
        "mha/key_dense/kernel": 0,
        "mha/value_dense/kernel": 0,
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
    inputs = line.Input((3, 8))
    x = line.layers.MultiHeadAttention(2, 8, name="mha")(inputs, inputs)
    return line.Model(inputs, line.layers.Dense(6, name="head")(x))


def _image_model(line):
    """A model of which N of M fits the kernels "second" and "head" only."""
    line.utils.set_random_seed(0)
    layers = line.layers
    return line.Sequential(
        [
            line.Input((5, 5, 3)),
            layers.Conv2D(8, 2, name="first"),
            layers.DepthwiseConv2D(2, name="depthwise"),
            layers.Conv2D(8, 2, activation="relu", name="second"),
            layers.Flatten(name="flatten"),
            layers.Dense(4, name="head"),
        ]
    )


def _residual(line):
    """A model of 224 weights whose branch scores low beside the skip."""
    line.utils.set_random_seed(0)
    layers = line.layers
    inputs = line.Input((8,))
    trunk = layers.Dense(8, name="stem")(inputs)
    branch = layers.Dense(8, "relu", name="a")(trunk)
    branch = layers.Dense(8, name="b")(branch)
    x = layers.Add(name="add")([trunk, branch])
    model = line.Model(inputs, layers.Dense(4, name="head")(x))
    for name in "ab":
        kernel, bias = model.get_layer(name).get_weights()
        model.get_layer(name).set_weights([0.01 * kernel, bias])
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


def _state(model):
    """All that pruning may change: values, bit for bit, and constraints."""
    return [
        (np.array(variables.value(v)).tobytes(), variables.get_constraint(v))
        for v in model.weights
    ]


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


def _check_highest_of_rows(masks, scores, axes, n, m):
    for path, axis in axes.items():
        rows = _in_rows(scores[path], axis, m)
        np.testing.assert_array_equal(
            _in_rows(masks[path], axis, m),
            _highest(rows, np.ones(rows.shape, bool), n),
        )


@pytest.mark.parametrize("kind", AXES)
def test_2_of_every_4_along_the_input_channels_are_kept(kind, line):
    model, axes = _model(line, kind), AXES[kind]
    masks = synflow_tf.compute_masks(
        model, keep_n_of_m=(2, 4), rounds=2, scorer=common.Magnitude()
    )
    _check_rows(masks, axes, 2, 4)
    assert 2 * masks.kept == masks.size
    # These scores are the same in each round.
    values = {
        path: np.abs(value) for path, value in common.values(model).items()
    }
    _check_highest_of_rows(masks, values, axes, 2, 4)


@pytest.mark.parametrize("kind", ["dense", "2d"])
def test_one_round_keeps_the_2_highest_scores_of_every_4(kind, line):
    model, axes = _model(line, kind), AXES[kind]
    masks = synflow_tf.compute_masks(model, keep_n_of_m=(2, 4), rounds=1)
    _check_rows(masks, axes, 2, 4)
    _check_highest_of_rows(masks, synflow_tf.score(model), axes, 2, 4)


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
    initial = line.initializers.Ones()
    layer = line.layers.Dense(3, kernel_initializer=initial, name="dense")
    model = line.Sequential([line.Input((8,)), layer])
    masks = synflow_tf.compute_masks(model, keep_n_of_m=(1, 4), rounds=2)
    expected = np.isin(np.arange(8), (3, 7))[:, None] & np.ones(3, bool)
    np.testing.assert_array_equal(masks["dense/kernel"], expected)


@pytest.mark.parametrize(
    "arguments, left",
    [
        ({"keep_n_of_m": (2, 4)}, fractions.Fraction(1, 2)),
        ({"compression": 4, "min_kept": 12}, fractions.Fraction(1, 4)),
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
    layers = line.layers
    model = line.Sequential(
        [
            line.Input((3,), dtype="int32"),
            layers.Embedding(8, 8, name="table"),
            layers.Dense(4, bias_initializer="ones", name="dense"),
        ]
    )
    masks = synflow_tf.compute_masks(
        model, keep_n_of_m=(2, 4), rounds=2, prunable=["table", "dense"]
    )
    assert list(masks) == ["dense/kernel"]
    assert [(f.kind, f.name) for f in masks.findings] == [
        ("unstructured", "table/embeddings")
    ]


def test_a_model_of_which_no_kernel_fits_is_refused(line):
    model = _image_model(line)
    before = _state(model)
    for prunable in ("first", "depthwise"):
        with pytest.raises(
            ValueError,
            match=rf"`keep_n_of_m` must fit at least one .*{prunable}/.*kernel",
        ):
            synflow_tf.prune(model, keep_n_of_m=(2, 4), prunable=prunable)
    for m in (3, 16):
        with pytest.raises(ValueError, match="8 input channels are no mult"):
            synflow_tf.prune(model, keep_n_of_m=(2, m), prunable="second")
    assert _state(model) == before


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


def test_a_kernel_that_has_the_floor_only_keeps_its_highest_scores(line):
    model = _resnet20(line)
    masks = synflow_tf.compute_masks(
        model, compression=1000, rounds=1, min_kept=5
    )
    assert min(_sizes(masks)) == 5
    assert masks.kept == masks.size - masks.size * 999 // 1000
    scores = synflow_tf.score(model)
    floor = _floor(scores, _all(masks), None, min_kept=5)
    expected = _without_lowest(scores, _all(masks), floor, masks.kept)
    bare = [path for path in masks if masks[path].sum() == 5]
    assert len(bare) > 10
    assert masks == synflow_tf.Masks(expected)
    for path in bare:
        np.testing.assert_array_equal(masks[path], floor[path])


def test_a_kernel_smaller_than_min_kept_keeps_all_of_it(line):
    line.utils.set_random_seed(0)
    layers = line.layers
    # Low scores, so that the floor alone keeps them; equal, so that it matters
    # how ties are cut.
    low = line.initializers.Constant(1e-3)
    inputs = line.Input((3,))
    ways = [
        layers.Dense(1, kernel_initializer=low, name="small")(inputs),
        layers.Dense(30, name="wide")(inputs),
    ]
    x = layers.Concatenate(name="ways")(ways)
    model = line.Model(inputs, layers.Dense(4, name="head")(x))
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


def test_a_floor_that_leaves_nothing_to_choose_is_met_exactly(line):
    # Of 224 weights as many are left as 6 of each of 4 kernels.
    model, left = _residual(line), fractions.Fraction(224, 24)
    masks = synflow_tf.compute_masks(
        model, compression=left, rounds=1, min_kept=6
    )
    assert _sizes(masks) == [6] * 4
    for path, score in synflow_tf.score(model).items():
        highest = np.sort(score, axis=None)[-6:]
        np.testing.assert_array_equal(masks[path], np.isin(score, highest))


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
    model, outer = _residual(line), None
    for sparsity, removed in ((0.5, 112), (0.9, 201)):
        masks = synflow_tf.prune(model, sparsity, rounds=3, min_kept=3)
        assert masks.size - masks.kept == removed
        assert min(_sizes(masks)) >= 3
        if outer is not None:
            common.assert_nested(masks, outer)
        outer = masks
    assert min(_sizes(outer)) == 3
    assert synflow_tf.Masks.enforced(model) == outer
    assert common.revived(model, outer) == 0


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
    outer = None
    for n in (3, 1):
        masks = synflow_tf.prune(model, keep_n_of_m=(n, 4), rounds=2)
        _check_rows(masks, axes, n, 4)
        if outer is not None:
            common.assert_nested(masks, outer)
        outer = masks
    again = synflow_tf.prune(model, keep_n_of_m=(1, 4), rounds=2)
    assert again == outer


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
    before = _state(model)
    for scope in ("global", "local"):
        with pytest.raises(
            ValueError,
            match=r"keep_n_of_m=\(2, 4\) and .* fewer than 2 of some 4.*elease",
        ):
            synflow_tf.prune(model, keep_n_of_m=(2, 4), scope=scope)
    assert _state(model) == before
    synflow_tf.Masks.enforced(model).release(model)
    masks = synflow_tf.prune(model, keep_n_of_m=(2, 4), rounds=2)
    _check_rows(masks, axes, 2, 4)


_SCHEDULE = synflow_tf.schedules.LinearSparsity(0.5, 0, 4, 1)
_BAD = [
    (
        {"keep_n_of_m": bad},
        f"`keep_n_of_m` must be two integers.*={re.escape(str(bad))}",
    )
    for bad in ((4, 2), (4, 4), (0, 4), (2,), 2, (1.5, 4), (True, 4))
]
_BAD += [
    (
        {"keep_n_of_m": (2, 4), **more},
        f"Exactly one of .*`keep_n_of_m`.*{text}",
    )
    for more, text in (
        ({"sparsity": 0.5}, r"sparsity=0\.5.*=\(2, 4\)"),
        ({"compression": 2}, "compression=2"),
        ({"schedule": _SCHEDULE}, "schedule="),
    )
]
_BAD += [
    (
        {"sparsity": 0.5, "min_kept": bad},
        f"`min_kept` must be an integer >= 0.*min_kept={bad}",
    )
    for bad in (-1, 1.5, None)
]
_BAD += [
    (
        {"keep_n_of_m": "2:4"},
        "`keep_n_of_m` must be two integers.*='2:4'",
    ),
    (
        {"keep_n_of_m": (2, 4), "min_kept": 1},
        r"`min_kept` must be 0 where `keep_n_of_m`.*min_kept=1 .*=\(2, 4\)",
    ),
]


@pytest.mark.parametrize("arguments, message", _BAD)
def test_bad_arguments_are_refused_and_the_model_is_as_it_was(
    arguments, message
):
    model = _model(keras, "dense")
    before = _state(model)
    for call in (synflow_tf.prune, synflow_tf.compute_masks):
        with pytest.raises(ValueError, match=message):
            call(model, **arguments)
    assert _state(model) == before
    with pytest.raises(ValueError, match=message):
        synflow_tf.SynFlowPruning(**arguments)


# Of the 224 weights 23 are left; locally 4 of the 32 of the head.
@pytest.mark.parametrize("scope, min_kept", [("global", 6), ("local", 5)])
def test_a_min_kept_larger_than_what_is_left_is_refused(scope, min_kept, line):
    model = _residual(line)
    before = _state(model)
    with pytest.raises(
        ValueError,
        match=rf"`min_kept` must leave enough .*min_kept={min_kept}, which",
    ):
        synflow_tf.prune(model, sparsity=0.9, scope=scope, min_kept=min_kept)
    assert _state(model) == before


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


def test_the_callback_holds_min_kept_along_a_schedule(line):
    model = _residual(line)
    schedule = synflow_tf.schedules.LinearSparsity(0.9, 0, 6, 3)
    callback = synflow_tf.SynFlowPruning(
        pruning_schedule=schedule, rounds=3, min_kept=3
    )
    seen, look = common.watch(line, lambda: callback.masks)
    _train(model, callback, look, epochs=2)
    removed = [masks.size - masks.kept for masks in seen]
    assert removed == [0] * 3 + [100] * 3 + [201] * 2
    assert all(min(_sizes(masks)) >= 3 for masks in seen)
    assert min(_sizes(seen[-1])) == 3
    for outer, inner in zip(seen[:-1], seen[1:], strict=True):
        common.assert_nested(inner, outer)
    assert common.revived(model, callback.masks) == 0


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
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    m = draw(st.integers(1, 9))
    after = draw(st.sampled_from([(), (1,), (3,)]))
    shape = (draw(st.integers(1, 4)), m, *after)
    number = st.floats(
        0,
        allow_nan=False,
        allow_infinity=False,
        width=np.dtype(dtype).itemsize * 8,
    )
    few = st.sampled_from(draw(st.lists(number, min_size=1, max_size=3)))
    elements = draw(st.sampled_from([number, few]))
    size = int(np.prod(shape))
    scores = draw(st.lists(elements, min_size=size, max_size=size))
    alive = draw(st.lists(st.booleans(), min_size=size, max_size=size))
    return (
        np.abs(np.array(scores, dtype)).reshape(shape),
        np.array(alive).reshape(shape),
        draw(st.integers(0, m)),
    )


def _found(scores, alive, count):
    scores, alive = tf.constant(scores), tf.constant(alive)
    return constraints.highest(scores, alive, count).numpy()


@hypothesis.settings(deadline=None, max_examples=200)
@hypothesis.given(_problems())
def test_the_highest_are_found_and_of_equal_ones_the_last(problem):
    scores, alive, count = problem
    rows = [_in_rows(part, 1, scores.shape[1]) for part in (scores, alive)]
    expected = _out_of_rows(_highest(*rows, count), 1, scores.shape)
    np.testing.assert_array_equal(_found(*problem), expected)


def test_where_fewer_are_alive_than_asked_for_all_of_them_are_found():
    alive = np.array([[True, False, False, True], [False] * 4])
    np.testing.assert_array_equal(_found(np.ones((2, 4)), alive, 3), alive)


@pytest.mark.parametrize(
    "scores",
    [
        np.array([[4e-40, 0, 3e-40]], np.float32),
        np.array([[4e-310, 0, 3e-310]]),
    ],
)
def test_scores_below_the_normal_range_are_told_apart(scores):
    found = _found(scores, np.ones((1, 3), bool), 1)
    np.testing.assert_array_equal(found, [[True, False, False]])
