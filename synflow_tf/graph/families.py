"""Groups the operations of TensorFlow, where passes need to know the kind."""

# Functions of single entries, or of what a softmax is: the identity.
ACTIVATIONS = frozenset(
    """
    Abs Acos Acosh Asin Asinh Atan Atanh BesselI0e BesselI1e Betainc Ceil
    ClipByValue ComplexAbs Conj Cos Cosh Digamma Elu Erf Erfc Erfinv Exp Expm1
    FakeQuantWithMinMaxArgs FakeQuantWithMinMaxVars
    FakeQuantWithMinMaxVarsPerChannel Floor FloorMod Imag Inv LRN LeakyRelu
    Lgamma Log Log1p LogSoftmax Mod Ndtri Neg Pow QuantizeAndDequantizeV2
    QuantizeAndDequantizeV3 QuantizeAndDequantizeV4 RandomShuffle Real
    Reciprocal Relu Relu6 Rint Round Rsqrt Selu Sigmoid Sign Sin Sinh Softmax
    Softplus Softsign Sqrt Square Tan Tanh TruncateMod _Same
    """.split()
)
# Those that look at more than one entry.
_NOT_ENTRYWISE = frozenset(("LRN", "LogSoftmax", "RandomShuffle", "Softmax"))
# Those that a line through 0 can be: they are no reason to call it bent.
_STRAIGHT = frozenset(("Conj", "Imag", "Neg", "Real"))
SUMS = frozenset(
    """
    Add AddN AddV2 Atan2 BiasAdd Complex Maximum Minimum SquaredDifference Sub
    _Either
    """.split()
)
SELECTIONS = frozenset(("Select", "SelectV2"))
PRODUCTS = frozenset(("Mul", "MulNoNan", "Xlogy", "Xlog1py"))
QUOTIENTS = frozenset("Div DivNoNan FloorDiv RealDiv TruncateDiv Xdivy".split())
POINTWISE = SUMS | SELECTIONS | PRODUCTS | QUOTIENTS
CONTRACTIONS = frozenset(
    """
    BatchMatMul BatchMatMulV2 BatchMatMulV3 Conv2D Conv2DBackpropInput Conv3D
    Conv3DBackpropInputV2 DepthwiseConv2dNative Einsum MatMul
    """.split()
)
CONCATENATIONS = frozenset("Concat ConcatV2 Pack _Concat _Stack".split())
REDUCTIONS = frozenset("EuclideanNorm Max Mean Min Prod Sum".split())
RESHAPES = frozenset(
    "BroadcastTo ExpandDims Reshape Squeeze Tile Transpose".split()
)
# What takes a part of a tensor.
SLICES = frozenset(
    "GatherNd GatherV2 Slice Split SplitV StridedSlice Unpack _Rows".split()
)
GATHERS = frozenset(
    "Gather GatherNd GatherV2 ResourceGather ResourceGatherNd".split()
)
# Comparisons, positions and codes: they depend on flow, and carry none.
MEASURES = frozenset(
    """
    All Any ApproximateEqual ArgMax ArgMin Bucketize DenseBincount Equal
    Greater GreaterEqual InTopK InTopKV2 InvertPermutation IsFinite IsInf IsNan
    LeftShift Less LessEqual LogicalAnd LogicalNot LogicalOr
    NonMaxSuppressionV3 NonMaxSuppressionV4 NotEqual OneHot RightShift
    SearchSorted LowerBound UpperBound Where
    """.split()
)
_DATA_FROM_SECOND = SELECTIONS | frozenset(
    "Concat Conv2DBackpropInput Conv3DBackpropInputV2 Split".split()
)
# What an activation is bounded by, as a hint that it is a gate: the higher the
# likelier.
_BY_HINT = {
    4: "Softmax LogSoftmax",
    3: "Reciprocal Inv Rsqrt Sigmoid",
    2: "ClipByValue Minimum Relu6",
    1: "Erf Exp Softsign Tanh",
}
BOUNDED = {kind: n for n, kinds in _BY_HINT.items() for kind in kinds.split()}


def is_entrywise(kind):
    """Returns whether such operations work entry by entry, on one tensor."""
    return kind in ACTIVATIONS and kind not in _NOT_ENTRYWISE


def is_bent(kind):
    """Returns whether such an operation is no line through 0."""
    return kind not in _STRAIGHT


def data_of(node):
    """Returns the positions of inputs that hold data, not sizes or axes."""
    count = len(node.inputs)
    if node.type == "ConcatV2":
        return range(count - 1)
    return range(node.type in _DATA_FROM_SECOND, count)


def scales_of(node):
    """Returns the positions of inputs that only scale the flow."""
    if node.type in PRODUCTS or node.type == "_Gate":
        return range(len(node.inputs))
    return (1,) if node.type.startswith("FusedBatchNorm") else ()
