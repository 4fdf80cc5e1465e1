"""The one place for the private names of Keras and TensorFlow.

Each function says which names it needs. A test asserts that the installed
versions have them.
"""

import collections
import functools
import importlib

import tensorflow as tf
from tensorflow.python.framework import kernels

from synflow_tf.graph import lines


def layers_within(layer):
    """The layers within a layer, at any depth, without itself.

    `Layer._flatten_layers`, of both lines.
    """
    found = layer._flatten_layers(include_self=False, recursive=True)
    return list({id(x): x for x in found if x is not layer}.values())


def registers(layer, line):
    """What Keras counts and keeps besides a layer's own attributes.

    `Tracker.stored_ids` and `backend.common.global_state` of Keras 3,
    `backend.get_default_graph_uid_map` of tf_keras.

    Args:
        layer: a layer.
        line: its Keras line.

    Returns:
        list of dicts and sets, as Keras goes on with them.
    """
    if line is not lines.LINES[0]:
        backend = importlib.import_module("tf_keras.src.backend")
        return [backend.get_default_graph_uid_map()]
    state = importlib.import_module("keras.src.backend.common.global_state")
    counts = state.get_global_attribute(
        "object_name_uids",
        default=collections.defaultdict(int),
        set_to_default=True,
    )
    trackers = [x._tracker for x in [layer, *layers_within(layer)]]
    stored = [ids for t in trackers for ids in t.stored_ids.values()]
    return [counts, *stored]


def function_graph(graph, name):
    """The graph of a function that an operation of another calls.

    `FuncGraph._get_function`, of TensorFlow.
    """
    return graph._get_function(name).graph


@functools.cache
def raw_operation(kind):
    """The function of an operation, as in `tf.raw_ops`, or None.

    Those of XLA, in which Keras 3 updates slices, are in `gen_xla_ops` only.
    """
    xla = importlib.import_module("tensorflow.compiler.tf2xla.ops.gen_xla_ops")
    return getattr(tf.raw_ops, kind, getattr(xla, kind, None))


def handles(variable):
    """The resource handles of a Keras variable, a list of tensors.

    One; of a replicated variable one for each replica as well. `_value` of
    Keras 3's variables; `_variable` of those of tf_keras under mixed
    precision.
    """
    for wrapped in ("_value", "_variable"):
        if wrapped in getattr(variable, "__dict__", {}):
            variable = getattr(variable, wrapped)
    if isinstance(variable, tf.distribute.DistributedValues):
        return [replica.handle for replica in variable.values]
    return [variable.handle] if hasattr(variable, "handle") else []


def called_on(model, line):
    """What a model that is no graph of layers was built with.

    `_build_shapes_dict` of Keras 3, `_build_input_shape` of tf_keras.

    Args:
        model: a built model.
        line: its Keras line.

    Returns:
        A pair: args, a tuple, and kwargs, a dict, of shapes and `TensorSpec`s;
        both empty if Keras does not know.
    """
    if line is lines.LINES[0]:
        shapes = getattr(model, "_build_shapes_dict", None) or {}
        shapes = {k.removesuffix("_shape"): s for k, s in shapes.items()}
        if len(shapes) == 1:
            return tuple(shapes.values()), {}
        return (), shapes
    spec = model.save_spec()
    if spec is not None:
        return spec
    shape = getattr(model, "_build_input_shape", None)
    return (() if shape is None else (shape,)), {}


def functional_in(model):
    """The functional model that a model is or holds, or None.

    `Sequential._functional` of Keras 3; in tf_keras a sequential model is a
    functional one once its input shape is known. None too if it has a `call`
    of its own.
    """
    for cls in type(model).__mro__:
        if cls.__name__ in ("Functional", "Sequential"):
            break
    else:
        return None
    if type(model).call is not cls.call:
        return None
    functional = getattr(model, "_functional", model)
    return functional if getattr(functional, "inputs", None) else None


@functools.cache
def has_kernel(kind, dtype):
    """Whether TensorFlow can run a type of operations in a float dtype.

    `kernels.get_registered_kernels_for_op`, of TensorFlow.

    Args:
        kind: str, the type of the operation.
        dtype: `tf.DType`.
    """
    found = kernels.get_registered_kernels_for_op(kind).kernel
    on_cpu = [k for k in found if k.device_type == "CPU"]
    for kernel in on_cpu:
        limits = [c for c in kernel.constraint if c.name == "T"]
        if not limits:
            return True
        if dtype.as_datatype_enum in limits[0].allowed_values.list.type:
            return True
    return not on_cpu
