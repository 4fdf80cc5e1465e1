"""A traced model as nodes: kinds of values, constants, what is noted."""

import collections

import keras
import linear
import numpy as np
import pytest
import tensorflow as tf

from synflow_tf import graph as graph_lib
from synflow_tf.graph import keras_private
from synflow_tf.graph import raw


def _read(line, call, weights=(), shape=(4,), dtype=None):
    layer = linear.custom(line, call, weights)
    return graph_lib.read(linear.chain(line, layer, shape=shape, dtype=dtype))


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

    graph = _read(line, looped if line is keras else call)
    assert [node.type for node in graph.nodes] == ["Relu"] * 3
    assert [n.layers[-1].name for n in graph.nodes] == ["custom"] * 3


def test_reading_leaves_what_keras_counts_as_it_was(line):
    layers = line.layers
    parts = line.Input((4,)), layers.Dense(3), layers.Dropout(0.5)
    model = line.Sequential(parts)
    before = layers.Dense(1).name
    state = dict(vars(model))
    graph_lib.read(model)
    assert vars(model).keys() == state.keys()
    assert all(vars(model)[k] is v for k, v in state.items())
    number = int(before.rpartition("_")[2]) if "_" in before else 0
    assert layers.Dense(1).name == f"dense_{number + 1}"


def test_reading_leaves_what_a_layer_notes_in_dicts_as_it_was(line):
    def call(me, x):
        me.plain["last"] = me.ordered["last"] = x
        return x * 2.0

    ordered = collections.OrderedDict(first=1)
    layer = linear.custom(line, call, plain={"first": 1}, ordered=ordered)
    model = linear.chain(line, layer)
    for notes in (layer.plain, layer.ordered):
        del notes["last"]
    graph_lib.read(model)
    for notes in (layer.plain, layer.ordered):
        assert list(notes.items()) == [("first", 1)]


def test_a_failing_trace_leaves_no_call_of_ours_behind(line):
    def call(me, x):
        if me.fails:
            raise RuntimeError("no")
        return x * 2.0

    failing = linear.custom(line, call, fails=False)
    model = linear.chain(line, failing)
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


def test_a_model_is_read_as_it_was_called(line):
    data, dense = np.ones((5, 7, 4), np.float32), linear.dense(line, 3, "dense")
    model = linear.net(line, lambda self, x: self.dense(x), data, dense=dense)
    args, kwargs = keras_private.called_on(model, line)
    (shape,) = [*args, *kwargs.values()]
    assert tuple(getattr(shape, "shape", shape))[1:] == (7, 4)


def test_flow_starts_where_an_index_meets_a_kernel(line):
    def call(me, x):
        x = tf.cast(x, tf.float32)
        return tf.nn.depthwise_conv2d(x, me.w, (1, 1, 1, 1), "VALID")

    graph = _read(line, call, {"w": (2, 2, 3, 1)}, (4, 4, 3), "int32")
    assert [value.kind for value in graph.outputs] == ["F"]
