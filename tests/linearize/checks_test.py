"""What is no positive linear map is an error that names the layer."""

import keras
import linear
import numpy as np
import pytest
import tensorflow as tf

import synflow_tf
from synflow_tf.graph import variables


def _ruled(line, rule, name):
    """A layer that does nothing, with a rule that is `rule`."""

    class Ruled(line.layers.Layer):
        def call(self, x):
            return x

    synflow_tf.register_rule(Ruled)(lambda layer, weights, x: rule(x))
    return Ruled(name=name)


def _centred(line):
    return _ruled(
        line, lambda x: x - tf.reduce_mean(x, -1, keepdims=True), "centre"
    )


def _dense(line, units, name, **options):
    return line.layers.Dense(units, name=name, **options)


def _chain(line, *layers, shape=(4,)):
    x = y = line.Input(shape)
    for layer in layers:
        y = layer(y)
    return line.Model(x, y)


def _lambda(line, function, name, shape=(6,)):
    return line.layers.Lambda(function, name=name, output_shape=shape)


def _beside(line):
    x = line.Input((4,))
    a = _dense(line, 6, "a")(x)
    b = _centred(line)(a)
    return line.Model(x, line.layers.Add()([a, b]))


def _unused_input(line):
    x, y = line.Input((4,)), line.Input((4,), name="extra")
    return line.Model([x, y], _dense(line, 6, "a")(x))


# name: a model of a line, what its error says, and the way out.
ERRORS = {
    "centring": (
        lambda n: _chain(n, _dense(n, 6, "a"), _centred(n)),
        "'centre'.*negative",
        "register_rule",
    ),
    "centring beside a residual": (
        _beside,
        "'centre'.*negative",
        "register_rule",
    ),
    "zeros in a chain": (
        lambda n: _chain(
            n,
            _dense(n, 6, "a"),
            _dense(n, 5, "b", kernel_initializer="zeros"),
            _dense(n, 2, "c"),
        ),
        "'b'.*zeros",
        "Initialize",
    ),
    "ignores its input": (
        lambda n: _chain(
            n,
            _dense(n, 6, "a"),
            _lambda(n, lambda x: tf.ones((1, 6)) + 0 * x, "ignore"),
            _dense(n, 2, "c"),
        ),
        "'ignore'",
        "",
    ),
    "an input that is not used": (
        _unused_input,
        "'extra'.*reaches none",
        "Leave it out",
    ),
    "negative": (
        lambda n: _chain(
            n,
            _dense(n, 6, "a"),
            _ruled(n, lambda x: -x, "minus"),
        ),
        "'minus'.*negative",
        "register_rule",
    ),
    "not homogeneous": (
        lambda n: _chain(
            n,
            _dense(n, 6, "a"),
            _ruled(n, tf.square, "squared"),
        ),
        "'squared'.*double",
        "register_rule",
    ),
    "bounded": (
        lambda n: _chain(
            n,
            _dense(n, 6, "a"),
            _ruled(n, tf.sigmoid, "bounded"),
            _dense(n, 2, "c"),
        ),
        "'bounded'.*double",
        "register_rule",
    ),
    "not a number": (
        lambda n: _chain(
            n,
            _dense(n, 6, "a"),
            _ruled(n, lambda x: x / (0 * x), "nan"),
        ),
        "'nan'.*finite",
        "",
    ),
}


def _trains(model):
    """Whether a step of training changes the model's first weight."""
    before = model.get_weights()[0].copy()
    model.compile("sgd", "mse")
    shapes = [(2, *x.shape[1:]) for x in model.inputs]
    x = [np.ones(shape, np.float32) for shape in shapes]
    outputs = model.predict(x if len(x) > 1 else x[0], verbose=0)
    y = np.linspace(0, 1, outputs.size).reshape(outputs.shape)
    model.fit(x if len(x) > 1 else x[0], y, verbose=0)
    return not np.array_equal(before, model.get_weights()[0])


@pytest.mark.parametrize("case", ERRORS)
def test_the_error_names_the_layer_and_the_model_is_as_it_was(line, case):
    make, message, remedy = ERRORS[case]
    model = make(line)
    before = [w.copy() for w in model.get_weights()]
    nodes = [len(layer._inbound_nodes) for layer in model.layers]
    with pytest.raises(ValueError, match=f"(?s){message}") as error:
        synflow_tf.prune(model, 0.5, rounds=2, progress=False)
    assert remedy in str(error.value)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    assert nodes == [len(layer._inbound_nodes) for layer in model.layers]
    assert all(
        variables.get_constraint(w.variable) is None
        for w in variables.weights(model)
    )
    if case not in ("not a number", "zeros in a chain", "ignores its input"):
        assert _trains(model)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_weight_that_is_not_finite_is_named(line, value):
    model = _chain(line, _dense(line, 6, "a"), _dense(line, 2, "b"))
    bad = np.ones((6, 2))
    bad[3, 1] = value
    model.get_layer("b").kernel.assign(bad)
    with pytest.raises(ValueError, match="'b/kernel'.*NaN or inf.*Initialize"):
        synflow_tf.prune(model, 0.5, progress=False)
    np.testing.assert_array_equal(model.get_layer("b").kernel.numpy(), bad)


def _zero_branch(line):
    """A residual branch whose last kernel is initialized to zeros."""
    layers = line.layers
    x = line.Input((4,))
    a = _dense(line, 6, "a")(x)
    b = _dense(line, 6, "b", kernel_initializer="zeros")(a)
    return line.Model(x, layers.Add()([a, b]))


def test_zeros_in_a_branch_are_kept_with_one_warning(line):
    layers = line.layers
    x = line.Input((4,))
    a = _dense(line, 6, "a")(x)
    b = _dense(line, 5, "b")(a)
    c = _dense(line, 6, "c", kernel_initializer="zeros")(b)
    model = line.Model(x, layers.Add()([a, c]))
    message = "'c/kernel'.*'b/kernel'.*first steps.*prunable=.*on_unscored="
    with pytest.warns(UserWarning, match=message) as caught:
        masks = synflow_tf.prune(model, 0.5, progress=False)
    assert len(caught) == 1
    assert list(masks) == ["a/kernel"]
    assert masks.kept == 12
    found = {f.name: f.kind for f in masks.findings}
    assert found == {"b/kernel": "unscored", "c/kernel": "unscored"}
    assert model.get_layer("b").kernel.numpy().all()
    assert _trains(model)


def test_a_kernel_that_no_flow_reaches_is_an_error(line):
    layers = line.layers
    x = line.Input((4,))
    a = _dense(line, 6, "a")(x)
    b = _dense(line, 6, "b")(layers.Lambda(lambda x: 0 * x)(a))
    model = line.Model(x, layers.Add()([a, b]))
    kernel = model.get_layer("a").kernel.numpy().copy()
    with pytest.raises(ValueError, match="'b/kernel'.*on_unscored='keep'"):
        synflow_tf.prune(model, 0.5, progress=False)
    np.testing.assert_array_equal(model.get_layer("a").kernel.numpy(), kernel)
    assert _trains(model)


def test_zeros_in_a_branch_can_be_kept(line, tmp_path):
    model = _zero_branch(line)
    masks = synflow_tf.prune(
        model, 0.5, rounds=3, progress=False, on_unscored="keep"
    )
    assert list(masks) == ["a/kernel"]
    assert masks.kept == 12
    assert not model.get_layer("b").kernel.numpy().any()
    (finding,) = masks.findings
    assert (finding.kind, finding.name) == ("unscored", "b/kernel")
    assert "b/kernel" in str(masks)
    masks.save(tmp_path / "masks")
    loaded = synflow_tf.Masks.load(tmp_path / "masks")
    assert loaded.findings == masks.findings
    assert str(loaded) == str(masks)


def test_scoring_names_the_zeros_that_stop_all_flow(line):
    model = _chain(line, _dense(line, 6, "a"), _dense(line, 2, "b"))
    model.get_layer("a").kernel.assign(np.zeros((4, 6)))
    with pytest.raises(ValueError, match="'a'.*zeros.*Initialize"):
        synflow_tf.score(model)
    model.get_layer("a").kernel.assign(np.ones((4, 6)))
    assert all(score.any() for score in synflow_tf.score(model).values())


def test_a_kernel_whose_output_dies_says_that_others_carry_the_flow(line):
    x = line.Input((4,))
    small, large = _dense(line, 2, "small"), _dense(line, 2, "large")
    model = line.Model(x, [small(x), large(x)])
    small.kernel.assign(np.full((4, 2), 0.01))
    large.kernel.assign(np.full((4, 2), 1.0))
    with pytest.warns(UserWarning, match="of 1 kernels.*other outputs"):
        masks = synflow_tf.compute_masks(model, 0.5, rounds=1, progress=False)
    assert [tuple(f)[:2] for f in masks.findings] == [("empty", "small/kernel")]


def test_an_empty_kernel_names_the_path_that_carries_the_flow(line):
    layers = line.layers
    x = line.Input((4,))
    first, second = _dense(line, 3, "first"), _dense(line, 3, "second")
    shortcut = _dense(line, 3, "shortcut")
    branch = layers.Activation("relu")(second(first(x)))
    way = layers.LayerNormalization(name="way")(shortcut(x))
    y = layers.Add(name="merge")([branch, way])
    model = line.Model(x, y)
    for layer in (first, second):
        layer.kernel.assign(0.01 * np.ones(layer.kernel.shape))
    shortcut.kernel.assign(np.ones((4, 3)))
    sparsity = (12 + 9) / (12 + 9 + 12)
    with pytest.warns(UserWarning, match="of 2 kernels are removed"):
        masks = synflow_tf.compute_masks(
            model, sparsity, rounds=1, progress=False
        )
    assert {f.name: f.text for f in masks.findings} == {
        path: "empty; at 'merge' the flow comes through 'way'"
        for path in ("first/kernel", "second/kernel")
    }


def test_a_model_of_integers_is_an_error(line):
    x = line.Input((4,))
    y = _dense(line, 3, "a")(x)
    if line is keras:
        y = keras.ops.argmax(y, axis=-1)
    else:
        y = tf.argmax(y, axis=-1)
    model = line.Model(x, y)
    with pytest.raises(ValueError, match="`model` must have an output of a fl"):
        synflow_tf.score(model)


def test_taps_that_only_see_padding_are_warned_of(line):
    layers = line.layers
    model = _chain(
        line,
        layers.Conv2D(2, 3, padding="same", name="c1"),
        layers.AveragePooling2D(2),
        layers.Conv2D(2, 3, padding="same", name="c2"),
        shape=(2, 2, 1),
    )
    linear.randomize(model)
    # On one pixel only the middle of the 9 taps of c2 sees anything.
    with pytest.warns(UserWarning, match="c2/kernel.*inputs="):
        masks = synflow_tf.compute_masks(model, 0.1, rounds=1, progress=False)
    (finding,) = masks.findings
    assert (finding.kind, finding.name) == ("zeros", "c2/kernel")
    assert "88.9%" in finding.text


def test_a_layer_says_which_of_its_weights_are_prunable(line):
    class Own(line.layers.Layer):
        def build(self, shape):
            self.first = self.add_weight(
                shape=(shape[-1], 3), name="first", initializer="ones"
            )
            self.kernel = self.add_weight(
                shape=(3, 3), name="kernel", initializer="ones"
            )
            self.built = True

        def call(self, x):
            matmul = linear.op(line, "matmul")
            return matmul(matmul(x, self.first), self.kernel)

        def get_prunable_weights(self):
            return [self.first]

    model = _chain(line, Own(name="own"), _dense(line, 2, "d"))
    assert list(synflow_tf.score(model)) == ["own/first", "d/kernel"]
    masks = synflow_tf.compute_masks(model, 0.5, rounds=2, progress=False)
    assert list(masks) == ["own/first", "d/kernel"]


def test_a_layer_decides_for_the_layers_within_it(line):
    class Outer(line.layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.a, self.b = _dense(line, 3, "x"), _dense(line, 3, "y")

        def build(self, shape):
            self.a.build(shape)
            self.b.build((shape[0], 3))
            self.built = True

        def call(self, x):
            return self.b(self.a(x))

        def get_prunable_weights(self):
            return [self.b.kernel]

    model = _chain(line, Outer(name="outer"), _dense(line, 2, "d"))
    assert list(synflow_tf.score(model)) == ["outer/b/kernel", "d/kernel"]
    only = synflow_tf.score(model, prunable="outer")
    assert list(only) == ["outer/b/kernel"]


def test_weights_are_named_by_attributes(line):
    class Block(line.layers.Layer):
        def __init__(self):
            super().__init__()
            self.dense = line.layers.Dense(4)

        def build(self, shape):
            self.dense.build(shape)
            self.built = True

        def call(self, x):
            return self.dense(x)

    class Net(line.Model):
        def __init__(self):
            super().__init__()
            self.blocks = [Block(), Block()]
            self.head = line.layers.Dense(2)

        def call(self, x):
            for block in self.blocks:
                x = block(x)
            return self.head(x)

    model = Net()
    model(np.ones((1, 4), np.float32))
    paths = ["blocks/0/dense/kernel", "blocks/1/dense/kernel", "head/kernel"]
    assert list(synflow_tf.score(model)) == paths
    for name in ("blocks/0/dense", "blocks/0", "blocks/0/dense/kernel"):
        assert list(synflow_tf.score(model, prunable=name)) == paths[:1]
    pattern = r"blocks/\d+/dense"
    assert list(synflow_tf.score(model, prunable=pattern)) == paths[:2]


def test_a_kernel_that_no_output_depends_on_is_said_to_be_unused(line):
    class Net(line.Model):
        def __init__(self):
            super().__init__()
            self.used = _dense(line, 3, "used")
            self.pooler = _dense(line, 4, "pooler")

        def call(self, x):
            self.pooler(x)
            return self.used(x)

    model = Net()
    model(np.ones((2, 5), np.float32))
    message = r"1 of 2 .*: 'pooler/kernel'; no output .* depends on 'pooler"
    with pytest.raises(ValueError, match=message):
        synflow_tf.prune(model, 0.5)
    masks = synflow_tf.prune(model, 0.5, on_unscored="keep")
    (finding,) = masks.findings
    assert (finding.kind, finding.name) == ("unscored", "pooler/kernel")
    assert "no output of the model depends on" in finding.text
