"""Private names are there, in one place, and where one is not, it is said."""

import ast
import functools
import importlib
import pathlib
import re
import sys
import types

import common
import keras
import linear
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras

import synflow_tf
from synflow_tf.graph import keras_private
from synflow_tf.graph import variables
from synflow_tf.graph import wrappers

SOURCES = pathlib.Path(synflow_tf.__file__).parent


def _model(line, **kwargs):
    layers = [line.Input((4,)), line.layers.Dense(3, **kwargs)]
    return line.Sequential(layers)


def _optimizer(line, name, **kwargs):
    """An optimizer that has been built for a model."""
    optimizer = getattr(line.optimizers, name)(0.1, **kwargs)
    optimizer.build(_model(line).trainable_variables)
    return optimizer


_module = importlib.import_module


def _traced():
    function = tf.function(lambda x: tf.function(lambda y: y + 1)(x))
    return function.get_concrete_function(tf.TensorSpec(())).graph


@functools.cache
def _owners():
    """Objects of the installed versions, by the private name they must have."""
    new, old = (_model(line) for line in common.LINES)
    mixed = _model(tf_keras, dtype="mixed_float16").layers[0].kernel
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        replica = _model(tf_keras).layers[0].kernel.values[0]
    wrapper = tfmot.sparsity.keras.prune_low_magnitude(_model(tf_keras))
    core = "tensorflow_model_optimization.python.core.sparsity.keras"
    keras_src, tf_keras_src = "keras.src", "tf_keras.src"
    state = _module(f"{keras_src}.backend.common.global_state")
    emas = [_optimizer(line, "Adam", use_ema=True) for line in common.LINES]
    return {
        "_flatten_layers": [new, old, *new.layers, *old.layers],
        "_layers": [new, *new.layers],
        "_self_tracked_trackables": [old, *old.layers],
        "_functional": [new],
        "Functional": [
            _module(f"{keras_src}.models.functional"),
            _module(f"{tf_keras_src}.engine.functional"),
        ],
        "_build_shapes_dict": [new, *new.layers],
        "_build_input_shape": [old, *old.layers],
        "KerasTensor": [_module(f"{tf_keras_src}.engine.keras_tensor")],
        "_tracker": [new, *new.layers],
        "stored_ids": [new._tracker],
        "get_global_attribute": [state],
        "get_default_graph_uid_map": [_module(f"{tf_keras_src}.backend")],
        "_value": new.weights,
        "_variable": [mixed],
        "_get_function": [_traced()],
        "get_registered_kernels_for_op": [
            _module("tensorflow.python.framework.kernels")
        ],
        "_steps_per_execution": [old],
        "_constraint": [*old.weights, replica, mixed._variable],
        "AutoCastVariable": [
            _module(f"{tf_keras_src}.mixed_precision.autocast_variable")
        ],
        "_trainable_variables": [emas[0]],
        "_trainable_variables_indices": [emas[0]],
        "_index_dict": [emas[1]],
        "_var_key": emas,
        "_variables": emas,
        "_accumulators": [
            _optimizer(line, name)
            for line in common.LINES
            for name in ("Adagrad", "Ftrl")
        ],
        "_model_variables_moving_average": emas,
        "_is_graph_network": [old],
        "PruneRegistry": [_module(f"{core}.prune_registry")],
        "PruneLowMagnitude": [_module(f"{core}.pruning_wrapper")],
        "_non_trainable_weights": wrapper.layers,
        "_handle_name": [*old.weights, mixed._variable],
        "PruningSchedule": [_module(f"{core}.pruning_schedule")],
        "ConverterError": [_module("tensorflow.lite.python.convert_phase")],
    }


@pytest.mark.parametrize("name", keras_private.NAMES)
def test_a_private_name_is_there(name):
    owners = _owners()[name]
    assert owners
    for owner in owners:
        assert hasattr(owner, name), (
            f"{owner!r} has no {name}: {keras_private.NAMES[name]}"
        )


def test_each_name_that_is_used_is_in_the_table():
    source = (SOURCES / "graph/keras_private.py").read_text()
    calls = [x for x in ast.walk(ast.parse(source)) if isinstance(x, ast.Call)]
    gets = [x for x in calls if getattr(x.func, "id", "") == "_get"]
    used = {x.args[1].value for x in gets if hasattr(x.args[1], "value")}
    assert len(used) > 20 and used <= set(keras_private.NAMES)
    for name in keras_private.NAMES:
        at = [p for p in SOURCES.rglob("*.py") if f'"{name}"' in p.read_text()]
        assert at, name


def _private(path):
    """The private names of others that a file uses."""
    tree = list(ast.walk(ast.parse(path.read_text())))
    own = {x.name for x in tree if isinstance(x, ast.FunctionDef)}
    own.add("_replace")  # of named tuples, and public
    for node in tree:
        if isinstance(node, ast.Attribute) and node.attr.startswith("_"):
            if ast.unparse(node.value) in ("self", "cls", "super()"):
                own.add(node.attr)
    for node in tree:
        if isinstance(node, ast.Attribute) and node.attr.startswith("_"):
            if node.attr not in own:
                yield node.attr
        if isinstance(node, ast.Call) and len(node.args) > 1:
            name = getattr(node.args[1], "value", "")
            if ast.unparse(node.func) in ("getattr", "hasattr", "setattr"):
                if str(name).startswith("_"):
                    yield name
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if re.match(r"(tf_)?keras\.src|\w+\.python\.", node.value):
                yield node.value
        if isinstance(node, ast.ImportFrom):
            if re.search(r"\.(python|src)\b", node.module or ""):
                yield node.module


def test_only_one_file_has_private_names_of_others():
    found = {}
    for path in SOURCES.rglob("*.py"):
        names = {n for n in _private(path) if not re.fullmatch("__.*__", n)}
        if names and path.name != "keras_private.py":
            found[path.name] = names
    assert not found


# Without a name.


def _like():
    """A variable of the shape of one that an optimizer was built for."""
    return tf.Variable(tf.zeros((4, 3)))


# What reads each name: of an object that had it, before it is removed.
READS = {
    "_flatten_layers": keras_private.layers_within,
    "_layers": keras_private.attributes,
    "_self_tracked_trackables": keras_private.attributes,
    "_functional": keras_private.functional_in,
    "Functional": lambda _: keras_private.functional_in(None),
    "_build_shapes_dict": lambda x: keras_private.called_on(x, keras),
    "_build_input_shape": keras_private.build_input_shape,
    "KerasTensor": keras_private.is_symbolic,
    "_tracker": lambda x: keras_private.registers(x, keras),
    "stored_ids": lambda _: _registers_of_keras(),
    "get_global_attribute": lambda _: _registers_of_keras(),
    "get_default_graph_uid_map": lambda x: keras_private.registers(x, tf_keras),
    "_value": keras_private.tf_variable,
    "_variable": keras_private.tf_variable,
    "_get_function": lambda x: keras_private.function_graph(x, "name"),
    "get_registered_kernels_for_op": lambda _: (
        keras_private.has_kernel.__wrapped__("MatMul", tf.float32)
    ),
    "_steps_per_execution": keras_private.steps_per_execution,
    "_constraint": lambda x: keras_private.set_constraint(x, None),
    "AutoCastVariable": lambda _: keras_private.tf_variable(_like()),
    "_trainable_variables": keras_private.trainable_variables,
    "_trainable_variables_indices": lambda x: _gathered(x),
    "_index_dict": lambda x: _gathered(x),
    "_var_key": lambda x: _gathered(x),
    "_variables": lambda x: keras_private._lists(x),
    "_accumulators": lambda x: _gathered(x),
    "_model_variables_moving_average": lambda x: keras_private.averages(
        x, keras_private.trainable_variables(x)
    ),
    "_is_graph_network": keras_private.is_graph_network,
    "PruneRegistry": lambda x: keras_private.of_tfmot(
        "sparsity.keras.prune_registry", "PruneRegistry"
    ),
    "PruneLowMagnitude": wrappers.is_wrapper,
    "_non_trainable_weights": keras_private.own_variables,
    "_handle_name": lambda x: keras_private.set_handle_name(x, "name"),
    "PruningSchedule": lambda x: keras_private.of_tfmot(
        "sparsity.keras.pruning_schedule", "PruningSchedule"
    ),
    "ConverterError": lambda _: keras_private.converter_error(),
}


def _registers_of_keras():
    return keras_private.registers(_owners()["_tracker"][0], keras)


def _gathered(optimizer):
    return keras_private.gathered(optimizer, [_like()])


def _remove(owner, name, monkeypatch):
    """Removes an attribute from an object, its classes or a module."""
    own = getattr(owner, "__dict__", {})
    if name in own and not isinstance(owner, types.ModuleType):
        # Not `delattr`, of which Keras takes note.
        monkeypatch.delitem(own, name)
    for holder in [owner, *type(owner).__mro__]:
        if name in getattr(holder, "__dict__", {}):
            monkeypatch.delattr(holder, name)
    if name == "_variable":  # to which that class forwards all it has not
        monkeypatch.delattr(type(owner), "__getattr__")
    assert not hasattr(owner, name)


@pytest.mark.parametrize("name", keras_private.NAMES)
def test_a_private_name_that_is_gone_is_an_error_that_says_so(
    name, monkeypatch
):
    owner = _owners()[name][0]
    _remove(owner, name, monkeypatch)
    package = r"(keras|tf_keras|tensorflow|tensorflow_model_optimization)"
    what = re.escape(f"{name}`: {keras_private.NAMES[name]}. Install")
    expected = rf"^{package} \d+\.\d+\.\d+ has no `[\w.]+\.{what}"
    with pytest.raises(keras_private.Incompatible, match=expected):
        READS[name](owner)


def test_a_private_module_that_is_gone_is_an_error_that_says_so():
    expected = f"^keras {keras.__version__} has no module `keras.src.nothing`"
    with pytest.raises(keras_private.Incompatible, match=expected):
        keras_private._module("keras.src.nothing")


def test_of_tfmot_nothing_is_found_before_it_is_imported(monkeypatch):
    monkeypatch.delitem(sys.modules, "tensorflow_model_optimization")
    assert keras_private.of_tfmot("no.module", "NoClass") is None
    assert not wrappers.is_wrapper(_owners()["_non_trainable_weights"][0])


# What is read.


def test_handles_are_those_of_the_variables_of_tensorflow(line):
    for dtype in ("float32", "mixed_float16"):
        for variable in _model(line, dtype=dtype).weights:
            (handle,) = keras_private.handles(variable)
            value = tf.raw_ops.ReadVariableOp(resource=handle, dtype=tf.float32)
            np.testing.assert_array_equal(value, variable.numpy())


def test_symbolic_tensors_are_known(line):
    assert keras_private.is_symbolic(line.Input((4,)))
    for other in (tf.zeros(4), np.zeros(4), tf.TensorSpec((4,)), None):
        assert not keras_private.is_symbolic(other)


def test_the_lists_of_keras_give_weights_no_paths(line):
    def call(self, x):
        first, second = self.blocks
        return second["x"](first(self._first(x)))

    dense = [line.layers.Dense(3) for _ in range(3)]
    blocks = [dense[1], {"x": dense[2]}]
    x = np.ones((1, 4), np.float32)
    model = linear.net(line, call, x, _first=dense[0], blocks=blocks)
    paths = [w.path for w in variables.weights(model)]
    layers = [path.rpartition("/")[0] for path in paths if "kernel" in path]
    assert layers == ["first", "blocks/0", "blocks/1/x"]


def test_raw_operations_and_kernels_are_found():
    assert keras_private.raw_operation("MatMul") is tf.raw_ops.MatMul
    assert keras_private.raw_operation("XlaDynamicUpdateSlice") is not None
    assert keras_private.raw_operation("NoSuchOperation") is None
    assert keras_private.has_kernel("MatMul", tf.float64)
    assert not keras_private.has_kernel("FusedBatchNormV3", tf.float64)
    assert not keras_private.has_kernel("MaxPool3D", tf.float64)
