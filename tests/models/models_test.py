"""The paper's networks equal the authors', in both Keras lines."""

import inspect

import common
import golden_models
import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from golden import reduce

from synflow_tf import models

pytestmark = pytest.mark.in_turn

# Trainable parameters of the authors' PyTorch models at commit 9dfa57a (input
# 32x32x3; fc and conv 28x28x1) for 10 and for 100 classes: numel of all
# parameters, without the `shortcut.weight` of their Identity2d, which they do
# not train.
TRAINABLE = {
    "fc": (119_910, 129_000),
    "conv": (260_458, 2_518_468),
    "vgg11": (9_225_610, 9_271_780),
    "vgg13": (9_410_122, 9_456_292),
    "vgg16": (14_719_818, 14_765_988),
    "vgg19": (20_029_514, 20_075_684),
    "vgg11_bn": (9_231_114, 9_277_284),
    "vgg13_bn": (9_416_010, 9_462_180),
    "vgg16_bn": (14_728_266, 14_774_436),
    "vgg19_bn": (20_040_522, 20_086_692),
    "resnet20": (272_474, 278_324),
    "resnet32": (466_906, 472_756),
    "resnet44": (661_338, 667_188),
    "resnet56": (855_770, 861_620),
    "resnet110": (1_730_714, 1_736_564),
    "wide_resnet20": (1_084_586, 1_096_196),
    "wide_resnet32": (1_860_522, 1_872_132),
    "wide_resnet44": (2_636_458, 2_648_068),
    "wide_resnet56": (3_412_394, 3_424_004),
    "wide_resnet110": (6_904_106, 6_915_716),
}
DEEP = [n for n in TRAINABLE if n.endswith(("56", "110"))]
SMALL = ("fc", "conv", "vgg11_bn", "resnet20")


def build(name, line, input_shape=(8, 8, 1), classes=10):
    """A network of a name, small."""
    return getattr(models, name)(input_shape, classes, line)


def trainable_count(model):
    """How many trainable parameters a model has."""
    return sum(int(np.prod(v.shape)) for v in model.trainable_variables)


def kernel_layers(model):
    """The layers with a kernel, in the order of `model.layers`."""
    return [layer for layer in model.layers if hasattr(layer, "kernel")]


def values(variable):
    """A variable as a float64 array."""
    return variable.numpy().astype(np.float64)


def layer_types(model):
    """Layer name -> name of its class."""
    return {layer.name: type(layer).__name__ for layer in model.layers}


def test_the_public_names_are_the_networks_of_the_table():
    assert sorted(models.__all__) == sorted(TRAINABLE)


@pytest.mark.parametrize("name", TRAINABLE)
def test_the_signature_is_the_same_everywhere(name):
    side, channels = (28, 1) if name in ("fc", "conv") else (32, 3)
    parameters = inspect.signature(getattr(models, name)).parameters
    assert [(k, p.default) for k, p in parameters.items()] == [
        ("input_shape", (side, side, channels)),
        ("classes", 10),
        ("keras", None),
    ]


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=pytest.mark.slow if n in DEEP else ())
        for n in TRAINABLE
    ],
)
@pytest.mark.parametrize("line, classes", [(keras, 10), (tf_keras, 100)])
def test_the_parameter_count_is_the_authors(name, line, classes):
    model = getattr(models, name)(classes=classes, keras=line)
    assert isinstance(model, line.Model)
    assert trainable_count(model) == TRAINABLE[name][classes == 100]
    assert model.name == name
    assert model.output_shape == (None, classes)


@pytest.mark.parametrize("tag", [*golden_models.TAGS, *reduce.DRAWN])
def test_golden_logits_are_reproduced(tag, line):
    if tag in reduce.DRAWN:
        model = golden_models.load_drawn(tag, line)
    else:
        model, _ = golden_models.load(tag, line)
    expected = golden_models.logits(tag)
    images = reduce.inputs(model.input_shape[1:])
    actual = np.array(model(images, training=False))
    # float32 against the authors' model in float64; measured: up to 1.1e-6.
    tolerance = 5e-6 * np.abs(expected).max()
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", ["vgg11", "vgg11_bn", "resnet20"])
def test_he_normal_kernels_are_not_truncated(name, line):
    line.utils.set_random_seed(1)
    model = build(name, line, (8, 8, 3))
    pooled = []
    for layer in kernel_layers(model):
        kernel = values(layer.kernel)
        std = np.sqrt(2 / np.prod(kernel.shape[:-1]))
        # Five standard errors of a standard deviation.
        np.testing.assert_allclose(
            kernel.std(), std, rtol=5 / np.sqrt(2 * kernel.size)
        )
        pooled.append(kernel.ravel() / std)
        if getattr(layer, "bias", None) is not None:
            assert not values(layer.bias).any()
    pooled = np.concatenate(pooled)
    # Truncated at 2 of its own standard deviations: 2.37 and 2.28.
    assert np.mean(pooled**4) == pytest.approx(3, abs=0.1)
    assert np.abs(pooled).max() > 4


@pytest.mark.parametrize("name", ["fc", "conv"])
def test_small_networks_are_uniform_within_the_root_of_fan_in(name, line):
    line.utils.set_random_seed(1)
    for layer in kernel_layers(build(name, line, (9, 9, 2))):
        kernel, bias = values(layer.kernel), values(layer.bias)
        limit = 1 / np.sqrt(np.prod(kernel.shape[:-1]))
        for value in (kernel, bias):
            assert np.abs(value).max() <= limit * (1 + 1e-6)
            assert np.abs(value).max() > 0.7 * limit
            np.testing.assert_allclose(
                value.std(), limit / np.sqrt(3), rtol=2 / np.sqrt(value.size)
            )


@pytest.mark.parametrize("name", SMALL)
def test_a_seed_reproduces_the_weights(name, line):
    weights = []
    for seed in (3, 3, 4):
        line.utils.set_random_seed(seed)
        weights.append(build(name, line).get_weights())
    common.assert_equal(*weights[:2])
    assert not np.array_equal(weights[0][0], weights[2][0])


@pytest.mark.parametrize("name", SMALL)
def test_no_two_layers_draw_the_same_values(name, line):
    model = build(name, line)
    drawn = [layer.kernel for layer in kernel_layers(model)]
    if name in ("fc", "conv"):
        drawn += [layer.bias for layer in kernel_layers(model)]
    # Equal draws may be scaled: compare the directions of the first values.
    heads = [values(v).ravel()[:9] for v in drawn]
    directions = [tuple(np.round(h / np.linalg.norm(h), 4)) for h in heads]
    assert len(set(directions)) == len(drawn)


@pytest.mark.parametrize("received", ["keras", "tf_keras", tf.keras, np])
def test_an_unknown_keras_argument_is_an_error(received):
    with pytest.raises(ValueError) as error:
        models.vgg11(keras=received)
    assert str(error.value) == (
        "Argument `keras` must be the module `keras` or the module "
        f"`tf_keras`. Received: keras={received!r}. Import one of the "
        "two and pass the module itself, or leave the argument out for Keras 3."
    )


@pytest.mark.parametrize("name", ["fc", "conv", "vgg11"])
@pytest.mark.parametrize("side", [None, 0, 8.0])
def test_an_unknown_size_is_an_error(name, side):
    with pytest.raises(ValueError) as error:
        build(name, keras, (side, 8, 3))
    assert str(error.value) == (
        "Argument `input_shape` must be positive integers, because the "
        "classifier of this network has a fixed number of inputs. "
        f"Received: input_shape=({side}, 8, 3). Give every size, or use a "
        "ResNet, which takes None for height and width."
    )


def test_a_resnet_takes_images_of_any_size(line):
    model = build("resnet20", line, (None, None, 3))
    for side in (1, 7, 16):
        assert model(np.ones((2, side, side, 3), "float32")).shape == (2, 10)


@pytest.mark.parametrize("name", SMALL)
def test_layer_names_are_unique_and_equal_in_both_lines(name):
    build(name, keras), build(name, tf_keras)  # a second build must not count
    first, second = build(name, keras), build(name, tf_keras)
    names = [layer.name for layer in first.layers]
    assert len(set(names)) == len(names)
    assert layer_types(first) == layer_types(second)
    assert names == [layer.name for layer in second.layers]
    paths = [v.path for v in first.variables]
    assert paths == [v.name.removesuffix(":0") for v in second.variables]


def test_kernel_names_are_readable():
    names = {n: [x.name for x in kernel_layers(build(n, keras))] for n in SMALL}
    assert names["fc"] == ["fc1", "fc2", "fc3", "fc4", "fc5", "fc6"]
    assert names["conv"] == ["conv1", "conv2", "fc"]
    assert names["vgg11_bn"] == [f"conv{i}" for i in range(1, 9)] + ["fc"]
    assert names["resnet20"][:3] == ["conv", "block0_conv1", "block0_conv2"]
    block3 = [f"block3_{name}" for name in ("conv1", "conv2", "shortcut")]
    assert names["resnet20"][7:10] == block3
    assert names["resnet20"][-1] == "fc"


@pytest.mark.parametrize("name", ["vgg11_bn", "resnet20"])
def test_batch_normalization_is_pytorchs(name, line):
    layer = line.layers.BatchNormalization
    found = [x for x in build(name, line).layers if isinstance(x, layer)]
    assert len(found) == {"vgg11_bn": 8, "resnet20": 21}[name]
    assert {x.epsilon for x in found} == {1e-5}
    assert {x.momentum for x in found} == {0.9}


@pytest.mark.parametrize(
    "input_shape, maxima, last",
    [
        ((1, 1, 3), 0, None),
        ((8, 8, 1), 3, None),
        ((16, 16, 3), 4, None),
        ((4, 32, 3), 4, "AveragePooling2D"),
        ((32, 32, 3), 4, "AveragePooling2D"),
        ((63, 63, 3), 4, "AveragePooling2D"),
        ((64, 64, 3), 4, "GlobalAveragePooling2D"),
    ],
)
def test_a_vgg_pools_as_far_as_there_are_pixels(
    input_shape, maxima, last, line
):
    model = build("vgg11", line, input_shape)
    types = layer_types(model)
    assert list(types.values()).count("MaxPooling2D") == maxima
    assert types.get("pool5") == last
    assert model.get_layer("fc").kernel.shape[0] == 512
    image = np.ones((1, *input_shape), "float32")
    assert np.isfinite(np.array(model(image))).all()


@pytest.mark.parametrize("name", SMALL)
def test_only_standard_layers_and_uncapped_relus_are_used(name, line):
    layers = build(name, line).layers
    names = (
        "Add AveragePooling2D BatchNormalization Conv2D Dense Flatten "
        "GlobalAveragePooling2D InputLayer MaxPooling2D ReLU ZeroPadding2D"
    )
    standard = {getattr(line.layers, n) for n in names.split()}
    assert {type(layer) for layer in layers} <= standard
    relus = [x for x in layers if isinstance(x, line.layers.ReLU)]
    assert relus
    for relu in relus:
        assert relu.max_value is None
        assert relu.negative_slope == relu.threshold == 0
    activations = [getattr(x, "activation", None) for x in layers]
    assert set(activations) <= {None, line.activations.linear}


@pytest.mark.parametrize("name", SMALL)
def test_a_saved_model_comes_back(name, line, tmp_path):
    model = build(name, line)
    image = reduce.inputs(model.input_shape[1:])
    model.save(tmp_path / "model.keras")
    again = line.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(
        np.array(model(image)), np.array(again(image))
    )
    assert layer_types(model) == layer_types(again)
