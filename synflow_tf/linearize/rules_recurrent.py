"""Rules of recurrent layers, which run their cell step by step.

The cell's operations become nodes, so its gates are gates as anywhere else. A
recurrence is as deep as its input is long, so its values are kept in range
from step to step.
"""

import tensorflow as tf

from synflow_tf import graph as graph_lib
from synflow_tf.graph import keras_private
from synflow_tf.graph import lines
from synflow_tf.linearize import executor
from synflow_tf.linearize import lower
from synflow_tf.linearize import registry
from synflow_tf.linearize import rescaling

# A loop in Python takes seconds for long inputs; for short ones, less time than
# it takes to trace a function.
_EAGER_STEPS = 16


@registry.layer(
    "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D", "GRU", "LSTM", "RNN", "SimpleRNN"
)
def recurrent(layer, weights, x, initial_state=None, **options):
    """Runs the cell at each step, from states of 0 or the given ones."""
    del options
    if isinstance(x, (list, tuple)):  # tf_keras gives the states like this.
        x, *initial_state = x
    time_major = getattr(layer, "time_major", False)
    steps = x if time_major else _swap(x)
    if layer.go_backwards:
        steps = steps[::-1]
    if isinstance(layer, lines.LINES[0].layers.Layer):
        zeros = layer.get_initial_state(batch_size=x.shape[0])
    else:
        zeros = layer.get_initial_state(x)
    states = tf.nest.map_structure(lambda s: tf.zeros(s.shape, x.dtype), zeros)
    if initial_state:
        flat = tf.nest.flatten(initial_state)
        states = tf.nest.pack_sequence_as(states, flat)
    _note_uses(layer.cell, weights)
    outputs, states, exponent = _scan(layer.cell, weights, steps, states)
    weights.range.behind = exponent
    if not layer.return_sequences:
        outputs = outputs[-1]
    elif not time_major:
        outputs = _swap(outputs)
    return [outputs, *states] if layer.return_state else outputs


@registry.layer("Normalization", "Rescaling")
def identity(layer, weights, x):
    """Returns the input: the scale is that of the data, and no weight."""
    del layer, weights
    return x


def _swap(x):
    """Swaps batch and time."""
    return tf.transpose(x, [1, 0, *range(2, x.shape.rank)])


def _note_uses(cell, weights):
    """Notes the kernels of a cell: every path passes them again and again."""
    for part in [cell, *keras_private.layers_within(cell)]:
        units = getattr(part, "units", getattr(part, "filters", None))
        for variable in part.weights:
            if len(variable.shape) > 1:
                width = variable.shape[-1]
                fits = isinstance(units, int) and width % units == 0
                weights.repeated[variable] = width // units if fits else 1


def _scan(cell, weights, steps, states):
    """Runs a cell over `steps`, (time, 1, ...), from `states`.

    Returns the outputs, (time, 1, ...); the list of states at the end, flat;
    and an int tensor, the exponent that both are off by.
    """
    line = next(x for x in lines.LINES if isinstance(cell, x.layers.Layer))
    graph = graph_lib.read_layer(cell, line, steps[0], states)
    graph = lower.lower(graph, weights.scored)
    outer, weights.range = weights.range, rescaling.Range(rescale=False)

    def step(carry, x):
        _, states, exponent = carry
        x = x * rescaling.power_of_two(-exponent, weights.dtype)
        output, *states = executor.run(graph, weights, [x, *states])
        if outer.rescale:
            excess = rescaling.excess([output, *states])
            factor = rescaling.power_of_two(-excess, weights.dtype)
            output *= factor
            states = [state * factor for state in states]
            exponent += tf.cast(excess, tf.int32)
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
    weights.range = outer
    behind = rescaling.power_of_two(exponents - exponents[-1], weights.dtype)
    behind = tf.reshape(behind, [-1] + [1] * (outputs.shape.rank - 1))
    last = [state[-1] for state in states]
    return outputs * behind, last, exponents[-1]
