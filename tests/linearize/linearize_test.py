"""Every linear rule, against the layer itself and against the theory."""

import common
import keras
import linear
import numpy as np
import pytest
import tensorflow as tf

import synflow_tf
from synflow_tf.graph import variables

pytestmark = pytest.mark.in_turn

_ROW, _IMAGE, _VOLUME = (9, 3), (8, 7, 3), (4, 6, 5, 3)
# name: input shape without batch, what makes the layer.
WEIGHTED = {
    "dense": ((5,), lambda k: k.Dense(3, "relu")),
    "dense of rank 3": ((4, 5), lambda k: k.Dense(3, "tanh")),
    "dense without bias": ((5,), lambda k: k.Dense(3, use_bias=False)),
    "einsum dense": (
        (4, 5),
        lambda k: k.EinsumDense("abc,cd->abd", (None, 6), bias_axes="d"),
    ),
    "conv 1d": (_ROW, lambda k: k.Conv1D(4, 3, 2, "same")),
    "conv 1d causal": (
        _ROW,
        lambda k: k.Conv1D(4, 3, padding="causal", dilation_rate=2),
    ),
    "conv 2d": (_IMAGE, lambda k: k.Conv2D(4, 3, activation="relu")),
    "conv 2d strided": (_IMAGE, lambda k: k.Conv2D(4, 3, 2, "same")),
    "conv 2d dilated": (_IMAGE, lambda k: k.Conv2D(4, 3, dilation_rate=2)),
    "conv 2d grouped": ((8, 7, 4), lambda k: k.Conv2D(6, 3, groups=2)),
    "conv 3d": (_VOLUME, lambda k: k.Conv3D(3, 2, padding="same")),
    "depthwise 1d": (_ROW, lambda k: k.DepthwiseConv1D(3, depth_multiplier=2)),
    "depthwise 2d": (
        _IMAGE,
        lambda k: k.DepthwiseConv2D(3, 2, "same", depth_multiplier=2),
    ),
    "depthwise 2d dilated": (
        _IMAGE,
        lambda k: k.DepthwiseConv2D(3, dilation_rate=2),
    ),
    "separable 1d": (_ROW, lambda k: k.SeparableConv1D(4, 3)),
    "separable 2d": (_IMAGE, lambda k: k.SeparableConv2D(4, 3, padding="same")),
    "transposed 1d": (_ROW, lambda k: k.Conv1DTranspose(4, 3, 2, "same")),
    "transposed 2d": (_IMAGE, lambda k: k.Conv2DTranspose(4, 3, 2)),
    "transposed 2d padded": (
        _IMAGE,
        lambda k: k.Conv2DTranspose(4, 3, 2, "same", output_padding=1),
    ),
    "transposed 3d": (_VOLUME, lambda k: k.Conv3DTranspose(3, 2, 2, "same")),
    "batch normalization": (_ROW, lambda k: k.BatchNormalization()),
    "batch normalization over rows": (
        _ROW,
        lambda k: k.BatchNormalization(axis=1),
    ),
    "batch normalization alone": (
        (4,),
        lambda k: k.BatchNormalization(center=False, scale=False),
    ),
    "prelu": (_ROW, lambda k: k.PReLU()),
}
# Layers that Keras itself cannot run with channels first on a CPU are compared
# with the channels-last layer of the same weights.
# Keras 3 adds the bias of a separable one along the wrong axis where the last
# axis of its output is as long.
CHANNELS_FIRST = {
    "conv 1d": (_ROW, lambda k, **f: k.Conv1D(4, 3, **f)),
    "conv 2d": (_IMAGE, lambda k, **f: k.Conv2D(4, 3, 2, **f)),
    "conv 2d grouped": (_IMAGE, lambda k, **f: k.Conv2D(6, 3, groups=3, **f)),
    "conv 3d": (_VOLUME, lambda k, **f: k.Conv3D(3, 2, **f)),
    "depthwise 1d": (_ROW, lambda k, **f: k.DepthwiseConv1D(3, **f)),
    "depthwise 2d": (_IMAGE, lambda k, **f: k.DepthwiseConv2D(3, **f)),
    "separable 1d": (_ROW, lambda k, **f: k.SeparableConv1D(4, 3, **f)),
    "separable 2d": (_IMAGE, lambda k, **f: k.SeparableConv2D(4, 3, **f)),
    "transposed 1d": (_ROW, lambda k, **f: k.Conv1DTranspose(4, 3, 2, **f)),
    "transposed 2d": (_IMAGE, lambda k, **f: k.Conv2DTranspose(4, 3, 2, **f)),
    "transposed 3d": (_VOLUME, lambda k, **f: k.Conv3DTranspose(4, 2, **f)),
    "max pooling 1d": (_ROW, lambda k, **f: k.MaxPooling1D(2, **f)),
    "max pooling 2d": (_IMAGE, lambda k, **f: k.MaxPooling2D(2, **f)),
    "max pooling 3d": (_VOLUME, lambda k, **f: k.MaxPooling3D(2, **f)),
    "average pooling 1d": (_ROW, lambda k, **f: k.AveragePooling1D(2, **f)),
    "average pooling 2d": (_IMAGE, lambda k, **f: k.AveragePooling2D(2, **f)),
    "average pooling 3d": (_VOLUME, lambda k, **f: k.AveragePooling3D(2, **f)),
    "global pooling": (
        _IMAGE,
        lambda k, **f: k.GlobalAveragePooling2D(keepdims=True, **f),
    ),
    "padding": (_IMAGE, lambda k, **f: k.ZeroPadding2D(2, **f)),
    "cropping": (_VOLUME, lambda k, **f: k.Cropping3D(1, **f)),
    "up-sampling": (_IMAGE, lambda k, **f: k.UpSampling2D(2, **f)),
    "bilinear": (
        _IMAGE,
        lambda k, **f: k.UpSampling2D(2, interpolation="bilinear", **f),
    ),
}
# Those of 1, 2 and 3 dimensions, and their arguments.
_RANKED = {"MaxPooling": [2], "AveragePooling": [2]}
_RANKED |= dict.fromkeys(["GlobalMaxPooling", "GlobalAveragePooling"], [])
_RANKED |= dict.fromkeys(["ZeroPadding", "Cropping", "UpSampling"], [])


def _ranked(kind, rank):
    name, shape = f"{kind}{rank}D", (*(6, 4, 8)[:rank], 3)
    return name, (shape, lambda k: getattr(k, name)(*_RANKED[kind]))


WEIGHTLESS = {
    **dict(_ranked(kind, rank) for kind in _RANKED for rank in (1, 2, 3)),
    "bilinear": (
        (3, 4, 2),
        lambda k: k.UpSampling2D((2, 3), interpolation="bilinear"),
    ),
    "average pooling same": (
        _IMAGE,
        lambda k: k.AveragePooling2D(3, 2, "same"),
    ),
    "average pooling 3d same": (
        _VOLUME,
        lambda k: k.AveragePooling3D(3, 2, "same"),
    ),
    "max pooling 3d strided": (
        _VOLUME,
        lambda k: k.MaxPooling3D((2, 3, 2), (1, 1, 2)),
    ),
    "flatten": ((3, 4), lambda k: k.Flatten()),
    "reshape": ((3, 4), lambda k: k.Reshape((2, -1))),
    "permute": ((3, 4), lambda k: k.Permute((2, 1))),
    "repeat vector": ((4,), lambda k: k.RepeatVector(3)),
    "identity": ((4,), lambda k: k.Identity()),
    "dropout": ((4,), lambda k: k.Dropout(0.5)),
    "spatial dropout": ((4, 3), lambda k: k.SpatialDropout1D(0.5)),
    "gaussian noise": ((4,), lambda k: k.GaussianNoise(0.5)),
    "gaussian dropout": ((4,), lambda k: k.GaussianDropout(0.5)),
    "activity regularization": ((4,), lambda k: k.ActivityRegularization()),
    "relu": ((4,), lambda k: k.ReLU(max_value=1.0)),
    "leaky relu": ((4,), lambda k: k.LeakyReLU()),
    "elu": ((4,), lambda k: k.ELU()),
    "softmax": ((4,), lambda k: k.Softmax()),
    "swish": ((4,), lambda k: k.Activation("swish")),
    "gelu": ((4,), lambda k: k.Activation("gelu")),
    "sigmoid": ((4,), lambda k: k.Activation("sigmoid")),
}
LAYERS = WEIGHTED | WEIGHTLESS


def _positive(model):
    return linear.randomize(model, signs=(1.0,))


def _layer(line, case):
    shape, make = LAYERS[case]
    model = linear.chain(line, make(line.layers), shape=shape)
    return _positive(model), linear.positive(*shape)


def _check_as_authors(model, *inputs):
    """The authors' variant is the model itself, in float64."""
    given = [x.astype("float32") for x in inputs]
    expected = model(given if given[1:] else given[0], training=False)
    (output,) = linear.run_as_authors(model, *inputs)
    assert output.dtype == tf.float64
    np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", LAYERS)
def test_the_authors_variant_of_a_layer_is_the_layer_itself(line, case):
    _check_as_authors(*_layer(line, case))


def test_the_authors_variant_reads_a_table(line):
    layers = line.layers.Embedding(5, 3), line.layers.Dense(2)
    model = linear.chain(line, *layers, shape=(4,), dtype="int32")
    (output,) = linear.run_as_authors(_positive(model))
    linear.assert_close(output, model(np.ones((1, 4), "int32")), rtol=1e-5)


@pytest.mark.parametrize("case", LAYERS)
def test_the_flow_through_a_layer_is_conserved(line, case):
    linear.assert_conserved(*_layer(line, case))


@pytest.mark.parametrize("name", ["Add", "Average", "Concatenate", "Subtract"])
def test_the_authors_variant_of_a_merge_is_the_merge_itself(line, name):
    merge = getattr(line.layers, name)()
    model = linear.functional(line, lambda *x: merge(x), (3, 4), (3, 4))
    inputs = [linear.positive(3, 4, seed=seed) for seed in (1, 2)]
    _check_as_authors(model, *inputs)


@pytest.mark.parametrize("case", CHANNELS_FIRST)
def test_channels_first_is_channels_last_transposed(line, case):
    shape, make = CHANNELS_FIRST[case]
    first, last = (
        _positive(linear.chain(line, make(line.layers, data_format=f), shape=s))
        for f, s in (
            ("channels_first", (shape[-1], *shape[:-1])),
            ("channels_last", shape),
        )
    )
    x = linear.positive(*shape)
    (expected,) = linear.run_as_authors(last, x)
    (output,) = linear.run_as_authors(first, np.moveaxis(x, -1, 1))
    linear.assert_close(np.moveaxis(output, 1, -1), expected, rtol=1e-14)


@pytest.mark.parametrize(
    "activation", ["relu", "tanh", "sigmoid", "softmax", "swish", "gelu"]
)
def test_activations_and_offsets_do_not_change_the_scores(line, activation):
    def model(activation, seed):
        a = linear.dense(line, 5, "a", activation=activation)
        b = linear.dense(line, 3, "b", activation=activation)
        made = linear.chain(line, a, line.layers.BatchNormalization(), b)
        rng = np.random.default_rng(7)
        other = np.random.default_rng(seed)
        for weight in variables.weights(made):
            kernel = weight.name == "kernel"
            draw = (rng if kernel else other).normal(size=weight.shape)
            if weight.name in ("gamma", "moving_variance"):
                draw = np.ones(weight.shape)
            weight.variable.assign(draw)
        return made

    plain = synflow_tf.score(model("linear", 1))
    other = synflow_tf.score(model(activation, 2))
    assert plain.log10_flow == other.log10_flow
    common.assert_equal(plain.values(), other.values())


def test_scores_equal_those_of_numpy_on_a_chain():
    model = synflow_tf.models.fc(input_shape=(4, 4, 1), classes=3)
    linear.randomize(model)
    scores = synflow_tf.score(model)
    kernels = [linear.magnitudes(model)[path] for path in scores]
    before, after = [np.ones(16)], [np.ones(3)]
    for kernel in kernels:
        before.append(before[-1] @ kernel)
    for kernel in kernels[::-1]:
        after.insert(0, kernel @ after[0])
    for i, (path, kernel) in enumerate(zip(scores, kernels, strict=True)):
        expected = before[i][:, None] * kernel * after[i + 1]
        linear.assert_close(scores[path], expected)
    linear.assert_flow(scores, before[-1].sum())


def test_a_chain_with_offsets_has_the_flow_in_every_layer(line):
    k = line.layers
    first, last = k.Conv2D(4, 3, activation="relu"), k.Dense(5, "softmax")
    parts = first, k.BatchNormalization(), k.MaxPooling2D(), k.Flatten(), last
    model = linear.randomize(linear.chain(line, *parts, shape=(6, 6, 2)))
    linear.assert_conserved(model, linear.positive(6, 6, 2))
    scores = synflow_tf.score(model)
    linear.assert_flow(scores, 10**scores.log10_flow, *scores)


def test_a_registered_rule_is_used():
    layer = linear.custom(
        keras, lambda me, x: x * me.factor, {"factor": (4,)}, "mine"
    )

    @synflow_tf.register_rule(type(layer))
    def _rule(layer, weights, x):
        return 2 * x * weights[layer.factor]

    model = linear.chain(keras, layer)
    layer.factor.assign([1.0, -2.0, 3.0, 0.0])
    scores = synflow_tf.score(model, prunable="mine/factor")
    np.testing.assert_array_equal(scores["mine/factor"], [2, 4, 6, 0])


def test_a_subclass_inherits_the_rule_unless_it_has_a_call_of_its_own():
    class Wide(keras.layers.Dense):
        def __init__(self, **kwargs):
            super().__init__(100, **kwargs)

    class Twice(Wide):
        def call(self, x):
            return 2 * super().call(x) + super().call(x)

    for make, factor in ((Wide, 1), (Twice, 3)):
        layer = make(name="own")
        score = synflow_tf.score(linear.chain(keras, layer))["own/kernel"]
        linear.assert_close(score, factor * linear.magnitude(layer.kernel))


def test_register_rule_wants_a_class_or_an_operation():
    with pytest.raises(TypeError, match="Argument `target`"):
        synflow_tf.register_rule(keras.layers.Dense(3))
    with pytest.raises(ValueError, match="Argument `target`.*'Matmull'"):
        synflow_tf.register_rule("Matmull")
