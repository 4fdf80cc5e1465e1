"""Keeps the values of a run within the range of their dtype.

Deep networks have flows up to 10^255 and beyond: so every few kernels, if the
largest live value has left [2^-12, 2^12], all live values are multiplied by one
power of two. The live values are a cut of the graph, so every score is
multiplied by the same power of two, exactly, and no ranking changes.
"""

import tensorflow as tf

# Live values are brought back between 2 to the power of minus this and of this:
# so wide that most networks are never rescaled, and nothing to the range.
_BITS = 12
# Every look takes time, so there is one after so many kernels. A kernel
# multiplies the largest value by less than its fan-in times its largest weight,
# 2^40 at the very most: 2^12 grows to less than 2^652 over 16 kernels, and
# float64 ends at 2^1023. In float32, which ends at 2^127, each of 4 kernels may
# multiply by 2^28.
_KERNELS = {tf.float64: 16, tf.float32: 4}


class Range:
    """The power of two by which the values of one run are off.

    True value = stored value * 2**exponent. `Range(False)` rescales nothing.

    Attributes:
        exponent: float64 tensor of shape ().
        kernels: int, how many were applied since the last look at the values.
        behind: None, or an int tensor: what a node has just returned is off by
            this exponent in addition to that of all other values.
    """

    def __init__(self, rescale=True):
        self.rescale = rescale
        self.exponent = tf.zeros((), tf.float64)
        self.kernels = 0
        self.behind = None

    def keep(self, tensors):
        """Rescales the live flow if it is due: a dict by value, in place."""
        live = [x for value, x in tensors.items() if value.is_flow]
        if self.rescale and live and self.kernels >= _KERNELS[live[0].dtype]:
            self.kernels = 0
            self._divide(tensors, excess(live))

    def catch_up(self, tensors):
        """Brings the live flow to the exponent of what a node has returned."""
        if self.behind is not None:
            self._divide(tensors, self.behind)
            self.behind = None

    def _divide(self, tensors, exponent):
        flows = [value for value in tensors if value.is_flow]
        if flows:
            factor = power_of_two(-exponent, tensors[flows[0]].dtype)
            for value in flows:
                tensors[value] *= factor
        self.exponent += tf.cast(exponent, tf.float64)


def _layout(dtype):
    """Returns the integer type of a float type, its mantissa bits and bias."""
    if dtype == tf.float64:
        return tf.int64, 52, 1023
    return tf.int32, 23, 127


def excess(tensors):
    """Returns the exponent of the largest value, or 0 if it is in range."""
    exponent = exponent_of(tensors)
    out = tf.abs(exponent) > _BITS
    return tf.where(out, exponent, tf.zeros_like(exponent))


def exponent_of(tensors):
    """Returns the exponent of the largest value, an int tensor of shape ().

    It is 0 if that value is 0 or not finite.
    """
    largest = [tf.reduce_max(x) for x in tensors]
    largest = tf.stop_gradient(tf.reduce_max(tf.stack(largest)))
    integer, mantissa, bias = _layout(largest.dtype)
    bits = tf.bitcast(largest, integer)
    exponent = tf.bitwise.right_shift(bits, tf.constant(mantissa, integer))
    exponent -= bias
    usual = (exponent > -bias) & (exponent <= bias)
    return tf.where(usual, exponent, tf.zeros_like(exponent))


def power_of_two(exponent, dtype):
    """Returns 2 to the power of an int tensor, exactly, of a float dtype."""
    integer, mantissa, bias = _layout(dtype)
    exponent = tf.clip_by_value(exponent, 1 - bias, bias)
    bits = tf.bitwise.left_shift(
        tf.cast(exponent, integer) + bias, tf.constant(mantissa, integer)
    )
    return tf.bitcast(bits, dtype)
