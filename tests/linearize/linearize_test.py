"""Every linear rule, against the layer itself and against the theory."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import synflow_tf
from synflow_tf import graph as graph_lib
from synflow_tf import linearize
from synflow_tf.graph import kernels as kernels_lib
from synflow_tf.graph import variables

# name: input shape without batch, what makes the layers.
WEIGHTED = {
    "dense": ((5,), lambda k: [k.Dense(3, "relu")]),
    "dense of rank 3": ((4, 5), lambda k: [k.Dense(3, "tanh")]),
    "dense without bias": ((5,), lambda k: [k.Dense(3, use_bias=False)]),
    "einsum dense": (
        (4, 5),
        lambda k: [k.EinsumDense("abc,cd->abd", (None, 6), bias_axes="d")],
    ),
    "conv 1d": ((9, 3), lambda k: [k.Conv1D(4, 3, 2, "same")]),
    "conv 1d causal": (
        (9, 3),
        lambda k: [k.Conv1D(4, 3, padding="causal", dilation_rate=2)],
    ),
    "conv 2d": ((8, 7, 3), lambda k: [k.Conv2D(4, 3, activation="relu")]),
    "conv 2d strided": ((8, 7, 3), lambda k: [k.Conv2D(4, 3, 2, "same")]),
    "conv 2d dilated": (
        (8, 9, 3),
        lambda k: [k.Conv2D(4, 3, dilation_rate=2)],
    ),
    "conv 2d grouped": ((8, 7, 4), lambda k: [k.Conv2D(6, 3, groups=2)]),
    "conv 3d": ((5, 6, 4, 2), lambda k: [k.Conv3D(3, 2, padding="same")]),
    "depthwise 1d": (
        (9, 3),
        lambda k: [k.DepthwiseConv1D(3, depth_multiplier=2)],
    ),
    "depthwise 2d": (
        (8, 7, 3),
        lambda k: [k.DepthwiseConv2D(3, 2, "same", depth_multiplier=2)],
    ),
    "depthwise 2d dilated": (
        (8, 9, 3),
        lambda k: [k.DepthwiseConv2D(3, dilation_rate=2)],
    ),
    "separable 1d": ((9, 3), lambda k: [k.SeparableConv1D(4, 3)]),
    "separable 2d": (
        (8, 7, 3),
        lambda k: [k.SeparableConv2D(4, 3, padding="same")],
    ),
    "transposed 1d": ((5, 3), lambda k: [k.Conv1DTranspose(4, 3, 2, "same")]),
    "transposed 2d": ((5, 4, 3), lambda k: [k.Conv2DTranspose(4, 3, 2)]),
    "transposed 2d padded": (
        (5, 4, 3),
        lambda k: [k.Conv2DTranspose(4, 3, 2, "same", output_padding=1)],
    ),
    "transposed 3d": (
        (3, 4, 3, 2),
        lambda k: [k.Conv3DTranspose(3, 2, 2, "same")],
    ),
    "batch normalization": ((4, 3), lambda k: [k.BatchNormalization()]),
    "batch normalization over rows": (
        (4, 3),
        lambda k: [k.BatchNormalization(axis=1)],
    ),
    "batch normalization alone": (
        (4,),
        lambda k: [k.BatchNormalization(center=False, scale=False)],
    ),
    "prelu": ((4, 3), lambda k: [k.PReLU()]),
}
# Layers that Keras itself cannot run with channels first on a CPU are compared
# with the channels-last layer of the same weights.
# Keras 3 adds the bias of a separable one along the wrong axis where the last
# axis of its output is as long.
_ROW, _IMAGE, _VOLUME = (9, 3), (8, 7, 3), (4, 6, 5, 3)
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
WEIGHTLESS = {
    **{
        f"{kind} pooling {rank}d": (
            (6, 4, 8)[:rank] + (3,),
            lambda k, kind=kind, rank=rank: [
                getattr(k, f"{kind}Pooling{rank}D")(2)
            ],
        )
        for kind in ("Max", "Average")
        for rank in (1, 2, 3)
    },
    **{
        f"global {kind} pooling {rank}d": (
            (6, 4, 8)[:rank] + (3,),
            lambda k, kind=kind, rank=rank: [
                getattr(k, f"Global{kind}Pooling{rank}D")()
            ],
        )
        for kind in ("Max", "Average")
        for rank in (1, 2, 3)
    },
    **{
        f"{kind} {rank}d": (
            (6, 4, 8)[:rank] + (3,),
            lambda k, kind=kind, rank=rank: [getattr(k, f"{kind}{rank}D")()],
        )
        for kind in ("ZeroPadding", "Cropping", "UpSampling")
        for rank in (1, 2, 3)
    },
    "bilinear": (
        (3, 4, 2),
        lambda k: [k.UpSampling2D((2, 3), interpolation="bilinear")],
    ),
    "average pooling 3d same": (
        (5, 4, 3, 2),
        lambda k: [k.AveragePooling3D(3, 2, "same")],
    ),
    "max pooling 3d strided": (
        (5, 4, 6, 2),
        lambda k: [k.MaxPooling3D((2, 3, 2), (1, 1, 2))],
    ),
    "average pooling same": (
        (5, 5, 2),
        lambda k: [k.AveragePooling2D(3, 2, "same")],
    ),
    "flatten": ((3, 4), lambda k: [k.Flatten()]),
    "reshape": ((3, 4), lambda k: [k.Reshape((2, -1))]),
    "permute": ((3, 4), lambda k: [k.Permute((2, 1))]),
    "repeat vector": ((4,), lambda k: [k.RepeatVector(3)]),
    "identity": ((4,), lambda k: [k.Identity()]),
    "dropout": ((4,), lambda k: [k.Dropout(0.5)]),
    "spatial dropout": ((4, 3), lambda k: [k.SpatialDropout1D(0.5)]),
    "gaussian noise": ((4,), lambda k: [k.GaussianNoise(0.5)]),
    "gaussian dropout": ((4,), lambda k: [k.GaussianDropout(0.5)]),
    "activity regularization": ((4,), lambda k: [k.ActivityRegularization()]),
    "relu": ((4,), lambda k: [k.ReLU(max_value=1.0)]),
    "leaky relu": ((4,), lambda k: [k.LeakyReLU()]),
    "elu": ((4,), lambda k: [k.ELU()]),
    "softmax": ((4,), lambda k: [k.Softmax()]),
    "swish": ((4,), lambda k: [k.Activation("swish")]),
    "gelu": ((4,), lambda k: [k.Activation("gelu")]),
    "sigmoid": ((4,), lambda k: [k.Activation("sigmoid")]),
}
MERGES = {
    "add": lambda k, x: k.Add()(x),
    "average": lambda k, x: k.Average()(x),
    "concatenate": lambda k, x: k.Concatenate()(x),
    "subtract": lambda k, x: k.Subtract()(x),
}


def _positive(model, seed=0):
    """Gives every weight a random value > 0."""
    rng = np.random.default_rng(seed)
    for weight in variables.weights(model):
        weight.variable.assign(rng.uniform(0.1, 1.0, weight.shape))


def _run(model, inputs, affine):
    graph = graph_lib.read(model)
    kernels = kernels_lib.contracted(graph)
    graph = (
        linearize.plain(graph) if affine else linearize.lower(graph, kernels)
    )
    weights = linearize.LinearWeights({}, tf.float64, rescale=False)
    return linearize.run(graph, weights, [tf.constant(x) for x in inputs])


def _check_conservation(model, inputs):
    """R(2x) = 2 R(x), sum(x dR/dx) = R, and dR/dx >= 0."""
    graph = graph_lib.read(model)
    graph = linearize.lower(graph, kernels_lib.contracted(graph))
    weights = linearize.LinearWeights({}, tf.float64, rescale=False)
    inputs = [tf.constant(x) for x in inputs]

    def flow(inputs):
        outputs = linearize.run(graph, weights, inputs)
        return tf.add_n([tf.reduce_sum(y) for y in outputs])

    with tf.GradientTape() as tape:
        tape.watch(inputs)
        value = flow(inputs)
    gradients = tape.gradient(value, inputs)
    through = sum(
        float(tf.reduce_sum(x * g))
        for x, g in zip(inputs, gradients, strict=True)
    )
    assert float(value) > 0
    assert all(float(tf.reduce_min(g)) >= 0 for g in gradients)
    np.testing.assert_allclose(through, value, rtol=1e-12)
    double = flow([2 * x for x in inputs])
    np.testing.assert_allclose(double, 2 * value, rtol=1e-15)


def _positive_input(shape, seed=1):
    rng = np.random.default_rng(seed)
    return rng.uniform(0.1, 1.0, (1, *shape))


@pytest.mark.parametrize("case", [*WEIGHTED, *WEIGHTLESS])
def test_the_authors_variant_of_a_layer_is_the_layer_itself(line, case):
    shape, make = {**WEIGHTED, **WEIGHTLESS}[case]
    model = line.Sequential([line.Input(shape), *make(line.layers)])
    _positive(model)
    x = _positive_input(shape)
    expected = model(x.astype("float32"), training=False)
    (output,) = _run(model, [x], affine=True)
    assert output.dtype == tf.float64
    np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-6)


def test_the_authors_variant_reads_a_table(line):
    layers = line.layers
    model = line.Sequential(
        [
            line.Input((4,), dtype="int32"),
            layers.Embedding(5, 3),
            layers.Dense(2),
        ]
    )
    _positive(model)
    (output,) = _run(model, [], affine=True)
    expected = model(np.ones((1, 4), "int32"))
    np.testing.assert_allclose(output, expected, rtol=1e-5)


@pytest.mark.parametrize("case", [*WEIGHTED, *WEIGHTLESS])
def test_the_flow_through_a_layer_is_conserved(line, case):
    shape, make = {**WEIGHTED, **WEIGHTLESS}[case]
    model = line.Sequential([line.Input(shape), *make(line.layers)])
    _positive(model)
    _check_conservation(model, [_positive_input(shape)])


@pytest.mark.parametrize("case", MERGES)
def test_a_merge_is_linear_and_conserves_the_flow(line, case):
    a, b = line.Input((3, 4)), line.Input((3, 4))
    model = line.Model([a, b], MERGES[case](line.layers, [a, b]))
    x = [_positive_input((3, 4), seed) for seed in (1, 2)]
    _check_conservation(model, x)
    expected = model([v.astype("float32") for v in x])
    (output,) = _run(model, x, affine=True)
    np.testing.assert_allclose(output, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", CHANNELS_FIRST)
def test_channels_first_is_channels_last_transposed(line, case):
    shape, make = CHANNELS_FIRST[case]
    turned = (shape[-1], *shape[:-1])
    models = [
        line.Sequential([line.Input(s), make(line.layers, data_format=f)])
        for s, f in ((turned, "channels_first"), (shape, "channels_last"))
    ]
    for model in models:
        _positive(model)
    x = _positive_input(shape)
    (expected,) = _run(models[1], [x], affine=True)
    (output,) = _run(models[0], [np.moveaxis(x, -1, 1)], affine=True)
    np.testing.assert_allclose(np.moveaxis(output, 1, -1), expected, rtol=1e-14)


@pytest.mark.parametrize(
    "activation", ["relu", "tanh", "sigmoid", "softmax", "swish", "gelu"]
)
def test_activations_and_offsets_do_not_change_the_scores(line, activation):

    def model(activation, seed):
        made = line.Sequential(
            [
                line.Input((6,)),
                line.layers.Dense(5, activation, name="a"),
                line.layers.BatchNormalization(name="bn"),
                line.layers.Dense(4, activation, name="b"),
            ]
        )
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
    for path in plain:
        np.testing.assert_array_equal(plain[path], other[path])


def test_scores_equal_those_of_numpy_on_a_chain():
    rng = np.random.default_rng(0)
    model = synflow_tf.models.fc(input_shape=(4, 4, 1), classes=3)
    for weight in variables.weights(model):
        weight.variable.assign(rng.normal(size=weight.shape))
    scores = synflow_tf.score(model)
    kernels = [
        np.abs(np.asarray(weight.variable, np.float64))
        for weight in variables.prunable_weights(model)
    ]
    before = [np.ones(16)]
    for kernel in kernels:
        before.append(before[-1] @ kernel)
    after = [np.ones(3)]
    for kernel in kernels[::-1]:
        after.insert(0, kernel @ after[0])
    for i, score in enumerate(scores.values()):
        expected = before[i][:, None] * kernels[i] * after[i + 1][None]
        np.testing.assert_allclose(score, expected, rtol=1e-12)
    np.testing.assert_allclose(
        scores.log10_flow, np.log10(before[-1].sum()), rtol=1e-14
    )


class _Scaled(keras.layers.Layer):
    def build(self, shape):
        self.factor = self.add_weight(shape=(shape[-1],), name="factor")

    def call(self, x):
        return x * self.factor


def test_a_registered_rule_is_used():
    class Scaled(_Scaled):
        def call(self, x):
            return x * self.factor

    @synflow_tf.register_rule(Scaled)
    def _rule(layer, weights, x):
        return x * weights[layer.factor]

    model = keras.Sequential([keras.Input((4,)), Scaled(name="mine")])
    model.layers[-1].factor.assign([1.0, -2.0, 3.0, 0.0])
    scores = synflow_tf.score(model, prunable="mine/factor")
    np.testing.assert_array_equal(scores["mine/factor"], [1, 2, 3, 0])


def test_a_subclass_with_a_call_of_its_own_does_not_inherit_the_rule():
    class Twice(keras.layers.Dense):
        def call(self, x):
            return 2 * super().call(x) + super().call(x)

    model = keras.Sequential([keras.Input((4,)), Twice(2, name="twice")])
    kernel = np.abs(model.layers[-1].kernel.numpy())
    scores = synflow_tf.score(model)
    np.testing.assert_allclose(scores["twice/kernel"], 3 * kernel, rtol=1e-12)


def test_a_subclass_that_only_changes_the_constructor_inherits_the_rule():
    class Wide(keras.layers.Dense):
        def __init__(self, **kwargs):
            super().__init__(100, **kwargs)

    model = keras.Sequential([keras.Input((4,)), Wide(name="wide")])
    assert synflow_tf.score(model)["wide/kernel"].shape == (4, 100)


def test_a_rule_that_fails_names_the_layer():
    class Broken(keras.layers.Dense):
        def call(self, x):
            return super().call(x)

    @synflow_tf.register_rule(Broken)
    def _rule(layer, weights, x):
        raise RuntimeError("out of order")

    model = keras.Sequential([keras.Input((4,)), Broken(2, name="broken")])
    with pytest.raises(ValueError, match="'broken'.*out of order"):
        synflow_tf.score(model)


def test_register_rule_wants_a_class_or_an_operation():
    with pytest.raises(TypeError, match="Argument `target`"):
        synflow_tf.register_rule(keras.layers.Dense(3))
    with pytest.raises(ValueError, match="Argument `target`.*'Matmull'"):
        synflow_tf.register_rule("Matmull")
