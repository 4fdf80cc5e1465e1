"""Normalization layers and tables, against NumPy."""

import keras
import linear
import numpy as np
import pytest

import synflow_tf

_SHAPE = (3, 4, 6)
# name: what makes the layer; the shape that broadcasts |gamma|, or None.
CASES = {
    "layer": (lambda k: k.LayerNormalization(), (6,)),
    "layer, first axis": (lambda k: k.LayerNormalization(axis=1), (3, 1, 1)),
    "layer, two axes": (
        lambda k: k.LayerNormalization(axis=(1, 3)),
        (3, 1, 6),
    ),
    "layer, axes from behind": (
        lambda k: k.LayerNormalization(axis=[-2, -1]),
        (4, 6),
    ),
    "layer without scale": (lambda k: k.LayerNormalization(scale=False), None),
    "layer without centre": (
        lambda k: k.LayerNormalization(center=False),
        (6,),
    ),
    "RMS": (lambda k: k.RMSNormalization(), (6,)),
    "group": (lambda k: k.GroupNormalization(groups=3), (6,)),
    "group, channels first": (
        lambda k: k.GroupNormalization(groups=3, axis=1),
        (3, 1, 1),
    ),
    "group without scale": (
        lambda k: k.GroupNormalization(groups=2, scale=False),
        None,
    ),
    "instance": (lambda k: k.GroupNormalization(groups=-1), (6,)),
    "unit": (lambda k: k.UnitNormalization(), None),
    "unit, two axes": (lambda k: k.UnitNormalization(axis=(1, 2)), None),
    "normalization": (
        lambda k: k.Normalization(mean=3.0, variance=4.0),
        None,
    ),
    "rescaling": (lambda k: k.Rescaling(1 / 255.0, -1.0), None),
}


def _model(line, make):
    x = line.Input(_SHAPE)
    layer = make(line.layers)
    model = line.Model(x, layer(x))
    linear.randomize(model)
    return model, layer


@pytest.mark.parametrize("case", CASES)
def test_a_normalization_is_the_magnitude_of_its_scale(line, case):
    make, shape = CASES[case]
    if case == "RMS" and not hasattr(line.layers, "RMSNormalization"):
        pytest.skip("tf_keras has no RMSNormalization")
    model, layer = _model(line, make)
    x = linear.positive(*_SHAPE)
    expected = x
    if shape is not None:
        variable = layer.scale if case == "RMS" else layer.gamma
        gamma = linear.positive(*variable.shape, seed=2)[0].astype(np.float32)
        gamma *= np.resize([1, -1], gamma.shape)
        variable.assign(gamma)
        gamma = gamma.astype(np.float64)
        expected = x * np.abs(gamma).reshape(shape)
    (output,) = linear.run(model, x)
    np.testing.assert_allclose(output, expected, rtol=1e-14)
    linear.conserved(model, x)


def test_the_scale_of_a_normalization_scores_where_asked(line):
    layers = line.layers
    model = line.Sequential(
        [
            line.Input((5,)),
            layers.Dense(4, name="d"),
            layers.LayerNormalization(name="n"),
        ]
    )
    linear.randomize(model)
    w = linear.magnitudes(model)
    expected = w["d/kernel"] * w["n/gamma"]
    scores = synflow_tf.score(model, prunable=["d/kernel", "n/gamma"])
    np.testing.assert_allclose(scores["d/kernel"], expected, rtol=1e-12)
    np.testing.assert_allclose(scores["n/gamma"], expected.sum(0), rtol=1e-12)


# That of tf_keras 2.21 fails to build, under any model.
@pytest.mark.parametrize("inner", ["Dense", "Conv2D"])
def test_spectral_normalization_is_its_layer(inner):
    layers = keras.layers
    if inner == "Dense":
        layer, x, times = layers.Dense(2), keras.Input((3, 4)), 3
    else:
        layer, x = layers.Conv2D(2, 1), keras.Input((3, 3, 4))
        times = 9
    model = keras.Model(x, layers.SpectralNormalization(layer)(x))
    linear.randomize(model)
    expected = times * np.abs(layer.kernel.numpy().astype(np.float64))
    (score,) = synflow_tf.score(model).values()
    # Dividing by the largest singular value scales all alike.
    np.testing.assert_allclose(
        score / score.sum(), expected / expected.sum(), rtol=1e-6
    )


@pytest.mark.parametrize("prunable", [False, True])
def test_flow_starts_at_an_embedding(line, prunable):
    layers = line.layers
    model = line.Sequential(
        [
            line.Input((7,), dtype="int32"),
            layers.Embedding(5, 3, name="e"),
            layers.Dense(2, name="d"),
        ]
    )
    linear.randomize(model)
    w = linear.magnitudes(model)
    kernel, table = w["d/kernel"], w["e/embeddings"]
    asked = ["d", "e/embeddings"] if prunable else None
    scores = synflow_tf.score(model, prunable=asked)
    row = table.mean(0) if prunable else np.ones(3)
    np.testing.assert_allclose(
        scores["d/kernel"], 7 * row[:, None] * kernel, rtol=1e-12
    )
    flow = 7 * (row @ kernel).sum()
    np.testing.assert_allclose(10**scores.log10_flow, flow, rtol=1e-12)
    assert ("e/embeddings" in scores) == prunable
    if prunable:
        expected = 7 * table * kernel.sum(1) / len(table)
        np.testing.assert_allclose(scores["e/embeddings"], expected, rtol=1e-12)


def test_a_position_embedding_that_is_added_is_dropped(line):
    layers = line.layers
    tokens = line.Input((4,), dtype="int32")
    embedded = layers.Embedding(9, 3, name="e")(tokens)
    table = linear.custom(
        line, lambda me, x: x + me.table[:4], {"table": (6, 3)}, "p"
    )
    y = layers.Dense(2, use_bias=False, name="d")(table(embedded))
    model = line.Model(tokens, y)
    linear.randomize(model)
    kernel = linear.magnitudes(model)["d/kernel"]
    masks = synflow_tf.compute_masks(model, 0.5, rounds=2, progress=False)
    assert not masks.findings
    scores = synflow_tf.score(model)
    np.testing.assert_allclose(scores["d/kernel"], 4 * kernel, rtol=1e-12)


@pytest.mark.parametrize("mode", ["multi_hot", "count"])
def test_flow_starts_at_encoded_categories(line, mode):
    layers = line.layers
    x = line.Input((3,), dtype="int32")
    y = layers.CategoryEncoding(5, output_mode=mode)(x)
    model = line.Model(x, layers.Dense(2, name="d")(y))
    linear.randomize(model)
    kernel = linear.magnitudes(model)["d/kernel"]
    scores = synflow_tf.score(model)
    np.testing.assert_allclose(scores["d/kernel"], kernel, rtol=1e-12)


@pytest.mark.parametrize("axis", [-1, 1, (1, 2)])
def test_batch_normalization_divides_by_what_it_has_seen(line, axis):
    if line is keras and isinstance(axis, tuple):
        pytest.skip("Keras 3 has one axis there")
    model, layer = _model(line, lambda k: k.BatchNormalization(axis=axis))
    x = linear.positive(*_SHAPE)
    gamma, _, _, variance = (w.astype(np.float64) for w in layer.get_weights())
    scale = np.abs(gamma) / np.sqrt(variance + np.float32(layer.epsilon))
    axes = axis if isinstance(axis, tuple) else (axis,)
    shape = [n if i in axes else 1 for i, n in enumerate(x.shape)]
    shape[-1] = 6 if axis == -1 else 1
    (output,) = linear.run(model, x)
    np.testing.assert_allclose(output, x * scale.reshape(shape), rtol=1e-12)
