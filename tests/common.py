"""What tests of several rooms share."""

import subprocess
import sys

import keras
import numpy as np
import tensorflow as tf
import tf_keras
from hypothesis import strategies as st
from hypothesis.extra import numpy as hypothesis_numpy

import synflow_tf
from synflow_tf.graph import variables

LINES = (keras, tf_keras)

# What TensorFlow calls an operation of `keras.ops`.
_NAMES = {
    "concatenate": "concat",
    "max": "reduce_max",
    "mean": "reduce_mean",
    "sum": "reduce_sum",
    "take": "gather",
}


class _TensorFlow:
    def __getattr__(self, name):
        name = _NAMES.get(name, name)
        return getattr(tf if hasattr(tf, name) else tf.nn, name)


def ops(line):
    """The operations that users of a line write, by the names of Keras."""
    return keras.ops if line is keras else _TensorFlow()


class Counting(synflow_tf.scorers.SynFlow):
    """SynFlow that counts how often it is traced, and how often that runs."""

    calls = runs = 0

    def bind(self, *args):
        """Binds, and counts what the bound criterion does."""
        bound = super().bind(*args)
        score = bound.score

        def counted(*args):
            self.calls += 1
            tf.numpy_function(self._ran, [], [])
            return score(*args)

        bound.score = counted
        return bound

    def _ran(self):
        self.runs += 1


class Magnitude(synflow_tf.scorers.Scorer):
    """Absolute values: scores that NumPy knows, of any layer."""

    def bind(self, model, weights, graph):
        """Binds nothing."""
        return lambda tensors, round: ([tf.abs(w) for w in tensors], None)


def assert_equal(first, second):
    """Asserts that two sequences hold the same arrays."""
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)


def values(model):
    """The weights of a model, a dict of path to array."""
    return {
        w.path: np.array(variables.value(w.variable))
        for w in variables.weights(model)
    }


def state(model):
    """All that pruning may change: values, bit for bit, and constraints."""
    return [
        (np.array(variables.value(v)).tobytes(), variables.get_constraint(v))
        for v in model.weights
    ]


def revived(model, masks):
    """How many removed weights are not 0."""
    found = values(model)
    return sum(
        int(np.count_nonzero(found[path][~mask]))
        for path, mask in masks.items()
    )


def assert_nested(inner, outer):
    """Asserts that nothing has come back that was removed."""
    for path, mask in outer.items():
        assert not np.any(inner[path] & ~mask), path


def fit(model, x, y, *callbacks, batch_size=4, **options):
    """Trains in silence, one epoch unless `options` say more."""
    options = {"batch_size": batch_size, "verbose": 0, **options}
    return model.fit(x, y, callbacks=list(callbacks), **options)


def watch(line, look):
    """What a function returns after each batch, and the callback for it."""
    seen = []

    def note(batch, logs=None):
        seen.append(look())

    return seen, line.callbacks.LambdaCallback(on_train_batch_end=note)


def python(*arguments):
    """Runs Python in a process of its own; it holds what was printed."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True
    )


@st.composite
def scores_and_alive(draw, shapes):
    """Scores >= 0 of a shape, many of them equal, and which are alive."""
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    width = np.dtype(dtype).itemsize * 8
    number = st.floats(0, allow_nan=False, allow_infinity=False, width=width)
    few = st.sampled_from(draw(st.lists(number, min_size=1, max_size=4)))
    shape, elements = draw(shapes), draw(st.sampled_from([number, few]))
    arrays = hypothesis_numpy.arrays(
        dtype, shape, elements=elements, fill=st.nothing()
    )
    return np.abs(draw(arrays)), draw(hypothesis_numpy.arrays(bool, shape))
