"""Where a layer has its channels; TensorFlow on the CPU wants them last."""

import tensorflow as tf


def last(layer, x):
    """Moves the channels last if `layer` has them first."""
    if not _first(layer):
        return x
    return tf.transpose(x, [0, *range(2, x.shape.rank), 1])


def back(layer, x):
    """Undoes `last`."""
    if not _first(layer):
        return x
    rank = x.shape.rank
    return tf.transpose(x, [0, rank - 1, *range(1, rank - 1)])


def _first(layer):
    return getattr(layer, "data_format", None) == "channels_first"
