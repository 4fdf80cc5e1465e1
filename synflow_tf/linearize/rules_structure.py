"""What moves, takes, sums or averages entries: as it is."""

import tensorflow as tf

from synflow_tf.graph import keras_private
from synflow_tf.graph import raw
from synflow_tf.linearize import channels
from synflow_tf.linearize import magnitudes
from synflow_tf.linearize import registry


@registry.operation(
    *"""
    AvgPool BatchToSpace BatchToSpaceND BroadcastTo Cumsum DepthToSpace Diag
    DiagPart DynamicPartition DynamicStitch Dilation2D ExpandDims
    ExtractImagePatches ExtractVolumePatches Fill ImageProjectiveTransformV2
    ImageProjectiveTransformV3 MatrixBandPart MatrixDiag MatrixDiagPart
    MatrixDiagPartV2 MatrixDiagPartV3 MatrixDiagV2 MatrixDiagV3 Max MaxPool
    MaxPoolV2 MaxPoolWithArgmax Mean MirrorPad ParallelDynamicStitch Reshape
    Reverse ReverseSequence ReverseV2 Roll SegmentMax SegmentMean SegmentSum
    Slice SpaceToBatch SpaceToBatchND SpaceToDepth SparseSegmentMean
    SparseSegmentSum Split SplitV Squeeze StridedSlice Sum Tile Transpose
    UnsortedSegmentMax UnsortedSegmentSum Unpack
    """.split()
)
def itself(node, *tensors):
    """The operation itself: linear and positive, or a maximum."""
    return run(node, magnitudes.as_it_is(node, tensors))


def run(node, tensors):
    """Runs an operation, in float32 if it has no kernel for the flow's dtype.

    Float32 ends at 1e38: there all floats are divided by the power of two of
    the largest, and multiplied back.
    """
    dtype = next(x.dtype for x in tensors if x.dtype.is_floating)
    if keras_private.has_kernel(node.type, dtype):
        return channels.run(raw.call, node, tensors)
    positions = [i for i, v in enumerate(node.inputs) if v.is_flow]
    largest = tf.reduce_max([tf.reduce_max(tensors[i]) for i in positions])
    factor = tf.stop_gradient(_power_of_two_at(largest))
    tensors = [
        tf.cast(x / factor if i in positions else x, tf.float32)
        if x.dtype.is_floating
        else x
        for i, x in enumerate(tensors)
    ]
    return [
        tf.cast(x, dtype) * factor if x.dtype.is_floating else x
        for x in channels.run(raw.call, node, tensors)
    ]


def is_narrow(node, dtype):
    """Whether a node runs as it is, and in float32 for want of a kernel."""
    rule = registry.rule_of_operation(node.type)
    return rule is itself and not keras_private.has_kernel(node.type, dtype)


def _power_of_two_at(x):
    """The power of two at or below a positive number, else 1."""
    exponent = tf.floor(tf.math.log(x) / tf.math.log(tf.constant(2, x.dtype)))
    return tf.where(x > 0, tf.constant(2, x.dtype) ** exponent, tf.ones_like(x))


@registry.operation("Pad", "PadV2")
def pad(node, x, paddings, *value):
    """Padding, with zeros whatever the operation pads with."""
    del value
    if node.type == "Pad":
        return raw.call(node, [x, paddings])
    return tf.pad(x, paddings)


@registry.operation("Min")
def minimum(node, x, axis):
    """The maximum, as of what `Minimum` compares: it is no less."""
    return _reduced(tf.reduce_max, node, x, axis)


@registry.operation("EuclideanNorm", "Prod", "Cumprod")
def total(node, x, axis):
    """The sum: of degree 1, as the length of a vector is."""
    if node.type == "Cumprod":
        return tf.cumsum(x, int(axis))
    return _reduced(tf.reduce_sum, node, x, axis)


def _reduced(function, node, x, axis):
    return function(x, axis, keepdims=node.attributes["keep_dims"])


@registry.operation("L2Loss")
def loss(node, x):
    """The sum."""
    del node
    return tf.reduce_sum(x)


@registry.operation("TopK", "TopKV2")
def top_k(node, x, k):
    """The mean along the last axis, k times: which are highest is not known."""
    del k
    x = tf.reduce_mean(x, -1, keepdims=True)
    values, indices = node.outputs
    return [
        magnitudes.wide(x, values.shape),
        tf.zeros(indices.shape, indices.dtype),
    ]


@registry.operation("GatherV2", "ResourceGather")
def gather(node, x, indices, *axis):
    """Rows of a tensor; their mean where the data says which."""
    axis = int(axis[0]) if axis else 0
    batch = node.attributes.get("batch_dims", 0)
    if not (node.inputs[1].is_flow or indices is None):
        return tf.gather(x, indices, axis=axis, batch_dims=batch)
    axis %= x.shape.rank
    x = tf.reduce_mean(x, axis)
    extra = [1] * (len(node.inputs[1].shape) - batch)
    x = tf.reshape(x, [*x.shape[:axis], *extra, *x.shape[axis:]])
    return magnitudes.wide(x, node.outputs[0].shape)


@registry.operation("GatherNd", "ResourceGatherNd")
def gather_nd(node, x, indices):
    """Entries of a tensor; their mean where the data says which."""
    if not (node.inputs[1].is_flow or indices is None):
        return tf.gather_nd(x, indices)
    *outer, count = node.inputs[1].shape
    x = tf.reduce_mean(x, list(range(count)))
    x = tf.reshape(x, [*[1] * len(outer), *x.shape])
    return magnitudes.wide(x, node.outputs[0].shape)


@registry.operation("_Rows")
def rows(node, x):
    """Rows of a tensor that a loop goes through."""
    return x[node.extra["rows"]]


@registry.operation("AvgPool3D", "MaxPool3D")
def pool_3d(node, x):
    """Pools over height and width, then over depth.

    In 3D TensorFlow has no float64.
    """
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
def resize(node, x, size, *more):
    """Resizes images by one matrix for each axis, in the dtype of the flow.

    TensorFlow does in float32 only. What it does to a line of pixels is a
    matrix, with entries in [0, 1] up to the ringing of the cubic and Lanczos
    kernels, whose magnitude is taken.
    """
    matrices = []
    for axis in (0, 1):
        lines = tf.eye(x.shape[1 + axis])[:, :, None, None]
        still = [tf.ones(2), tf.zeros(2)]
        rest = [
            tf.stack([given[axis], one[axis]])
            for given, one in zip(more, still, strict=False)
        ]
        shape = tf.stack([size[axis], tf.ones_like(size[axis])])
        lines = raw.call(node, [lines, shape, *rest])[0]
        matrices.append(tf.cast(tf.abs(lines[:, :, 0, 0]), x.dtype))
    return tf.einsum("nhwc,hp,wq->npqc", x, *matrices)


@registry.operation(
    "FFT", "FFT2D", "FFT3D", "IFFT", "IFFT2D", "IFFT3D", "IRFFT", "RFFT"
)
def transform(node, x, *sizes):
    """Every frequency is the sum."""
    del sizes
    rank = int(node.type[-2]) if node.type.endswith("D") else 1
    x = tf.reduce_sum(x, list(range(-rank, 0)), keepdims=True)
    return magnitudes.wide(x, node.outputs[0].shape)
