"""Runs the nodes of a linear graph with their rules, within the dtype's range.

Deep networks have flows up to 10^255 and beyond: so every few kernels, if the
largest live value has left [2^-12, 2^12], all live values are multiplied by one
power of two.
The live values are a cut of the graph, so every score is multiplied by the
same power of two, exactly, and no ranking changes.
"""

import tensorflow as tf

from synflow_tf import graph as graph_lib
from synflow_tf import variables
from synflow_tf.linearize import registry

# Weights up to this many entries become NumPy arrays, so that what depends on
# them alone is computed while tracing; larger ones stay arguments.
_CONSTANT_SIZE = 8192

# What Keras passes to layers that ask for it; scores are for inference, on one
# example without padding.
_CONTEXT = ("training", "mask")

# Live values are brought back between 2 to the power of minus this and of this,
_RANGE = 12
# after so many kernels: the range of the dtype is much wider, and looking at
# every value takes time.
_KERNELS = {tf.float64: 16, tf.float32: 4}


class LinearWeights:
    """The tensors that rules compute with, in the place of the variables.

    Args:
        tensors: dict id(variable) -> float tensor >= 0, those that scores are
            wanted for. All other variables are read from the model.
        dtype: `tf.DType` to compute in.
        affine: bool, whether biases, moving means and activations count too
            (`SynFlow(variant="authors")`).
        rescale: bool, whether to keep the live values in range.

    Attributes:
        unit: tensor of shape (), what flow starts as where it does not come
            from a float input of the model: 1, but rescaled like all values.
        exponent: float64 tensor of shape (): the values are 2 to the power of
            minus this times what they are.
        reads: int, how many kernels were read since the values were rescaled.
        shift: None, or an int tensor: what a rule has just returned is 2 to
            the power of minus this times what it is.
        repeated: dict id(variable) -> int, the kernels that one path passes
            several times (recurrent layers), and how many gates they are of.
        opaque: dict of str, the names of the layers that ran under their own
            `call`, to None.
    """

    def __init__(self, tensors, dtype, affine=False, rescale=True):
        self._tensors = dict(tensors)
        self.scored = frozenset(self._tensors)
        self.dtype = dtype
        self.affine = affine
        self.rescale = rescale and not affine
        self.unit = tf.ones((), dtype)
        self.exponent = tf.zeros((), tf.float64)
        self.reads = 0
        self.shift = None
        self.repeated = {}
        self.opaque = {}

    def __getitem__(self, variable):
        """The absolute value of a variable, of the dtype to compute in.

        A tensor, or, for small variables that no scores are wanted for, a
        NumPy array.
        """
        key = id(variable)
        if key not in self._tensors:
            with tf.init_scope():
                value = tf.cast(variables.value(variable), self.dtype)
                value = tf.abs(value)
            small = value.shape.num_elements() <= _CONSTANT_SIZE
            self._tensors[key] = value.numpy() if small else value
        value = self._tensors[key]
        self.reads += len(value.shape) > 1
        return value

    def source(self, constant, made_of=()):
        """What flow starts as at a constant or a table: ones.

        Args:
            constant: tensor >= 0.
            made_of: ids of the variables that it is computed from.

        Returns:
            Tensor: of ones, unless scores are wanted for one of `made_of`;
            then the constant.
        """
        if self.scored.isdisjoint(made_of):
            constant = tf.ones(tuple(constant.shape), self.dtype)
        return constant


def ones(graph, dtype):
    """The input that scores are computed for: ones, one example.

    Args:
        graph: `graph.Graph`.
        dtype: `tf.DType`.

    Returns:
        list of tensors, of batch size 1 unless the model fixes another.
    """
    return [
        tf.ones((slot.shape[0] or 1, *slot.shape[1:]), dtype)
        for slot in graph.inputs
    ]


def flow_of(outputs):
    """The flow R: the sum of all outputs that are floats.

    Args:
        outputs: list of tensors.

    Returns:
        Tensor of shape ().

    Raises:
        ValueError: if there is none.
    """
    floats = [tf.reduce_sum(x) for x in outputs if x.dtype.is_floating]
    if not floats:
        raise ValueError(
            "Argument `model` must have an output of a float type. Received: "
            f"outputs of types {[x.dtype.name for x in outputs]}. Score the "
            "model that these are computed from."
        )
    return tf.add_n(floats)


def run(graph, weights, inputs, record=None):
    """Runs a linear graph.

    Args:
        graph: `lowering.LinearGraph`.
        weights: `LinearWeights`.
        inputs: list of tensors, in the order of `graph.inputs`.
        record: None, or a function that is called with each node, and the
            lists of its input and output tensors.

    Returns:
        list of tensors, in the order of `graph.outputs`.

    Raises:
        ValueError: if a layer has no rule, or its rule fails; it names the
            layer.
    """
    tensors = dict(zip(graph.inputs, inputs, strict=True))
    tensors[graph.unit] = outer_unit = weights.unit

    # In Python, because `tf.nest` takes longer than a small layer.
    def fill_in(x):
        if isinstance(x, graph_lib.Slot):
            return tensors[x]
        if type(x) in (list, tuple):
            return type(x)(map(fill_in, x))
        if isinstance(x, dict):
            return {key: fill_in(value) for key, value in x.items()}
        return x

    for node, dead in zip(graph.nodes, graph.dead, strict=True):
        rule = registry.rule_of(node.layer)
        args = fill_in(node.args)
        kwargs = fill_in(
            {k: v for k, v in node.kwargs.items() if k not in _CONTEXT}
        )
        weights.unit = tensors[graph.unit]  # Rules may run graphs themselves.
        try:
            outputs = rule(node.layer, weights, *args, **kwargs)
        except Exception as error:
            raise ValueError(
                f"Layer {node.layer.name!r} (of type "
                f"{type(node.layer).__name__}) failed under its linear rule: "
                f"{error}"
            ) from error
        outputs = [x for x in tf.nest.flatten(outputs) if x is not None]
        if record is not None:
            before = [tensors[slot] for slot in node.inputs]
            record(node, before, outputs)
        for slot in dead:
            tensors.pop(slot, None)
        live = [slot for slot in tensors if slot in graph.flow]
        if weights.shift is not None:
            _multiply(tensors, live, weights, weights.shift)
            weights.shift = None
        tensors.update(
            (slot, x)
            for slot, x in zip(node.outputs, outputs, strict=True)
            if slot not in dead
        )
        if weights.rescale and weights.reads >= _KERNELS[weights.dtype]:
            weights.reads = 0
            live += [s for s in node.outputs if s in graph.flow]
            live = [s for s in live if s in tensors]
            exponent = excess([tensors[slot] for slot in live])
            _multiply(tensors, live, weights, exponent)
    weights.unit = outer_unit
    return [tensors[slot] for slot in graph.outputs]


def _multiply(tensors, live, weights, exponent):
    """Divides all live values by 2 to the power of `exponent`."""
    factor = power_of_two(-exponent, weights.dtype)
    for slot in live:
        if tensors[slot].dtype.is_floating:
            tensors[slot] *= factor
    weights.exponent += tf.cast(exponent, tf.float64)


def _layout(dtype):
    """The integer type of a float type, its mantissa bits and its bias."""
    if dtype == tf.float64:
        return tf.int64, 52, 1023
    return tf.int32, 23, 127


def excess(values):
    """By which power of two values are out of range.

    Args:
        values: list of tensors; those that are not float do not count.

    Returns:
        int tensor of shape (), the exponent of the largest value, or 0 if that
        is in [2^-12, 2^12], or is 0 or not finite.
    """
    largest = [tf.reduce_max(x) for x in values if x.dtype.is_floating]
    largest = tf.stop_gradient(tf.reduce_max(tf.stack(largest)))
    integer, mantissa, bias = _layout(largest.dtype)
    bits = tf.bitcast(largest, integer)
    exponent = tf.bitwise.right_shift(bits, tf.constant(mantissa, integer))
    exponent -= bias
    usual = (exponent > -bias) & (exponent <= bias)
    out = usual & (tf.abs(exponent) > _RANGE)
    return tf.where(out, exponent, tf.zeros_like(exponent))


def power_of_two(exponent, dtype):
    """2 to the power of an int tensor, exactly, of a float dtype."""
    integer, mantissa, bias = _layout(dtype)
    exponent = tf.clip_by_value(exponent, 1 - bias, bias)
    bits = tf.bitwise.left_shift(
        tf.cast(exponent, integer) + bias, tf.constant(mantissa, integer)
    )
    return tf.bitcast(bits, dtype)
