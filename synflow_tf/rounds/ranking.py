"""Removes the lowest scores, in exact numbers.

IEEE floats order like their bits, so the k-th lowest score is found by counting
how often each value of the highest 16 bits occurs, then of the next 12 among
the scores that share the highest, and so on (radix select): linear in the
number of scores, where sorting 14.7 million takes seconds. Only what is not
removed yet is looked at: at a compression of 1000 that is a seventh of all.
"""

import functools

import tensorflow as tf

# Bits that are looked at together. Many at first, so that few scores share
# them; fewer then, since the histogram itself takes time.
_FIRST_DIGIT = 16
_DIGIT = 12


def count_removed(density, size):
    """Counts how many of `size` weights to remove: floor((1 - density) size).

    Exact where `density`, the fraction kept, is a `fractions.Fraction`.
    """
    return int((1 - density) * size)


def keys(scores):
    """Returns integers that order like floats, those below 1e-308 too.

    int32 for float32, int64 for float64, of the same shape; that of -0.0 is 0.
    There must be no NaN.
    """
    integer = tf.int64 if scores.dtype == tf.float64 else tf.int32
    bits = tf.bitcast(scores, integer)
    return tf.cond(
        # One look, where a copy of millions of scores takes five.
        tf.reduce_min(bits) < 0,
        lambda: tf.where(bits < 0, integer.min - bits, bits),
        lambda: bits,
    )


def lowest(scores, alive, count):
    """Removes the lowest scores.

    Args:
        scores: tensor of shape (n,), float32 or float64, without NaN.
        alive: bool tensor of shape (n,), False for what is removed already;
            it ranks below everything and stays removed.
        count: int64 tensor of shape (), how many more to remove; at most as
            many as are alive. Ties are broken by index, lowest first.

    Returns:
        bool tensor of shape (n,): `alive` with exactly `count` more False.
    """
    return _traced(scores.dtype)(scores, alive, count)


@functools.cache
def _traced(dtype):
    """Returns `_lowest`, traced once for vectors of any length."""
    signature = [
        tf.TensorSpec([None], dtype),
        tf.TensorSpec([None], tf.bool),
        tf.TensorSpec([], tf.int64),
    ]
    return tf.function(_lowest, input_signature=signature, autograph=False)


def _lowest(scores, alive, count):
    every = keys(scores)
    places = tf.where(alive)[:, 0]
    candidates = tf.gather(every, places)
    low = scores.dtype.size * 8 - _FIRST_DIGIT
    digits = tf.bitwise.right_shift(candidates, _like(low, candidates))
    digits = tf.cast(digits, tf.int32) + 2 ** (_FIRST_DIGIT - 1)  # from 0
    ties, rank = _of_rank(digits, _FIRST_DIGIT, tf.maximum(count - 1, 0))
    # `ties` are the candidates that share all digits of the last one to go
    # so far, by index; `rank` is the rank of that one among them.
    while low > 0:
        width = min(_DIGIT, low)
        low -= width
        digits = tf.bitwise.right_shift(
            tf.gather(candidates, ties), _like(low, candidates)
        )
        digits = tf.cast(digits & (2**width - 1), tf.int32)
        here, rank = _of_rank(digits, width, rank)
        ties = tf.gather(ties, here)
    # None where nothing is alive.
    threshold = tf.reduce_max(tf.gather(candidates, ties))
    kept_ties = tf.gather(places, ties[tf.minimum(rank + 1, count) :])
    return tf.tensor_scatter_nd_update(
        alive & (every > threshold),
        kept_ties[:, None],
        tf.ones_like(kept_ties, tf.bool),
    )


def _like(value, tensor):
    return tf.constant(value, tensor.dtype)


def _of_rank(digits, width, rank):
    """Finds the digits that equal the one of a rank.

    Args:
        digits: int32 tensor of shape (n,), each in [0, 2**width).
        width: int, the number of bits.
        rank: int64 tensor of shape (), in [0, n).

    Returns:
        The indices of those digits, int64, in order; and the rank of that one
        among them, int64.
    """
    counts = tf.raw_ops.DenseBincount(
        input=digits,
        size=2**width,
        weights=tf.zeros([0], tf.int64),
        binary_output=False,
    )
    first = tf.constant(0)
    if width > _DIGIT:
        # By rows at first, because a cumulative sum runs on one core.
        rows = tf.reshape(counts, [2 ** (width - _DIGIT), -1])
        row, rank = _bin_of(tf.reduce_sum(rows, axis=1), rank)
        counts, first = tf.gather(rows, row), row * 2**_DIGIT
    digit, rank = _bin_of(counts, rank)
    return tf.where(tf.equal(digits, first + digit))[:, 0], rank


def _bin_of(counts, rank):
    """Returns the bin that an element is in, int32, and its rank there."""
    cumulative = tf.cumsum(counts)
    below = cumulative <= rank
    index = tf.reduce_sum(tf.cast(below, tf.int32))
    index = tf.minimum(index, tf.size(counts) - 1)  # where nothing is counted
    return index, rank - tf.reduce_max(tf.where(below, cumulative, 0))
