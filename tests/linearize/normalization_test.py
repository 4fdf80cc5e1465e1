"""Normalization layers and tables, against NumPy."""

import keras
import linear
import numpy as np
import pytest
import tf_keras

import synflow_tf

_SHAPE = (3, 4, 6)
# name: what makes the layer; the shape that broadcasts |gamma|, or None.
CASES = {
    "layer": (lambda k: k.LayerNormalization(), (6,)),
    "layer, first axis": (lambda k: k.LayerNormalization(axis=1), (3, 1, 1)),
    "layer, 2 axes": (lambda k: k.LayerNormalization(axis=(1, 3)), (3, 1, 6)),
    "layer, axes from behind": (
        lambda k: k.LayerNormalization(axis=[-2, -1]),
        (4, 6),
    ),
    "layer, no scale": (lambda k: k.LayerNormalization(scale=False), None),
    "layer, no centre": (lambda k: k.LayerNormalization(center=False), (6,)),
    "RMS": (lambda k: k.RMSNormalization(), (6,)),
    "group": (lambda k: k.GroupNormalization(groups=3), (6,)),
    "group, channels first": (
        lambda k: k.GroupNormalization(groups=3, axis=1),
        (3, 1, 1),
    ),
    "group, no scale": (lambda k: k.GroupNormalization(2, scale=False), None),
    "instance": (lambda k: k.GroupNormalization(groups=-1), (6,)),
    "unit": (lambda k: k.UnitNormalization(), None),
    "unit, two axes": (lambda k: k.UnitNormalization(axis=(1, 2)), None),
    "normalization": (lambda k: k.Normalization(mean=3.0, variance=4.0), None),
    "rescaling": (lambda k: k.Rescaling(1 / 255.0, -1.0), None),
    "batch": (lambda k: k.BatchNormalization(), (6,)),
    "batch, first axis": (lambda k: k.BatchNormalization(axis=1), (3, 1, 1)),
    "batch, 2 axes": (lambda k: k.BatchNormalization(axis=(1, 2)), (3, 4, 1)),
}
_MISSING = [(tf_keras, "RMS"), (keras, "batch, 2 axes")]


def _model(line, layer):
    return linear.randomize(linear.chain(line, layer, shape=_SHAPE))


@pytest.mark.parametrize("case", CASES)
def test_a_normalization_is_the_magnitude_of_its_scale(line, case):
    if (line, case) in _MISSING:
        pytest.skip(f"{line.__name__} has no such layer")
    make, shape = CASES[case]
    layer = make(line.layers)
    model = _model(line, layer)
    x = expected = linear.positive(*_SHAPE)
    if shape is not None:
        scale = linear.magnitude(layer.scale if case == "RMS" else layer.gamma)
        if "batch" in case:  # It divides by what it has seen.
            variance = linear.magnitude(layer.moving_variance)
            scale /= np.sqrt(variance + np.float32(layer.epsilon))
        expected = x * scale.reshape(shape)
    linear.assert_computes(model, [x], expected, rtol=1e-14)
    linear.assert_conserved(model, x)


def test_the_scale_of_a_normalization_scores_where_asked(line):
    norm = line.layers.LayerNormalization(name="n")
    model = linear.chain(line, linear.dense(line, 4, "d"), norm, shape=(5,))
    w = linear.magnitudes(linear.randomize(model))
    expected = w["d/kernel"] * w["n/gamma"]
    scores = synflow_tf.score(model, prunable=["d/kernel", "n/gamma"])
    linear.assert_close(
        scores, {"d/kernel": expected, "n/gamma": expected.sum(0)}
    )


# That of tf_keras 2.21 fails to build, under any model.
@pytest.mark.parametrize("inner", ["Dense", "Conv2D"])
def test_spectral_normalization_is_its_layer(inner):
    layers = keras.layers
    layer = layers.Dense(2) if inner == "Dense" else layers.Conv2D(2, 1)
    model = _model(keras, layers.SpectralNormalization(layer))
    kernel = linear.magnitude(layer.kernel)
    (score,) = synflow_tf.score(model).values()
    # Dividing by the largest singular value scales all alike.
    linear.assert_close(score / score.sum(), kernel / kernel.sum(), rtol=1e-6)


def test_flow_starts_at_an_embedding_that_is_prunable(line):
    layers = line.layers.Embedding(5, 3, name="e"), linear.dense(line, 2, "d")
    model = linear.chain(line, *layers, shape=(7,), dtype="int32")
    w = linear.magnitudes(linear.randomize(model))
    kernel, table = w["d/kernel"], w["e/embeddings"]
    scores = synflow_tf.score(model, prunable=["d", "e/embeddings"])
    row = table.mean(0)
    expected = {
        "d/kernel": 7 * row[:, None] * kernel,
        "e/embeddings": 7 * table * kernel.sum(1) / len(table),
    }
    assert set(scores) == set(expected)
    linear.assert_close(scores, expected)
    linear.assert_flow(scores, 7 * (row @ kernel).sum())


def test_a_position_embedding_that_is_added_is_dropped(line):
    position = linear.custom(
        line, lambda me, x: x + me.table[:4], {"table": (6, 3)}
    )
    last = linear.dense(line, 2, "d", use_bias=False)
    layers = line.layers.Embedding(9, 3), position, last
    model = linear.chain(line, *layers, shape=(4,), dtype="int32")
    linear.randomize(model)
    masks = synflow_tf.compute_masks(model, 0.5, rounds=2, progress=False)
    assert not masks.findings
    expected = {"d/kernel": 4 * linear.magnitude(last.kernel)}
    linear.assert_close(synflow_tf.score(model), expected)


@pytest.mark.parametrize("mode", ["multi_hot", "count"])
def test_flow_starts_at_encoded_categories(line, mode):
    last = linear.dense(line, 2, "d")
    layers = line.layers.CategoryEncoding(5, output_mode=mode), last
    model = linear.chain(line, *layers, shape=(3,), dtype="int32")
    linear.randomize(model)
    expected = {"d/kernel": linear.magnitude(last.kernel)}
    linear.assert_close(synflow_tf.score(model), expected)
