"""Recurrent layers: their cell, opened, step by step.

What the cell does becomes nodes, so its gates are gates as anywhere else. A
recurrence is as deep as its input is long, so its values are kept in range
from step to step.
"""

import keras
import tensorflow as tf

from synflow_tf.linearize import executor
from synflow_tf.linearize import joins
from synflow_tf.linearize import nested
from synflow_tf.linearize.registry import homogeneous


@homogeneous(
    "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D", "GRU", "LSTM", "RNN", "SimpleRNN"
)
def recurrent(layer, weights, x, initial_state=None, **options):
    """The cell at each step, from states of 0 or the given ones."""
    del options
    if isinstance(x, (list, tuple)):  # tf_keras gives the states like this.
        x, *initial_state = x
    time_major = getattr(layer, "time_major", False)
    steps = x if time_major else _swap(x)
    if layer.go_backwards:
        steps = steps[::-1]
    if isinstance(layer, keras.layers.Layer):
        zeros = layer.get_initial_state(batch_size=x.shape[0])
    else:
        zeros = layer.get_initial_state(x)
    states = tf.nest.map_structure(lambda s: tf.zeros(s.shape, x.dtype), zeros)
    if initial_state:
        flat = tf.nest.flatten(initial_state)
        states = tf.nest.pack_sequence_as(states, flat)
    _note_uses(layer.cell, weights)
    outputs, states, exponent = _scan(layer.cell, weights, steps, states)
    weights.shift = exponent
    if not layer.return_sequences:
        outputs = outputs[-1]
    elif not time_major:
        outputs = _swap(outputs)
    return [outputs, *states] if layer.return_state else outputs


# A loop in Python takes seconds for long inputs; for short ones, less time than
# it takes to trace a function.
_EAGER_STEPS = 16


def _swap(x):
    """Swaps batch and time."""
    return tf.transpose(x, [1, 0, *range(2, x.shape.rank)])


def _note_uses(cell, weights):
    """Notes the kernels of a cell: every path passes them again and again."""
    for part in cell._flatten_layers(include_self=True, recursive=True):
        units = getattr(part, "units", getattr(part, "filters", None))
        for variable in part.weights if isinstance(units, int) else ():
            if len(variable.shape) > 1:
                gates = variable.shape[-1] // units
                weights.repeated[id(variable)] = max(gates, 1)


def _scan(cell, weights, steps, states):
    """Runs a cell over time.

    Args:
        cell: a recurrent cell.
        weights: `executor.LinearWeights`.
        steps: tensor, (time, 1, ...).
        states: list of tensors, or of lists of tensors, what it starts from.

    Returns:
        The outputs, (time, 1, ...); the list of states at the end, flat; and
        an int tensor: they are 2 to the power of minus this times what they
        are.
    """
    graph = nested.linear(cell, steps[0], states)
    rescale, weights.rescale = weights.rescale, False

    def step(carry, x):
        _, states, exponent = carry
        x = x * executor.power_of_two(-exponent, weights.dtype)
        output, *states = executor.run(graph, weights, [x, *states])
        if rescale:
            more = executor.excess([output, *states])
            factor = executor.power_of_two(-more, weights.dtype)
            output *= factor
            states = [state * factor for state in states]
            exponent += tf.cast(more, tf.int32)
        return output, states, exponent

    def scan(steps, *states):
        nothing = tf.zeros((), tf.int32)
        first = step((None, list(states), nothing), steps[0])
        rest = tf.scan(step, steps[1:], first)
        return tf.nest.map_structure(
            lambda x, xs: tf.concat([x[None], xs], axis=0), first, rest
        )

    args = [steps, *tf.nest.flatten(states)]
    if tf.executing_eagerly() and len(steps) > _EAGER_STEPS:
        # A concrete function, because TensorFlow warns of many traced ones.
        scan = tf.function(scan, autograph=False).get_concrete_function(*args)
    outputs, states, exponents = scan(*args)
    weights.rescale = rescale
    behind = executor.power_of_two(exponents - exponents[-1], weights.dtype)
    behind = tf.reshape(behind, [-1] + [1] * (outputs.shape.rank - 1))
    last = [state[-1] for state in states]
    return outputs * behind, last, exponents[-1]


@homogeneous("Bidirectional")
def bidirectional(layer, weights, x, initial_state=None, **options):
    """Both directions, brought to one scale and merged."""
    del options
    if isinstance(x, (list, tuple)):  # tf_keras gives the states like this.
        x, *initial_state = x
    given = tf.nest.flatten(initial_state or [])
    half = len(given) // 2
    ways = [[x, *given[:half]], [x, *given[half:]]]
    if layer.merge_mode == "mul":
        # One is the gate of the other; gradients stop where they enter it.
        ways[1] = list(map(tf.stop_gradient, ways[1]))
    (forward, *states), up = _way(layer.forward_layer, weights, *ways[0])
    (backward, *more), down = _way(layer.backward_layer, weights, *ways[1])
    both = [executor.power_of_two(-e, weights.dtype) for e in (down, up)]
    forward, backward = forward * both[0], backward * both[1]
    states = [s * both[0] for s in states] + [s * both[1] for s in more]
    weights.shift = up + down
    if layer.return_sequences:
        axis = 0 if getattr(layer.forward_layer, "time_major", False) else 1
        backward = tf.reverse(backward, [axis])
    mode = layer.merge_mode
    if mode == "concat":
        outputs = [tf.concat([forward, backward], axis=-1)]
    elif mode == "sum":
        outputs = [forward + backward]
    elif mode == "ave":
        outputs = [(forward + backward) / 2]
    elif mode == "mul":
        outputs = [joins.gate(weights, forward, backward)]
    else:
        outputs = [forward, backward]
    return outputs + states


def _way(layer, weights, x, *states):
    """One direction; see `nested.apply`."""
    if not states:
        return nested.apply(layer, weights, x)
    outputs = recurrent(layer, weights, x, list(states))
    shift, weights.shift = weights.shift, None
    return tf.nest.flatten(outputs), shift


@homogeneous("TimeDistributed")
def time_distributed(layer, weights, x):
    """The layer on all steps, as if they were examples."""
    _, time, *rest = x.shape
    outputs, weights.shift = nested.apply(
        layer.layer, weights, tf.reshape(x, [time, *rest])
    )
    return [y[None] for y in outputs]
