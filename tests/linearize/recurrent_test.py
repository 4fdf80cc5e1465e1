"""Recurrent layers, against loops in NumPy whose gates are 1."""

import math

import common
import linear
import numpy as np
import pytest

import synflow_tf
from synflow_tf import scorers

pytestmark = pytest.mark.in_turn

_STEPS, _SIZE, _UNITS = 5, 3, 4
_X = linear.positive(_STEPS, _SIZE)


def _simple(kernel, recurrent, steps, state=0.0):
    """Computes h = x W + h U; all states, (time, units)."""
    states = [np.zeros(len(recurrent)) + state]
    for x in steps:
        states.append(x @ kernel + states[-1] @ recurrent)
    return np.array(states[1:])


def _trunk(kernel, recurrent):
    """What is left of an LSTM or GRU with all its gates 1: h = h + x W + h U.

    W and U are the third block of the columns, of (input, forget, cell,
    output) and of (update, reset, hidden).
    """
    units = len(recurrent)
    columns = slice(2 * units, 3 * units)
    return kernel[:, columns], recurrent[:, columns] + np.eye(units)


def _gated(kernel, recurrent, steps, state=0.0):
    return _simple(*_trunk(kernel, recurrent), steps, state)


# name: the loop, and the layer, or the cell of an RNN, with its options.
CASES = {
    "SimpleRNN": (_simple, "SimpleRNN", {}),
    "SimpleRNN relu": (_simple, "SimpleRNN", {"activation": "relu"}),
    "SimpleRNN without bias": (_simple, "SimpleRNN", {"use_bias": False}),
    "LSTM": (_gated, "LSTM", {}),
    "LSTM unrolled": (_gated, "LSTM", {"unroll": True}),
    "LSTM with dropout": (
        _gated,
        "LSTM",
        {"dropout": 0.5, "recurrent_dropout": 0.5},
    ),
    "LSTM, hard sigmoid": (
        _gated,
        "LSTM",
        {"activation": "relu", "recurrent_activation": "hard_sigmoid"},
    ),
    "LSTM of implementation 1": (_gated, "LSTMCell", {"implementation": 1}),
    "LSTM of implementation 2": (_gated, "LSTMCell", {"implementation": 2}),
    "GRU, reset after": (_gated, "GRU", {"reset_after": True}),
    "GRU, reset before": (_gated, "GRU", {"reset_after": False}),
    "GRU without bias": (_gated, "GRU", {"use_bias": False}),
    "GRU of implementation 1": (
        _gated,
        "GRUCell",
        {"implementation": 1, "reset_after": False},
    ),
    "RNN of a SimpleRNNCell": (_simple, "SimpleRNNCell", {}),
}
SOME = pytest.mark.parametrize(
    "case", ["SimpleRNN", "LSTM", "GRU, reset after", "GRU, reset before"]
)


def _layer(line, case, **options):
    _, name, of = CASES[case]
    make = getattr(line.layers, name)
    if name.endswith("Cell"):
        return line.layers.RNN(make(_UNITS, **of), **options)
    return make(_UNITS, **of, **options)


def _model(line, layer, time=_STEPS):
    return linear.randomize(linear.chain(line, layer, shape=(time, _SIZE)))


def _kernels(layer):
    """The magnitudes of a layer's two kernels."""
    return [linear.magnitude(w) for w in layer.trainable_weights[:2]]


def _sides(layer):
    """The kernels of both directions of a bidirectional layer."""
    return _kernels(layer.forward_layer), _kernels(layer.backward_layer)


@pytest.mark.parametrize("case", CASES)
def test_a_recurrent_layer_is_its_loop_with_gates_of_1(line, case):
    layer = _layer(line, case, return_sequences=True)
    model = _model(line, layer)
    linear.assert_computes(model, [_X], CASES[case][0](*_kernels(layer), _X[0]))


@SOME
def test_it_gives_its_last_step_its_states_and_all_steps_from_the_end(
    line, case
):
    last = _layer(line, case)
    states = _layer(line, case, return_state=True)
    back = _layer(line, case, go_backwards=True, return_sequences=True)
    model = linear.functional(
        line, lambda x: [last(x), *states(x), back(x)], (_STEPS, _SIZE)
    )
    linear.randomize(model)
    assert len(model.outputs) == 4 + (case == "LSTM")
    loop = CASES[case][0]
    state = loop(*_kernels(states), _X[0])[-1]
    linear.assert_computes(
        model,
        [_X],
        loop(*_kernels(last), _X[0])[-1],
        *[state] * (len(model.outputs) - 2),
        loop(*_kernels(back), _X[0, ::-1]),
    )
    linear.assert_conserved(model, _X)


def _translating(line, encoder, decoder):
    """An encoder whose states a decoder goes on from."""

    def translated(source, target):
        _, *states = encoder(source)
        return decoder(target, initial_state=states)

    model = linear.functional(line, translated, (5, _SIZE), (3, _SIZE))
    return linear.randomize(model)


@SOME
def test_a_decoder_goes_on_from_the_state_of_its_encoder(line, case):
    loop = CASES[case][0]
    encoder = _layer(line, case, return_state=True)
    decoder = _layer(line, case, return_sequences=True)
    model = _translating(line, encoder, decoder)
    y = linear.positive(3, _SIZE, seed=2)
    state = loop(*_kernels(encoder), _X[0])[-1]
    expected = loop(*_kernels(decoder), y[0], state)
    linear.assert_computes(model, [_X, y], expected)
    linear.assert_conserved(model, _X, y)
    (rescaled,) = linear.run(model, _X, y, rescale=True)
    linear.assert_close(rescaled[0], expected)


def test_an_rnn_of_several_cells_is_one_after_the_other(line):
    layers = line.layers
    cells = [layers.SimpleRNNCell(4), layers.LSTMCell(2), layers.GRUCell(3)]
    model = _model(line, layers.RNN(cells, return_sequences=True))
    expected = _X[0]
    for cell, loop in zip(cells, (_simple, _gated, _gated), strict=True):
        expected = loop(*_kernels(cell), expected)
    linear.assert_computes(model, [_X], expected)
    linear.assert_conserved(model, _X)


def _subtracting(o, cell, x, state):
    return o.tanh(o.matmul(x, cell.into) - o.matmul(state, cell.back))


def _projecting(o, cell, x, state):
    both = o.concatenate([x, state], -1)
    return o.matmul(o.tanh(o.matmul(both, cell.into)), cell.back)


# name: what a user's cell does, the shapes of its weights, and a step of it.
CELLS = {
    "subtracting": (
        _subtracting,
        {"into": (3, 4), "back": (4, 4)},
        lambda w, x, h: x @ w["into"] + h @ w["back"],
    ),
    "projecting to another width": (
        _projecting,
        {"into": (7, 2), "back": (2, 4)},
        lambda w, x, h: np.concatenate([x, h]) @ w["into"] @ w["back"],
    ),
}


@pytest.mark.parametrize("case", CELLS)
def test_a_cell_of_the_users_own_is_opened(line, case):
    step, weights, expected = CELLS[case]

    def call(me, x, states):
        state = step(common.ops(line), me, x, states[0])
        return state, [state]

    cell = linear.custom(line, call, weights, state_size=4, output_size=4)
    model = _model(line, line.layers.RNN(cell, name="rnn"))
    w = {name: linear.magnitude(getattr(cell, name)) for name in weights}

    def loop(steps):
        h = np.zeros(4)
        for x in steps:
            h = expected(w, x, h)
        return h

    linear.assert_computes(model, [_X], loop(_X[0]))
    scores = synflow_tf.score(model)
    assert list(scores) == ["rnn/cell/into", "rnn/cell/back"]
    flow = loop(np.ones((_STEPS, _SIZE))).sum()
    linear.assert_flow(scores, flow, *scores)


# name: what becomes of both directions.
MERGED = {
    "concat": lambda a, b: [np.concatenate([a, b], -1)],
    "sum": lambda a, b: [a + b],
    "ave": lambda a, b: [(a + b) / 2],
    "mul": lambda a, b: [a],  # One is the other's gate.
    None: lambda a, b: [a, b],
}


@pytest.mark.parametrize(
    "mode, sequences", [("concat", False), *((mode, True) for mode in MERGED)]
)
def test_bidirectional_merges_both_directions(line, mode, sequences):
    inner = _layer(line, "LSTM", return_sequences=sequences)
    layer = line.layers.Bidirectional(inner, merge_mode=mode)
    model = _model(line, layer)
    ahead, back = _sides(layer)
    ahead, back = _gated(*ahead, _X[0]), _gated(*back, _X[0, ::-1])
    both = (ahead, back[::-1]) if sequences else (ahead[-1], back[-1])
    linear.assert_computes(model, [_X], *MERGED[mode](*both))
    if mode == "mul":
        linear.assert_conserved(model, _X)


def test_a_bidirectional_decoder_goes_on_from_given_states(line):
    encoder, decoder = (
        line.layers.Bidirectional(_layer(line, "GRU, reset after", **options))
        for options in ({"return_state": True}, {})
    )
    model = _translating(line, encoder, decoder)
    y = linear.positive(3, _SIZE, seed=2)
    expected = []
    sides = zip(_sides(encoder), _sides(decoder), (1, -1), strict=True)
    for first, second, turn in sides:
        state = _gated(*first, _X[0, ::turn])[-1]
        expected.append(_gated(*second, y[0, ::turn], state)[-1])
    linear.assert_computes(model, [_X, y], np.concatenate(expected))
    linear.assert_conserved(model, _X, y)


def _convolved(image, kernel, same):
    """A convolution with stride 1, in NumPy."""
    size = kernel.shape[0]
    if same:
        before = (size - 1) // 2
        pad = (before, size - 1 - before)
        image = np.pad(image, [pad, pad, (0, 0)])
    height, width = (n - size + 1 for n in image.shape[:2])
    out = np.zeros((height, width, kernel.shape[-1]))
    for i in range(size):
        for j in range(size):
            out += image[i : i + height, j : j + width] @ kernel[i, j]
    return out


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_a_convolutional_lstm_is_its_loop_with_gates_of_1(line, padding):
    shape = 3, 4, 5, 2
    layer = line.layers.ConvLSTM2D(3, 2, padding=padding, return_sequences=True)
    model = linear.randomize(linear.chain(line, layer, shape=shape))
    kernel, recurrent = (k[..., 6:9] for k in _kernels(layer))
    x = linear.positive(*shape)
    state, states = 0.0, []
    for image in x[0]:
        state = state + _convolved(image, kernel, padding == "same")
        states.append(state)
        state = state + _convolved(state, recurrent, True)
    linear.assert_computes(model, [x], states)
    linear.assert_conserved(model, x)


def test_time_distributed_is_the_layer_at_each_step(line):
    layers = line.layers
    inner = line.Sequential(
        [line.Input((4, 2)), layers.Flatten(), layers.Dense(3, "relu")]
    )
    model = linear.chain(line, layers.TimeDistributed(inner), shape=(5, 4, 2))
    linear.randomize(model)
    kernel = linear.magnitude(inner.layers[-1].kernel)
    x = linear.positive(5, 4, 2)
    linear.assert_computes(model, [x], x[0].reshape(5, 8) @ kernel)
    (score,) = synflow_tf.score(model).values()
    linear.assert_close(score, 5 * kernel)


def test_the_mask_of_an_embedding_changes_nothing(line):
    table = line.layers.Embedding(7, _SIZE, mask_zero=True)
    layer = _layer(line, "LSTM")
    model = linear.chain(line, table, layer, shape=(_STEPS,), dtype="int32")
    linear.randomize(model)
    states = _gated(*_kernels(layer), np.ones((_STEPS, _SIZE)))
    linear.assert_flow(synflow_tf.score(model), states[-1].sum())


def test_a_stateful_layer_begins_at_0_and_keeps_its_state(line):
    layer = line.layers.SimpleRNN(_UNITS, stateful=True)
    x = line.Input(batch_shape=(1, _STEPS, _SIZE))
    model = line.Model(x, layer(x))
    linear.randomize(model)
    model(_X.astype(np.float32))
    before = [v.numpy() for v in layer.states]
    assert any(v.any() for v in before)
    linear.assert_computes(model, [_X], _simple(*_kernels(layer), _X[0])[-1])
    for state, value in zip(layer.states, before, strict=True):
        np.testing.assert_array_equal(state.numpy(), value)


@pytest.mark.parametrize(
    "case, size",
    [
        ("SimpleRNN", 0.01),
        ("SimpleRNN", 100.0),
        ("LSTM", 100.0),
        ("GRU, reset after", 1.0),
    ],
)
def test_300_steps_stay_in_range(line, case, size):
    layer = _layer(line, case)
    model = _model(line, layer, 300)
    for variable in layer.weights:
        variable.assign(variable.numpy() * size)
    kernel, recurrent = _kernels(layer)
    if case != "SimpleRNN":
        kernel, recurrent = _trunk(kernel, recurrent)
    # The state is `share`, whose sum is 1, times 10 to the `exponent`.
    share, exponent = np.zeros(_UNITS), 0.0
    for _ in range(300):
        share = kernel.sum(0) * 10.0**-exponent + share @ recurrent
        exponent += math.log10(share.sum())
        share /= share.sum()
    assert size < 100 or exponent > 308
    linear.assert_close(synflow_tf.score(model).log10_flow, exponent)


def test_scores_of_a_simple_rnn_are_those_of_numpy(line):
    layer = _layer(line, "SimpleRNN")
    model = _model(line, layer)
    kernel, recurrent = _kernels(layer)
    states = _simple(kernel, recurrent, np.ones((_STEPS, _SIZE)))
    delta = np.ones(_UNITS)
    by_kernel = by_recurrent = 0.0
    for before in [*states[-2::-1], np.zeros(_UNITS)]:
        by_kernel = by_kernel + delta * kernel
        by_recurrent = by_recurrent + np.outer(before, delta) * recurrent
        delta = recurrent @ delta
    # A path passes the kernel once, and the recurrent one several times.
    linear.assert_close(by_kernel.sum(), states[-1].sum())
    times = by_recurrent.sum() / states[-1].sum()
    assert 1 < times < _STEPS
    first, second = synflow_tf.score(model).values()
    linear.assert_close(first, by_kernel)
    linear.assert_close(second, by_recurrent / times)


def _check_gates(scores, gates):
    """No gate of a kernel has more than the flow; sums of the last kernel."""
    for score in scores.values():
        assert (score > 0).all()
        assert score.shape[-1] == gates * _UNITS
        sums = score.reshape(-1, gates, _UNITS).sum((0, 2))
        assert (sums <= 10**scores.log10_flow * (1 + 1e-9)).all()
    return sums


@pytest.mark.parametrize(
    "case, gates, steps",
    [
        ("SimpleRNN", 1, 30),
        ("LSTM", 4, 2),
        ("LSTM", 4, 30),
        ("GRU, reset after", 3, 30),
        ("GRU, reset before", 3, 30),
    ],
)
def test_each_gate_of_a_kernel_has_at_most_the_flow(line, case, gates, steps):
    scores = synflow_tf.score(_model(line, _layer(line, case), steps))
    assert len(scores) == 2
    sums = _check_gates(scores, gates)
    if steps == 30:
        # Each path passes what carries the state again and again: all of R.
        linear.assert_flow(scores, sums[0 if gates == 1 else 2])


def test_a_bidirectional_kernel_has_at_most_the_flow_of_its_side(line):
    layer = line.layers.Bidirectional(_layer(line, "LSTM"))
    model = _model(line, layer, 20)
    ones = np.ones((20, _SIZE))
    flow = sum(_gated(*side, ones)[-1].sum() for side in _sides(layer))
    scores = synflow_tf.score(model)
    linear.assert_flow(scores, flow)
    assert len(scores) == 4
    _check_gates(scores, 4)


def test_sequences_that_other_layers_read_keep_their_scale(line):
    layers = line.layers
    lstm = layers.LSTM(_UNITS, return_sequences=True)
    rnn = layers.SimpleRNN(_UNITS)
    own, side = linear.dense(line, 3, "own"), linear.dense(line, 3, "side")

    def made(x):
        y = lstm(x)
        z, beside = layers.TimeDistributed(own)(y), side(x)
        last = rnn(layers.Concatenate()([y, z, beside]))
        return [last, layers.Flatten()(beside)]

    model = linear.randomize(linear.functional(line, made, (30, _SIZE)))
    ones = np.ones((30, _SIZE))
    y = _gated(*_kernels(lstm), ones)
    z = y @ linear.magnitude(own.kernel)
    beside = ones @ linear.magnitude(side.kernel)
    last = _simple(*_kernels(rnn), np.concatenate([y, z, beside], 1))[-1]
    plain, rescaled = (
        synflow_tf.score(model, scorer=scorers.SynFlow(rescale=rescale))
        for rescale in (False, True)
    )
    assert plain.log10_flow > 12
    linear.assert_flow(rescaled, last.sum() + beside.sum())
    linear.assert_close(rescaled.log10_flow, plain.log10_flow)
    linear.assert_close(rescaled, dict(plain), rtol=1e-11)


def test_rounds_with_a_recurrent_layer_prune_all_its_gates(line):
    line.utils.set_random_seed(0)
    layers = [line.layers.LSTM(8), line.layers.Dense(4)]
    model = linear.chain(line, *layers, shape=(30, _SIZE))
    masks = synflow_tf.compute_masks(model, 0.8, rounds=20, progress=False)
    assert masks.kept == masks.size - math.floor(0.8 * masks.size)
    assert masks.log10_flow > -math.inf
    assert all(mask.any() for mask in masks.values())
