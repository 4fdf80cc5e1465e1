"""Iterative pruning: counts, nesting, collapse, errors, nothing changed."""

import functools
import re
import warnings

import common
import keras
import linear
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import synflow_tf
from synflow_tf.graph import variables

pytestmark = pytest.mark.in_turn


def _mlp(line):
    a, b = linear.dense(line, 5, "a"), linear.dense(line, 4, "b")
    return linear.chain(line, a, b, shape=(6,))


def test_the_local_scope_keeps_the_same_fraction_of_every_kernel(line):
    model = _mlp(line)
    masks = synflow_tf.compute_masks(model, sparsity=0.5, scope="local")
    assert [int(m.sum()) for m in masks.values()] == [15, 10]


def test_a_sparsity_and_its_compression_are_the_same():
    model = _mlp(keras)
    by_sparsity = synflow_tf.compute_masks(model, sparsity=0.75, rounds=10)
    by_compression = synflow_tf.compute_masks(model, compression=4, rounds=10)
    assert by_sparsity == by_compression
    assert by_sparsity.sparsity == 0.74  # floor(0.75 * 50) = 37 of 50


def test_a_sparsity_is_the_decimal_that_was_written():
    model = linear.chain(keras, keras.layers.Dense(10), shape=(10,))
    masks = synflow_tf.compute_masks(model, sparsity=0.29, rounds=2)
    assert masks.kept == 71  # the double 0.29 times 100 is below 29


def test_both_lines_give_the_same_masks():
    models = [
        synflow_tf.models.resnet20((16, 16, 3), 10, line)
        for line in common.LINES
    ]
    models[1].set_weights(models[0].get_weights())
    one, other = (
        synflow_tf.compute_masks(model, compression=20, rounds=20)
        for model in models
    )
    assert one == other


def test_tfmots_schedule_drives_the_loop():
    import tensorflow_model_optimization as tfmot

    schedule = tfmot.sparsity.keras.PolynomialDecay(
        0.1, 0.8, begin_step=0, end_step=10, frequency=5
    )
    masks = synflow_tf.compute_masks(_mlp(keras), schedule=schedule)
    assert masks.sparsity == 0.8
    assert len(masks.history) == 2


def test_a_round_is_traced_once():
    scorer = common.Counting()
    synflow_tf.compute_masks(_mlp(keras), sparsity=0.8, scorer=scorer)
    assert (scorer.calls, scorer.runs) == (1, 101)  # one for the flow


def test_one_shot_pruning_of_fc_at_100_collapses_and_says_so(line):
    model = synflow_tf.models.fc((28, 28, 1), 10, line)
    with pytest.warns(UserWarning, match="Layer collapse.*rounds"):
        masks = synflow_tf.compute_masks(model, compression=100, rounds=1)
    assert masks.log10_flow == -np.inf
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        masks = synflow_tf.compute_masks(model, compression=100, rounds=100)
    assert np.isfinite(masks.log10_flow)


@pytest.mark.parametrize(
    "make",
    [
        functools.partial(synflow_tf.models.fc, (28, 28, 1)),
        pytest.param(synflow_tf.models.vgg11, marks=pytest.mark.slow),
    ],
)
def test_a_chain_reaches_the_maximal_critical_compression(make):
    keras.utils.set_random_seed(0)
    model = make()
    sizes = [w.size for w in variables.prunable_weights(model)]
    # As many weights are left as there are kernels: one path.
    masks = synflow_tf.compute_masks(
        model, compression=sum(sizes) / len(sizes), rounds=1000
    )
    assert [int(mask.sum()) for mask in masks.values()] == [1] * len(sizes)
    assert np.isfinite(masks.log10_flow)


@pytest.mark.slow
@pytest.mark.parametrize("compression", [10, 100, 1000, 10_000])
def test_vgg16_bn_keeps_exact_counts_and_every_kernel(compression):
    keras.utils.set_random_seed(0)
    model = synflow_tf.models.vgg16_bn()
    masks = synflow_tf.compute_masks(model, compression=compression)
    removed = masks.size * (compression - 1) // compression
    assert masks.kept == masks.size - removed
    assert all(mask.any() for mask in masks.values())
    assert np.isfinite(masks.log10_flow)


def test_prunable_selects_by_path_layer_pattern_class_and_predicate(line):
    convs = (line.layers.Conv2D(3, 3, name=f"conv_{x}") for x in "ab")
    rest = line.layers.Flatten(), linear.dense(line, 2, "head")
    model = linear.chain(line, *convs, *rest, shape=(6, 6, 1))

    def paths(prunable):
        return [w.path for w in variables.prunable_weights(model, prunable)]

    everything = ["conv_a/kernel", "conv_b/kernel", "head/kernel"]
    assert paths(None) == everything
    assert paths("conv_a/kernel") == ["conv_a/kernel"]
    assert paths("conv_a/bias") == ["conv_a/bias"]
    assert paths("head") == ["head/kernel"]
    assert paths("conv_.*") == everything[:2]
    assert paths(re.compile("conv_[b-z]")) == ["conv_b/kernel"]
    assert paths(line.layers.Dense) == ["head/kernel"]
    assert paths(["head", "conv_a"]) == ["conv_a/kernel", "head/kernel"]
    assert paths(lambda layer, weight: weight.name == "bias") == [
        "conv_a/bias",
        "conv_b/bias",
        "head/bias",
    ]
    masks = synflow_tf.prune(model, sparsity=0.5, prunable="conv_.*", rounds=3)
    assert list(masks) == everything[:2]
    assert np.all(model.get_layer("head").get_weights()[0] != 0)


def test_nested_and_shared_layers_are_scored_once_by_a_readable_path(line):
    dense, out = linear.dense(line, 4, "dense"), linear.dense(line, 4, "out")
    inner = line.Sequential([line.Input((6,)), dense, out], name="inner")
    shared, tail = linear.dense(line, 3, "dense"), linear.dense(line, 2, "tail")

    def call(x, y):
        merged = line.layers.Add()([shared(inner(x)), shared(inner(y))])
        return [merged, tail(merged)]

    scores = synflow_tf.score(linear.functional(line, call, (6,), (6,)))
    chain = ["inner/dense/kernel", "inner/out/kernel", "dense/kernel"]
    assert len(scores) == 4 and set(chain) <= set(scores)
    # All flow passes the shared chain, half of it in each of two calls.
    total = [scores[path].sum() for path in chain]
    np.testing.assert_allclose(total, 10**scores.log10_flow, rtol=1e-12)


def test_a_model_called_on_a_dict_of_inputs_is_read_in_the_right_order(line):
    wide, narrow = line.Input((5,)), line.Input((2,))
    ways = [
        linear.dense(line, 3, name)(x)
        for name, x in (("w", wide), ("n", narrow))
    ]
    merged = line.layers.Concatenate()(ways)
    inner = line.Model({"wide": wide, "narrow": narrow}, merged, name="inner")
    outer = linear.functional(
        line, lambda x, y: inner({"wide": y, "narrow": x}), (2,), (5,)
    )
    scores = synflow_tf.score(outer)
    assert scores["inner/w/kernel"].shape == (5, 3)
    assert scores["inner/n/kernel"].shape == (2, 3)


def test_a_layer_that_raises_half_way_leaves_every_variable_as_it_was(line):
    strange = linear.custom(line, lambda me, x: x, name="strange")

    @synflow_tf.register_rule(type(strange))
    def _rule(layer, weights, x):
        raise RuntimeError("half way")

    a, b = linear.dense(line, 5, "a"), linear.dense(line, 4, "b")
    model = linear.chain(line, a, strange, b)
    before = common.state(model)
    for call in (
        synflow_tf.score,
        functools.partial(synflow_tf.prune, sparsity=0.5),
    ):
        with pytest.raises(ValueError, match="'strange'"):
            call(model)
    assert common.state(model) == before


@pytest.mark.parametrize(
    "prunable, error, message",
    [
        ("nowhere", ValueError, "must select .*'nowhere'.*'a/kernel'"),
        (tf_keras.layers.Dense, ValueError, ".*model's own Keras line"),
        ([3], TypeError, ".*Received"),
    ],
)
def test_what_selects_nothing_is_refused_and_the_model_is_as_it_was(
    prunable, error, message
):
    model = _mlp(keras)
    before = common.state(model)
    with pytest.raises(error, match=f"Argument `prunable` {message}"):
        synflow_tf.prune(model, sparsity=0.5, prunable=prunable)
    assert common.state(model) == before


def test_a_model_that_is_not_built_is_refused(line):
    model = line.Sequential([line.layers.Dense(3)])
    with pytest.raises(ValueError, match="must be built.*call it on a batch"):
        synflow_tf.prune(model, sparsity=0.5)


def test_a_model_without_prunable_weights_is_refused(line):
    model = linear.chain(line, line.layers.ReLU())
    with pytest.raises(ValueError, match="must select at least one weight"):
        synflow_tf.prune(model, sparsity=0.5)


@pytest.mark.parametrize("thing", [None, "model", keras.layers.Dense(3)])
def test_what_is_no_model_is_refused(thing):
    with pytest.raises(TypeError, match="Argument `model` must be"):
        synflow_tf.prune(thing, sparsity=0.5)


def test_a_layer_of_the_other_line_in_a_model_is_named():
    model = linear.net(
        tf_keras,
        lambda self, x: self.stranger(self.own(x)),
        np.ones((1, 4), np.float32),
        own=tf_keras.layers.Dense(4),
        stranger=keras.layers.Dense(3, name="stranger"),
    )
    with pytest.raises(TypeError, match="keras layer 'stranger'"):
        synflow_tf.prune(model, sparsity=0.5)


def test_an_open_size_needs_inputs(line):
    conv = line.layers.Conv2D(4, 3, padding="same")
    pool = line.layers.GlobalAveragePooling2D()
    model = linear.chain(line, conv, pool, shape=(None, None, 3))
    with pytest.raises(
        ValueError, match="a size of its input open.*None.*`inputs=`"
    ):
        synflow_tf.score(model)
    with pytest.raises(ValueError, match="Argument `inputs`"):
        synflow_tf.score(model, inputs=tf.TensorSpec((1, 8, 8, 4)))
    small = synflow_tf.score(model, inputs=np.zeros((7, 4, 4, 3)))
    large = synflow_tf.score(model, inputs=tf.TensorSpec((None, 16, 16, 3)))
    assert large.log10_flow > small.log10_flow  # less of it is border


def test_flow_beyond_the_dtype_is_an_error_without_rescaling():
    fifty = keras.initializers.Constant(50)
    layers = [
        keras.layers.Dense(100, kernel_initializer=fifty) for _ in range(20)
    ]
    model = linear.chain(keras, *layers, shape=(100,))
    # 100 inputs, each of 20 layers multiplies by 100 x 50.
    expected = np.log10(100.0) + 20 * np.log10(100 * 50.0)
    for dtype, tolerance in (("float32", 1e-6), ("float64", 1e-12)):
        scorer = synflow_tf.scorers.SynFlow(dtype=dtype)
        scores = synflow_tf.score(model, scorer=scorer)
        np.testing.assert_allclose(scores.log10_flow, expected, rtol=tolerance)
    scorer = synflow_tf.scorers.SynFlow(dtype="float32", rescale=False)
    with pytest.raises(ValueError, match="range of float32.*rescale=True"):
        synflow_tf.prune(model, sparsity=0.5, scorer=scorer)


def test_float32_and_float64_agree_in_one_round():
    model = synflow_tf.models.conv((8, 8, 1))
    scores = [
        synflow_tf.score(model, scorer=synflow_tf.scorers.SynFlow(dtype=dtype))
        for dtype in ("float32", "float64")
    ]
    linear.assert_close(scores[0], dict(scores[1]), rtol=1e-5)


@pytest.mark.parametrize("kwargs", [{"variant": "x"}, {"dtype": "float16"}])
def test_synflow_checks_its_arguments(kwargs):
    with pytest.raises(ValueError, match="must be one of"):
        synflow_tf.scorers.SynFlow(**kwargs)


def test_score_takes_masks_of_removed_weights():
    model = _mlp(keras)
    masks = synflow_tf.compute_masks(model, sparsity=0.5, rounds=5)
    scores = synflow_tf.score(model, masks=masks)
    for path, mask in masks.items():
        assert np.all(scores[path][~mask] == 0)
    np.testing.assert_allclose(scores.log10_flow, masks.log10_flow, rtol=1e-14)
    other = synflow_tf.Masks({"elsewhere/kernel": [[1]]})
    with pytest.raises(ValueError, match="'elsewhere/kernel'"):
        synflow_tf.score(model, masks=other)
