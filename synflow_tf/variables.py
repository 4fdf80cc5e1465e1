"""The weights of a Keras model: their paths, values and constraints.

Together with `graph` this is the room that knows how Keras stores a model.
"""

import dataclasses
import re
import typing

import numpy as np
import tensorflow as tf

from synflow_tf import _lines
from synflow_tf import graph as graph_lib
from synflow_tf import tracing

# What Keras calls the weights that connections are made of.
_KERNELS = frozenset(
    ("kernel", "depthwise_kernel", "pointwise_kernel", "recurrent_kernel")
)
_TABLES = frozenset(("embeddings",))


@dataclasses.dataclass(frozen=True, eq=False)
class Weight:
    """A weight of a model.

    Attributes:
        path: str, the names of the layers that lead to it and its own, such as
            "backbone/conv1/kernel"; unique in the model, and the same after
            the model was saved and loaded.
        layer: the innermost layer that owns it.
        variable: the Keras variable.
    """

    path: str
    layer: typing.Any
    variable: typing.Any

    @property
    def name(self):
        """The last part of the path: "kernel", "bias" ..."""
        return self.path.rpartition("/")[2]

    @property
    def shape(self):
        """The shape, a tuple of int."""
        return tuple(self.variable.shape)

    @property
    def size(self):
        """The number of entries, an int."""
        return int(np.prod(self.shape))


def weights(model):
    """Lists the weights of a model.

    Args:
        model: a built Keras model of either line.

    Returns:
        list of `Weight`, in the order of `model.weights`; a shared one once.

    Raises:
        TypeError: if `model` is not a Keras model.
        ValueError: if it is not built.
    """
    _lines.line_of(model)
    graph_lib.check_built(model)
    found = {}
    _walk(model, "", found)
    order = {id(variable): None for variable in model.weights}
    result = [found[key] for key in order if key in found]
    return _unique(result)


def _walk(layer, prefix, found):
    if tracing.as_functional(layer) is not None:
        for sub in layer.layers:
            _walk(sub, f"{prefix}{sub.name}/", found)
        return
    owners = {id(v): layer for v in layer.weights}
    for sub in layer._flatten_layers(include_self=False, recursive=True):
        owners.update((id(v), sub) for v in sub.weights)
    for variable in layer.weights:
        path = prefix + _local_name(variable, layer)
        owner = owners[id(variable)]
        found.setdefault(id(variable), Weight(path, owner, variable))


def _local_name(variable, layer):
    """The part of a variable's own name that follows its layer's name."""
    name = getattr(variable, "path", None) or variable.name
    parts = name.partition(":")[0].split("/")
    if layer.name in parts[:-1]:
        last = len(parts) - 1 - parts[::-1].index(layer.name)
        return "/".join(parts[last + 1 :])
    return parts[-1]


def _unique(found):
    """Numbers the weights whose paths are equal."""
    seen = {}
    result = []
    for weight in found:
        count = seen[weight.path] = seen.get(weight.path, -1) + 1
        if count:
            path = f"{weight.path}_{count}"
            weight = dataclasses.replace(weight, path=path)
        result.append(weight)
    return result


def prunable_weights(model, prunable=None):
    """Selects the weights that pruning is about.

    Args:
        model: a built Keras model of either line.
        prunable: which weights. None takes the kernels of all layers. A str
            takes the weight of that path, or the kernels of the layer (or
            nested model) of that path, or of all layers whose path it matches
            as a regular expression; a compiled pattern likewise; a layer class
            takes the kernels, or embeddings, of all layers of that class. A
            list of those takes what any of them takes. A function `(layer,
            weight) -> bool` is asked about every floating-point weight
            (`weight` is a `Weight`), and decides alone.

    Returns:
        list of `Weight`, in the order of `model.weights`, at least one.

    Raises:
        ValueError: if nothing is selected, or a part of the list selects
            nothing.
        TypeError: if `prunable` is none of the above.
    """
    candidates = [w for w in weights(model) if _is_float(w.variable)]
    if prunable is None:
        selected = [w for w in candidates if w.name in _KERNELS]
    elif callable(prunable) and not isinstance(prunable, type):
        selected = [w for w in candidates if prunable(w.layer, w)]
    else:
        many = isinstance(prunable, (list, tuple, set, frozenset))
        chosen = set()
        for item in prunable if many else [prunable]:
            taken = {w.path for w in candidates if _selects(item, w)}
            if not taken:
                raise _nothing(item, candidates)
            chosen |= taken
        selected = [w for w in candidates if w.path in chosen]
    if not selected:
        raise _nothing(prunable, candidates)
    return selected


def _selects(item, weight):
    kernel = weight.name in _KERNELS or weight.name in _TABLES
    if isinstance(item, type):
        return kernel and isinstance(weight.layer, item)
    if not isinstance(item, (str, re.Pattern)):
        raise TypeError(
            "Argument `prunable` must be None, a str, a compiled pattern, a "
            "layer class, a list of those, or a function (layer, weight) -> "
            f"bool. Received: prunable={item!r}"
        )
    if weight.path == item:
        return True
    parts = weight.path.split("/")
    layers = ["/".join(parts[:n]) for n in range(1, len(parts))]
    return kernel and any(
        layer == item or re.fullmatch(item, layer) for layer in layers
    )


def _nothing(item, candidates):
    some = ", ".join(repr(weight.path) for weight in candidates[:6])
    return ValueError(
        "Argument `prunable` must select at least one weight. Received: "
        f"prunable={item!r}, which selects none of this model's "
        f"{len(candidates)} weights ({some}{' ...' if candidates[6:] else ''})."
        " None selects the kernels of all layers; a layer class must be of the "
        "model's own Keras line."
    )


def _is_float(variable):
    return tf.as_dtype(variable.dtype).is_floating


def value(variable):
    """The value of a Keras variable, a tensor of its own dtype."""
    value = getattr(variable, "value", variable)
    return tf.convert_to_tensor(value() if callable(value) else value)


def set_constraint(variable, constraint):
    """Sets what the optimizer applies to a variable after every update.

    Args:
        variable: a Keras variable of either line, built or restored.
        constraint: a callable tensor -> tensor, or None.
    """
    for target in _unwrapped(variable):
        target._constraint = constraint


def get_constraint(variable):
    """Returns the constraint of a variable, or None."""
    return _unwrapped(variable)[0]._constraint


def _unwrapped(variable):
    """The variables that an optimizer reads the constraint of.

    tf_keras wraps variables under mixed precision (`_variable`), and a
    distribution strategy holds one for each replica (`values`); set on the
    wrapper, a constraint is silently ignored.
    """
    if hasattr(variable, "_variable"):
        return _unwrapped(variable._variable)
    if isinstance(variable, tf.distribute.DistributedValues):
        return [variable, *variable.values]
    return [variable]


def forget_train_function(model):
    """Makes a compiled model trace its training step anew.

    The step that Keras has traced knows the constraints of that moment only.
    """
    if getattr(model, "train_function", None) is not None:
        model.make_train_function(force=True)
