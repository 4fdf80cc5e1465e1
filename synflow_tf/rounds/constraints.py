"""N:M sparsity and a minimum number of weights per kernel.

Both are floors under a global ranking: the highest scores of each part are set
aside, and the lowest of all others are removed.
"""

import re

import numpy as np
import tensorflow as tf

from synflow_tf import _validation
from synflow_tf import findings
from synflow_tf.graph import lines
from synflow_tf.rounds import ranking


def check(keep_n_of_m, min_kept):
    """Raises ValueError unless both are as `prune` documents them."""
    _validation.integer("min_kept", min_kept, 0)
    if keep_n_of_m is None:
        return
    try:
        n, m = keep_n_of_m
        n = _validation.integer("keep_n_of_m", n, 1)
        m = _validation.integer("keep_n_of_m", m, n + 1)
    except (TypeError, ValueError) as error:
        raise ValueError(
            "Argument `keep_n_of_m` must be two integers 1 <= n < m, such as "
            "(2, 4), which keeps 2 of every 4 weights along the input "
            f"channels. Received: keep_n_of_m={keep_n_of_m!r}"
        ) from error
    if min_kept:
        raise ValueError(
            "Argument `min_kept` must be 0 where `keep_n_of_m` says what each "
            f"kernel keeps. Received: min_kept={min_kept!r} and "
            f"keep_n_of_m={keep_n_of_m!r}"
        )


class Floor:
    """What is kept of each weight tensor whatever it scores.

    Args:
        keep_n_of_m: a pair of int, or None.
        min_kept: int >= 0.
    """

    def __init__(self, keep_n_of_m, min_kept):
        self._keep_n_of_m = keep_n_of_m
        self._min_kept = min_kept

    def __bool__(self):
        return self._keep_n_of_m is not None or self._min_kept > 0

    def of(self, weight, scores, alive):
        """Returns which entries of a `Weight` are kept, a bool tensor.

        `scores` and `alive`, tensors, have its shape. Of what is alive, the
        highest scores are kept.
        """
        if self._keep_n_of_m is None:
            shape, count = [-1], min(self._min_kept, weight.size)
            find = _highest_of_all
        else:
            count, m = self._keep_n_of_m
            shape, find = _rows(weight, m), highest
        kept = find(tf.reshape(scores, shape), tf.reshape(alive, shape), count)
        return tf.reshape(kept, weight.shape)

    def check(self, left, kept):
        """Raises ValueError unless the floor can be kept.

        Args:
            left: int array, how many weights are to be left of each part that
                is ranked apart.
            kept: int array, how many the floor keeps of them.
        """
        if self._keep_n_of_m is not None and np.any(left != kept):
            n, m = self._keep_n_of_m
            raise ValueError(
                f"Argument `keep_n_of_m` must fit the model. Received: "
                f"keep_n_of_m={self._keep_n_of_m!r} and a model of which "
                f"masks are enforced that leave fewer than {n} of some {m}. "
                "Release them first: "
                "`synflow_tf.Masks.enforced(model).release(model)`."
            )
        if np.any(left < kept):
            raise ValueError(
                "Argument `min_kept` must leave enough weights to remove. "
                f"Received: min_kept={self._min_kept}, which keeps "
                f"{kept.sum():,} weights, where only {left.sum():,} are to be "
                "left (with scope='local', of one kernel). Ask for a lower "
                "sparsity or a smaller `min_kept`."
            )


def _rows(weight, m):
    """Returns the shape of a kernel with each m along the input as axis 1."""
    return -1, m, int(np.prod(weight.shape[input_axis(weight) + 1 :]))


def is_n_of_m(weights, masks, keep_n_of_m):
    """Returns whether masks, by path, keep exactly n of every m of weights."""
    n, m = keep_n_of_m
    return all(
        weight.path in masks
        and np.all(masks[weight.path].reshape(_rows(weight, m)).sum(1) == n)
        for weight in weights
    )


def _keys(scores, alive):
    """Returns integers that order like scores, below all where not alive."""
    keys = ranking.keys(scores)
    return tf.where(alive, keys, keys.dtype.min)


def _highest_of_all(scores, alive, count):
    """Does what `highest` does for vectors of any length.

    `ranking.lowest` could remove the others, but always counts 2^16 bins: with
    the small kernels of a ResNet-20, pruning would take twice as long.
    """
    keys = _keys(scores, alive)
    _, found = tf.math.top_k(keys[::-1], count)
    kept = tf.tensor_scatter_nd_update(
        tf.zeros_like(alive),
        (tf.size(keys) - 1 - found)[:, None],
        tf.ones_like(found, tf.bool),
    )
    return kept & alive


def highest(scores, alive, count):
    """Finds the `count` highest scores along axis 1, which is short.

    Of tensors (rows, m, ...); a bool tensor of that shape, True where they are
    alive. Of equal ones the last, as the first of equal ones are removed first.
    """
    # Each is compared with each: `top_k` of so few takes longer.
    keys = tf.unstack(_keys(scores, alive), axis=1)
    ranks = [tf.zeros(tf.shape(key), tf.int32) for key in keys]
    for i, one in enumerate(keys):
        for j in range(i + 1, len(keys)):
            above = tf.cast(keys[j] >= one, tf.int32)
            ranks[i] += above
            ranks[j] += 1 - above
    return tf.stack([rank < count for rank in ranks], axis=1) & alive


def fitting(weights, keep_n_of_m):
    """Separates the weights that N of M fits from those that it does not.

    Returns a pair: list of the first, and list of `Finding` of the others.
    Raises ValueError if it fits none.
    """
    if keep_n_of_m is None:
        return weights, []
    n, m = keep_n_of_m
    fitting, found = [], []
    for weight in weights:
        axis = input_axis(weight)
        if axis is not None and weight.shape[axis] % m == 0:
            fitting.append(weight)
            continue
        why = "it has no axis of input channels"
        if axis is not None:
            why = f"its {weight.shape[axis]} input channels are no multiple"
        text = f"kept as it is, not {n} of {m}: {why}"
        found.append(findings.Finding("unstructured", weight.path, text))
    if not fitting:
        raise ValueError(
            f"Argument `keep_n_of_m` must fit at least one kernel. Received: "
            f"keep_n_of_m={keep_n_of_m!r}; {found[0]}"
        )
    return fitting, found


def input_axis(weight):
    """Finds the axis of a kernel along which its layer sums over channels.

    0 for the kernels (in, out) of Dense and recurrent layers, the last but one
    for those (..., in, out) of convolutions, the last for those (..., out, in)
    of transposed ones, the last one summed over for EinsumDense. None for
    depthwise kernels and layers that are not known.
    """
    layer, rank = weight.layer, len(weight.shape)
    if isinstance(layer, _EINSUM) and weight.name == "kernel":
        _, kernel, result = re.split(",|->", layer.equation)
        summed = [i for i, x in enumerate(kernel) if x not in result]
        return summed[-1] if summed else None
    if isinstance(layer, _DEPTHWISE) or weight.name not in _KERNELS:
        return None
    if isinstance(layer, _TRANSPOSED):
        return rank - 1
    return rank - 2 if isinstance(layer, _CHANNELS_LAST_BUT_ONE) else None


def _classes(*names):
    return tuple(getattr(x.layers, n) for x in lines.LINES for n in names)


_KERNELS = frozenset(("kernel", "pointwise_kernel", "recurrent_kernel"))
_EINSUM = _classes("EinsumDense")
_DEPTHWISE = _classes("DepthwiseConv1D", "DepthwiseConv2D")
_TRANSPOSED = _classes("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose")
_CHANNELS_LAST_BUT_ONE = _classes(
    *("Dense", "Conv1D", "Conv2D", "Conv3D"),
    *("SeparableConv1D", "SeparableConv2D"),
    *("SimpleRNNCell", "GRUCell", "LSTMCell"),
)
