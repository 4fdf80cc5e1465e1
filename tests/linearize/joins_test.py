"""Sums, products, gates and contractions, against NumPy."""

import functools

import common
import keras
import linear
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import synflow_tf

pytestmark = pytest.mark.in_turn

_C = np.array([0.5, -2.0, 3.0, -1.5], np.float32)
_COLUMN = _C[:, None]
_WIDE = np.linspace(-1, 1, 24, dtype=np.float32).reshape(1, 2, 3, 4)
_FEW = np.array([[0.5, -2.0, 4.0]], np.float32)
_PADS = [[0, 0], [1, 2], [0, 1]]
_X = linear.positive(3, 4)
_ONES = np.ones((1, 3, 4))

# name: what the operations of a line make of a tensor (1, 3, 4): it itself.
IDENTITIES = {
    "x + c": lambda o, x: x + _C,
    "c + x": lambda o, x: o.add(_C, x),
    "x - c": lambda o, x: x - _C,
    "c - x": lambda o, x: o.subtract(_C, x),
    "x - 1": lambda o, x: x - 1.0,
    "1 - x": lambda o, x: 1 - x,
    "-x": lambda o, x: -x,
    "maximum with 0": lambda o, x: o.maximum(x, 0.0),
    "minimum with c": lambda o, x: o.minimum(_C, x),
    "c / x": lambda o, x: o.divide(_C, x),
    "1 / x": lambda o, x: 1.0 / x,
    "x ** 2": lambda o, x: x**2,
    "x * x": lambda o, x: x * x,
    "x * sigmoid(x)": lambda o, x: x * o.sigmoid(x),
    "sigmoid(x) * x": lambda o, x: o.sigmoid(x) * x,
    "x * tanh(softplus(x))": lambda o, x: x * o.tanh(o.softplus(x)),
    "x / (1 + abs(x))": lambda o, x: x / (1 + o.abs(x)),
    "x / its sum": lambda o, x: x / o.sum(x, -1, True),
    "where(c, x, 0)": lambda o, x: o.where(_C > 0, x, 0.0),
    "where(x > c, x, c)": lambda o, x: o.where(x > _C, x, _C),
    "cast": lambda o, x: o.cast(x, "float16"),
    "expand and squeeze": lambda o, x: o.squeeze(o.expand_dims(x, 1), 1),
}
# What NumPy makes of it by the same names.
AS_NUMPY = {
    "split": lambda o, x: o.split(x, 2, axis=-1)[1],
    "slicing": lambda o, x: x[:, 1:, ::2],
    "index": lambda o, x: x[:, -1],
    "new axis": lambda o, x: x[:, None, ..., None],
    "reshape": lambda o, x: o.reshape(x, (-1, 2, 6)),
    "transpose": lambda o, x: o.transpose(x, (0, 2, 1)),
    "pad": lambda o, x: o.pad(x, _PADS),
    "mean": lambda o, x: o.mean(x, 1),
    "sum": lambda o, x: o.sum(x, axis=(1, 2)),
    "max": lambda o, x: o.max(x, axis=-1),
    "take": lambda o, x: o.take(x, [2, 0, 2], axis=1),
    "tile": lambda o, x: o.tile(x, [1, 2, 1]),
    "repeat": lambda o, x: o.repeat(x, 2, axis=1),
    "roll": lambda o, x: o.roll(x, 1, 1),
    "stack": lambda o, x: o.stack([x, 2 * x], axis=1),
    "concatenate": lambda o, x: o.concatenate([x, x], 1),
    "einsum of one tensor": lambda o, x: o.einsum("bij->bj", x),
    "x * 2, an int": lambda o, x: x * 2,
}


def _doubled(x):
    return np.repeat(x[:, None], 2, axis=1)


# The same, and what it becomes.
MAPS = {
    "x + wide": (lambda o, x: x[:, None] + _WIDE, _doubled),
    "wide - x": (lambda o, x: o.subtract(_WIDE, x[:, None]), _doubled),
    "wide / x": (lambda o, x: o.divide(_WIDE, x[:, None]), _doubled),
    "x * wide": (
        lambda o, x: x[:, None] * _WIDE,
        lambda x: x[:, None] * abs(_WIDE.astype(np.float64)),
    ),
    "x * c": (lambda o, x: x * _C, lambda x: x * abs(_C)),
    "c * x": (lambda o, x: o.multiply(_C, x), lambda x: x * abs(_C)),
    "x * -3": (lambda o, x: x * -3.0, lambda x: x * 3),
    "x / c": (lambda o, x: x / _C, lambda x: x / abs(_C)),
    "x / -4": (lambda o, x: x / -4.0, lambda x: x / 4),
    "concatenate with a constant": (
        lambda o, x: o.concatenate([-3 * _ONES.astype("float32"), x], 1),
        lambda x: np.concatenate([_ONES, x], 1),
    ),
    "concatenate with zeros": (
        lambda o, x: o.concatenate([0 * _ONES.astype("float32"), x], 1),
        lambda x: np.concatenate([0 * _ONES, x], 1),
    ),
    "matmul with a constant": (
        lambda o, x: o.matmul(x, _COLUMN),
        lambda x: x @ abs(_COLUMN),
    ),
    "einsum with a constant": (
        lambda o, x: o.einsum("ij,bjk->bik", _FEW, x),
        lambda x: abs(_FEW) @ x,
    ),
    "einsum of three tensors, two of them constants": (
        lambda o, x: o.einsum("ij,bjk,kl->bil", _FEW, x, -_COLUMN),
        lambda x: abs(_FEW) @ x @ abs(_COLUMN),
    ),
    "tensordot with a constant": (
        lambda o, x: o.tensordot(x, _COLUMN, 1),
        lambda x: x @ abs(_COLUMN),
    ),
}
MAPS.update({name: (f, lambda x: x) for name, f in IDENTITIES.items()})
MAPS.update((n, (f, functools.partial(f, np))) for n, f in AS_NUMPY.items())
# name: what the operations of a line make of two tensors (1, 3, 4): their sum.
SUMS = {
    "a + b": lambda o, a, b: a + b,
    "a - b": lambda o, a, b: a - b,
    "maximum": lambda o, a, b: o.maximum(a, b),
    "minimum": lambda o, a, b: o.minimum(a, b),
    "where(c, a, b)": lambda o, a, b: o.where(_C > 0, a, b),
    "where(a > b, a, b)": lambda o, a, b: o.where(a > b, a, b),
    "z * a + (1 - z) * b": lambda o, a, b: _mixed(o.sigmoid(a + b), a, b),
}
# The same: the first of them, for which the other is a gate.
FIRSTS = {
    "a / b": lambda o, a, b: a / b,
    "a / (b + 1)": lambda o, a, b: a / (b + 1.0),
    "a * sigmoid(b)": lambda o, a, b: a * o.sigmoid(b),
    "a * (1 - sigmoid(b))": lambda o, a, b: a * (1 - o.sigmoid(b)),
    "softmax(b) * a": lambda o, a, b: o.softmax(b) * a,
    "a * mean(b)": lambda o, a, b: a * o.mean(b, axis=1, keepdims=True),
    "mean(b) * a": lambda o, a, b: o.mean(b, axis=1, keepdims=True) * a,
    "three operands": lambda o, a, b: o.sigmoid(b) * a * o.tanh(b),
}
# The same, and what it becomes.
TWO = {
    "different shapes": (
        lambda o, a, b: a[:, :1] - b,
        lambda a, b: a[:, :1] + b,
    ),
    **{name: (f, lambda a, b: a + b) for name, f in SUMS.items()},
    **{name: (f, lambda a, b: a) for name, f in FIRSTS.items()},
}
# name: what a merging layer is given, and what it becomes.
MERGES = {
    "Add": ("aba", lambda a, b: 2 * a + b),
    "Subtract": ("ab", lambda a, b: a + b),
    "Maximum": ("abb", lambda a, b: a + 2 * b),
    "Minimum": ("ab", lambda a, b: a + b),
    "Average": ("ab", lambda a, b: (a + b) / 2),
    "Multiply": ("ab", lambda a, b: a),
    "Concatenate": ("ab", lambda a, b: np.concatenate([a, b], -1)),
}


def _mixed(z, a, b):
    return z * a + (1 - z) * b


def _model(line, function, *shapes):
    model = linear.functional(line, function, *(shapes or [(3, 4)]))
    return linear.randomize(model)


def _kernels(line, x, names, units=5, **options):
    """Dense layers without bias of one tensor."""
    options["use_bias"] = False
    return [linear.dense(line, units, n, **options)(x) for n in names]


@pytest.mark.parametrize("case", MAPS)
def test_an_operation_is_the_map_that_numpy_says(line, case):
    expression, expected = MAPS[case]
    model = _model(line, lambda x: expression(common.ops(line), x))
    linear.assert_computes(model, [_X], expected(_X), rtol=1e-14)
    linear.assert_conserved(model, _X)


@pytest.mark.parametrize("case", [*TWO, *MERGES])
def test_where_two_tensors_meet_it_is_what_numpy_says(line, case):
    def joined(a, b):
        if case in TWO:
            return TWO[case][0](common.ops(line), a, b)
        given = [{"a": a, "b": b}[name] for name in MERGES[case][0]]
        return getattr(line.layers, case)()(given)

    _, expected = {**TWO, **MERGES}[case]
    other = linear.positive(3, 4, seed=2)
    model = _model(line, joined, (3, 4), (3, 4))
    linear.assert_computes(model, [_X, other], expected(_X, other), rtol=1e-14)
    if case in MERGES:
        linear.assert_conserved(model, _X, other)


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
    model = _model(line, lambda x: function(x, *_MORE.get(name, ())))
    factor = np.float32(_FACTORS.get((line, name), 1))
    linear.assert_computes(model, [_X], factor * _X, rtol=1e-6)


# name: a weight's shape, and a layer's `call` of it, which NumPy gives of its
# magnitude by the same names.
BY_MAGNITUDE = {
    "x * w": ((4,), lambda o, w, x: x * w),
    "w * x": ((4,), lambda o, w, x: w * x),
    "x / w": ((4,), lambda o, w, x: x / w),
    "x * w * w": ((4,), lambda o, w, x: x * (w * w)),
    "matmul(x, w)": ((4, 4), lambda o, w, x: o.matmul(x, w)),
    "matmul(x, w.T)": ((4, 4), lambda o, w, x: o.matmul(x, o.transpose(w))),
    "matmul(w, x)": ((3, 3), lambda o, w, x: o.matmul(w, x)),
    "einsum(x, w)": ((4, 4), lambda o, w, x: o.einsum("bij,jk->bik", x, w)),
    "einsum(w, x)": ((4, 4), lambda o, w, x: o.einsum("kj,bij->bik", w, x)),
    "tensordot(x, w)": ((4, 4), lambda o, w, x: o.tensordot(x, w, 1)),
}
# The same of a weight (4,), and what it becomes: signs and constants that make
# something of w count.
OTHERWISE = {
    "x + w": (lambda o, w, x: x + w, lambda w, x: x),
    "w - x": (lambda o, w, x: w - x, lambda w, x: x),
    "maximum(x, w)": (lambda o, w, x: o.maximum(x, w), lambda w, x: x),
    "x * 2w": (lambda o, w, x: x * (w * -2.0), lambda w, x: 2 * x * abs(w)),
    "x * (1 + w)": (lambda o, w, x: x * (1.0 + w), lambda w, x: x * abs(1 + w)),
    "x * (w - 1)": (lambda o, w, x: x * (w - 1.0), lambda w, x: x * abs(w - 1)),
}


@pytest.mark.parametrize("case", [*BY_MAGNITUDE, *OTHERWISE])
def test_a_weight_in_an_opened_layer_counts_by_its_magnitude(line, case):
    if case in OTHERWISE:
        shape, (call, expected) = (4,), OTHERWISE[case]
    else:
        shape, call = BY_MAGNITUDE[case]

        def expected(w, x):
            return call(np, abs(w), x)

    layer = linear.custom(
        line, lambda me, x: call(common.ops(line), me.w, x), {"w": shape}
    )
    model = _model(line, layer)
    w = layer.w.numpy().astype(np.float64)
    linear.assert_computes(model, [_X], expected(w, _X))
    linear.assert_conserved(model, _X)
    # R is linear in a kernel: its scores sum to R.
    if len(shape) == 2:
        scores = synflow_tf.score(model, prunable="custom/w")
        linear.assert_flow(scores, expected(w, _ONES).sum(), "custom/w")


def _gated(line, first, second, joined, gate_units=6, of_trunk=False):
    """A trunk `a`, a gate `b` of its input or of it, and what joins them."""

    def made(x):
        (a,) = _kernels(line, x, "a", 6, activation=first)
        source = a if of_trunk else x
        (b,) = _kernels(line, source, "b", gate_units, activation=second)
        return joined(a, b)

    return _model(line, made)


def test_squeeze_and_excite_lets_the_trunk_through(line):
    layers = line.layers

    def made(x):
        pooled = layers.GlobalAveragePooling1D(keepdims=True)(x)
        (a,) = _kernels(line, x, "a", 6, activation="relu")
        (b,) = _kernels(line, pooled, "b", 6, activation="sigmoid")
        return layers.Multiply()([b, a])

    model = _model(line, made)
    w = linear.magnitudes(model)
    a, b = w["a/kernel"], w["b/kernel"]
    linear.assert_computes(model, [_X], _X @ a)
    scores = synflow_tf.score(model)
    # With x = 1: R = 3 sum(A), the trunk's scores are 3 A; the gate of unit j
    # is sum_i B_ij, and passes what the trunk has there.
    gate = b / b.sum(0) * 3 * a.sum(0)
    linear.assert_close(scores, {"a/kernel": 3 * a, "b/kernel": gate})
    linear.assert_flow(scores, 3 * a.sum(), "b/kernel")
    linear.assert_conserved(model, _X)


def test_a_gate_whose_kernel_is_all_zeros_is_open(line):
    model = _gated(line, None, "sigmoid", lambda a, b: a * b)
    model.get_layer("b").kernel.assign(np.zeros((4, 6)))
    kernel = linear.magnitudes(model)["a/kernel"]
    linear.assert_computes(model, [_X], _X @ kernel)
    expected = {"a/kernel": 3 * kernel, "b/kernel": 0 * kernel}
    linear.assert_close(synflow_tf.score(model), expected)


# name: activations of the trunk and of the gate, and more of the gate.
SIDES = {
    "softmax": ("sigmoid", "softmax", {}),
    "sigmoid": (tf.nn.relu6, "sigmoid", {}),
    "relu6": ("tanh", tf.nn.relu6, {}),
    "tanh": ("relu", "tanh", {}),
    "hard sigmoid": ("linear", "hard_sigmoid", {}),
    "smaller": ("relu", "relu", {"gate_units": 1}),
    "from the other": ("relu", "relu", {"of_trunk": True}),
}


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("case", SIDES)
def test_the_more_bounded_smaller_or_later_side_is_the_gate(line, case, turned):
    trunk, gate, more = SIDES[case]
    model = _gated(
        line, trunk, gate, lambda a, b: b * a if turned else a * b, **more
    )
    linear.assert_computes(
        model, [_X], _X @ linear.magnitudes(model)["a/kernel"]
    )


def test_a_gate_gives_its_trunk_no_score(line):
    layers = line.layers

    def gated(a, _):
        squeezed = layers.GlobalAveragePooling1D()(a)
        (squeezed,) = _kernels(line, squeezed, ["squeeze"], 2)
        (excited,) = _kernels(line, squeezed, ["excite"], 6, activation="tanh")
        return layers.Multiply()([a, layers.Reshape((1, 6))(excited)])

    model = _gated(line, "relu", "relu", gated)
    plain = _gated(line, "relu", "relu", lambda a, _: a)
    plain.get_layer("a").set_weights(model.get_layer("a").get_weights())
    with_gate, without = synflow_tf.score(model), synflow_tf.score(plain)
    linear.assert_close(with_gate["a/kernel"], without["a/kernel"])
    # The gate's two kernels carry the whole flow, one after the other.
    gates = "squeeze/kernel", "excite/kernel"
    assert all((with_gate[path] > 0).all() for path in gates)
    linear.assert_flow(with_gate, 10**without.log10_flow, *gates)


def test_a_gate_within_a_gate(line):
    def made(x):
        (trunk,) = _kernels(line, x, ["t"])
        (u,) = _kernels(line, trunk, ["u"], 3, activation="relu")
        (inner,) = _kernels(line, u, ["inner"], 3, activation="sigmoid")
        (outer,) = _kernels(line, u * inner, ["outer"], activation="sigmoid")
        return trunk * outer

    model = _model(line, made, (4,))
    names = "t", "u", "inner", "outer"
    w = {n: linear.magnitude(model.get_layer(n).kernel) for n in names}
    t = np.ones(4) @ w["t"]
    u = t @ w["u"]
    after = t / (u @ w["outer"])  # dR/dg
    before = u @ w["inner"]  # The inner gate has the value 1.
    through = u * (w["outer"] @ after) / before
    expected = {
        "t/kernel": w["t"],
        "u/kernel": np.outer(t, w["outer"] @ after) * w["u"],
        "outer/kernel": np.outer(u, after) * w["outer"],
        "inner/kernel": np.outer(u, through) * w["inner"],
    }
    scores = synflow_tf.score(model)
    linear.assert_close(scores, expected)
    linear.assert_flow(scores, t.sum(), *expected)


def test_one_gate_used_twice_has_the_flow_once(line):
    def made(x):
        (z,) = _kernels(line, x, "z", activation="sigmoid")
        return _mixed(z, *_kernels(line, x, "ab"))

    model = _model(line, made, (4,))
    a, b, z = (linear.magnitudes(model)[f"{n}/kernel"] for n in "abz")
    gate = z / z.sum(0) * (a + b).sum(0)
    expected = {"z/kernel": gate, "a/kernel": a, "b/kernel": b}
    linear.assert_close(synflow_tf.score(model), expected)


def test_what_divides_has_the_value_1_and_scores(line):
    model = _gated(line, None, "softplus", lambda a, b: a / (1.0 + b))
    kernel = linear.magnitudes(model)["a/kernel"]
    linear.assert_computes(model, [_X], _X @ kernel)
    scores = synflow_tf.score(model)
    linear.assert_flow(scores, 3 * kernel.sum(), "b/kernel")
    assert (scores["b/kernel"] > 0).all()


def _by_matmul(line, q, k, v):
    o = common.ops(line)
    return o.matmul(o.softmax(o.matmul(q, o.transpose(k, (0, 2, 1))) / 2), v)


def _by_einsum(line, q, k, v):
    o = common.ops(line)
    a = o.softmax(o.einsum("bqd,bkd->bqk", q, k) / 2)
    return o.einsum("bqk,bkd->bqd", a, v)


def _keys_first(line, q, k, v):
    o = common.ops(line)
    a = o.softmax(o.einsum("bqd,bkd->bkq", q, k) / 2, axis=1)
    return o.einsum("bkq,bkd->bqd", a, v)


def _masked(line, q, k, v):
    o = common.ops(line)
    mask = np.triu(np.full((3, 3), -1e9, np.float32), 1)
    return o.matmul(o.softmax(o.einsum("bqd,bkd->bqk", q, k) + mask), v)


def _by_layers(line, q, k, v):
    a = line.layers.Softmax()(line.layers.Dot((2, 2))([q, k]))
    return line.layers.Dot((2, 1))([a, v])


def _by_a_layer(**options):
    return lambda line, q, k, v: line.layers.Attention(**options)([q, v, k])


# name: one head of attention over 3 steps, of a line.
SPELLED = {
    "matmul": _by_matmul,
    "einsum": _by_einsum,
    "keys first": _keys_first,
    "masked": _masked,
    "Dot": _by_layers,
    "Attention": _by_a_layer(),
    "Attention, scaled": _by_a_layer(use_scale=True),
    "Attention, dot": _by_a_layer(score_mode="dot"),
}


def _attention(line, spelled, names="qkv"):
    """A model, and the magnitudes of its kernels."""
    model = _model(line, lambda x: spelled(line, *_kernels(line, x, names)))
    w = linear.magnitudes(model)
    return model, *(w[f"{name}/kernel"] for name in names)


def _numpy_attention(x, wq, wk, wv):
    """Value and scores of attention with weights Q K^T over row sums."""
    q, k, v = x @ wq, x @ wk, x @ wv
    s = q @ k.T
    total = s.sum(1, keepdims=True)
    a = s / total
    ds = np.tile(v.sum(1), (len(x), 1)) / total  # dR/dA, then dR/dS
    scores = {
        "q/kernel": wq * (x.T @ (ds @ k)),
        "k/kernel": wk * (x.T @ (ds.T @ q)),
        "v/kernel": wv * (x.T @ (a.T @ np.ones_like(v))),
    }
    return a @ v, scores


@pytest.mark.parametrize("case", SPELLED)
def test_attention_is_what_numpy_says(line, case):
    model, *kernels = _attention(line, SPELLED[case])
    linear.assert_computes(model, [_X], _numpy_attention(_X[0], *kernels)[0])
    value, expected = _numpy_attention(_ONES[0], *kernels)
    scores = synflow_tf.score(model)
    linear.assert_close(scores, expected, rtol=1e-11)
    linear.assert_flow(scores, value.sum(), *expected)
    linear.assert_conserved(model, _X)


@pytest.mark.parametrize("case", ["matmul", "einsum", "Dot", "keys first"])
def test_attention_without_scores_is_the_mean(line, case):
    model, *_, kernel = _attention(line, SPELLED[case])
    model.get_layer("q").kernel.assign(np.zeros((4, 5)))
    linear.assert_computes(
        model, [_X], np.tile((_X[0] @ kernel).mean(0), (3, 1))
    )


def test_additive_attention_is_positive_and_conserves_the_flow(line):
    model, q, v = _attention(
        line, lambda n, *qv: n.layers.AdditiveAttention()(list(qv)), "qv"
    )
    q, v = _X[0] @ q, _X[0] @ v
    w = linear.magnitudes(model)
    (scale,) = [s for name, s in w.items() if name.endswith("scale")]
    a = ((q[:, None] + v[None]) * scale).sum(-1)
    linear.assert_computes(model, [_X], a / a.sum(1, keepdims=True) @ v)
    linear.assert_conserved(model, _X)


# name: a layer of attention with heads, and how many heads share a key.
HEADS = {
    "1 head": (lambda k: k.MultiHeadAttention(1, 3, value_dim=5), 1),
    "2 heads": (lambda k: k.MultiHeadAttention(2, 3, value_dim=5), 1),
    "grouped": (lambda k: k.GroupQueryAttention(3, 4, 2), 2),
}


@pytest.mark.parametrize("case", HEADS)
def test_attention_of_several_heads_is_what_numpy_says(line, case):
    if case == "grouped" and line is tf_keras:
        pytest.skip("tf_keras has no GroupQueryAttention")
    make, shared = HEADS[case]
    layer = make(line.layers)
    model = _model(line, lambda x: layer(x, x))
    w = linear.magnitudes(model)
    # In order, among biases.
    q, k, v, out = (w[path] for path in w if path.endswith("kernel"))
    q, k, v = (np.einsum("sd,dhe->hse", _X[0], part) for part in (q, k, v))
    k, v = np.repeat(k, shared, axis=0), np.repeat(v, shared, axis=0)
    a = q @ k.transpose(0, 2, 1)
    a /= a.sum(-1, keepdims=True)
    linear.assert_computes(model, [_X], np.einsum("hse,hed->sd", a @ v, out))
    scores = synflow_tf.score(model)
    linear.assert_flow(scores, 10**scores.log10_flow, *scores)


# name: how a token that is a weight gets in front of a sequence.
TOKENS = {
    "as it is": lambda o, token: token,
    "repeated": lambda o, token: o.broadcast_to(token, (1, 1, 4)),
    "tiled": lambda o, token: o.tile(token, (1, 1, 1)),
}


@pytest.mark.parametrize("how", TOKENS)
def test_flow_starts_at_a_class_token_with_ones_or_its_own(line, how):
    def joined(me, x):
        o = common.ops(line)
        return o.concatenate([TOKENS[how](o, me.token), x], 1)

    token = linear.custom(line, joined, {"token": (1, 1, 4)}, "cls")
    model = _model(line, lambda x: _kernels(line, token(x), "d", 2))
    w = linear.magnitudes(model)
    token, d = w["cls/token"], w["d/kernel"]
    linear.assert_computes(
        model, [_X], np.concatenate([_ONES[:, :1], _X], 1) @ d
    )
    linear.assert_conserved(model, _X)
    linear.assert_close(synflow_tf.score(model), {"d/kernel": 4 * d})
    # Where it is prunable, it has its scores.
    scores = synflow_tf.score(model, prunable=["cls/token", "d/kernel"])
    expected = token * d.sum(1)
    linear.assert_close(scores["cls/token"], expected)
    linear.assert_flow(scores, expected.sum() + 3 * d.sum())


def test_of_two_trunks_that_are_contracted_one_is_the_gate(line):
    model = _model(
        line, lambda x: line.layers.Dot((2, 2))(_kernels(line, x, "ab"))
    )
    linear.assert_conserved(model, _X)
    scores = synflow_tf.score(model)
    assert all((score > 0).all() for score in scores.values())
    linear.assert_flow(scores, 10**scores.log10_flow, "a/kernel", "b/kernel")


def test_layer_scale_is_a_factor_and_scores_where_asked(line):
    scale = linear.custom(
        line, lambda me, x: x * me.gamma, {"gamma": (5,)}, "scale"
    )

    def made(x):
        (y,) = _kernels(line, x, "d")
        return y + scale(y)

    model = _model(line, made, (4,))
    w = linear.magnitudes(model)
    d, gamma = w["d/kernel"], w["scale/gamma"]
    scores = synflow_tf.score(model, prunable=["scale/gamma", "d/kernel"])
    expected = {"d/kernel": d * (1 + gamma), "scale/gamma": d.sum(0) * gamma}
    linear.assert_close(scores, expected)


def test_a_table_that_is_read_by_coordinates_is_its_mean(line):
    table = linear.custom(
        line,
        lambda me, x: tf.gather_nd(me.rows, x),
        {"rows": (4, 5, 3)},
        "table",
    )
    layers = table, linear.dense(line, 2, "d")
    model = linear.chain(line, *layers, shape=(6, 2), dtype="int32")
    w = linear.magnitudes(linear.randomize(model))
    rows, d = w["table/rows"], w["d/kernel"]
    expected = {
        "table/rows": rows * d.sum(1) * 6 / 20,
        "d/kernel": 6 * rows.mean((0, 1))[:, None] * d,
    }
    linear.assert_close(
        synflow_tf.score(model, prunable=list(expected)), expected
    )
