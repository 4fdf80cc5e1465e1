"""Sums, products, gates and contractions, against NumPy."""

import keras
import linear
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import synflow_tf

_C = np.array([0.5, -2.0, 3.0, -1.5], np.float32)
_WIDE = np.linspace(-1, 1, 24, dtype=np.float32).reshape(1, 2, 3, 4)
_FEW = np.array([[0.5], [-2.0], [4.0]], np.float32)

# name: an expression of a line and a tensor (1, 3, 4); what it becomes.
ONE = {
    "x + c": (lambda n, x: x + _C, lambda x: x),
    "c + x": (lambda n, x: linear.op(n, "add")(_C, x), lambda x: x),
    "x - c": (lambda n, x: x - _C, lambda x: x),
    "c - x": (lambda n, x: linear.op(n, "subtract")(_C, x), lambda x: x),
    "x - 1": (lambda n, x: x - 1.0, lambda x: x),
    "1 - x": (lambda n, x: 1 - x, lambda x: x),
    "-x": (lambda n, x: -x, lambda x: x),
    "maximum with 0": (
        lambda n, x: linear.op(n, "maximum")(x, 0.0),
        lambda x: x,
    ),
    "minimum with c": (
        lambda n, x: linear.op(n, "minimum")(_C, x),
        lambda x: x,
    ),
    "x + c of a larger shape": (
        lambda n, x: x[:, None] + _WIDE,
        lambda x: np.repeat(x[:, None], 2, axis=1),
    ),
    "c - x of a larger shape": (
        lambda n, x: linear.op(n, "subtract")(_WIDE, x[:, None]),
        lambda x: np.repeat(x[:, None], 2, axis=1),
    ),
    "x * c": (lambda n, x: x * _C, lambda x: x * abs(_C)),
    "c * x": (
        lambda n, x: linear.op(n, "multiply")(_C, x),
        lambda x: x * abs(_C),
    ),
    "x * -3": (lambda n, x: x * -3.0, lambda x: x * 3),
    "x * 2, an int": (lambda n, x: x * 2, lambda x: x * 2),
    "x / c": (lambda n, x: x / _C, lambda x: x / abs(_C)),
    "x / -4": (lambda n, x: x / -4.0, lambda x: x / 4),
    "x * c of a larger shape": (
        lambda n, x: x[:, None] * _WIDE,
        lambda x: x[:, None] * abs(_WIDE.astype(np.float64)),
    ),
    "c / x": (lambda n, x: linear.op(n, "divide")(_C, x), lambda x: x),
    "1 / x": (lambda n, x: 1.0 / x, lambda x: x),
    "c / x of a larger shape": (
        lambda n, x: linear.op(n, "divide")(_WIDE, x[:, None]),
        lambda x: np.repeat(x[:, None], 2, axis=1),
    ),
    "x ** 2": (lambda n, x: x**2, lambda x: x),
    "x * x": (lambda n, x: x * x, lambda x: x),
    "x * sigmoid(x)": (
        lambda n, x: x * linear.op(n, "sigmoid")(x),
        lambda x: x,
    ),
    "sigmoid(x) * x": (
        lambda n, x: linear.op(n, "sigmoid")(x) * x,
        lambda x: x,
    ),
    "x * tanh(softplus(x))": (
        lambda n, x: (
            x * linear.op(n, "tanh")(n.layers.Activation("softplus")(x))
        ),
        lambda x: x,
    ),
    "x / (1 + abs(x))": (
        lambda n, x: x / (1 + linear.op(n, "abs")(x)),
        lambda x: x,
    ),
    "x / its sum": (
        lambda n, x: x / linear.op(n, "reduce_sum", "sum")(x, -1, True),
        lambda x: x,
    ),
    "where(c, x, 0)": (
        lambda n, x: linear.op(n, "where")(_C > 0, x, 0.0),
        lambda x: x,
    ),
    "where(x > c, x, c)": (
        lambda n, x: linear.op(n, "where")(x > _C, x, _C),
        lambda x: x,
    ),
    "cast": (
        lambda n, x: linear.op(n, "cast")(x, "float16"),
        lambda x: x,
    ),
    "split": (
        lambda n, x: linear.op(n, "split")(x, 2, axis=-1)[1],
        lambda x: x[..., 2:],
    ),
    "slicing": (lambda n, x: x[:, 1:, ::2], lambda x: x[:, 1:, ::2]),
    "index": (lambda n, x: x[:, -1], lambda x: x[:, -1]),
    "new axis": (lambda n, x: x[:, None, ..., None], lambda x: x[..., None]),
    "reshape": (
        lambda n, x: linear.op(n, "reshape")(x, (-1, 2, 6)),
        lambda x: x.reshape(1, 2, 6),
    ),
    "transpose": (
        lambda n, x: linear.op(n, "transpose")(x, (0, 2, 1)),
        lambda x: x.transpose(0, 2, 1),
    ),
    "pad": (
        lambda n, x: linear.op(n, "pad")(x, [[0, 0], [1, 2], [0, 1]]),
        lambda x: np.pad(x, [[0, 0], [1, 2], [0, 1]]),
    ),
    "mean": (
        lambda n, x: linear.op(n, "reduce_mean", "mean")(x, 1),
        lambda x: x.mean(1),
    ),
    "sum": (
        lambda n, x: linear.op(n, "reduce_sum", "sum")(x, axis=[1, 2]),
        lambda x: x.sum((1, 2)),
    ),
    "max": (
        lambda n, x: linear.op(n, "reduce_max", "max")(x, axis=-1),
        lambda x: x.max(-1),
    ),
    "take": (
        lambda n, x: linear.op(n, "gather", "take")(x, [2, 0, 2], axis=1),
        lambda x: x[:, [2, 0, 2]],
    ),
    "expand and squeeze": (
        lambda n, x: linear.op(n, "squeeze")(
            linear.op(n, "expand_dims")(x, 1), 1
        ),
        lambda x: x,
    ),
    "tile": (
        lambda n, x: linear.op(n, "tile")(x, [1, 2, 1]),
        lambda x: np.tile(x, [1, 2, 1]),
    ),
    "repeat": (
        lambda n, x: linear.op(n, "repeat")(x, 2, axis=1),
        lambda x: np.repeat(x, 2, axis=1),
    ),
    "roll": (
        lambda n, x: linear.op(n, "roll")(x, 1, 1),
        lambda x: np.roll(x, 1, 1),
    ),
    "stack": (
        lambda n, x: linear.op(n, "stack")([x, 2 * x], axis=1),
        lambda x: np.stack([x, 2 * x], axis=1),
    ),
    "concatenate": (
        lambda n, x: linear.op(n, "concat", "concatenate")([x, x], 1),
        lambda x: np.concatenate([x, x], 1),
    ),
    "concatenate with a constant": (
        lambda n, x: linear.op(n, "concat", "concatenate")(
            [np.full((1, 2, 4), -3, np.float32), x], axis=1
        ),
        lambda x: np.concatenate([np.ones((1, 2, 4)), x], 1),
    ),
    "concatenate with zeros": (
        lambda n, x: linear.op(n, "concat", "concatenate")(
            [np.zeros((1, 2, 4), np.float32), x], axis=1
        ),
        lambda x: np.concatenate([np.zeros((1, 2, 4)), x], 1),
    ),
    "einsum of one tensor": (
        lambda n, x: linear.op(n, "einsum")("bij->bj", x),
        lambda x: x.sum(1),
    ),
    "matmul with a constant": (
        lambda n, x: linear.op(n, "matmul")(x, _C[:, None]),
        lambda x: x @ abs(_C[:, None]),
    ),
    "einsum with a constant": (
        lambda n, x: linear.op(n, "einsum")("ij,bjk->bik", _FEW.T, x),
        lambda x: abs(_FEW.T) @ x,
    ),
    "einsum of three tensors, two of them constants": (
        lambda n, x: linear.op(n, "einsum")(
            "ij,bjk,kl->bil", _FEW.T, x, -_C[:, None]
        ),
        lambda x: abs(_FEW.T) @ x @ abs(_C[:, None]),
    ),
    "tensordot with a constant": (
        lambda n, x: linear.op(n, "tensordot")(x, _C[:, None], 1),
        lambda x: x @ abs(_C[:, None]),
    ),
}
# name: an expression of a line and two tensors (1, 3, 4).
TWO = {
    "a + b": (lambda n, a, b: a + b, lambda a, b: a + b),
    "a - b": (lambda n, a, b: a - b, lambda a, b: a + b),
    "a + b + a": (
        lambda n, a, b: n.layers.Add()([a, b, a]),
        lambda a, b: 2 * a + b,
    ),
    "Subtract": (
        lambda n, a, b: n.layers.Subtract()([a, b]),
        lambda a, b: a + b,
    ),
    "Maximum": (
        lambda n, a, b: n.layers.Maximum()([a, b, b]),
        lambda a, b: a + 2 * b,
    ),
    "Minimum": (
        lambda n, a, b: n.layers.Minimum()([a, b]),
        lambda a, b: a + b,
    ),
    "maximum": (
        lambda n, a, b: linear.op(n, "maximum")(a, b),
        lambda a, b: a + b,
    ),
    "minimum": (
        lambda n, a, b: linear.op(n, "minimum")(a, b),
        lambda a, b: a + b,
    ),
    "Average": (
        lambda n, a, b: n.layers.Average()([a, b]),
        lambda a, b: (a + b) / 2,
    ),
    "sum of different shapes": (
        lambda n, a, b: a[:, :1] - b,
        lambda a, b: a[:, :1] + b,
    ),
    "where(c, a, b)": (
        lambda n, a, b: linear.op(n, "where")(_C > 0, a, b),
        lambda a, b: a + b,
    ),
    "where(a > b, a, b)": (
        lambda n, a, b: linear.op(n, "where")(a > b, a, b),
        lambda a, b: a + b,
    ),
    "a / b": (lambda n, a, b: a / b, lambda a, b: a),
    "a / (b + 1)": (lambda n, a, b: a / (b + 1.0), lambda a, b: a),
    "a * sigmoid(b)": (
        lambda n, a, b: a * linear.op(n, "sigmoid")(b),
        lambda a, b: a,
    ),
    "a * (1 - sigmoid(b))": (
        lambda n, a, b: a * (1 - linear.op(n, "sigmoid")(b)),
        lambda a, b: a,
    ),
    "softmax(a) * b": (
        lambda n, a, b: (
            linear.op(n, "softmax")(a) * b
            if n is keras
            else tf.nn.softmax(a) * b
        ),
        lambda a, b: b,
    ),
    "a * mean(b)": (
        lambda n, a, b: (
            a * linear.op(n, "reduce_mean", "mean")(b, axis=1, keepdims=True)
        ),
        lambda a, b: a,
    ),
    "mean(b) * a": (
        lambda n, a, b: (
            linear.op(n, "reduce_mean", "mean")(b, axis=1, keepdims=True) * a
        ),
        lambda a, b: a,
    ),
    "three operands": (
        lambda n, a, b: n.layers.Multiply()(
            [
                n.layers.Activation("sigmoid")(b),
                a,
                n.layers.Activation("tanh")(b),
            ]
        ),
        lambda a, b: a,
    ),
    "z * a + (1 - z) * b": (
        lambda n, a, b: _mixed(n, a, b, a + b),
        lambda a, b: a + b,
    ),
}


def _mixed(line, a, b, gate):
    z = linear.op(line, "sigmoid")(gate)
    return z * a + (1 - z) * b


def _model(line, expression, shapes):
    inputs = [line.Input(shape) for shape in shapes]
    return line.Model(inputs, expression(line, *inputs))


@pytest.mark.parametrize("case", ONE)
def test_an_operation_is_the_map_that_numpy_says(line, case):
    expression, expected = ONE[case]
    model = _model(line, expression, [(3, 4)])
    x = linear.positive(3, 4)
    (output,) = linear.run(model, x)
    np.testing.assert_allclose(
        output.reshape(expected(x).shape), expected(x), rtol=1e-14
    )
    linear.conserved(model, x)


@pytest.mark.parametrize("case", TWO)
def test_where_two_tensors_meet_it_is_what_numpy_says(line, case):
    expression, expected = TWO[case]
    model = _model(line, expression, [(3, 4), (3, 4)])
    a, b = linear.positive(3, 4), linear.positive(3, 4, seed=2)
    (output,) = linear.run(model, a, b)
    np.testing.assert_allclose(output, expected(a, b), rtol=1e-14)


# Functions of single entries, and what a softmax is.
_FUNCTIONS = """
    abs absolute arcsinh arctan asinh atan cbrt ceil celu clip clip_by_value
    cos elu erf erfc exp exp2 expm1 fabs floor gelu hard_shrink hard_sigmoid
    hard_silu hard_swish hard_tanh l2_normalize leaky_relu log log10 log1p
    log2 log_sigmoid log_softmax nan_to_num negative normalize pow power
    reciprocal relu relu6 round rsqrt selu sigmoid sign silu sin sinh
    soft_shrink softmax softplus softsign sparse_plus sparse_sigmoid
    sparsemax sqrt square squareplus swish tan tanh tanh_shrink threshold
    trunc
""".split()
_MODULES = {keras: [("ops", keras.ops)]}
_MODULES[tf_keras] = [("nn", tf.nn), ("math", tf.math), ("tf", tf)]
# What they need besides a tensor.
_MORE = {
    "clip": (-0.5, 0.5),
    "clip_by_value": (-0.5, 0.5),
    "pow": (3.0,),
    "power": (3.0,),
    "threshold": (0.5, 0.0),
}
# A number that Keras multiplies an activation by is one of the map's.
_FACTORS = {
    (keras, "hard_sigmoid"): 1 / 6,
    (keras, "log10"): 1 / np.log(10),
    (keras, "log2"): 1 / np.log(2),
    (keras, "sparse_sigmoid"): 1 / 2,
}
ACTIVATIONS = [
    (line, where, name)
    for line, modules in _MODULES.items()
    for where, module in modules
    for name in _FUNCTIONS
    if hasattr(module, name)
]


def test_all_functions_are_tried_somewhere():
    assert set(_FUNCTIONS) == {name for _, _, name in ACTIVATIONS}


@pytest.mark.parametrize("line, where, name", ACTIVATIONS)
def test_an_activation_is_the_identity(line, where, name):
    function = getattr(dict(_MODULES[line])[where], name)
    model = _model(
        line, lambda _, x: function(x, *_MORE.get(name, ())), [(3, 4)]
    )
    x = linear.positive(3, 4)
    (output,) = linear.run(model, x)
    factor = np.float32(_FACTORS.get((line, name), 1))
    np.testing.assert_allclose(output, factor * x, rtol=1e-6)


# An opened layer with the weight w, of shape (4,) or (4, 4).
WITH_WEIGHT = {
    "x + w": ((4,), lambda n, w, x: x + w, lambda w, x: x),
    "w - x": ((4,), lambda n, w, x: w - x, lambda w, x: x),
    "maximum(x, w)": (
        (4,),
        lambda n, w, x: linear.op(n, "maximum")(x, w),
        lambda w, x: x,
    ),
    "x * w": ((4,), lambda n, w, x: x * w, lambda w, x: x * w),
    "w * x": ((4,), lambda n, w, x: w * x, lambda w, x: x * w),
    "x / w": ((4,), lambda n, w, x: x / w, lambda w, x: x / w),
    "x * (1 + w)": (
        (4,),
        lambda n, w, x: x * (1.0 + w),
        lambda w, x: x * abs(1 + w),
    ),
    "x * (w - 1)": (
        (4,),
        lambda n, w, x: x * (w - 1.0),
        lambda w, x: x * abs(w - 1),
    ),
    "x * 2w": ((4,), lambda n, w, x: x * (w * -2.0), lambda w, x: 2 * x * w),
    "x * w * w": (
        (4,),
        lambda n, w, x: x * (w * w),
        lambda w, x: x * w**2,
    ),
    "matmul(x, w)": (
        (4, 4),
        lambda n, w, x: linear.op(n, "matmul")(x, w),
        lambda w, x: x @ w,
    ),
    "matmul(x, transpose(w))": (
        (4, 4),
        lambda n, w, x: linear.op(n, "matmul")(x, linear.op(n, "transpose")(w)),
        lambda w, x: x @ w.T,
    ),
    "matmul(w, x)": (
        (3, 3),
        lambda n, w, x: linear.op(n, "matmul")(w, x),
        lambda w, x: w @ x,
    ),
    "einsum(x, w)": (
        (4, 4),
        lambda n, w, x: linear.op(n, "einsum")("bij,jk->bik", x, w),
        lambda w, x: x @ w,
    ),
    "einsum(w, x)": (
        (4, 4),
        lambda n, w, x: linear.op(n, "einsum")("kj,bij->bik", w, x),
        lambda w, x: x @ w.T,
    ),
    "tensordot(x, w)": (
        (4, 4),
        lambda n, w, x: linear.op(n, "tensordot")(x, w, 1),
        lambda w, x: x @ w,
    ),
}


@pytest.mark.parametrize("case", WITH_WEIGHT)
def test_a_weight_in_an_opened_layer_counts_by_its_magnitude(line, case):
    shape, call, expected = WITH_WEIGHT[case]
    layer = linear.custom(line, lambda me, x: call(line, me.w, x), {"w": shape})
    model = _model(line, lambda _, x: layer(x), [(3, 4)])
    linear.randomize(model)
    w, x = np.asarray(layer.w, np.float64), linear.positive(3, 4)
    # What is made of w, signs and constants included, counts.
    w = w if "1" in case else np.abs(w)
    (output,) = linear.run(model, x)
    np.testing.assert_allclose(output, expected(w, x), rtol=1e-12)
    linear.conserved(model, x)
    # R is linear in a kernel: its scores sum to R.
    if len(shape) == 2:
        scores = synflow_tf.score(model, prunable="custom/w")
        flow = expected(w, np.ones((1, 3, 4))).sum()
        np.testing.assert_allclose(scores["custom/w"].sum(), flow, rtol=1e-12)
        np.testing.assert_allclose(
            scores.log10_flow, np.log10(flow), rtol=1e-12
        )


def _two_kernels(line, first, second, joined, gate_units=6, pooled=False):
    """Two Dense layers of one input, trunk and gate, and what joins them."""
    layers = line.layers
    x = line.Input((3, 4))
    a = layers.Dense(6, first, name="a")(x)
    source = layers.GlobalAveragePooling1D(keepdims=True)(x) if pooled else x
    b = layers.Dense(gate_units, second, name="b")(source)
    model = line.Model(x, joined(a, b))
    linear.randomize(model)
    return model


def test_squeeze_and_excite_lets_the_trunk_through(line):
    layers = line.layers
    model = _two_kernels(
        line,
        "relu",
        "sigmoid",
        lambda a, b: layers.Multiply()([b, a]),
        pooled=True,
    )
    weights, x = linear.magnitudes(model), linear.positive(3, 4)
    (output,) = linear.run(model, x)
    np.testing.assert_allclose(output, x @ weights["a/kernel"], rtol=1e-13)
    scores = synflow_tf.score(model)
    # With x = 1: R = 3 sum(A), the trunk's scores are 3 A; the gate of unit j
    # is sum_i B_ij, and passes what the trunk has there.
    a, b = weights["a/kernel"], weights["b/kernel"]
    np.testing.assert_allclose(scores["a/kernel"], 3 * a, rtol=1e-12)
    np.testing.assert_allclose(
        scores["b/kernel"], b / b.sum(0) * 3 * a.sum(0), rtol=1e-12
    )
    flow = 10**scores.log10_flow
    np.testing.assert_allclose(scores["b/kernel"].sum(), flow, rtol=1e-9)
    linear.conserved(model, x)


def test_a_gate_whose_kernel_is_all_zeros_is_open(line):
    model = _two_kernels(line, None, "sigmoid", lambda a, b: a * b)
    model.get_layer("b").kernel.assign(np.zeros((4, 6)))
    kernel = linear.magnitudes(model)["a/kernel"]
    x = linear.positive(3, 4)
    (output,) = linear.run(model, x)
    np.testing.assert_allclose(output, x @ kernel, rtol=1e-13)
    scores = synflow_tf.score(model)
    np.testing.assert_allclose(scores["a/kernel"], 3 * kernel, rtol=1e-12)
    assert not scores["b/kernel"].any()


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(
    "trunk,gate",
    [
        ("sigmoid", "softmax"),
        ("relu6", "sigmoid"),
        ("tanh", "relu6"),
        ("relu", "tanh"),
        ("linear", "hard_sigmoid"),
    ],
)
def test_the_more_bounded_side_is_the_gate(line, trunk, gate, turned):
    if line is tf_keras and "relu6" in (trunk, gate):
        trunk, gate = (
            tf.nn.relu6 if x == "relu6" else x for x in (trunk, gate)
        )
    model = _two_kernels(
        line, trunk, gate, lambda a, b: b * a if turned else a * b
    )
    x = linear.positive(3, 4)
    (output,) = linear.run(model, x)
    expected = x @ linear.magnitudes(model)["a/kernel"]
    np.testing.assert_allclose(output, expected, rtol=1e-13)


@pytest.mark.parametrize("turned", [False, True])
def test_of_equal_sides_the_smaller_is_the_gate(line, turned):
    model = _two_kernels(
        line,
        "relu",
        "relu",
        lambda a, b: b * a if turned else a * b,
        gate_units=1,
    )
    x = linear.positive(3, 4)
    (output,) = linear.run(model, x)
    expected = x @ linear.magnitudes(model)["a/kernel"]
    np.testing.assert_allclose(output, expected, rtol=1e-13)


@pytest.mark.parametrize("turned", [False, True])
def test_of_equal_sizes_the_gate_is_what_comes_from_the_other(line, turned):
    layers = line.layers

    def joined(a, b):
        del b
        c = layers.Dense(6, "relu", name="c")(a)
        return c * a if turned else a * c

    model = _two_kernels(line, "relu", "relu", joined)
    x = linear.positive(3, 4)
    (output,) = linear.run(model, x)
    expected = x @ linear.magnitudes(model)["a/kernel"]
    np.testing.assert_allclose(output, expected, rtol=1e-13)


def test_a_gate_gives_its_trunk_no_score(line):
    layers = line.layers

    def gated(a, b):
        del b
        squeezed = layers.GlobalAveragePooling1D()(a)
        squeezed = layers.Dense(2, "relu", name="squeeze")(squeezed)
        excited = layers.Dense(6, "sigmoid", name="excite")(squeezed)
        return layers.Multiply()([a, layers.Reshape((1, 6))(excited)])

    model = _two_kernels(line, "relu", "relu", gated)
    plain = _two_kernels(line, "relu", "relu", lambda a, b: a)
    plain.get_layer("a").set_weights(model.get_layer("a").get_weights())
    with_gate, without = synflow_tf.score(model), synflow_tf.score(plain)
    np.testing.assert_allclose(
        with_gate["a/kernel"], without["a/kernel"], rtol=1e-14
    )
    # The gate's two kernels carry the whole flow, one after the other.
    flow = 10**without.log10_flow
    for path in ("squeeze/kernel", "excite/kernel"):
        assert (with_gate[path] > 0).all()
        np.testing.assert_allclose(with_gate[path].sum(), flow, rtol=1e-9)


def test_a_gate_within_a_gate(line):
    layers = line.layers
    x = line.Input((4,))
    trunk = layers.Dense(5, name="t")(x)
    u = layers.Dense(3, "relu", name="u")(trunk)
    inner = layers.Dense(3, "sigmoid", name="inner")(u)
    gate = layers.Dense(5, "sigmoid", name="outer")(u * inner)
    model = line.Model(x, trunk * gate)
    linear.randomize(model)
    w = {k: v for k, v in linear.magnitudes(model).items() if "kernel" in k}
    ones = np.ones(4)
    t = ones @ w["t/kernel"]
    u = t @ w["u/kernel"]
    g = u @ w["outer/kernel"]
    after = t / g  # dR/dg
    expected = {
        "t/kernel": w["t/kernel"],
        "u/kernel": np.outer(t, w["outer/kernel"] @ after) * w["u/kernel"],
        "outer/kernel": np.outer(u, after) * w["outer/kernel"],
    }
    before = u @ w["inner/kernel"]  # The inner gate has the value 1.
    through = u * (w["outer/kernel"] @ after) / before
    expected["inner/kernel"] = np.outer(u, through) * w["inner/kernel"]
    scores = synflow_tf.score(model)
    for path, value in expected.items():
        np.testing.assert_allclose(scores[path], value, rtol=1e-12)
        np.testing.assert_allclose(scores[path].sum(), t.sum(), rtol=1e-12)


def test_one_gate_used_twice_has_the_flow_once(line):
    layers = line.layers
    x = line.Input((4,))
    a, b = (layers.Dense(5, name=name)(x) for name in "ab")
    z = layers.Dense(5, "sigmoid", name="z")(x)
    model = line.Model(x, z * a + (1 - z) * b)
    linear.randomize(model)
    w = linear.magnitudes(model)
    through = (w["a/kernel"] + w["b/kernel"]).sum(0)
    expected = w["z/kernel"] / w["z/kernel"].sum(0) * through
    scores = synflow_tf.score(model)
    np.testing.assert_allclose(scores["z/kernel"], expected, rtol=1e-12)
    np.testing.assert_allclose(scores["a/kernel"], w["a/kernel"], rtol=1e-12)
    np.testing.assert_allclose(scores["b/kernel"], w["b/kernel"], rtol=1e-12)


def test_what_divides_has_the_value_1_and_scores(line):
    layers = line.layers
    x = line.Input((4,))
    a = layers.Dense(5, name="a")(x)
    b = layers.Dense(5, "softplus", name="b")(x)
    model = line.Model(x, a / (1.0 + b))
    linear.randomize(model)
    w = linear.magnitudes(model)
    (output,) = linear.run(model, np.ones((1, 4)))
    np.testing.assert_allclose(output[0], w["a/kernel"].sum(0), rtol=1e-13)
    scores = synflow_tf.score(model)
    flow = w["a/kernel"].sum()
    np.testing.assert_allclose(scores["b/kernel"].sum(), flow, rtol=1e-12)
    assert (scores["b/kernel"] > 0).all()


def _attention(line, spelled, keys=3, causal=False):
    """One head of attention over 3 steps, spelled out."""
    layers = line.layers
    x = line.Input((3, 4))
    q, k = (layers.Dense(keys, use_bias=False, name=n)(x) for n in "qk")
    v = layers.Dense(5, use_bias=False, name="v")(x)
    einsum, matmul = linear.op(line, "einsum"), linear.op(line, "matmul")
    if spelled == "matmul":
        turned = linear.op(line, "transpose")(k, (0, 2, 1))
        scores = matmul(q, turned)
    elif spelled == "einsum":
        scores = einsum("bqd,bkd->bqk", q, k)
    elif spelled == "Dot":
        scores = layers.Dot((2, 2))([q, k])
    else:
        scores = einsum("bqd,bkd->bkq", q, k)  # Keys first.
    scores = scores / np.float32(np.sqrt(keys))
    if spelled == "keys first":
        a = layers.Softmax(axis=1)(scores)
        out = einsum("bkq,bkd->bqd", a, v)
    else:
        a = layers.Softmax()(scores)
        if spelled == "matmul":
            out = matmul(a, v)
        elif spelled == "Dot":
            out = layers.Dot((2, 1))([a, v])
        else:
            out = einsum("bqk,bkd->bqd", a, v)
    return line.Model(x, out)


def _numpy_attention(x, wq, wk, wv):
    """Value and scores of attention with weights Q K^T over row sums."""
    q, k, v = x @ wq, x @ wk, x @ wv
    s = q @ k.T
    total = s.sum(1, keepdims=True)
    a = s / total if total.all() else np.full(s.shape, 1 / len(k))
    da = np.tile(v.sum(1), (len(x), 1))  # dR/dA
    ds = da / total if total.all() else 0 * da
    ones = np.ones_like(v)
    scores = {
        "q/kernel": wq * (x.T @ (ds @ k)),
        "k/kernel": wk * (x.T @ (ds.T @ q)),
        "v/kernel": wv * (x.T @ (a.T @ ones)),
    }
    return a @ v, scores


@pytest.mark.parametrize("spelled", ["matmul", "einsum", "Dot", "keys first"])
def test_attention_spelled_out_is_what_numpy_says(line, spelled):
    model = _attention(line, spelled)
    linear.randomize(model)
    w = linear.magnitudes(model)
    kernels = [w[f"{n}/kernel"] for n in "qkv"]
    x = linear.positive(3, 4)
    (output,) = linear.run(model, x)
    expected, _ = _numpy_attention(x[0], *kernels)
    np.testing.assert_allclose(output[0], expected, rtol=1e-12)
    value, expected = _numpy_attention(np.ones((3, 4)), *kernels)
    scores = synflow_tf.score(model)
    np.testing.assert_allclose(10**scores.log10_flow, value.sum(), rtol=1e-9)
    for path in expected:
        np.testing.assert_allclose(scores[path], expected[path], rtol=1e-11)
        np.testing.assert_allclose(scores[path].sum(), value.sum(), rtol=1e-11)
    linear.conserved(model, x)


@pytest.mark.parametrize("spelled", ["matmul", "einsum", "Dot", "keys first"])
def test_attention_without_scores_is_the_mean(line, spelled):
    model = _attention(line, spelled)
    linear.randomize(model)
    model.get_layer("q").kernel.assign(np.zeros((4, 3)))
    kernel = linear.magnitudes(model)["v/kernel"]
    x = linear.positive(3, 4)
    (output,) = linear.run(model, x)
    expected = np.tile((x[0] @ kernel).mean(0), (3, 1))
    np.testing.assert_allclose(output[0], expected, rtol=1e-12)


def test_masked_attention_sees_all_keys(line):
    layers = line.layers
    x = line.Input((3, 4))
    q, k, v = (layers.Dense(4, use_bias=False, name=n)(x) for n in "qkv")
    a = linear.op(line, "einsum")("bqd,bkd->bqk", q, k)
    a = layers.Softmax()(a + np.triu(np.full((3, 3), -1e9, np.float32), 1))
    model = line.Model(x, linear.op(line, "matmul")(a, v))
    linear.randomize(model)
    w = linear.magnitudes(model)
    x = linear.positive(3, 4)
    expected, _ = _numpy_attention(x[0], *(w[f"{n}/kernel"] for n in "qkv"))
    (output,) = linear.run(model, x)
    np.testing.assert_allclose(output[0], expected, rtol=1e-12)


# Keras' own attention layers, on one sequence (1, 3, 4).
ATTENTION = {
    "Attention": (lambda k, q, v, y: k.Attention()([q, v, y])),
    "Attention, scaled": (
        lambda k, q, v, y: k.Attention(use_scale=True)([q, v, y])
    ),
    "dot": (lambda k, q, v, y: k.Attention(score_mode="dot")([q, v, y])),
}


@pytest.mark.parametrize("case", ATTENTION)
def test_the_attention_layer_is_attention_spelled_out(line, case):
    layers = line.layers
    x = line.Input((3, 4))
    q, v, k = (layers.Dense(4, use_bias=False, name=n)(x) for n in "qvk")
    model = line.Model(x, ATTENTION[case](layers, q, v, k))
    linear.randomize(model)
    w = linear.magnitudes(model)
    kernels = [w[f"{n}/kernel"] for n in "qkv"]
    value, expected = _numpy_attention(np.ones((3, 4)), *kernels)
    scores = synflow_tf.score(model)
    np.testing.assert_allclose(10**scores.log10_flow, value.sum(), rtol=1e-9)
    for path in expected:
        np.testing.assert_allclose(scores[path], expected[path], rtol=1e-11)


def test_additive_attention_is_positive_and_conserves_the_flow(line):
    layers = line.layers
    x = line.Input((3, 4))
    q, v = (layers.Dense(4, use_bias=False, name=n)(x) for n in "qv")
    model = line.Model(x, layers.AdditiveAttention()([q, v]))
    linear.randomize(model)
    w = linear.magnitudes(model)
    x = linear.positive(3, 4)
    q, v = x[0] @ w["q/kernel"], x[0] @ w["v/kernel"]
    (scale,) = [s for name, s in w.items() if name.endswith("scale")]
    a = ((q[:, None] + v[None]) * scale).sum(-1)
    a /= a.sum(1, keepdims=True)
    (output,) = linear.run(model, x)
    np.testing.assert_allclose(output[0], a @ v, rtol=1e-12)
    linear.conserved(model, x)


@pytest.mark.parametrize("heads", [1, 2])
def test_multi_head_attention_is_what_numpy_says(line, heads):
    layers = line.layers
    x = line.Input((3, 4))
    layer = layers.MultiHeadAttention(heads, 3, value_dim=5, name="mha")
    model = line.Model(x, layer(x, x))
    linear.randomize(model)
    w = {
        path.split("/")[-2]: value
        for path, value in linear.magnitudes(model).items()
        if path.endswith("kernel")
    }
    w = {name.strip("_").replace("_dense", ""): v for name, v in w.items()}
    x = linear.positive(3, 4)
    q, k, v = (
        np.einsum("sd,dhe->hse", x[0], w[name])
        for name in ("query", "key", "value")
    )
    a = q @ k.transpose(0, 2, 1)
    a /= a.sum(-1, keepdims=True)
    out = [value for name, value in w.items() if "output" in name]
    expected = np.einsum("hse,hed->sd", a @ v, out[0])
    (output,) = linear.run(model, x)
    np.testing.assert_allclose(output[0], expected, rtol=1e-12)
    scores = synflow_tf.score(model)
    for path in scores:
        np.testing.assert_allclose(
            scores[path].sum(), 10**scores.log10_flow, rtol=1e-9
        )


def test_grouped_query_attention_is_what_numpy_says():
    layers = keras.layers
    x = keras.Input((3, 4))
    layer = layers.GroupQueryAttention(3, 4, 2, name="gqa")
    model = keras.Model(x, layer(x, x))
    linear.randomize(model)
    kernels = {
        path.split("/")[-2].strip("_").removesuffix("_dense"): value
        for path, value in linear.magnitudes(model).items()
        if path.endswith("kernel")
    }
    assert len(kernels) == 4
    x = linear.positive(3, 4)
    q, k, v = (
        np.einsum("sd,dhe->hse", x[0], kernels[name])
        for name in ("query", "key", "value")
    )
    k, v = np.repeat(k, 2, axis=0), np.repeat(v, 2, axis=0)
    a = q @ k.transpose(0, 2, 1)
    a /= a.sum(-1, keepdims=True)
    out = [value for name, value in kernels.items() if "output" in name]
    expected = np.einsum("hse,hed->sd", a @ v, out[0])
    (output,) = linear.run(model, x)
    np.testing.assert_allclose(output[0], expected, rtol=1e-12)


def _with_token(line, joined):
    """Dense on a sequence with a token in front that is a weight."""
    layers = line.layers
    token = linear.custom(line, joined, {"token": (1, 1, 4)}, "cls")
    x = line.Input((3, 4))
    y = layers.Dense(2, use_bias=False, name="d")(token(x))
    model = line.Model(x, y)
    linear.randomize(model)
    return model


def _joined_tokens(line):
    concat = linear.op(line, "concat", "concatenate")
    return {
        "as it is": lambda me, x: concat([me.token, x], 1),
        "repeated": lambda me, x: concat(
            [linear.op(line, "broadcast_to")(me.token, (1, 1, 4)), x], 1
        ),
        "tiled": lambda me, x: concat(
            [linear.op(line, "tile")(me.token, (1, 1, 1)), x], 1
        ),
    }


@pytest.mark.parametrize("how", ["as it is", "repeated", "tiled"])
def test_flow_starts_at_a_class_token_with_ones(line, how):
    model = _with_token(line, _joined_tokens(line)[how])
    kernel = linear.magnitudes(model)["d/kernel"]
    x = linear.positive(3, 4)
    (output,) = linear.run(model, x)
    whole = np.concatenate([np.ones((1, 4)), x[0]])
    np.testing.assert_allclose(output[0], whole @ kernel, rtol=1e-13)
    linear.conserved(model, x)
    scores = synflow_tf.score(model)
    np.testing.assert_allclose(scores["d/kernel"], 4 * kernel, rtol=1e-12)


@pytest.mark.parametrize("how", ["as it is", "repeated", "tiled"])
def test_a_class_token_that_is_prunable_has_its_scores(line, how):
    model = _with_token(line, _joined_tokens(line)[how])
    w = linear.magnitudes(model)
    scores = synflow_tf.score(model, prunable=["cls/token", "d/kernel"])
    expected = w["cls/token"] * w["d/kernel"].sum(1)
    np.testing.assert_allclose(scores["cls/token"], expected, rtol=1e-12)
    flow = expected.sum() + 3 * w["d/kernel"].sum()
    np.testing.assert_allclose(10**scores.log10_flow, flow, rtol=1e-9)


def test_of_two_trunks_that_are_contracted_one_is_the_gate(line):
    layers = line.layers
    x = line.Input((3, 4))
    a, b = (layers.Dense(5, name=n)(x) for n in "ab")
    model = line.Model(x, layers.Dot((2, 2), name="dot")([a, b]))
    linear.randomize(model)
    linear.conserved(model, linear.positive(3, 4))
    scores = synflow_tf.score(model)
    flow = 10**scores.log10_flow
    for path in ("a/kernel", "b/kernel"):
        assert (scores[path] > 0).all()
        np.testing.assert_allclose(scores[path].sum(), flow, rtol=1e-9)


@pytest.mark.parametrize("name", ["Subtract", "Maximum", "Minimum"])
def test_kernels_before_a_difference_score_as_before_a_sum(line, name):
    layers = line.layers

    def model(merge):
        x = line.Input((4,))
        a, b = (layers.Dense(5, name=n)(x) for n in "ab")
        made = line.Model(x, merge()([a, b]))
        linear.randomize(made)
        return made

    scores = synflow_tf.score(model(getattr(layers, name)))
    kernels = linear.magnitudes(model(layers.Add))
    for path in ("a/kernel", "b/kernel"):
        np.testing.assert_allclose(scores[path], kernels[path], rtol=1e-12)


def test_layer_scale_is_a_factor_and_scores_where_asked(line):
    layers = line.layers
    scale = linear.custom(
        line, lambda me, x: x * me.gamma, {"gamma": (5,)}, "scale"
    )
    x = line.Input((4,))
    y = layers.Dense(5, name="d")(x)
    model = line.Model(x, y + scale(y))
    linear.randomize(model)
    w = linear.magnitudes(model)
    scores = synflow_tf.score(model, prunable=["scale/gamma", "d/kernel"])
    d, gamma = w["d/kernel"], w["scale/gamma"]
    np.testing.assert_allclose(scores["d/kernel"], d * (1 + gamma), rtol=1e-12)
    np.testing.assert_allclose(
        scores["scale/gamma"], d.sum(0) * gamma, rtol=1e-12
    )


def test_a_table_that_is_read_by_coordinates_is_its_mean(line):
    table = linear.custom(
        line,
        lambda me, x: tf.gather_nd(me.rows, x),
        {"rows": (4, 5, 3)},
        "table",
    )
    x = line.Input((6, 2), dtype="int32")
    model = line.Model(x, line.layers.Dense(2, name="d")(table(x)))
    linear.randomize(model)
    w = linear.magnitudes(model)
    scores = synflow_tf.score(model, prunable=["table/rows", "d/kernel"])
    rows, d = w["table/rows"], w["d/kernel"]
    np.testing.assert_allclose(
        scores["table/rows"], rows * d.sum(1) * 6 / 20, rtol=1e-12
    )
    mean = rows.mean((0, 1))[:, None]
    np.testing.assert_allclose(scores["d/kernel"], 6 * mean * d, rtol=1e-12)
