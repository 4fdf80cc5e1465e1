"""One projection that feeds gate and trunk, as if it were several."""

import itertools

import common
import linear
import numpy as np
import pytest

import synflow_tf

pytestmark = pytest.mark.in_turn

_T, _D, _K = 3, 4, 2  # Steps, width, size of the queries, keys and values.


def _stacked(o, y, count):
    return o.reshape(y, (-1, _T, count, _K))


def _turned(o, y, count):
    return o.transpose(_stacked(o, y, count), (2, 0, 1, 3))


def _indexed(o, y, count):
    y = _stacked(o, y, count)
    return [y[:, :, i] for i in range(count)]


def _turned_and_indexed(o, y, count):
    y = _turned(o, y, count)
    return [y[i] for i in range(count)]


def _turned_and_taken(o, y, count):
    y = _turned(o, y, count)
    return [o.take(y, i, axis=0) for i in range(count)]


# name: how a projection (1, 3, count * 2) is cut into its parts.
HOWS = {
    "split": lambda o, y, count: o.split(y, count, axis=-1),
    "slices": lambda o, y, count: [
        y[..., i * _K : (i + 1) * _K] for i in range(count)
    ],
    "unstack": lambda o, y, count: o.unstack(
        _stacked(o, y, count), count, axis=2
    ),
    "reshape, index": _indexed,
    "transpose, index": _turned_and_indexed,
    "transpose, take": _turned_and_taken,
}


def _attention(o, q, k, v):
    a = o.softmax(o.matmul(q, o.transpose(k, (0, 2, 1))) * 0.5)
    return o.matmul(a, v)


def _lstm(o, i, f, c, out):
    i, f, out = (o.sigmoid(x) for x in (i, f, out))
    state = i * o.tanh(c)
    return out * o.tanh(state + f * state)


# name: what joins the parts, and how many.
JOINS = {
    "attention": (_attention, 3),
    "glu": (lambda o, a, b: a * o.sigmoid(b), 2),
    "swiglu": (lambda o, a, b: o.silu(b) * a, 2),
    "highway": (lambda o, h, z: o.sigmoid(z) * h, 2),
    "lstm": (_lstm, 4),
}


def _model(line, join, projected):
    """Two layers, and between them a projection whose parts are joined."""
    before, after = (
        linear.dense(line, units, name, use_bias=False)
        for units, name in ((_D, "before"), (3, "after"))
    )
    join, count = JOINS[join]
    o = common.ops(line)
    return linear.functional(
        line,
        lambda x: after(join(o, *projected(o, before(x), count))),
        (_T, _D),
    )


def _fused(line, how, join, bias=False, norm=False):
    def projected(o, h, count):
        y = linear.dense(line, count * _K, "fused", use_bias=bias)(h)
        if norm:
            y = line.layers.LayerNormalization(name="norm")(y)
        return HOWS[how](o, y, count)

    return _model(line, join, projected)


def _separate(line, join):
    def projected(o, h, count):
        names = [f"part{i}" for i in range(count)]
        return [linear.dense(line, _K, n, use_bias=False)(h) for n in names]

    return _model(line, join, projected)


def _check(fused, separate):
    """The fused kernel's column blocks score like the separate kernels."""
    linear.randomize(fused)
    kernels = {
        name: fused.get_layer(name).kernel.numpy()
        for name in ("before", "fused", "after")
    }
    count = kernels["fused"].shape[1] // _K
    blocks = np.split(kernels.pop("fused"), count, axis=1)
    kernels.update((f"part{i}", block) for i, block in enumerate(blocks))
    for name, kernel in kernels.items():
        separate.get_layer(name).kernel.assign(kernel)
    scores, parts = synflow_tf.score(fused), dict(synflow_tf.score(separate))
    blocks = [parts.pop(f"part{i}/kernel") for i in range(count)]
    expected = np.concatenate(blocks, axis=1)
    assert (expected > 0).all()
    linear.assert_close(scores, parts | {"fused/kernel": expected})
    linear.assert_flow(scores, parts["after/kernel"].sum())


@pytest.mark.parametrize(
    "how, join",
    [
        *itertools.product(HOWS, ["attention", "glu"]),
        *(("split", join) for join in ("swiglu", "highway", "lstm")),
    ],
)
def test_a_fused_projection_scores_as_separate_ones(line, how, join):
    bias = join not in ("attention", "glu")
    _check(_fused(line, how, join, bias), _separate(line, join))


def test_the_separate_gates_of_an_lstm_are_those_of_numpy(line):
    # So that what fused ones are compared with is right itself.
    model = linear.randomize(_separate(line, "lstm"))
    w = linear.magnitudes(model)
    x = np.ones((_T, _D)) @ w["before/kernel"]
    trunk = 2 * x @ w["part2/kernel"]
    flow = (trunk @ w["after/kernel"]).sum()
    scores = synflow_tf.score(model)
    linear.assert_flow(scores, flow)
    after = w["after/kernel"].sum(1)
    # Gates: o passes all of the flow, f one half of it, i all of it.
    for i, share in ((0, 1), (1, 0.5), (3, 1)):
        kernel = w[f"part{i}/kernel"]
        through = share * trunk * after / (x @ kernel)
        expected = x.T @ through * kernel
        linear.assert_close(scores[f"part{i}/kernel"], expected, rtol=1e-11)


def test_a_fused_projection_with_normalization_scores_in_every_column(line):
    model = _fused(line, "split", "attention", norm=True)
    scores = synflow_tf.score(linear.randomize(model))
    assert (scores["fused/kernel"] > 0).all()
    blocks = scores["fused/kernel"].reshape(_D, 3, _K).sum((0, 2))
    linear.assert_close(blocks, np.full(3, 10**scores.log10_flow), rtol=1e-11)
