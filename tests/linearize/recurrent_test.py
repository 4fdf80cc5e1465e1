"""Recurrent layers, against loops in NumPy whose gates are 1."""

import math

import common
import linear
import numpy as np
import pytest

import synflow_tf
from synflow_tf import scorers
from synflow_tf.graph import variables

_STEPS, _SIZE, _UNITS = 5, 3, 4


def _simple(kernel, recurrent, steps, state=None):
    """Computes h = x W + h U; all states, (time, units)."""
    h = np.zeros(recurrent.shape[0]) if state is None else state
    states = []
    for x in steps:
        h = x @ kernel + h @ recurrent
        states.append(h)
    return np.array(states)


def _gated(block):
    """A step of an LSTM or GRU with all its gates 1.

    Both are h = h + x W + h U, with one block of the columns: of an LSTM
    (input, forget, cell, output) the cell's, of a GRU (update, reset, hidden)
    the last.
    """

    def loop(kernel, recurrent, steps, state=None):
        units = recurrent.shape[0]
        columns = slice(block * units, (block + 1) * units)
        recurrent = recurrent[:, columns] + np.eye(units)
        return _simple(kernel[:, columns], recurrent, steps, state)

    return loop


_lstm, _gru = _gated(2), _gated(2)
# name: the layer, and its loop.
CASES = {
    "SimpleRNN": (lambda k, **o: k.SimpleRNN(_UNITS, **o), _simple),
    "SimpleRNN relu": (
        lambda k, **o: k.SimpleRNN(_UNITS, "relu", use_bias=False, **o),
        _simple,
    ),
    "LSTM": (lambda k, **o: k.LSTM(_UNITS, **o), _lstm),
    "LSTM unrolled": (lambda k, **o: k.LSTM(_UNITS, unroll=True, **o), _lstm),
    "LSTM with dropout": (
        lambda k, **o: k.LSTM(_UNITS, dropout=0.5, recurrent_dropout=0.5, **o),
        _lstm,
    ),
    "LSTM, hard sigmoid": (
        lambda k, **o: k.LSTM(
            _UNITS, "relu", recurrent_activation="hard_sigmoid", **o
        ),
        _lstm,
    ),
    "LSTM of implementation 1": (
        lambda k, **o: k.RNN(k.LSTMCell(_UNITS, implementation=1), **o),
        _lstm,
    ),
    "LSTM of implementation 2": (
        lambda k, **o: k.RNN(k.LSTMCell(_UNITS, implementation=2), **o),
        _lstm,
    ),
    "GRU, reset after": (
        lambda k, **o: k.GRU(_UNITS, reset_after=True, **o),
        _gru,
    ),
    "GRU, reset before": (
        lambda k, **o: k.GRU(_UNITS, reset_after=False, **o),
        _gru,
    ),
    "GRU without bias": (
        lambda k, **o: k.GRU(_UNITS, use_bias=False, **o),
        _gru,
    ),
    "GRU of implementation 1": (
        lambda k, **o: k.RNN(
            k.GRUCell(_UNITS, implementation=1, reset_after=False), **o
        ),
        _gru,
    ),
    "RNN of a SimpleRNNCell": (
        lambda k, **o: k.RNN(k.SimpleRNNCell(_UNITS), **o),
        _simple,
    ),
}


def _kernels(layer, seed=0):
    """Sets a layer's weights; the magnitudes of its two kernels."""
    rng = np.random.default_rng(seed)
    kernels = {}
    for variable in layer.weights:
        value = rng.uniform(0.1, 1.0, tuple(variable.shape))
        value *= rng.choice([-1.0, 1.0], value.shape)
        variable.assign(value)
        name = variable.name.partition(":")[0].rpartition("/")[2]
        value = np.asarray(variables.value(variable), np.float64)
        kernels[name] = np.abs(value)
    return kernels["kernel"], kernels["recurrent_kernel"]


def _model(line, make, time=_STEPS, **options):
    layers = line.layers
    x = line.Input((time, _SIZE))
    layer = make(layers, **options)
    return line.Model(x, layer(x)), layer


@pytest.mark.parametrize("case", CASES)
def test_a_recurrent_layer_is_its_loop_with_gates_of_1(line, case):
    make, loop = CASES[case]
    x = linear.positive(_STEPS, _SIZE)
    model, layer = _model(line, make, return_sequences=True)
    expected = loop(*_kernels(layer), x[0])
    (output,) = linear.run(model, x)
    np.testing.assert_allclose(output[0], expected, rtol=1e-12)


@pytest.mark.parametrize("case", ["SimpleRNN", "LSTM", "GRU, reset after"])
def test_without_return_sequences_it_is_the_last_step(line, case):
    make, loop = CASES[case]
    x = linear.positive(_STEPS, _SIZE)
    model, layer = _model(line, make)
    expected = loop(*_kernels(layer), x[0])
    (output,) = linear.run(model, x)
    np.testing.assert_allclose(output[0], expected[-1], rtol=1e-12)
    linear.conserved(model, x)


@pytest.mark.parametrize("case", ["SimpleRNN", "LSTM", "GRU, reset after"])
def test_go_backwards_begins_at_the_end(line, case):
    make, loop = CASES[case]
    x = linear.positive(_STEPS, _SIZE)
    model, layer = _model(line, make, go_backwards=True, return_sequences=True)
    expected = loop(*_kernels(layer), x[0, ::-1])
    (output,) = linear.run(model, x)
    np.testing.assert_allclose(output[0], expected, rtol=1e-12)


@pytest.mark.parametrize("case", ["SimpleRNN", "LSTM", "GRU, reset before"])
def test_return_state_gives_the_last_state(line, case):
    make, loop = CASES[case]
    x = linear.positive(_STEPS, _SIZE)
    model, layer = _model(line, make, return_state=True)
    expected = loop(*_kernels(layer), x[0])[-1]
    outputs = linear.run(model, x)
    assert len(outputs) == len(model.outputs) == 2 + (case == "LSTM")
    for output in outputs:
        np.testing.assert_allclose(output[0], expected, rtol=1e-12)


@pytest.mark.parametrize("case", ["SimpleRNN", "LSTM", "GRU, reset after"])
def test_a_decoder_goes_on_from_the_state_of_its_encoder(line, case):
    make, loop = CASES[case]
    layers = line.layers
    source, target = (line.Input((t, _SIZE)) for t in (5, 3))
    encoder = make(layers, return_state=True)
    decoder = make(layers, return_sequences=True)
    _, *state = encoder(source)
    model = line.Model([source, target], decoder(target, initial_state=state))
    x, y = linear.positive(5, _SIZE), linear.positive(3, _SIZE, seed=2)
    state = loop(*_kernels(encoder), x[0])[-1]
    expected = loop(*_kernels(decoder, 1), y[0], state)
    (output,) = linear.run(model, x, y)
    np.testing.assert_allclose(output[0], expected, rtol=1e-12)
    linear.conserved(model, x, y)
    (rescaled,) = linear.run(model, x, y, rescale=True)
    np.testing.assert_allclose(rescaled, output, rtol=1e-12)


def test_an_rnn_of_several_cells_is_one_after_the_other(line):
    layers = line.layers
    cells = [layers.SimpleRNNCell(4), layers.LSTMCell(2), layers.GRUCell(3)]
    x = linear.positive(_STEPS, _SIZE)
    model, _ = _model(
        line, lambda k, **o: k.RNN(cells, **o), return_sequences=True
    )
    expected = x[0]
    for cell, loop in zip(cells, (_simple, _lstm, _gru), strict=True):
        expected = loop(*_kernels(cell), expected)
    (output,) = linear.run(model, x)
    np.testing.assert_allclose(output[0], expected, rtol=1e-12)
    linear.conserved(model, x)


def test_a_cell_of_the_users_own_is_opened(line):
    matmul = linear.op(line, "matmul")

    class Cell(line.layers.Layer):
        units = state_size = output_size = 4

        def build(self, shape):
            self.kernel = self.add_weight(name="kernel", shape=(shape[-1], 4))
            self.recurrent_kernel = self.add_weight(
                name="recurrent_kernel", shape=(4, 4)
            )
            self.built = True

        def call(self, inputs, states):
            h = matmul(inputs, self.kernel)
            h = h - matmul(states[0], self.recurrent_kernel)
            h = linear.op(line, "tanh")(h)
            return h, [h]

    cell = Cell()
    x = linear.positive(_STEPS, _SIZE)
    model, _ = _model(line, lambda k, **o: k.RNN(cell, **o))
    expected = _simple(*_kernels(cell), x[0])[-1]
    (output,) = linear.run(model, x)
    np.testing.assert_allclose(output[0], expected, rtol=1e-12)


def _merged(mode, forward, backward):
    return {
        "concat": [np.concatenate([forward, backward], -1)],
        "sum": [forward + backward],
        "ave": [(forward + backward) / 2],
        # One is the other's gate.
        "mul": [forward],
        None: [forward, backward],
    }[mode]


@common.ONE
@pytest.mark.parametrize(
    "mode,sequences",
    [
        ("concat", True),
        ("concat", False),
        ("sum", True),
        ("ave", True),
        ("mul", True),
        (None, True),
    ],
)
def test_bidirectional_merges_both_directions(line, mode, sequences):
    x = linear.positive(_STEPS, _SIZE)
    model, layer = _model(
        line,
        lambda k: k.Bidirectional(
            k.LSTM(_UNITS, return_sequences=sequences), merge_mode=mode
        ),
    )
    forward = _lstm(*_kernels(layer.forward_layer), x[0])
    backward = _lstm(*_kernels(layer.backward_layer, 1), x[0, ::-1])
    if sequences:
        backward = backward[::-1]
    else:
        forward, backward = forward[-1], backward[-1]
    outputs = linear.run(model, x)
    expected = _merged(mode, forward, backward)
    for output, value in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(output[0], value, rtol=1e-12)
    if mode == "mul":
        linear.conserved(model, x)


def test_bidirectional_gives_all_states(line):
    x = linear.positive(_STEPS, _SIZE)
    model, layer = _model(
        line, lambda k: k.Bidirectional(k.GRU(_UNITS, return_state=True))
    )
    forward = _gru(*_kernels(layer.forward_layer), x[0])[-1]
    backward = _gru(*_kernels(layer.backward_layer, 1), x[0, ::-1])[-1]
    both, first, second = linear.run(model, x)
    np.testing.assert_allclose(first[0], forward, rtol=1e-12)
    np.testing.assert_allclose(second[0], backward, rtol=1e-12)
    np.testing.assert_allclose(
        both[0], np.concatenate([forward, backward]), rtol=1e-12
    )


def test_a_bidirectional_decoder_goes_on_from_given_states(line):
    layers = line.layers
    source, target = (line.Input((t, _SIZE)) for t in (5, 3))
    encoder = layers.Bidirectional(layers.GRU(_UNITS, return_state=True))
    decoder = layers.Bidirectional(layers.GRU(_UNITS))
    _, *states = encoder(source)
    model = line.Model([source, target], decoder(target, initial_state=states))
    x, y = linear.positive(5, _SIZE), linear.positive(3, _SIZE, seed=2)
    expected = []
    for side, turn in (("forward", 1), ("backward", -1)):
        first = getattr(encoder, f"{side}_layer")
        second = getattr(decoder, f"{side}_layer")
        state = _gru(*_kernels(first), x[0, ::turn])[-1]
        expected.append(_gru(*_kernels(second, 1), y[0, ::turn], state)[-1])
    (output,) = linear.run(model, x, y)
    np.testing.assert_allclose(output[0], np.concatenate(expected), rtol=1e-12)
    linear.conserved(model, x, y)


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
    layers = line.layers
    x = line.Input((3, 4, 5, 2))
    layer = layers.ConvLSTM2D(3, 2, padding=padding, return_sequences=True)
    model = line.Model(x, layer(x))
    kernel, recurrent = (k[..., 6:9] for k in _kernels(layer))
    x = linear.positive(3, 4, 5, 2)
    state, states = None, []
    for image in x[0]:
        new = _convolved(image, kernel, padding == "same")
        if state is not None:
            new += state + _convolved(state, recurrent, True)
        state = new
        states.append(state)
    (output,) = linear.run(model, x)
    np.testing.assert_allclose(output[0], states, rtol=1e-12)
    linear.conserved(model, x)


def test_time_distributed_is_the_layer_at_each_step(line):
    layers = line.layers
    inner = line.Sequential(
        [
            line.Input((4, 2)),
            layers.Flatten(),
            layers.Dense(3, "relu", name="d"),
        ]
    )
    x = line.Input((5, 4, 2))
    model = line.Model(x, layers.TimeDistributed(inner)(x))
    linear.randomize(model)
    (kernel,) = [
        v for k, v in linear.magnitudes(model).items() if "kernel" in k
    ]
    x = linear.positive(5, 4, 2)
    (output,) = linear.run(model, x)
    np.testing.assert_allclose(
        output[0], x[0].reshape(5, 8) @ kernel, rtol=1e-12
    )
    scores = synflow_tf.score(model)
    (score,) = scores.values()
    np.testing.assert_allclose(score, 5 * kernel, rtol=1e-12)


def test_the_mask_of_an_embedding_changes_nothing(line):
    layers = line.layers
    tokens = line.Input((_STEPS,), dtype="int32")
    x = layers.Embedding(7, _SIZE, mask_zero=True)(tokens)
    layer = layers.LSTM(_UNITS)
    model = line.Model(tokens, layer(x))
    kernel, recurrent = _kernels(layer)
    expected = _lstm(kernel, recurrent, np.ones((_STEPS, _SIZE)))[-1].sum()
    scores = synflow_tf.score(model)
    np.testing.assert_allclose(10**scores.log10_flow, expected, rtol=1e-9)


def test_a_stateful_layer_begins_at_0_and_keeps_its_state(line):
    layers = line.layers
    x = line.Input(batch_shape=(1, _STEPS, _SIZE))
    layer = layers.SimpleRNN(_UNITS, stateful=True)
    model = line.Model(x, layer(x))
    kernels = _kernels(layer)
    x = linear.positive(_STEPS, _SIZE)
    model(x.astype(np.float32))
    before = [v.numpy() for v in layer.states]
    assert any(v.any() for v in before)
    (output,) = linear.run(model, x)
    np.testing.assert_allclose(
        output[0], _simple(*kernels, x[0])[-1], rtol=1e-12
    )
    for state, value in zip(layer.states, before, strict=True):
        np.testing.assert_array_equal(state.numpy(), value)


def _exact_log10(kernel, recurrent, steps, keep):
    """log10 of the flow of h = x W + keep h + h U, exact in integers."""
    bits = 40
    one = 1 << bits

    def integers(array):
        scaled = array * float(one)
        assert (scaled == np.round(scaled)).all()
        return np.vectorize(int, otypes=[object])(scaled)

    fresh = integers(kernel).sum(0)
    recurrent = integers(recurrent)
    if keep:
        recurrent = recurrent + one * np.eye(len(recurrent), dtype=object)
    # h is `one` to the power of the step times what it is.
    h, scale = fresh, one
    for _ in range(steps - 1):
        h = h.dot(recurrent) + scale * fresh
        scale *= one
    return math.log10(int(h.sum())) - bits * steps * math.log10(2)


@common.ONE
@pytest.mark.parametrize(
    "case,size",
    [
        ("SimpleRNN", 0.01),
        ("SimpleRNN", 100.0),
        ("LSTM", 100.0),
        ("GRU, reset after", 1.0),
    ],
)
def test_300_steps_stay_in_range(line, case, size):
    make, _ = CASES[case]
    model, layer = _model(line, make, time=300)
    _kernels(layer)
    for variable in layer.weights:
        # Multiples of 2^-20, so that integers hold them.
        value = np.asarray(variables.value(variable)) * size
        variable.assign(np.round(value * 2**20) / 2**20)
    block = 0 if case == "SimpleRNN" else 2
    kernel, recurrent = (
        np.abs(w.astype(np.float64))[:, block * _UNITS : (block + 1) * _UNITS]
        for w in layer.get_weights()[:2]
    )
    expected = _exact_log10(kernel, recurrent, 300, case != "SimpleRNN")
    assert size < 100 or expected > 308
    scores = synflow_tf.score(model)
    np.testing.assert_allclose(scores.log10_flow, expected, rtol=1e-9)


def test_scores_of_a_simple_rnn_are_those_of_numpy(line):
    model, layer = _model(line, CASES["SimpleRNN"][0])
    kernel, recurrent = _kernels(layer)
    ones = np.ones((_STEPS, _SIZE))
    states = _simple(kernel, recurrent, ones)
    flow = states[-1].sum()
    delta = np.ones(_UNITS)
    by_kernel, by_recurrent = np.zeros(kernel.shape), np.zeros(recurrent.shape)
    for t in range(_STEPS - 1, -1, -1):
        by_kernel += np.outer(ones[t], delta)
        if t:
            by_recurrent += np.outer(states[t - 1], delta)
        delta = recurrent @ delta
    by_kernel *= kernel
    by_recurrent *= recurrent
    # A path passes the kernel once, and the recurrent one several times.
    np.testing.assert_allclose(by_kernel.sum(), flow, rtol=1e-12)
    times = by_recurrent.sum() / flow
    assert 1 < times < _STEPS
    scores = list(synflow_tf.score(model).values())
    np.testing.assert_allclose(scores[0], by_kernel, rtol=1e-12)
    np.testing.assert_allclose(scores[1], by_recurrent / times, rtol=1e-12)


@pytest.mark.parametrize(
    "case,steps",
    [
        ("SimpleRNN", 30),
        ("LSTM", 2),
        ("LSTM", 30),
        ("GRU, reset after", 30),
        ("GRU, reset before", 30),
    ],
)
def test_each_gate_of_a_kernel_has_at_most_the_flow(line, case, steps):
    make, _ = CASES[case]
    model, layer = _model(line, make, time=steps)
    _kernels(layer)
    scores = synflow_tf.score(model)
    flow = 10**scores.log10_flow
    assert len(scores) == 2
    for score in scores.values():
        assert (score > 0).all()
        gates = score.shape[-1] // _UNITS
        assert gates == (4 if "LSTM" in case else 3 if "GRU" in case else 1)
        sums = score.reshape(-1, gates, _UNITS).sum((0, 2))
        assert (sums <= flow * (1 + 1e-9)).all()
    if steps == 30:
        # Each path passes what carries the state again and again: all of R.
        carried = sums[0 if gates == 1 else 2]
        np.testing.assert_allclose(carried, flow, rtol=1e-9)


@common.ONE
def test_a_bidirectional_kernel_has_at_most_the_flow_of_its_side(line):
    model, layer = _model(
        line, lambda k: k.Bidirectional(k.LSTM(_UNITS)), time=20
    )
    flows = []
    for part in (layer.forward_layer, layer.backward_layer):
        kernels = _kernels(part)
        flows.append(_lstm(*kernels, np.ones((20, _SIZE)))[-1].sum())
    scores = synflow_tf.score(model)
    np.testing.assert_allclose(10**scores.log10_flow, sum(flows), rtol=1e-9)
    assert len(scores) == 4
    for score in scores.values():
        sums = score.reshape(-1, 4, _UNITS).sum((0, 2))
        assert (sums <= sum(flows) * (1 + 1e-9)).all()
        assert (score > 0).all()


@common.ONE
def test_sequences_that_another_layer_reads_keep_their_scale(line):
    layers = line.layers
    x = line.Input((30, _SIZE))
    y = layers.LSTM(_UNITS, return_sequences=True)(x)
    z = layers.TimeDistributed(layers.Dense(3))(y)
    side = layers.Dense(3)(x)
    w = layers.SimpleRNN(_UNITS)(layers.Concatenate()([y, z, side]))
    model = line.Model(x, [w, layers.Flatten()(side)])
    linear.randomize(model)
    plain, rescaled = (
        synflow_tf.score(model, scorer=scorers.SynFlow(rescale=rescale))
        for rescale in (False, True)
    )
    assert plain.log10_flow > 12
    np.testing.assert_allclose(
        rescaled.log10_flow, plain.log10_flow, rtol=1e-12
    )
    for path in plain:
        np.testing.assert_allclose(rescaled[path], plain[path], rtol=1e-11)


def test_two_layers_of_sequences_are_two_loops(line):
    layers = line.layers
    x = line.Input((30, _SIZE))
    first = layers.GRU(_UNITS, return_sequences=True)
    second = layers.SimpleRNN(_UNITS)
    y = first(x)
    side = layers.Dense(2, use_bias=False)
    model = line.Model(x, [second(y), side(y)])
    sequences = _gru(*_kernels(first), np.ones((30, _SIZE)))
    last = _simple(*_kernels(second, 1), sequences)[-1]
    side.kernel.assign(np.full((_UNITS, 2), 0.5))
    expected = last.sum() + 0.5 * 2 * sequences.sum()
    scores = synflow_tf.score(model)
    np.testing.assert_allclose(
        scores.log10_flow, np.log10(expected), rtol=1e-12
    )


@pytest.mark.parametrize("steps", [10, 30])
def test_rounds_with_a_recurrent_layer_prune_all_its_gates(line, steps):
    line.utils.set_random_seed(0)
    layers = line.layers
    model = line.Sequential(
        [
            line.Input((steps, _SIZE)),
            layers.LSTM(8),
            layers.Dense(4),
        ]
    )
    masks = synflow_tf.compute_masks(model, 0.8, rounds=20, progress=False)
    assert masks.kept == masks.size - math.floor(0.8 * masks.size)
    assert masks.log10_flow > -math.inf
    assert all(mask.any() for mask in masks.values())
