"""What is no positive linear map is an error that names the layer."""

import common
import linear
import numpy as np
import pytest
import tensorflow as tf

import synflow_tf
from synflow_tf.graph import variables

pytestmark = pytest.mark.in_turn


def _ruled(line, name, rule):
    """A layer that does nothing, with a rule."""
    layer = linear.custom(line, lambda me, x: x, name=name)
    synflow_tf.register_rule(type(layer))(lambda layer, weights, x: rule(x))
    return layer


def _centred(line):
    return _ruled(
        line, "centre", lambda x: x - tf.reduce_mean(x, -1, keepdims=True)
    )


def _after(line, *layers):
    """A Dense layer, and what follows it."""
    return linear.chain(line, linear.dense(line, 6, "a"), *layers)


def _beside(line, *layers):
    """A Dense layer, and what follows it beside a residual."""

    def made(x):
        a = b = linear.dense(line, 6, "a")(x)
        for layer in layers:
            b = layer(b)
        return line.layers.Add()([a, b])

    return linear.functional(line, made, (4,))


def _zeros(line, units, name):
    return linear.dense(line, units, name, kernel_initializer="zeros")


def _last(line):
    return linear.dense(line, 2, "c")


def _ignoring(line):
    return line.layers.Lambda(
        lambda x: tf.ones((1, 6)) + 0 * x, name="ignore", output_shape=(6,)
    )


def _unused_input(line):
    x, y = line.Input((4,)), line.Input((4,), name="extra")
    return line.Model([x, y], linear.dense(line, 6, "a")(x))


# name: a model of a line, and what its error says, with the way out.
ERRORS = {
    "centring": (
        lambda n: _after(n, _centred(n)),
        "'centre'.*negative.*register_rule",
    ),
    "centring beside a residual": (
        lambda n: _beside(n, _centred(n)),
        "'centre'.*negative.*register_rule",
    ),
    "zeros in a chain": (
        lambda n: _after(n, _zeros(n, 5, "b"), _last(n)),
        "'b'.*zeros.*Initialize",
    ),
    "ignores its input": (
        lambda n: _after(n, _ignoring(n), _last(n)),
        "'ignore'",
    ),
    "an input that is not used": (
        _unused_input,
        "'extra'.*reaches none.*Leave it out",
    ),
    "negative": (
        lambda n: _after(n, _ruled(n, "minus", lambda x: -x)),
        "'minus'.*negative.*register_rule",
    ),
    "not homogeneous": (
        lambda n: _after(n, _ruled(n, "squared", tf.square)),
        "'squared'.*double.*register_rule",
    ),
    "bounded": (
        lambda n: _after(n, _ruled(n, "bounded", tf.sigmoid), _last(n)),
        "'bounded'.*double.*register_rule",
    ),
    "not a number": (
        lambda n: _after(n, _ruled(n, "nan", lambda x: x / (0 * x))),
        "'nan'.*finite",
    ),
    "a rule that fails": (
        lambda n: _after(n, _ruled(n, "broken", lambda x: x.nothing)),
        "'broken'.*no attribute 'nothing'",
    ),
}


def _trains(model):
    """Whether a step of training changes the model's first weight."""
    before = model.get_weights()[0].copy()
    model.compile("sgd", "mse")
    x = [np.ones((2, *x.shape[1:]), np.float32) for x in model.inputs]
    x = x if x[1:] else x[0]
    outputs = model.predict(x, verbose=0)
    y = np.linspace(0, 1, outputs.size).reshape(outputs.shape)
    model.fit(x, y, verbose=0)
    return not np.array_equal(before, model.get_weights()[0])


def _masks(model, sparsity=0.5, **options):
    return synflow_tf.compute_masks(
        model, sparsity, rounds=1, progress=False, **options
    )


def _found(masks):
    return [(f.kind, f.name) for f in masks.findings]


@pytest.mark.parametrize("case", ERRORS)
def test_the_error_names_the_layer_and_the_model_is_as_it_was(line, case):
    make, message = ERRORS[case]
    model = make(line)
    before = [w.copy() for w in model.get_weights()]
    nodes = [len(layer._inbound_nodes) for layer in model.layers]
    with pytest.raises(ValueError, match=f"(?s){message}"):
        synflow_tf.prune(model, 0.5, rounds=2, progress=False)
    common.assert_equal(before, model.get_weights())
    assert nodes == [len(layer._inbound_nodes) for layer in model.layers]
    for weight in variables.weights(model):
        assert variables.get_constraint(weight.variable) is None
    if case not in ("not a number", "zeros in a chain", "ignores its input"):
        assert _trains(model)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_weight_that_is_not_finite_is_named(line, value):
    model = _after(line, linear.dense(line, 2, "b"))
    bad = np.ones((6, 2))
    bad[3, 1] = value
    kernel = model.get_layer("b").kernel
    kernel.assign(bad)
    with pytest.raises(ValueError, match="'b/kernel'.*NaN or inf.*Initialize"):
        synflow_tf.prune(model, 0.5, progress=False)
    np.testing.assert_array_equal(kernel.numpy(), bad)


def test_zeros_in_a_branch_are_kept_with_one_warning(line):
    model = _beside(line, linear.dense(line, 5, "b"), _zeros(line, 6, "c"))
    message = "'c/kernel'.*'b/kernel'.*first steps.*prunable=.*on_unscored="
    with pytest.warns(UserWarning, match=message) as caught:
        masks = synflow_tf.prune(model, 0.5, progress=False)
    assert len(caught) == 1
    assert list(masks) == ["a/kernel"]
    assert masks.kept == 12
    kept = [("unscored", "b/kernel"), ("unscored", "c/kernel")]
    assert sorted(_found(masks)) == kept
    assert model.get_layer("b").kernel.numpy().all()
    assert _trains(model)


def test_a_kernel_that_no_flow_reaches_is_an_error(line):
    nothing = line.layers.Lambda(lambda x: 0 * x)
    model = _beside(line, nothing, linear.dense(line, 6, "b"))
    kernel = model.get_layer("a").kernel.numpy().copy()
    with pytest.raises(ValueError, match="'b/kernel'.*on_unscored='keep'"):
        synflow_tf.prune(model, 0.5, progress=False)
    np.testing.assert_array_equal(model.get_layer("a").kernel.numpy(), kernel)
    assert _trains(model)


def test_zeros_in_a_branch_can_be_kept(line, tmp_path):
    model = _beside(line, _zeros(line, 6, "b"))
    masks = synflow_tf.prune(model, 0.5, rounds=3, on_unscored="keep")
    assert list(masks) == ["a/kernel"]
    assert masks.kept == 12
    assert not model.get_layer("b").kernel.numpy().any()
    assert _found(masks) == [("unscored", "b/kernel")]
    assert "b/kernel" in str(masks)
    masks.save(tmp_path / "masks")
    loaded = synflow_tf.Masks.load(tmp_path / "masks")
    assert loaded.findings == masks.findings
    assert str(loaded) == str(masks)


def test_scoring_names_the_zeros_that_stop_all_flow(line):
    model = _after(line, _zeros(line, 2, "b"))
    with pytest.raises(ValueError, match="'b'.*zeros.*Initialize"):
        synflow_tf.score(model)
    model.get_layer("b").kernel.assign(np.ones((6, 2)))
    assert all(score.any() for score in synflow_tf.score(model).values())


def test_a_kernel_whose_output_dies_says_that_others_carry_the_flow(line):
    small, large = (linear.dense(line, 2, name) for name in ("small", "large"))
    model = linear.functional(line, lambda x: [small(x), large(x)], (4,))
    small.kernel.assign(np.full((4, 2), 0.01))
    large.kernel.assign(np.full((4, 2), 1.0))
    with pytest.warns(UserWarning, match="of 1 kernels.*other outputs"):
        masks = _masks(model)
    assert _found(masks) == [("empty", "small/kernel")]


def test_an_empty_kernel_names_the_path_that_carries_the_flow(line):
    layers = line.layers
    values = {"first": 0.01, "second": 0.01, "shortcut": 1.0}
    dense = {name: linear.dense(line, 3, name) for name in values}

    def made(x):
        branch = layers.ReLU()(dense["second"](dense["first"](x)))
        way = layers.LayerNormalization(name="way")(dense["shortcut"](x))
        return layers.Add(name="merge")([branch, way])

    model = linear.functional(line, made, (4,))
    for name, layer in dense.items():
        layer.kernel.assign(np.full(layer.kernel.shape, values[name]))
    with pytest.warns(UserWarning, match="of 2 kernels are removed"):
        masks = _masks(model, sparsity=(12 + 9) / (12 + 9 + 12))
    assert {f.name: f.text for f in masks.findings} == {
        path: "empty; at 'merge' the flow comes through 'way'"
        for path in ("first/kernel", "second/kernel")
    }


def test_a_model_of_integers_is_an_error(line):
    argmax = linear.custom(line, lambda me, x: tf.argmax(x, axis=-1))
    with pytest.raises(ValueError, match="`model` must have an output of a fl"):
        synflow_tf.score(_after(line, argmax))


def test_taps_that_only_see_padding_are_warned_of(line):
    layers = line.layers
    c1, c2 = (layers.Conv2D(2, 3, padding="same", name=n) for n in ("c1", "c2"))
    parts = c1, layers.AveragePooling2D(2), c2
    model = linear.randomize(linear.chain(line, *parts, shape=(2, 2, 1)))
    # On one pixel only the middle of the 9 taps of c2 sees anything.
    with pytest.warns(UserWarning, match="c2/kernel.*inputs="):
        masks = _masks(model, sparsity=0.1)
    assert _found(masks) == [("zeros", "c2/kernel")]
    assert "88.9%" in masks.findings[0].text


def _saying(line, call, prunable, weights=(), **held):
    """A layer that says which of its weights are prunable."""
    layer = linear.custom(line, call, weights, "own", **held)
    type(layer).get_prunable_weights = prunable
    return linear.chain(line, layer, linear.dense(line, 2, "d"))


def test_a_layer_says_which_of_its_weights_are_prunable(line):
    matmul = common.ops(line).matmul
    model = _saying(
        line,
        lambda me, x: matmul(matmul(x, me.first), me.kernel),
        lambda me: [me.first],
        {"first": (4, 3), "kernel": (3, 3)},
    )
    assert list(synflow_tf.score(model)) == ["own/first", "d/kernel"]
    assert list(_masks(model)) == ["own/first", "d/kernel"]


def test_a_layer_decides_for_the_layers_within_it(line):
    model = _saying(
        line,
        lambda me, x: me.b(me.a(x)),
        lambda me: [me.b.kernel],
        a=linear.dense(line, 3, "x"),
        b=linear.dense(line, 3, "y"),
    )
    assert list(synflow_tf.score(model)) == ["own/b/kernel", "d/kernel"]
    assert list(synflow_tf.score(model, prunable="own")) == ["own/b/kernel"]


def test_weights_are_named_by_attributes(line):
    def call(self, x):
        return self.head(self.blocks[1](self.blocks[0](x)))

    *dense, head = (line.layers.Dense(4) for _ in range(3))
    blocks = [
        linear.custom(line, lambda me, x: me.dense(x), dense=d) for d in dense
    ]
    x = np.ones((1, 4), np.float32)
    model = linear.net(line, call, x, blocks=blocks, head=head)
    paths = ["blocks/0/dense/kernel", "blocks/1/dense/kernel", "head/kernel"]
    assert list(synflow_tf.score(model)) == paths
    for name in ("blocks/0/dense", "blocks/0", "blocks/0/dense/kernel"):
        assert list(synflow_tf.score(model, prunable=name)) == paths[:1]
    pattern = r"blocks/\d+/dense"
    assert list(synflow_tf.score(model, prunable=pattern)) == paths[:2]


def test_a_kernel_that_no_output_depends_on_is_said_to_be_unused(line):
    def call(self, x):
        self.pooler(x)
        return self.used(x)

    layers = {name: linear.dense(line, 3, name) for name in ("used", "pooler")}
    model = linear.net(line, call, np.ones((2, 5), np.float32), **layers)
    message = r"1 of 2 .*: 'pooler/kernel'; no output .* depends on 'pooler"
    with pytest.raises(ValueError, match=message):
        synflow_tf.prune(model, 0.5)
    masks = synflow_tf.prune(model, 0.5, on_unscored="keep")
    assert _found(masks) == [("unscored", "pooler/kernel")]
    text = masks.findings[0].text
    assert "no output of the model depends on" in text
