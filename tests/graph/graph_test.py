"""A traced model as nodes: kinds of values, constants, private names."""

import importlib
import inspect

import linear
import numpy as np
import pytest
import tensorflow as tf

from synflow_tf import graph as graph_lib
from synflow_tf.graph import keras_private
from synflow_tf.graph import lines
from synflow_tf.graph import raw

LINES = linear.LINES
BOTH = pytest.mark.parametrize("line", LINES)


def _read(line, call, weights=(), shape=(4,), dtype=None):
    x = LINES[line].Input(shape, dtype=dtype)
    layer = linear.custom(line, lambda me, x: call(me, x), weights)
    return graph_lib.read(LINES[line].Model(x, layer(x)))


@BOTH
def test_values_are_of_four_kinds(line):
    def call(me, x):
        code = tf.cast(tf.math.argmax(x, -1), tf.float32)  # index
        scale = me.w * tf.range(4, dtype=tf.float32)  # weight
        return x * scale + code[:, None] * tf.ones(4)  # flow

    graph = _read(line, call, {"w": (4,)})
    kinds = {}
    for node in graph.nodes:
        kinds.setdefault(node.type, set()).update(v.kind for v in node.outputs)
    assert kinds["_Read"] == {"W"}
    assert kinds["ArgMax"] == {"I"}
    assert "F" in kinds["AddV2"] | kinds.get("BiasAdd", set())
    assert "Range" not in kinds  # It was computed.
    scaled = [n for n in graph.nodes if n.type == "Mul"]
    assert {n.outputs[0].kind for n in scaled} == {"W", "F", "I"}


@BOTH
def test_calls_are_inlined_and_loops_unrolled(line):
    @tf.function
    def inner(x):
        return tf.nn.relu(x)

    def call(me, x):
        for _ in tf.range(3):
            x = inner(x)
        return x

    def looped(me, x):
        return tf.while_loop(
            lambda i, y: i < 3, lambda i, y: (i + 1, inner(y)), [0, x]
        )[1]

    graph = _read(line, looped if line == "keras" else call)
    assert [node.type for node in graph.nodes] == ["Relu"] * 3
    assert [n.layers[-1].name for n in graph.nodes] == ["custom"] * 3


@BOTH
def test_reading_leaves_what_keras_counts_as_it_was(line):
    layers = LINES[line].layers
    model = LINES[line].Sequential(
        [LINES[line].Input((4,)), layers.Dense(3), layers.Dropout(0.5)]
    )
    before = layers.Dense(1).name
    state = {k: v for k, v in vars(model).items()}
    graph_lib.read(model)
    assert vars(model).keys() == state.keys()
    assert all(vars(model)[k] is v for k, v in state.items())
    number = int(before.rpartition("_")[2]) if "_" in before else 0
    assert layers.Dense(1).name == f"dense_{number + 1}"


@BOTH
def test_a_failing_trace_leaves_no_call_of_ours_behind(line):
    def call(me, x):
        raise RuntimeError("no")

    class Failing(LINES[line].layers.Layer):
        fails = False

        def call(self, x):
            return call(self, x) if self.fails else x * 2.0

    failing = Failing()
    x = LINES[line].Input((4,))
    model = LINES[line].Model(x, failing(x))
    failing.fails = True
    with pytest.raises(ValueError, match="(?s)callable on inputs.*no"):
        graph_lib.read(model)
    assert "call" not in vars(failing)


def test_raw_operations_take_the_names_of_their_definitions():
    @tf.function
    def function(x):
        y = tf.squeeze(tf.expand_dims(x, 1), [1])
        a, b = tf.split(y, 2, axis=1)
        return tf.concat([tf.reduce_mean(a, 1, keepdims=True), b], 1)

    traced = function.get_concrete_function(tf.TensorSpec((2, 4)))
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    values = {traced.graph.inputs[0].ref(): tf.constant(x)}
    for operation in traced.graph.get_operations():
        if operation.type in ("Placeholder", "NoOp"):
            continue
        if operation.type == "Const":
            outputs = [raw.constant(operation)]
        else:
            node = graph_lib.Node(operation.type, [], [], operation=operation)
            outputs = raw.call(
                node, [values[t.ref()] for t in operation.inputs]
            )
        values.update(
            (t.ref(), y)
            for t, y in zip(operation.outputs, outputs, strict=True)
        )
    result = values[traced.graph.outputs[0].ref()]
    np.testing.assert_array_equal(result, function(x))


def _private():
    functions = inspect.getmembers(keras_private, callable)
    return [
        name
        for name, function in functions
        if function.__module__ == keras_private.__name__
    ]


def test_private_names_are_there_and_each_is_tried():
    tried = {
        "called_on",
        "function_graph",
        "functional_in",
        "handles",
        "has_kernel",
        "layers_within",
        "raw_operation",
        "registers",
    }
    assert set(_private()) == tried
    for line in lines.LINES:
        model = line.Sequential([line.Input((4,)), line.layers.Dense(3)])
        assert keras_private.layers_within(model)
        assert keras_private.functional_in(model) is not None
        assert all(keras_private.handles(v) for v in model.weights)
        assert keras_private.registers(model, line)
    state = importlib.import_module("keras.src.backend.common.global_state")
    assert callable(state.get_global_attribute)
    backend = importlib.import_module("tf_keras.src.backend")
    assert backend.get_default_graph_uid_map() is not None
    assert keras_private.raw_operation("MatMul") is tf.raw_ops.MatMul
    assert keras_private.raw_operation("XlaDynamicUpdateSlice") is not None
    assert keras_private.raw_operation("NoSuchOperation") is None
    assert keras_private.has_kernel("MatMul", tf.float64)
    assert not keras_private.has_kernel("FusedBatchNormV3", tf.float64)
    assert not keras_private.has_kernel("MaxPool3D", tf.float64)

    @tf.function
    def outer(x):
        return tf.function(lambda y: y + 1)(x)

    graph = outer.get_concrete_function(tf.TensorSpec(())).graph
    (call,) = (o for o in graph.get_operations() if "Call" in o.type)
    name = call.get_attr("f").name
    assert keras_private.function_graph(graph, name).outputs


@BOTH
def test_a_model_is_read_as_it_was_called(line):
    class Net(LINES[line].Model):
        def __init__(self):
            super().__init__()
            self.dense = LINES[line].layers.Dense(3)

        def call(self, x):
            return self.dense(x)

    model = Net()
    model(np.ones((5, 7, 4), np.float32))
    args, kwargs = keras_private.called_on(model, LINES[line])
    (shape,) = [*args, *kwargs.values()]
    assert tuple(getattr(shape, "shape", shape))[1:] == (7, 4)


def test_only_one_file_has_private_names_of_keras():
    import pathlib
    import re

    folder = pathlib.Path(graph_lib.__file__).parents[1]
    allowed = {"keras_private.py"}
    pattern = re.compile(r"keras\.src|tensorflow\.python|_get_function\(")
    for path in [*folder.glob("graph/*.py"), *folder.glob("linearize/*.py")]:
        if path.name not in allowed:
            assert not pattern.search(path.read_text()), path
