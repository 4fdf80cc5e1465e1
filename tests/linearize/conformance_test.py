"""What holds for any model, on each of the table, in both Keras lines."""

import functools
import typing
from unittest import mock

import common
import conformance
import conformance_layers
import linear
import numpy as np
import pytest
import tensorflow as tf

import synflow_tf
from synflow_tf.graph import variables
from synflow_tf.linearize import rescaling

PRUNING = {"compression": 10, "rounds": 10}
# Branches of tiny models are emptied, and Keras 3 warns of layers without a
# `build` and of its own use of NumPy.
pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{message}")
    for message in ("All weights of", "Layer coll", "`build", "__array__")
]


def _rescaling():
    """Tiny models stay in range: within this they rescale at every kernel."""
    kernels = dict.fromkeys(rescaling._KERNELS, 1)
    return mock.patch.multiple(rescaling, _BITS=0, _KERNELS=kernels)


def _cases(every=1):
    """Parametrizes a test by the entries of the table, and both lines.

    An entry is slow in one of the lines, in each in turn; and in both, unless
    it is one of `every` so many.
    """
    cases = []
    for number, (name, entry) in enumerate(conformance.TABLE.items()):
        skip = entry.skip
        for turn, line in enumerate(common.LINES):
            marks = ()
            if line in skip:
                marks = pytest.mark.skip(reason=skip[line])
            elif number % every or (not skip and number % 2 != turn):
                marks = pytest.mark.slow
            cases.append(pytest.param(name, line, marks=marks))
    # The scope puts the tests of one model in a row: they share its results.
    return pytest.mark.parametrize("name, line", cases, scope="module")


class State(typing.NamedTuple):
    """All of a model that scoring must leave as it was.

    Attributes:
        nodes: for each layer, how often Keras noted that it was called, and
            that its output was used.
        arrays: list, the values of its variables and its predictions.
    """

    nodes: list
    arrays: list


def _state(model, x):
    layers = model._flatten_layers(include_self=True, recursive=True)
    nodes = [(len(y._inbound_nodes), len(y._outbound_nodes)) for y in layers]
    arrays = [np.array(variables.value(v)) for v in model.variables]
    return State(nodes, arrays + _predict(model, x))


def _predict(model, x):
    outputs = model(x, training=False)
    outputs = outputs if isinstance(outputs, (list, tuple)) else [outputs]
    return [np.array(y) for y in outputs]


class Result(typing.NamedTuple):
    """What was computed of a model, and the model before and after."""

    model: typing.Any
    before: State
    scores: synflow_tf.Scores
    between: State
    masks: synflow_tf.Masks
    after: State


@functools.lru_cache(maxsize=2)
@_rescaling()
def _computed(name, line):
    """Scores and masks of a model that nothing is done to afterwards."""
    entry = conformance.TABLE[name]
    model = entry.build(line)
    x = entry.data(4)
    before = _state(model, x)
    scores = synflow_tf.score(model)
    between = _state(model, x)
    masks = synflow_tf.compute_masks(model, **PRUNING)
    return Result(model, before, scores, between, masks, _state(model, x))


@functools.lru_cache(maxsize=2)
def _pruned(name, line):
    """A model, pruned without rescaling, and its masks."""
    model = conformance.TABLE[name].build(line)
    scorer = synflow_tf.scorers.SynFlow(rescale=False)
    return model, synflow_tf.prune(model, scorer=scorer, **PRUNING)


@functools.lru_cache(maxsize=2)
def _trained(name, line):
    """A model that was pruned and then trained, and its kernels before."""
    model, _ = _pruned(name, line)
    before = _kernels(model)
    x = conformance.TABLE[name].data(12)
    rng = np.random.default_rng(1)
    y = [rng.uniform(size=y.shape) for y in _predict(model, x)]
    # XLA would take most of the time.
    model.compile(line.optimizers.Adam(0.01), "mse", jit_compile=False)
    common.fit(model, x, y if y[1:] else y[0], epochs=2)
    return model, before


def _kernels(model):
    """The values of the prunable weights, by path."""
    return {
        w.path: np.array(variables.value(w.variable))
        for w in variables.prunable_weights(model)
    }


@_cases()
def test_scores_are_finite_and_no_kernel_is_without(name, line):
    result = _computed(name, line)
    kernels = _kernels(result.model)
    assert list(result.scores) == list(kernels)
    assert np.isfinite(result.scores.log10_flow)
    for path, scores in result.scores.items():
        assert scores.shape == kernels[path].shape
        assert np.isfinite(scores).all()
        assert scores.min() >= 0 and scores.any()


@_cases()
@_rescaling()
def test_the_flow_is_homogeneous_and_conserved(name, line):
    entry = conformance.TABLE[name]
    model = _computed(name, line).model
    shapes = () if entry.vocabulary else entry.shapes
    inputs = [linear.positive(*s, seed=n) for n, s in enumerate(shapes)]
    linear.assert_conserved(model, *inputs, rescale=True)


@_cases()
def test_counts_are_exact_and_the_model_does_not_collapse(name, line):
    masks = _computed(name, line).masks
    kernels = _kernels(_computed(name, line).model)
    size = sum(kernel.size for kernel in kernels.values())
    assert masks.size == size
    assert masks.kept == size - size * 9 // 10
    assert np.isfinite(masks.log10_flow)
    assert len(masks.history) == 10
    assert masks.history[-1].kept == masks.kept


@_cases()
def test_scoring_leaves_the_model_as_it_was(name, line):
    result = _computed(name, line)
    for state in (result.between, result.after):
        assert state.nodes == result.before.nodes
        for a, b in zip(result.before.arrays, state.arrays, strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)
    for variable in result.model.weights:
        assert variables.get_constraint(variable) is None


@_cases(every=3)
def test_rescaling_changes_no_mask(name, line):
    _, masks = _pruned(name, line)
    expected = _computed(name, line).masks
    assert masks.kept == expected.kept
    # Keras numbers the layers of a second model on, in the paths.
    common.assert_equal(masks.values(), expected.values())


@_cases(every=3)
def test_removed_weights_stay_zero_in_training(name, line):
    model, before = _trained(name, line)
    _, masks = _pruned(name, line)
    after = _kernels(model)
    assert list(before) == list(after) == list(masks)
    trained = 0
    for path, mask in masks.items():
        assert not np.any(after[path][~mask])
        assert np.isfinite(after[path]).all()
        trained += np.count_nonzero(after[path] != before[path])
    assert trained > masks.kept / 4


@_cases(every=3)
def test_masks_survive_saving_and_loading(name, line, tmp_path):
    model, _ = _trained(name, line)
    _, masks = _pruned(name, line)
    model.save(tmp_path / "model.keras")
    loaded = line.saving.load_model(tmp_path / "model.keras", compile=False)
    assert synflow_tf.Masks.from_model(loaded) == masks
    x = conformance.TABLE[name].data(4)
    pairs = zip(_predict(model, x), _predict(loaded, x), strict=True)
    for expected, y in pairs:
        np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)
    masks.enforce(loaded)
    for weight in variables.prunable_weights(loaded):
        constraint = variables.get_constraint(weight.variable)
        kept = constraint(tf.ones(weight.shape))
        np.testing.assert_array_equal(kept, masks[weight.path])


def test_queries_keys_and_values_of_one_kernel_all_keep_weights(line):
    masks = _computed("transformer", line).masks
    for block in range(2):
        mask = masks[f"blocks/{block}/attention/qkv/kernel"]
        assert mask.shape[1] == 3 * mask.shape[0]
        assert all(part.any() for part in np.split(mask, 3, axis=1))


def _functional_twin(line):
    """The graph of layers that `conformance_layers`' ResNet stands for."""
    k = line.layers

    def conv(x, width, strides=1, **options):
        return k.Conv2D(width, 3, strides, padding="same", **options)(x)

    inputs = line.Input((8, 8, 3))
    x = k.ReLU()(conv(inputs, 6, name="stem"))
    for i, (width, strides) in enumerate([(6, 1), (12, 2), (12, 1)]):
        name = f"blocks_{i}_"
        y = conv(x, width, strides, use_bias=False, name=name + "conv1")
        y = k.ReLU()(k.BatchNormalization(name=name + "bn1")(y))
        y = conv(y, width, use_bias=False, name=name + "conv2")
        y = k.BatchNormalization(name=name + "bn2")(y)
        if strides > 1:
            x = k.Conv2D(width, 1, strides, name=name + "shortcut")(x)
        x = k.ReLU()(k.Add()([y, x]))
    x = k.GlobalAveragePooling2D()(x)
    return line.Model(inputs, k.Dense(4, name="head")(x))


@functools.lru_cache
def _twins(line):
    """A subclassed model and a functional one, with the same weights."""
    line.utils.set_random_seed(3)
    model = conformance_layers.of(line).ResNet()
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype("float32")
    model(x)
    twin = _functional_twin(line)
    weights = {
        w.path.replace("/", "_"): variables.value(w.variable)
        for w in variables.weights(model)
    }
    for weight in variables.weights(twin):
        weight.variable.assign(weights.pop(weight.path.replace("/", "_")))
    assert not weights
    np.testing.assert_allclose(twin(x), model(x), rtol=1e-5, atol=1e-6)
    return model, twin


@pytest.mark.parametrize("rounds", [1, 4, 30])
def test_a_subclassed_model_gets_the_masks_of_its_functional_twin(line, rounds):
    masks, expected = (
        synflow_tf.compute_masks(model, compression=10, rounds=rounds)
        for model in _twins(line)
    )
    assert [p.replace("/", "_") for p in masks] == [
        p.replace("/", "_") for p in expected
    ]
    common.assert_equal(masks.values(), expected.values())
    assert masks.log10_flow == expected.log10_flow
