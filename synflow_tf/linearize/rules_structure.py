"""Rules of what moves, takes or reduces entries: Reshape, Slice, Mean ..."""

import tensorflow as tf

from synflow_tf.graph import families
from synflow_tf.graph import keras_private
from synflow_tf.graph import leaves
from synflow_tf.graph import raw
from synflow_tf.linearize import channels
from synflow_tf.linearize import magnitudes
from synflow_tf.linearize import registry
from synflow_tf.linearize import rescaling

# What is linear and positive, or a maximum.
_AS_THEY_ARE = frozenset(
    """
    AvgPool BatchToSpace BatchToSpaceND BroadcastTo Cumsum DepthToSpace Diag
    DiagPart Dilation2D DynamicPartition DynamicStitch ExpandDims
    ExtractImagePatches ExtractVolumePatches Fill ImageProjectiveTransformV2
    ImageProjectiveTransformV3 MatrixBandPart MatrixDiag MatrixDiagPart
    MatrixDiagPartV2 MatrixDiagPartV3 MatrixDiagV2 MatrixDiagV3 Max MaxPool
    MaxPoolV2 MaxPoolWithArgmax Mean MirrorPad ParallelDynamicStitch Reshape
    Reverse ReverseSequence ReverseV2 Roll ScatterNd SegmentMax SegmentMean
    SegmentSum Slice SpaceToBatch SpaceToBatchND SpaceToDepth SparseSegmentMean
    SparseSegmentSum Split SplitV Squeeze StridedSlice Sum Tile Transpose
    UnsortedSegmentMax UnsortedSegmentSum Unpack
    """.split()
)


@registry.operation(*_AS_THEY_ARE)
def itself(node, *tensors):
    """Runs the operation; an index that depends on flow is 0."""
    dtype = magnitudes.dtype_of(node, tensors)
    tensors = [
        tf.zeros(value.shape, value.dtype)
        if x is None
        else magnitudes.cast(x, dtype)
        for value, x in zip(node.inputs, tensors, strict=True)
    ]
    if keras_private.has_kernel(node.type, dtype):
        return channels.run(raw.call, node, tensors)
    return _in_float32(node, tensors, dtype)


def _in_float32(node, tensors, dtype):
    """Runs an operation that has no kernel for the dtype of the flow.

    Float32 ends at 1e38: so the flows are divided by the power of two of the
    largest, and the result is multiplied by it.
    """
    flows = [i for i, value in enumerate(node.inputs) if value.is_flow]
    exponent = rescaling.exponent_of([tensors[i] for i in flows])
    factor = rescaling.power_of_two(exponent, dtype)
    for i in flows:
        tensors[i] /= factor
    tensors = [magnitudes.cast(x, tf.float32) for x in tensors]
    return [
        tf.cast(x, dtype) * factor if x.dtype.is_floating else x
        for x in channels.run(raw.call, node, tensors)
    ]


def is_narrow(node, dtype):
    """Tells whether a node runs in float32 for want of a kernel."""
    as_it_is = node.type in _AS_THEY_ARE - leaves.OPERATIONS
    return as_it_is and not keras_private.has_kernel(node.type, dtype)


@registry.operation("Pad", "PadV2")
def pad(node, x, paddings, *value):
    """Pads with zeros, whatever the operation pads with."""
    del node, value
    return tf.pad(x, paddings)


@registry.operation("Min")
def least(node, x, axis):
    """Takes the maximum: it is no less, as where two flows are compared."""
    return tf.reduce_max(x, axis, keepdims=node.attributes["keep_dims"])


@registry.operation("EuclideanNorm", "L2Loss", "Prod")
def total(node, x, axis=None):
    """Sums: of degree 1, as the length of a vector is."""
    return tf.reduce_sum(x, axis, node.attributes.get("keep_dims", False))


@registry.operation("Cumprod")
def running_total(node, x, axis):
    """Sums up to each entry: of degree 1."""
    del node
    return tf.cumsum(x, int(axis))


@registry.operation("TopK", "TopKV2")
def top_k(node, x, k):
    """Returns the mean k times: which entries are highest is not known."""
    del k
    x = tf.reduce_mean(x, -1, keepdims=True)
    values, indices = node.outputs
    return [
        magnitudes.wide(x, values.shape),
        tf.zeros(indices.shape, indices.dtype),
    ]


@registry.operation(*families.GATHERS)
def gather(node, x, indices, *axis):
    """Takes rows or entries; their mean where the data says which."""
    if node.inputs[1].is_flow or indices is None:
        return _mean_read(node, x)
    return raw.gather(node, x, indices, *axis)


def _mean_read(node, x):
    """Returns the mean of what a gather may read, in every place it fills."""
    first, count = 0, 1
    if node.type.endswith("Nd"):
        count = node.inputs[1].shape[-1]
    elif node.inputs[2:]:
        first = int(node.inputs[2].constant) % x.shape.rank
    x = tf.reduce_mean(x, list(range(first, first + count)))
    shape = node.outputs[0].shape
    places = [1] * (len(shape) - x.shape.rank)
    x = tf.reshape(x, [*x.shape[:first], *places, *x.shape[first:]])
    return magnitudes.wide(x, shape)


@registry.operation("_Source")
def source(node, unit, *table):
    """Starts flow at ones, or at what is read if that is scored.

    Which rows a gather reads is not known, so it is their mean.
    """
    if not table:
        return tf.ones(node.outputs[0].shape, unit.dtype) * unit
    [x] = table
    gathering = node.extra["gathering"]
    return (x if gathering is None else _mean_read(gathering, x)) * unit


@registry.operation("_Rows")
def rows(node, x):
    """Takes the rows of a tensor that a loop goes through."""
    return x[node.extra["rows"]]


@registry.operation("AvgPool3D", "MaxPool3D")
def pool_3d(node, x):
    """Pools over height and width, then over depth: float64 has no other."""
    return channels.run(_pooled_in_turn, node, [x])


def _pooled_in_turn(node, tensors):
    [x] = tensors
    options = node.attributes
    pool = tf.nn.max_pool2d if "Max" in node.type else tf.nn.avg_pool2d
    size, strides = (options[name][1:-1] for name in ("ksize", "strides"))
    batch, depth, height, width, features = x.shape
    x = tf.reshape(x, (-1, height, width, features))
    x = pool(x, size[1:], strides[1:], options["padding"])
    _, height, width, _ = x.shape
    x = tf.reshape(x, (batch, depth, height * width, features))
    x = pool(x, (size[0], 1), (strides[0], 1), options["padding"])
    return [tf.reshape(x, (batch, -1, height, width, features))]


@registry.operation(
    "ResizeArea",
    "ResizeBicubic",
    "ResizeBilinear",
    "ResizeNearestNeighbor",
    "ScaleAndTranslate",
)
def resize(node, x, size, *placement):
    """Resizes images by one matrix for each axis, in the dtype of the flow.

    TensorFlow does in float32 only. What it does to a line of pixels is a
    matrix, with entries in [0, 1] up to the ringing of the cubic and Lanczos
    kernels, whose magnitude is taken.
    """
    matrices = []
    for axis in (0, 1):
        lines = tf.eye(x.shape[1 + axis])[:, :, None, None]
        shape = tf.stack([size[axis], 1])
        rest = [  # No scale and translation along the other axis.
            tf.stack([given[axis], none])
            for given, none in zip(placement, (1.0, 0.0), strict=False)
        ]
        lines = raw.call(node, [lines, shape, *rest])[0]
        matrices.append(tf.cast(tf.abs(lines[:, :, 0, 0]), x.dtype))
    return tf.einsum("nhwc,hp,wq->npqc", x, *matrices)


@registry.operation(
    "FFT", "FFT2D", "FFT3D", "IFFT", "IFFT2D", "IFFT3D", "IRFFT", "RFFT"
)
def transform(node, x, *sizes):
    """Returns the sum for every frequency."""
    del sizes
    rank = int(node.type[-2]) if node.type.endswith("D") else 1
    x = tf.reduce_sum(x, list(range(-rank, 0)), keepdims=True)
    return magnitudes.wide(x, node.outputs[0].shape)
