"""Which weights are removed: the lowest scores, in exact numbers.

Non-negative IEEE floats order like their bits, so the k-th lowest score is
found by counting how often each value of the highest 16 bits occurs, then of
the next 16 among the scores that share the highest, and so on (radix select):
linear in the number of scores, where sorting 14.7 million takes seconds.
"""

import tensorflow as tf

_DIGIT = 16
_DIGITS = 2**_DIGIT


def count_removed(density, size):
    """How many of `size` weights to remove.

    Args:
        density: float or `fractions.Fraction` in (0, 1], the fraction kept.
        size: int, the number of prunable weights.

    Returns:
        int, floor((1 - density) size).
    """
    return int((1 - density) * size)


def lowest(scores, alive, count):
    """Removes the lowest scores.

    Args:
        scores: tensor of shape (n,), float32 or float64, all >= 0.
        alive: bool tensor of shape (n,), False for what is removed already;
            it ranks below everything and stays removed.
        count: int64 tensor of shape (), how many more to remove; at most as
            many as are alive. Ties are broken by index, lowest first.

    Returns:
        bool tensor of shape (n,): `alive` with exactly `count` more False.
    """
    bits = scores.dtype.size * 8
    integer = tf.int64 if bits == 64 else tf.int32
    keys = tf.bitcast(scores, integer)

    # The alive scores that share all digits of the last one to go so far, by
    # index, and the rank of that one among them.
    ties = None
    rank = tf.maximum(count - 1, 0)
    for shift in range(bits - _DIGIT, -1, -_DIGIT):
        digits = tf.bitwise.right_shift(keys, tf.constant(shift, integer))
        digits = tf.cast(digits, tf.int32)
        if ties is None:
            # No sign bit is set, so this digit is nobody's.
            digits = tf.where(alive, digits, _DIGITS - 1)
        else:
            digits &= _DIGITS - 1
        digit, lower = _digit_of(digits, rank)
        rank -= lower
        here = tf.where(tf.equal(digits, digit))[:, 0]
        ties = here if ties is None else tf.gather(ties, here)
        keys = tf.gather(keys, here)
    threshold = tf.gather(scores, ties[0])
    kept_ties = ties[tf.minimum(rank + 1, count) :]
    return tf.tensor_scatter_nd_update(
        alive & (scores > threshold),
        kept_ties[:, None],
        tf.ones_like(kept_ties, tf.bool),
    )


def _digit_of(digits, rank):
    """The digit of the element of a rank, and how many digits are lower."""
    counts = tf.math.bincount(
        digits, minlength=_DIGITS, maxlength=_DIGITS, dtype=tf.int64
    )
    cumulative = tf.cumsum(counts)
    digit = tf.math.count_nonzero(cumulative <= rank, dtype=tf.int32)
    return digit, cumulative[digit] - counts[digit]
