"""One projection that feeds gate and trunk, as if it were several."""

import linear
import numpy as np
import pytest

import synflow_tf
from synflow_tf.graph import variables

_T, _D, _K = 3, 4, 2  # Steps, width, size of the queries, keys and values.


def _parts(line, how, y, count):
    """The `count` parts of a projection (1, 3, count * 2), cut some way."""
    if how == "split":
        split = linear.op(line, "split")
        return split(y, count, axis=-1)
    if how == "slices":
        return [y[..., i * _K : (i + 1) * _K] for i in range(count)]
    reshape = linear.op(line, "reshape")
    y = reshape(y, (-1, _T, count, _K))
    if how == "unstack":
        return linear.op(line, "unstack")(y, count, axis=2)
    if how == "reshape, index":
        return [y[:, :, i] for i in range(count)]
    y = linear.op(line, "transpose")(y, (2, 0, 1, 3))
    if how == "transpose, index":
        return [y[i] for i in range(count)]
    take = linear.op(line, "gather", "take")
    return [take(y, i, axis=0) for i in range(count)]


def _attention(line, q, k, v):
    turned = linear.op(line, "transpose")(k, (0, 2, 1))
    a = linear.op(line, "matmul")(q, turned) * 0.5
    a = line.layers.Softmax()(a)
    return linear.op(line, "matmul")(a, v)


def _glu(line, a, b):
    return a * linear.op(line, "sigmoid")(b)


def _swiglu(line, a, b):
    return line.layers.Activation("swish")(b) * a


def _highway(line, h, z):
    z = linear.op(line, "sigmoid")(z)
    return z * h


def _lstm(line, i, f, c, o):
    i, f, o = (linear.op(line, "sigmoid")(x) for x in (i, f, o))
    tanh = linear.op(line, "tanh")
    state = i * tanh(c)
    return o * tanh(state + f * state)


# name: what joins the parts, and how many.
JOINS = {
    "attention": (_attention, 3),
    "glu": (_glu, 2),
    "swiglu": (_swiglu, 2),
    "highway": (_highway, 2),
    "lstm": (_lstm, 4),
}
HOWS = [
    "split",
    "slices",
    "unstack",
    "reshape, index",
    "transpose, index",
    "transpose, take",
]


def _fused(line, how, join, bias=False, norm=False):
    join, count = JOINS[join]
    layers = line.layers
    x = line.Input((_T, _D))
    h = layers.Dense(_D, use_bias=False, name="before")(x)
    y = layers.Dense(count * _K, use_bias=bias, name="fused")(h)
    if norm:
        y = layers.LayerNormalization(name="norm")(y)
    out = join(line, *_parts(line, how, y, count))
    out = layers.Dense(3, use_bias=False, name="after")(out)
    return line.Model(x, out)


def _separate(line, join):
    join, count = JOINS[join]
    layers = line.layers
    x = line.Input((_T, _D))
    h = layers.Dense(_D, use_bias=False, name="before")(x)
    parts = [
        layers.Dense(_K, use_bias=False, name=f"part{i}")(h)
        for i in range(count)
    ]
    out = layers.Dense(3, use_bias=False, name="after")(join(line, *parts))
    return line.Model(x, out)


def _check(fused, separate):
    """The fused kernel's column blocks score like the separate kernels."""
    linear.randomize(fused)
    values = {
        w.path: variables.value(w.variable).numpy()
        for w in variables.weights(fused)
    }
    kernel = values["fused/kernel"]
    for layer in separate.layers:
        if layer.name in ("before", "after"):
            layer.kernel.assign(values[f"{layer.name}/kernel"])
        elif layer.name.startswith("part"):
            i = int(layer.name[4:])
            layer.kernel.assign(kernel[:, i * _K : (i + 1) * _K])
    scores, parts = synflow_tf.score(fused), synflow_tf.score(separate)
    np.testing.assert_allclose(scores.log10_flow, parts.log10_flow, rtol=1e-12)
    blocks = [parts[path] for path in sorted(parts) if path[:4] == "part"]
    expected = np.concatenate(blocks, axis=1)
    assert (expected > 0).all()
    np.testing.assert_allclose(scores["fused/kernel"], expected, rtol=1e-12)
    for path in ("before/kernel", "after/kernel"):
        np.testing.assert_allclose(scores[path], parts[path], rtol=1e-12)


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("join", ["attention", "glu"])
def test_a_fused_projection_scores_as_separate_ones(line, how, join):
    _check(_fused(line, how, join), _separate(line, join))


@pytest.mark.parametrize("join", ["swiglu", "highway", "lstm"])
def test_fused_gates_score_as_separate_ones(line, join):
    _check(_fused(line, "split", join, bias=True), _separate(line, join))


def test_the_separate_gates_of_an_lstm_are_those_of_numpy(line):
    # So that what fused ones are compared with is right itself.
    model = _separate(line, "lstm")
    linear.randomize(model)
    w = linear.magnitudes(model)
    x = np.ones((_T, _D)) @ w["before/kernel"]
    trunk = 2 * x @ w["part2/kernel"]
    flow = (trunk @ w["after/kernel"]).sum()
    scores = synflow_tf.score(model)
    np.testing.assert_allclose(10**scores.log10_flow, flow, rtol=1e-9)
    after = w["after/kernel"].sum(1)
    # Gates: o passes all of the flow, f one half of it, i all of it.
    for i, share in ((0, 1), (1, 0.5), (3, 1)):
        kernel = w[f"part{i}/kernel"]
        g = x @ kernel
        through = share * trunk * after / g
        expected = x.T @ through * kernel
        np.testing.assert_allclose(
            scores[f"part{i}/kernel"], expected, rtol=1e-11
        )


def test_a_fused_projection_with_normalization_scores_in_every_column(line):
    model = _fused(line, "split", "attention", norm=True)
    linear.randomize(model)
    scores = synflow_tf.score(model)
    assert (scores["fused/kernel"] > 0).all()
    blocks = scores["fused/kernel"].reshape(_D, 3, _K).sum((0, 2))
    np.testing.assert_allclose(blocks, 10**scores.log10_flow, rtol=1e-9)


def test_fused_projections_survive_pruning_in_all_their_parts(line):
    line.utils.set_random_seed(0)
    model = _fused(line, "transpose, index", "attention")
    masks = synflow_tf.compute_masks(model, 0.5, rounds=20, progress=False)
    blocks = masks["fused/kernel"].reshape(_D, 3, _K).any((0, 2))
    assert blocks.all()
    assert not masks.findings
