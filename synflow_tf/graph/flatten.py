"""Flattens a traced graph: calls inlined, loops unrolled, constants computed.

Gives one list of nodes, each of one operation, or of one layer that has a rule
of its own. Runs nothing of the model: no assignment, no draw, no print.
"""

import collections
import functools
import itertools
import math
import re

import tensorflow as tf

from synflow_tf.graph import families
from synflow_tf.graph import identity
from synflow_tf.graph import keras_private
from synflow_tf.graph import raw
from synflow_tf.graph import tensor_lists
from synflow_tf.graph import values
from synflow_tf.graph import variables as variables_lib
from synflow_tf.graph.values import CONSTANT
from synflow_tf.graph.values import FLOW
from synflow_tf.graph.values import INDEX
from synflow_tf.graph.values import WEIGHT

# What returns what it takes.
_ALIASES = frozenset(
    """
    CheckNumerics Copy EnsureShape Identity IdentityN LegacyIdentity
    OptimizationBarrier PlaceholderWithDefault PreventGradient Print Snapshot
    StopGradient XlaSharding
    """.split()
)
_SIZES = {"Rank": len, "Shape": list, "ShapeN": list, "Size": math.prod}
# What is drawn, or set by a generator of random numbers.
_RANDOM = re.compile(
    r".*(Random|Multinomial|TruncatedNormal|StandardNormal|Rng|Shuffle"
    r"|NonDeterministicInts|StatefulUniform|StatefulTruncated).*"
)
# What reads state, and changes none.
_READS_STATE = re.compile("LookupTable(Find|Size|Export).*|.*HashTable.*")
# What is zeros if one of its inputs is, such as a state that begins at 0.
_PRODUCTS = re.compile("Mul|MatMul|BatchMatMul.*|Einsum")
# Operations whose outputs behind the first are positions.
_SECOND = frozenset(
    "TopK TopKV2 Unique UniqueV2 MaxPoolWithArgmax ListDiff".split()
)
# What TensorFlow raises, also because a size is not known.
_UNREADABLE = AttributeError, TypeError, ValueError, tf.errors.OpError
# Reading so many steps takes minutes: more are an error, not a long wait.
_MOST_STEPS = 10_000


class Unsupported(ValueError):
    """The error of a model that does something no graph can say."""


class Flattener:
    """Turns traced graphs into nodes.

    Args:
        variables: list of variables, of Keras or TensorFlow.
        calls: list of `trace.Call`.
        is_leaf: function of a layer, whether it stays one node.

    Attributes:
        nodes: list of `values.Node`, in an order in which they can run.
        cut: list of `values.Node` that are left out: they multiply flow by
            constants that are 0.
        repeated: `IdentitySet` of variables, kernels that a loop applies.
    """

    def __init__(self, variables, calls, is_leaf):
        self.nodes, self.cut = [], []
        self.repeated = identity.IdentitySet()
        self._variables = identity.IdentityDict(
            (handle, v)
            for v in variables
            for handle in keras_private.handles(v)
        )
        self._calls = collections.defaultdict(list)
        for call in calls:
            self._calls[call.graph].append(call)
        self._is_leaf = is_leaf
        self._reads = identity.IdentityDict()
        self._layers = ()

    def flatten(self, graph, inputs):
        """Reads a `FuncGraph`; returns the `values.Value` of its outputs.

        `inputs` are the values of its first inputs; the rest are captured.
        """
        captured = {inner.ref(): outer for outer, inner in graph.captures}
        rest = (captured[x.ref()] for x in graph.inputs[len(inputs) :])
        return self._body(graph, [*inputs, *map(self._captured, rest)])

    def _captured(self, outer):
        if outer.dtype == tf.resource:
            held = self._variables.get(outer, outer)
            return values.Value(CONSTANT, (), tf.resource, held)
        return values.known(outer)

    def _body(self, graph, inputs):
        """Reads the operations of a graph, those of a leaf layer as one."""
        scope = _Scope(graph, inputs)
        before, operations = self._layers, graph.get_operations()
        around = _around(self._calls[graph], len(operations))
        for operation, calls in zip(operations, around, strict=True):
            self._layers = (*before, *(call.layer for call in calls))
            leaf = next((c for c in calls if self._is_leaf(c.layer)), None)
            if leaf is None or not self._leaf(leaf, scope):
                if operation.type not in ("Placeholder", "NoOp"):
                    self._operation(operation, scope)
        self._layers = before
        return [self._value(x, scope) for x in graph.outputs]

    @property
    def _where(self):
        """Names the layers around, as their user knows them."""
        names = [layer.name for layer in self._layers]
        return f" in layer {'/'.join(names)!r}" if names else ""

    def _value(self, tensor, scope):
        """Returns the value of a tensor, also of one within a leaf layer."""
        if tensor.ref() not in scope.known:
            self._operation(tensor.op, scope)
        return scope.known[tensor.ref()]

    def _leaf(self, call, scope):
        """Puts a leaf layer in, at its first operation, if flow goes in.

        Returns whether it has: then its operations are not read.
        """
        if call in scope.leaves:
            return scope.leaves[call]
        tensors = values.traced_in((call.args, call.kwargs))
        inputs = [self._value(x, scope) for x in tensors]
        scope.leaves[call] = any(v.is_flow for v in inputs)
        if not scope.leaves[call]:
            return False
        node = values.Node(
            values.LEAF, inputs, [], call.layer.name, self._layers, call=call
        )
        tensors = values.traced_in(call.outputs)
        shapes = self._shapes(tensors, scope)
        for tensor, shape in zip(tensors, shapes, strict=True):
            value = values.Value(FLOW, shape, tensor.dtype, node=node)
            node.outputs.append(value)
            scope.known[tensor.ref()] = value
        self.nodes.append(node)
        return True

    def _shapes(self, tensors, scope):
        """Returns the shapes of a layer's outputs, by reading it if need be."""
        if all(x.shape.is_fully_defined() for x in tensors):
            return [tuple(x.shape) for x in tensors]
        before = len(self.nodes), self._reads, scope.known
        self._reads = identity.IdentityDict(self._reads)
        scope.known = dict(scope.known)
        shapes = [self._value(x, scope).shape for x in tensors]
        length, self._reads, scope.known = before
        del self.nodes[length:]
        return shapes

    def _operation(self, operation, scope):
        """Reads one operation."""
        outputs = [x for x in operation.outputs if x.ref() not in scope.known]
        if not outputs:  # effects only, or read already
            return
        kind = operation.type
        inputs = [self._value(x, scope) for x in operation.inputs]
        try:
            found = self._outputs(kind, operation, inputs)
        except Unsupported:
            raise
        except _UNREADABLE as error:
            first_line = str(error).partition("\n")[0]
            raise Unsupported(
                f"Operation {operation.name!r} (of type {kind}){self._where} "
                f"could not be read: {first_line}"
            ) from error
        for tensor, value in zip(operation.outputs, found, strict=True):
            scope.known.setdefault(tensor.ref(), value)

    def _outputs(self, kind, operation, inputs):
        """Returns the values that an operation returns, a list."""
        if kind == "Const":
            return [values.known(raw.constant(operation))]
        if kind in _ALIASES:
            return inputs[: len(operation.outputs)]
        if kind == "ReadVariableOp":
            return [self._read(inputs[0].constant)]
        if kind in ("PartitionedCall", "StatefulPartitionedCall"):
            # Whoever took gradients has appended outputs to the function.
            found = self._call(operation, "f", inputs)
            return found[: len(operation.outputs)]
        if kind in ("While", "StatelessWhile"):
            return self._loop(operation, inputs)
        if kind in ("If", "StatelessIf", "Case", "StatelessCase"):
            return self._branch(operation, inputs)
        if kind in _SIZES:
            dtype = operation.outputs[0].dtype
            sizes = [_SIZES[kind](v.shape) for v in inputs]
            return [values.known(tf.constant(n, dtype)) for n in sizes]
        if kind == "VarIsInitializedOp":
            return [values.known(True)]
        if tensor_lists.handles(operation):
            return tensor_lists.outputs(self, operation, inputs)
        if kind in ("ResourceGather", "ResourceGatherNd"):
            inputs = [self._read(inputs[0].constant), *inputs[1:]]
        node = values.Node(
            kind, inputs, [], operation.name, self._layers, operation
        )
        return self._node(node)

    def _node(self, node):
        """Returns the outputs of a node, put in unless they are known."""
        operation, kind, inputs = node.operation, node.type, node.inputs
        tensors = operation.outputs
        if kind == "Cast" and _keeps_flow(inputs[0], tensors[0].dtype):
            return inputs
        if kind in ("ZerosLike", "OnesLike") and inputs[0].constant is None:
            like = tf.zeros if kind == "ZerosLike" else tf.ones
            return [values.known(like(inputs[0].shape, inputs[0].dtype))]
        if _PRODUCTS.fullmatch(kind) and any(map(_is_zeros, inputs)):
            if node.flows:
                self.cut.append(node)
            shapes = [self._shape(x, node) for x in tensors]
            zeros = map(tf.zeros, shapes, [x.dtype for x in tensors])
            return list(map(values.known, zeros))
        depends = {v.kind for v in inputs}
        if FLOW not in depends and _RANDOM.fullmatch(kind):
            # A draw counts as its shape, as ones.
            ones = (tf.ones(self._shape(x, node), x.dtype) for x in tensors)
            return [values.known(x, random=True) for x in ones]
        known = all(v.constant is not None for v in inputs)
        pure = not operation.op_def.is_stateful or _READS_STATE.fullmatch(kind)
        if known and pure and (kind != "OneHot" or depends <= {CONSTANT}):
            found = self._computed(node)
            if any(v.node is not None for v in inputs):  # of codes
                node.outputs = found
                self.nodes.append(node)
                for value in found:
                    value.node = node
            return found
        return self._emit(node, tensors, _kind(node))

    def _computed(self, node):
        """Returns the outputs of an operation whose inputs are all known."""
        outputs = raw.call(node, [v.constant for v in node.inputs])
        random = any(v.random for v in node.inputs)
        kind = INDEX if any(v.kind == INDEX for v in node.inputs) else CONSTANT
        if random:
            outputs = [
                x
                if x.dtype in (tf.string, tf.variant)
                else tf.ones(x.shape, x.dtype)
                for x in outputs
            ]
        return [values.known(x, kind, random) for x in outputs]

    def _emit(self, node, tensors, kind):
        """Puts in a node without outputs; returns its outputs, of one kind.

        `tensors` have the shapes and dtypes of the outputs. What is no number
        is an index all the same.
        """
        for position, tensor in enumerate(tensors):
            shape, dtype = self._shape(tensor, node, position), tensor.dtype
            constant = tf.ones(shape, dtype) if node.type == "OneHot" else None
            is_position = kind == FLOW and node.type in _SECOND and position
            here = kind if _carries(kind, dtype) and not is_position else INDEX
            value = values.Value(here, shape, dtype, constant, node)
            node.outputs.append(value)
        self.nodes.append(node)
        return node.outputs

    def _shape(self, tensor, node, position=0):
        """Returns the shape of an output, by running its node if need be."""
        if tensor.shape.is_fully_defined():
            return tuple(tensor.shape)
        tensors = [
            tf.zeros(v.shape, v.dtype) if v.constant is None else v.constant
            for v in node.inputs
        ]
        return tuple(raw.call(node, tensors)[position].shape)

    def _read(self, variable):
        """Returns the value of a variable, which is read once."""
        if not hasattr(variable, "assign"):
            raise Unsupported(
                f"A resource that is no variable is read{self._where}."
            )
        if variable not in self._reads:
            dtype = tf.as_dtype(variable.dtype)
            if dtype.is_floating:
                node = values.Node(
                    values.READ, [], [], layers=self._layers, variable=variable
                )
                spec = tf.TensorSpec(variable.shape, dtype)
                [self._reads[variable]] = self._emit(node, [spec], WEIGHT)
            else:
                self._reads[variable] = values.known(
                    variables_lib.value(variable)
                )
        return self._reads[variable]

    def _call(self, operation, attribute, inputs):
        name = operation.get_attr(attribute).name
        body = keras_private.function_graph(operation.graph, name)
        return self._body(body, inputs)

    def _loop(self, operation, inputs):
        """Unrolls a loop."""
        state, before = inputs, len(self.nodes)
        for _ in range(_MOST_STEPS):
            [goes_on] = self._call(operation, "cond", state)
            if goes_on.constant is None:
                raise Unsupported(
                    f"A loop{self._where} (operation {operation.name!r}) ends "
                    "when the data says so, so it is no linear map. Put it "
                    "into a layer of its own and register a rule for that: "
                    "`synflow_tf.register_rule(MyLayer)`."
                )
            if not bool(goes_on.constant):
                for node in self.nodes[before:]:
                    if node.type in families.CONTRACTIONS:
                        found = map(values.variables_of, node.inputs)
                        self.repeated |= itertools.chain(*found)
                return state
            state = self._call(operation, "body", state)
        raise Unsupported(
            f"A loop{self._where} (operation {operation.name!r}) has more "
            f"than {_MOST_STEPS} steps. Say a smaller input with `inputs=`."
        )

    def _branch(self, operation, inputs):
        """Reads the branch that is taken; all where the data decides."""
        which, *inputs = inputs
        if operation.type.endswith("If"):
            names = ["else_branch", "then_branch"]
            graphs = [operation.get_attr(name).name for name in names]
        else:
            graphs = [f.name for f in operation.get_attr("branches")]
        graphs = [
            keras_private.function_graph(operation.graph, g) for g in graphs
        ]
        if which.constant is not None:
            number, count = int(which.constant), len(graphs)
            number = number if 0 <= number < count else count - 1
            return self._body(graphs[number], inputs)
        found = zip(*(self._body(g, inputs) for g in graphs), strict=True)
        return [functools.reduce(self._either, options) for options in found]

    def _either(self, a, b):
        """Returns one of two values: the sum, as of what a mask selects."""
        return self.synthetic("_Either", [a, b], a.shape)

    def synthetic(self, kind, inputs, shape, **extra):
        """Puts in a node of a type that is no operation of TensorFlow.

        Returns its one output, of the kind and the dtype of the strongest of
        its inputs; `extra` are attributes. What is an index needs no node.
        """
        output = values.strongest(inputs)
        like = next((v for v in inputs if v.kind == output), inputs[0])
        if output == INDEX:
            return values.Value(INDEX, shape, like.dtype)
        node = values.Node(kind, inputs, [], kind, self._layers, extra=extra)
        spec = tf.TensorSpec(shape, like.dtype)
        [value] = self._emit(node, [spec], output)
        return value


def _carries(kind, dtype):
    """Returns whether a value of a dtype can be of a kind."""
    if kind == FLOW:
        return dtype not in (tf.bool, tf.string)
    return kind != WEIGHT or _is_number(dtype)


def _kind(node):
    """Returns the kind of what a node returns."""
    kinds = {v.kind for v in node.inputs}
    data = {v.kind for v in node.inputs if _is_number(v.dtype)}
    if node.type in families.MEASURES:
        return INDEX
    if node.type in families.GATHERS and node.inputs[0].kind != FLOW:
        # What is read decides, not where.
        if node.inputs[0].is_weight:
            indices = {v.kind for v in node.inputs[1:]} <= {CONSTANT}
            return WEIGHT if indices else FLOW
        return INDEX
    if FLOW in kinds:
        return FLOW
    if WEIGHT in kinds:
        # Where an index meets a weight, flow starts.
        meets = INDEX in data and node.type in families.CONTRACTIONS
        return FLOW if meets else WEIGHT
    return INDEX


def _is_zeros(value):
    """Returns whether a value is a constant that is 0 in every entry."""
    if value.kind != CONSTANT or not _is_number(value.dtype):
        return False
    return not value.random and not tf.reduce_any(value.constant != 0)


def _is_number(dtype):
    return dtype.is_floating or dtype.is_integer or dtype.is_complex


def _keeps_flow(value, dtype):
    """Returns whether a cast leaves a value what it is."""
    if value.is_flow:
        return _is_number(dtype)
    return value.is_weight and dtype.is_floating


class _Scope:
    """The values of one graph's tensors.

    Attributes:
        known: dict of tensor reference to `values.Value`.
        leaves: dict of `trace.Call` to bool, whether it was put in as a node.
    """

    def __init__(self, graph, inputs):
        self.known = {
            x.ref(): v for x, v in zip(graph.inputs, inputs, strict=True)
        }
        self.leaves = {}


def _around(calls, count):
    """Lists for each of `count` positions the calls around it, outermost first.

    A call is noted when it ends, so of two with the same operations the later
    one is the outer one.
    """
    found = [()] * count
    for call in sorted(reversed(calls), key=lambda c: (c.begin, -c.end)):
        for position in range(call.begin, call.end):
            found[position] += (call,)
    return found
