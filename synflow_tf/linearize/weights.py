"""What rules compute with in the place of variables.

Scored weights are their magnitudes, given. What no scored weight is in is
computed as it is, once, signs and constants included; then its magnitude is
taken.
"""

import tensorflow as tf

from synflow_tf.graph import families
from synflow_tf.graph import flatten
from synflow_tf.graph import identity
from synflow_tf.graph import raw
from synflow_tf.graph import values
from synflow_tf.linearize import registry

# Tensors up to this many entries are constants of what is traced, so that what
# depends on them alone is computed while tracing; larger ones are arguments.
_CONSTANT_SIZE = 8192
# What a scale of zeros may pass through: as if it were ones.
_OPENED = (
    families.PRODUCTS
    | families.RESHAPES
    | families.SLICES
    | families.ACTIVATIONS
    | families.QUOTIENTS
)


class LinearWeights:
    """The tensors that rules compute with, in the place of the variables.

    Args:
        tensors: pairs of variable and float tensor >= 0, those that scores are
            wanted for. All other variables are read from the model.
        dtype: `tf.DType` to compute in.
        affine: bool, whether biases, moving means and activations count too
            (`SynFlow(variant="authors")`).
        rescale: bool, whether to keep the live values in range.

    Attributes:
        scored: `IdentitySet` of variables.
        unit: tensor of shape (), what flow starts as in the rules of layers.
        exponent: float64 tensor of shape (): the values are 2 to the power of
            minus this times what they are.
        reads: int, how many kernels were read since the values were rescaled.
        shift: None, or an int tensor: what a rule has just returned is 2 to
            the power of minus this times what it is.
        repeated: `IdentityDict` of variable to int: the kernels that one path
            passes several times (recurrent layers), and how many gates they
            are of.
        zero_scales: `IdentitySet` of variables, scales that are 0 and count as
            ones.
    """

    def __init__(self, tensors, dtype, affine=False, rescale=True):
        self._tensors = identity.IdentityDict(tensors)
        self.scored = identity.IdentitySet(self._tensors)
        self.dtype = dtype
        self.affine = affine
        self.rescale = rescale and not affine
        self.unit = tf.ones((), dtype)
        self.exponent = tf.zeros((), tf.float64)
        self.reads = 0
        self.shift = None
        self.repeated = identity.IdentityDict()
        self.zero_scales = identity.IdentitySet()
        self._known = {}

    def __getitem__(self, variable):
        """The absolute value of a variable, of the dtype to compute in."""
        if variable not in self._tensors:
            with tf.init_scope():
                value = tf.cast(flatten.value_of(variable), self.dtype)
                self._tensors[variable] = tf.abs(value)
        x = self._tensors[variable]
        # As a constant, what is scored would have no gradient.
        return x if variable in self.scored else _inlined(x)

    def plain(self, value):
        """The magnitude of what is made of weights that are not scored.

        Args:
            value: `graph.Value`.

        Returns:
            Tensor of its shape.
        """
        with tf.init_scope():
            x = _evaluated(value, self._as_it_is, self._known)
            x = tf.cast(tf.abs(x), self.dtype)
        return _inlined(x)

    def scale(self, value):
        """Like `plain`, but a scale that is 0 in every entry counts as ones."""
        with tf.init_scope():
            x = _evaluated(value, self._as_it_is, self._known)
            if not tf.reduce_any(x != 0):
                x = _evaluated(
                    value, self._as_it_is, self._known, self._as_ones
                )
                if not tf.reduce_any(x != 0):
                    x = tf.ones(x.shape, self.dtype)
                for variable in values.variables_of(value):
                    if not tf.reduce_any(flatten.value_of(variable) != 0):
                        self.zero_scales.add(variable)
            x = tf.cast(tf.abs(x), self.dtype)
        return _inlined(x)

    def computed(self, value, scored):
        """The scored weight, with the magnitudes of what is computed from it.

        Args:
            value: `graph.Value`, what is computed from one scored weight.
            scored: tensor >= 0, that weight.

        Returns:
            Tensor; its gradient is that of a scale of each entry.
        """
        true = tf.abs(_evaluated(value, self._signed, {}))
        true = tf.where(tf.math.is_finite(true), true, tf.zeros_like(true))
        safe = tf.where(scored > 0, scored, tf.ones_like(scored))
        factor = tf.where(scored > 0, true / safe, tf.zeros_like(true))
        return scored * tf.stop_gradient(factor)

    def _as_it_is(self, variable):
        return tf.cast(flatten.value_of(variable), self.dtype)

    def _as_ones(self, variable):
        x = self._as_it_is(variable)
        return x if tf.reduce_any(x != 0) else tf.ones_like(x)

    def _signed(self, variable):
        with tf.init_scope():
            x = self._as_it_is(variable)
        if variable in self.scored:
            x = tf.sign(x) * self._tensors[variable]
        return x


def _evaluated(value, read, known, opened=None):
    """Computes what is made of variables, as it is.

    Args:
        value: `graph.Value`.
        read: function of a variable, its tensor.
        known: dict, what was computed before, added to.
        opened: None, or a function of a variable, to read those with that
            `value` is a product of.

    Returns:
        Tensor, wide if it is float.
    """
    if value.constant is not None:
        return value.constant
    key = value, opened is not None
    if key not in known:
        node = value.node
        if node is None or not (value.is_weight or value.is_flow):
            return tf.zeros(value.shape, value.dtype)
        if node.type == values.READ:
            return (opened or read)(node.variable)
        inner = opened if node.type in _OPENED else None
        tensors = [_evaluated(v, read, known, inner) for v in node.inputs]
        for output, x in zip(node.outputs, _run(node, tensors), strict=True):
            known[output, key[1]] = x
    return known[key]


def _run(node, tensors):
    if node.operation is None:
        outputs = registry.rule_of_operation(node.type)(node, *tensors)
        return outputs if isinstance(outputs, list) else [outputs]
    if node.type in flatten.GATHERS:
        return [flatten.gather(node, *tensors)]
    return raw.widened(node, tensors, tf.float64)


def _inlined(x):
    """A tensor as a constant of what is traced, if it is small."""
    if tf.executing_eagerly() or not hasattr(x, "numpy"):
        return x
    small = x.shape.num_elements() <= _CONSTANT_SIZE
    return tf.constant(x.numpy(), x.dtype) if small else x
