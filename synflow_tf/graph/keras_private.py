"""The one place for the private names of Keras, TensorFlow and tfmot.

A name that is gone has no default: `Incompatible` says what would go wrong, as
`NAMES` has it; tests/graph/keras_private_test.py tries each.
"""

import collections
import functools
import importlib
import sys

import keras
import tensorflow as tf
import tf_keras

from synflow_tf.graph import identity

_AVERAGES = "_model_variables_moving_average"
_TFMOT = "tensorflow_model_optimization"
_CORE = f"{_TFMOT}.python.core"
# Optimizers that divide by what they call `_accumulators`.
_DIVIDING = tuple(
    getattr(line.optimizers, name)
    for line in (keras, tf_keras)
    for name in ("Adagrad", "Ftrl")
)

# What would happen without some private names. A test finds them all.
_REASONS = {
    "weights would be missed": "_flatten_layers",
    "weights would have other paths": "_layers _self_tracked_trackables",
    "models would be read as another kind": "_functional Functional",
    "inputs would not be known": "_build_shapes_dict _build_input_shape",
    "symbolic inputs would not be known": "KerasTensor",
    "reading a model would change it": "_tracker stored_ids",
    "reading a model would rename later layers": (
        "get_global_attribute get_default_graph_uid_map"
    ),
    "variables in a graph would not be known": "_value _variable",
    "functions in a graph would not be read": "_get_function",
    "dtypes without a kernel would be used": "get_registered_kernels_for_op",
    "pruning would be at the wrong step": "_steps_per_execution",
    "masks would not hold": "_constraint AutoCastVariable",
    "gradients would not be masked": "_trainable_variables",
    "moments of removed weights would stay": (
        "_trainable_variables_indices _index_dict _var_key"
    ),
    "moments of kept weights would be lost": "_variables",
    "updates would divide by 0": "_accumulators",
    "averages would bring removed weights back": _AVERAGES,
    "layers would not be wrapped": "_is_graph_network PruneRegistry",
    "wrappers would not be known": "PruneLowMagnitude",
    "masks of wrappers would count as weights": "_non_trainable_weights",
    "HDF5 files could not be written": "_handle_name",
    "schedules would be refused": "PruningSchedule",
    "an export would end at what TFLite cannot convert": "ConverterError",
}
NAMES = {name: why for why, names in _REASONS.items() for name in names.split()}


class Incompatible(RuntimeError):
    """A version of Keras, TensorFlow or tfmot that is not as expected.

    `owner` is an object or a module of it; `problem` says what is different.
    """

    def __init__(self, owner, problem):
        modules = [getattr(owner, "__name__", "")]
        modules += [cls.__module__ for cls in type(owner).__mro__]
        roots = [module.partition(".")[0] for module in modules]
        known = ("keras", "tf_keras", "tensorflow", _TFMOT)
        package = next((root for root in roots if root in known), roots[-1])
        version = getattr(sys.modules[package], "__version__", "")
        super().__init__(
            f"{package} {version} {problem}. Install a version of {package} "
            "that synflow_tf is tested with, or report this."
        )


def _get(owner, name):
    """Returns a private attribute of an object, a class or a module."""
    try:
        return getattr(owner, name)
    except AttributeError as error:
        kind = getattr(owner, "__name__", type(owner).__name__)
        problem = f"has no `{kind}.{name}`: {NAMES[name]}"
        raise Incompatible(owner, problem) from error


def _module(path):
    """Returns a private module of a package that is imported."""
    try:
        return importlib.import_module(path)
    except ModuleNotFoundError as error:
        package = sys.modules[path.partition(".")[0]]
        raise Incompatible(package, f"has no module `{path}`") from error


def of_tfmot(module, name):
    """Returns a class of tfmot's core, or None where tfmot is not imported."""
    if _TFMOT not in sys.modules:
        return None
    return _get(_module(f"{_CORE}.{module}"), name)


def is_quantized(layer):
    """Returns whether a layer is one of tfmot's quantization."""
    if _TFMOT not in sys.modules:
        return False
    package = _module(f"{_CORE}.quantization").__name__
    return type(layer).__module__.startswith(package)


# Layers and models.


def layers_within(layer, recursive=True):
    """Lists the layers within a layer, at any depth, without itself."""
    flatten = _get(layer, "_flatten_layers")
    found = flatten(include_self=False, recursive=recursive)
    return [x for x in identity.IdentitySet(found) if x is not layer]


def attributes(layer):
    """Returns a layer's attributes, without Keras' own lists of layers."""
    is_keras = isinstance(layer, keras.layers.Layer)
    _get(layer, "_layers" if is_keras else "_self_tracked_trackables")
    return {
        name: value
        for name, value in vars(layer).items()
        if name not in ("_layers", "_functional", "_tracker")
        and not name.startswith("_self_")
    }


def own_variables(layer):
    """Lists what a wrapper of tfmot adds to the weights of its layer."""
    return _get(layer, "_non_trainable_weights")


def is_graph_network(model):
    """Returns whether a model of tf_keras is a graph of layers."""
    return _get(model, "_is_graph_network")


def build_input_shape(layer):
    """Returns the shape that a layer of tf_keras was built with, or None."""
    return _get(layer, "_build_input_shape")


def called_on(model, line):
    """Returns what a model that is no graph of layers was built with.

    As args and kwargs, of shapes and `TensorSpec`s; empty if Keras knows none.
    """
    if line is keras:
        shapes = _get(model, "_build_shapes_dict") or {}
        shapes = {k.removesuffix("_shape"): s for k, s in shapes.items()}
        if len(shapes) == 1:
            return tuple(shapes.values()), {}
        return (), shapes
    spec = model.save_spec()
    if spec is not None:
        return spec
    shape = build_input_shape(model)
    return (() if shape is None else (shape,)), {}


def functional_in(model):
    """Returns the functional model that a model is or holds, or None.

    None too if it has a `call` of its own.
    """
    graphs = (
        keras.Sequential,
        tf_keras.Sequential,
        _get(_module("keras.src.models.functional"), "Functional"),
        _get(_module("tf_keras.src.engine.functional"), "Functional"),
    )
    base = next((cls for cls in type(model).__mro__ if cls in graphs), None)
    if base is None or type(model).call is not base.call:
        return None
    if isinstance(model, keras.Sequential):
        model = _get(model, "_functional")
    return model if getattr(model, "inputs", None) else None


def is_symbolic(x):
    """Returns whether `x` is a symbolic tensor of either Keras line."""
    module = _module("tf_keras.src.engine.keras_tensor")
    return isinstance(x, (keras.KerasTensor, _get(module, "KerasTensor")))


def steps_per_execution(model):
    """Returns the steps that a model trains in one call: int or variable."""
    if isinstance(model, keras.Model):
        return model.steps_per_execution
    return _get(model, "_steps_per_execution")


def registers(layer, line):
    """Lists the dicts and sets in which Keras notes things about layers."""
    if line is tf_keras:
        backend = _module("tf_keras.src.backend")
        return [_get(backend, "get_default_graph_uid_map")()]
    state = _module("keras.src.backend.common.global_state")
    counts = _get(state, "get_global_attribute")(
        "object_name_uids",
        default=collections.defaultdict(int),
        set_to_default=True,
    )
    layers = [layer, *layers_within(layer)]
    stored = [_get(_get(x, "_tracker"), "stored_ids") for x in layers]
    return [counts, *(ids for one in stored for ids in one.values())]


# Variables.


def tf_variable(variable):
    """Returns the variable of TensorFlow that a Keras variable is or wraps.

    Keras 3 wraps all of them; tf_keras wraps those under mixed precision.
    """
    if isinstance(variable, keras.Variable):
        return _get(variable, "_value")
    module = _module("tf_keras.src.mixed_precision.autocast_variable")
    if isinstance(variable, _get(module, "AutoCastVariable")):
        return _get(variable, "_variable")
    return variable


def _replicas(variable):
    if isinstance(variable, tf.distribute.DistributedValues):
        return variable.values
    return [variable]


def handles(variable):
    """Lists the resource handles of a Keras variable: one for each replica."""
    replicas = _replicas(tf_variable(variable))
    return [x.handle for x in replicas if hasattr(x, "handle")]


def set_handle_name(variable, name):
    """Renames a variable of tf_keras."""
    variable = tf_variable(variable)
    _get(variable, "_handle_name")
    variable._handle_name = name


def set_constraint(variable, constraint):
    """Sets the function that optimizers apply to a variable after an update.

    It is read back as optimizers read it, from `variable.constraint`.
    """
    line = keras if isinstance(variable, keras.Variable) else tf_keras
    if line is keras:
        variable.constraint = constraint
    else:  # It has no setter, and on a wrapper nothing would read it.
        for replica in _replicas(tf_variable(variable)):
            _get(replica, "_constraint")
            replica._constraint = constraint
    if variable.constraint is not constraint:
        raise Incompatible(
            line,
            "does not keep the constraint that is set on the variable "
            f"{variable.name!r}: masks would not hold",
        )


# Optimizers.


def trainable_variables(optimizer):
    """Lists the variables that an optimizer of Keras 3 was built for."""
    return _get(optimizer, "_trainable_variables")


def _parts(optimizer):
    """Lists the optimizers in an optimizer, or itself, without legacy ones."""
    if hasattr(optimizer, "inner_optimizer"):  # that scales the loss
        return _parts(optimizer.inner_optimizer)
    if isinstance(optimizer, tf_keras.optimizers.legacy.Optimizer):
        return []
    return getattr(optimizer, "optimizers", [optimizer])


def _places(optimizer):
    """Returns a dict of variable key to place in each list of an optimizer."""
    is_keras = isinstance(optimizer, keras.optimizers.Optimizer)
    name = "_trainable_variables_indices" if is_keras else "_index_dict"
    return _get(optimizer, name)


def averages(optimizer, variables):
    """Lists pairs of a variable and its moving average, if it has one."""
    found = []
    for part in _parts(optimizer):
        if part.use_ema and variables:
            key, places = _get(part, "_var_key"), _places(part)
            known = [v for v in variables if key(v) in places]
            found += [(v, _get(part, _AVERAGES)[places[key(v)]]) for v in known]
    return found


def gathered(optimizer, variables):
    """Lists pairs of a variable and what an optimizer has gathered about it.

    Momentum, averages and the like, of the variable's shape. Both lines keep
    them in lists on the optimizer, with an entry for each variable it trains;
    what is kept anywhere else is an error.
    """
    found = []
    shapes = {tuple(v.shape) for v in variables} - {()}  # that of counters
    for part in _parts(optimizer):
        kept = (v for v in part.variables if tuple(v.shape) in shapes)
        kept = identity.IdentitySet(kept)
        if not kept:
            continue
        lists, places = _lists(part), _places(part)
        listed = (x for held in lists.values() for x in held)
        for slot in kept - identity.IdentitySet(listed):
            raise Incompatible(
                part,
                f"keeps {slot.name!r} of {type(part).__name__} in no list: "
                "moments of removed weights would stay. Enforce masks before "
                "the first step with this optimizer",
            )
        lists.pop("_accumulators", None)
        key = _get(part, "_var_key")
        for variable in variables:
            if key(variable) in places:
                place, shape = places[key(variable)], variable.shape
                slots = (held[place] for held in lists.values())
                slots = (x for x in slots if x in kept and x.shape == shape)
                found += [(variable, slot) for slot in slots]
    return found


def _lists(optimizer):
    """Returns the lists, by name, with an entry for each trained variable."""
    _get(optimizer, "_variables")  # has all variables in a row
    if isinstance(optimizer, _DIVIDING):
        _get(optimizer, "_accumulators")
    count = len(_places(optimizer))
    return {
        name: held
        for name, held in vars(optimizer).items()
        if isinstance(held, list) and len(held) == count
        if name != "_variables"
    }


# TensorFlow.


def function_graph(graph, name):
    """Returns the graph of a function that an operation of `graph` calls."""
    return _get(graph, "_get_function")(name).graph


def converter_error():
    """Returns the class of errors that TFLite's converter raises."""
    return _get(
        _module("tensorflow.lite.python.convert_phase"), "ConverterError"
    )


@functools.cache
def raw_operation(kind):
    """Returns the function of an operation, as in `tf.raw_ops`, or None.

    Those of XLA, in which Keras 3 updates slices, are in `gen_xla_ops` only.
    """
    xla = _module("tensorflow.compiler.tf2xla.ops.gen_xla_ops")
    return getattr(tf.raw_ops, kind, getattr(xla, kind, None))


@functools.cache
def has_kernel(kind, dtype):
    """Returns whether TensorFlow can run an operation type in a float dtype."""
    module = _module("tensorflow.python.framework.kernels")
    found = _get(module, "get_registered_kernels_for_op")(kind).kernel
    on_cpu = [k for k in found if k.device_type == "CPU"]
    for kernel in on_cpu:
        limits = [c for c in kernel.constraint if c.name == "T"]
        if not limits:
            return True
        if dtype.as_datatype_enum in limits[0].allowed_values.list.type:
            return True
    return not on_cpu
