"""Which linear map an operation is, by its name in either Keras line."""

import numpy as np
import tensorflow as tf

from synflow_tf import calls
from synflow_tf.linearize import registry
from synflow_tf.linearize import shapes

# Functions of single entries: the identity, as all activations are.
ACTIVATIONS = frozenset(
    """
    abs absolute arcsinh arctan asinh atan cbrt ceil celu clip clip_by_value
    cos elu erf erfc exp exp2 expm1 fabs floor gelu hard_shrink hard_sigmoid
    hard_silu hard_swish hard_tanh l2_normalize leaky_relu log log10 log1p
    log2 log_sigmoid log_softmax nan_to_num neg negative normalize pow power
    reciprocal relu relu6 round rsqrt selu sigmoid sign silu sin sinh
    soft_shrink softmax softmax_v2 softplus softsign sparse_plus
    sparse_sigmoid sparsemax sqrt square squareplus swish tan tanh
    tanh_shrink threshold trunc
    """.split()
)
SUMS = frozenset(
    """
    accumulate_n add add_n bias_add fmax fmin hypot logaddexp maximum minimum
    squared_difference sub subtract
    """.split()
)
SELECTIONS = frozenset(("where", "select"))
PRODUCTS = frozenset(("mul", "multiply", "scalar_mul"))
QUOTIENTS = frozenset(
    "div div_no_nan divide divide_no_nan realdiv true_divide truediv".split()
)
CONTRACTIONS = frozenset("batch_dot dot einsum inner matmul tensordot".split())
# Operations that are a layer's own map, given its kernel.
PROJECTIONS = CONTRACTIONS | frozenset(
    """
    conv conv1d conv2d conv3d conv_transpose convolution depthwise_conv
    depthwise_conv2d separable_conv
    """.split()
)
CONCATENATIONS = frozenset(("concat", "concatenate", "stack"))
# What knows of a tensor only how large it is.
SIZES = frozenset("ndim rank shape shape_n shape_v2 size size_v2".split())
# What takes a part of a tensor.
SLICES = frozenset(
    """
    gather get_item getitem slice slice_update split strided_slice take unstack
    """.split()
)
# What an activation is bounded by, as a hint that it is a gate: the higher the
# likelier.
BOUNDED = {
    "softmax": 4,
    "softmax_v2": 4,
    "sparsemax": 4,
    "hard_sigmoid": 3,
    "sigmoid": 3,
    "sparse_sigmoid": 3,
    "clip": 2,
    "clip_by_value": 2,
    "relu6": 2,
    "hard_tanh": 1,
    "softsign": 1,
    "tanh": 1,
}
_CASTS = frozenset(("cast", "convert_to_tensor", "saturate_cast"))


@registry.operations
def operation(layer, weights, *args, **kwargs):
    """The rule of operations: the identity for activations, else itself."""
    name = calls.operation_name(layer)
    args, kwargs = tf.nest.map_structure(
        lambda x: _of_dtype(weights, x), (args, kwargs)
    )
    if weights.affine:
        return layer.call(*args, **kwargs)
    if name in ACTIVATIONS:
        return _first_tensor(args, kwargs)
    outputs = layer.call(*args, **kwargs)
    if name in _CASTS and outputs.dtype.is_floating:
        return tf.cast(_first_tensor(args, kwargs), weights.dtype)
    if name == "resize":
        x = _first_tensor(args, kwargs)
        method = _method(layer, args, kwargs)
        return shapes.resized(x, *outputs.shape[1:3], method)
    return tf.nest.map_structure(lambda x: _of_dtype(weights, x), outputs)


def _of_dtype(weights, x):
    """A weight, or a constant, as a tensor of the dtype to compute in."""
    if hasattr(x, "assign"):
        return weights[x]
    if tf.is_tensor(x) and x.dtype.is_floating and x.dtype != weights.dtype:
        return tf.cast(x, weights.dtype)
    if isinstance(x, np.ndarray) and np.issubdtype(x.dtype, np.floating):
        return tf.constant(x, weights.dtype)
    return x


def _first_tensor(args, kwargs):
    flat = tf.nest.flatten((args, kwargs))
    return next(x for x in flat if tf.is_tensor(x))


def _method(layer, args, kwargs):
    """How an image is resized."""
    known = ("bilinear", "nearest", "bicubic", "area", "lanczos3", "lanczos5")
    given = [layer.interpolation] if hasattr(layer, "interpolation") else []
    given += [x for x in tf.nest.flatten((args, kwargs)) if isinstance(x, str)]
    return next((x for x in given if x in known), "bilinear")
