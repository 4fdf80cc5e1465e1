"""Holds what rules compute with in the place of variables.

Scored weights are their magnitudes, given. What no scored weight is in is
computed as it is, once, signs and constants included; then its magnitude is
taken.
"""

import copy

import tensorflow as tf

from synflow_tf.graph import families
from synflow_tf.graph import identity
from synflow_tf.graph import values
from synflow_tf.graph import variables
from synflow_tf.linearize import rescaling
from synflow_tf.linearize import unchanged

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
            wanted for. All others are read from the model.
        dtype: `tf.DType` to compute in.
        rescale: bool, whether to keep the live values in range.

    Attributes:
        scored: `IdentitySet` of variables.
        unit: tensor of shape (), what flow starts as in the rules of layers.
        repeated: `IdentityDict` of variable to int: the kernels that one path
            passes several times (recurrent layers), and how many gates they
            are of.
        zero_scales: `IdentitySet` of variables, scales that are 0 and count as
            ones.
        range: `rescaling.Range` of the run.
    """

    def __init__(self, tensors, dtype, rescale=True):
        self._tensors = identity.IdentityDict(tensors)
        self.scored = identity.IdentitySet(self._tensors)
        self.dtype = dtype
        self.range = rescaling.Range(rescale)
        self.unit = tf.ones((), dtype)
        self.repeated = identity.IdentityDict()
        self.zero_scales = identity.IdentitySet()
        # What was computed of weights that are not scored: tensors, or
        # variables once they are to be refreshed; and steps on the way.
        self._known = {}
        self._found = {}
        self._assign = None

    def rerun(self, tensors=None, rescale=None):
        """Returns the weights for another run, with what is known of them.

        `tensors` are pairs of the same variables and other tensors; what is
        None stays the same.
        """
        again = copy.copy(self)
        if tensors is not None:
            again._tensors = identity.IdentityDict(tensors)
        if rescale is None:
            rescale = self.range.rescale
        again.range = rescaling.Range(rescale)
        return again

    def __getitem__(self, key):
        """Returns the magnitude of a variable, a tensor of `dtype`.

        Or of a `graph.Value` that is computed from variables without scores.
        """
        if key in self.scored:
            return self._tensors[key]
        return self._once(LinearWeights._magnitude, key)

    def scale(self, value):
        """Returns `self[value]`, with ones for a scale of zeros."""
        return self._once(LinearWeights._scale, value)

    def computed(self, value, scored):
        """Returns a scored weight, scaled to what is computed from it.

        Each entry has the magnitude of that entry of `value`, which is computed
        from `scored`, a tensor >= 0, alone; and the gradient of a factor.
        """
        true = tf.abs(_evaluated(value, self._signed, {}))
        true = tf.where(tf.math.is_finite(true), true, tf.zeros_like(true))
        safe = tf.where(scored > 0, scored, tf.ones_like(scored))
        factor = tf.where(scored > 0, true / safe, tf.zeros_like(true))
        return scored * tf.stop_gradient(factor)

    def refresh(self):
        """Computes anew what depends on weights that are not scored.

        Functions that are traced after a first call see what later ones do.
        """
        new = False
        for found in self._found.values():
            for key, x in found.items():
                if not isinstance(x, tf.Variable):
                    found[key] = tf.Variable(x, trainable=False)
                    new = True
        if new:
            self._assign = tf.function(self._assign_all, autograph=False)
        self._assign()

    def _assign_all(self):
        self._known.clear()
        for compute, found in self._found.items():
            for key, x in found.items():
                x.assign(compute(self, key))
        self._known.clear()

    def _once(self, compute, key):
        """Computes what is made of unscored variables, eagerly and once."""
        found = self._found.setdefault(compute, identity.IdentityDict())
        if key not in found:
            with tf.init_scope():
                found[key] = compute(self, key)
        return tf.convert_to_tensor(found[key])

    def _magnitude(self, key, opened=None):
        if not isinstance(key, values.Value):  # a variable
            return tf.abs(self._as_it_is(key))
        x = _evaluated(key, self._as_it_is, self._known, opened)
        return tf.cast(tf.abs(x), self.dtype)

    def _scale(self, value):
        x = self._magnitude(value)
        if not tf.executing_eagerly():
            opened = _or_ones(self._magnitude(value, self._opened))
            return tf.where(tf.reduce_any(x != 0), x, opened)
        if tf.reduce_any(x != 0):
            return x
        for variable in values.variables_of(value):
            if not tf.reduce_any(variables.value(variable) != 0):
                self.zero_scales.add(variable)
        return _or_ones(self._magnitude(value, self._opened))

    def _as_it_is(self, variable):
        return tf.cast(variables.value(variable), self.dtype)

    def _opened(self, variable):
        return _or_ones(self._as_it_is(variable))

    def _signed(self, variable):
        x = self._once(LinearWeights._as_it_is, variable)
        if variable in self.scored:
            x = tf.sign(x) * self._tensors[variable]
        return x


def _or_ones(x):
    """Returns a tensor, or ones if it is 0 in every entry."""
    return tf.where(tf.reduce_any(x != 0), x, tf.ones_like(x))


def _evaluated(value, read, known, opened=None):
    """Computes what is made of variables, as it is, in float64.

    `read` returns the tensor of a variable, and `opened`, unless it is None, of
    those that `value` is a product of; `known` holds what was computed before.
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
        outputs = unchanged.run(node, tensors, tf.float64)
        for output, x in zip(node.outputs, outputs, strict=True):
            known[output, key[1]] = x
    return known[key]
