"""The weights of a Keras model: their paths and values."""

import collections
import dataclasses
import re
import typing

import numpy as np
import tensorflow as tf

from synflow_tf.graph import identity
from synflow_tf.graph import keras_private
from synflow_tf.graph import lines
from synflow_tf.graph import wrappers

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
            "backbone/conv1/kernel", or, in layers and models that are no
            graphs of layers, of the attributes: "blocks/0/dense/kernel".
            Unique in the model, and the same after saving and loading.
        layer: the innermost layer that owns it.
        variable: the Keras variable.
        is_kernel: bool, whether it is pruned unless told otherwise: its name
            is that of a kernel, or the graph shows that it is one; or a
            layer's `get_prunable_weights()` (tfmot's protocol) names it.
        wrapper_mask: the mask variable of the pruning wrapper of tfmot that
            its layer is in, or None.
    """

    path: str
    layer: typing.Any
    variable: typing.Any
    is_kernel: bool
    wrapper_mask: typing.Any = None

    @property
    def name(self):
        """Returns the last part of the path: "kernel", "bias" ..."""
        return self.path.rpartition("/")[2]

    @property
    def shape(self):
        """Returns the shape, a tuple of int."""
        return tuple(self.variable.shape)

    @property
    def size(self):
        """Returns the number of entries, an int."""
        return int(np.prod(self.shape))


def weights(model, kernels=()):
    """Lists the weights of a model, without those of pruning wrappers.

    In the order of `model.weights`, a shared one once.

    Args:
        model: a built Keras model of either line.
        kernels: iterable of variables, kernels whatever their name.
    """
    lines.line_of(model)
    lines.check_built(model)
    found = identity.IdentityDict()
    _walk(model, "", found, identity.IdentitySet(kernels))
    around = wrappers.within(model)
    masks = wrappers.masks(around)
    own = (v for w in around for v in keras_private.own_variables(w))
    order = identity.IdentitySet(model.weights) - identity.IdentitySet(own)
    listed = [found[variable] for variable in order if variable in found]
    return [
        dataclasses.replace(w, path=path, wrapper_mask=masks.get(w.variable))
        for w, path in zip(listed, _numbered(listed), strict=True)
    ]


def _walk(layer, prefix, found, kernels, chosen=None):
    """Adds the weights of a layer to `found`, first of the layers within it.

    Their paths begin with `prefix`. `chosen` has the variables that a layer
    around it names as prunable, or is None.
    """
    # Of the class: tfmot's registry sets it on layers of Keras.
    if chosen is None and hasattr(type(layer), "get_prunable_weights"):
        chosen = identity.IdentitySet(layer.get_prunable_weights())
    for name, sub in _sublayers(layer):
        _walk(sub, f"{prefix}{name}/", found, kernels, chosen)
    for variable in layer.weights:
        if not hasattr(variable, "shape"):  # the vocabulary of a text
            continue
        # Of tf_keras: "dense/kernel:0".
        name = variable.name.partition(":")[0].rpartition("/")[2]
        kernel = name in _KERNELS or variable in kernels
        kernel = kernel if chosen is None else variable in chosen
        weight = Weight(prefix + name, layer, variable, kernel)
        found.setdefault(variable, weight)


def _sublayers(layer):
    """Lists the layers within a layer, unwrapped, as pairs of name and layer.

    By their own names in functional and sequential models; elsewhere by the
    attributes that hold them, which stay the same when Keras makes up other
    names after loading.
    """
    sequential = tuple(line.Sequential for line in lines.LINES)
    if keras_private.functional_in(layer) or isinstance(layer, sequential):
        subs = map(wrappers.inside, layer.layers)
        return [(sub.name, sub) for sub in subs]
    subs = keras_private.layers_within(layer, recursive=False)
    subs = identity.IdentityDict((sub, wrappers.inside(sub)) for sub in subs)
    held = identity.IdentityDict()
    attributes = keras_private.attributes(layer) if subs else {}
    for attribute, value in attributes.items():
        for path, sub in _held(attribute.lstrip("_"), value):
            if sub in subs:
                held.setdefault(sub, path)
    return [(held.get(key, sub.name), sub) for key, sub in subs.items()]


def _held(path, value):
    """Lists what an attribute holds, flat, as pairs of path and value."""
    if isinstance(value, (list, tuple)):
        value = dict(enumerate(value))
    if not isinstance(value, dict):
        return [(path, value)]
    return [x for key, v in value.items() for x in _held(f"{path}/{key}", v)]


def _numbered(found):
    """Lists the paths of weights, with a number behind those that repeat."""
    counts = collections.Counter()
    paths = []
    for path in (weight.path for weight in found):
        paths.append(f"{path}_{counts[path]}" if counts[path] else path)
        counts[path] += 1
    return paths


def prunable_weights(model, prunable=None, kernels=()):
    """Selects the weights that pruning is about, in order; at least one.

    See `synflow_tf.prune` for `prunable`, and `weights` for `kernels`.

    Raises:
        ValueError: if `prunable`, or an item of it, selects nothing.
        TypeError: if it is of none of the kinds that it may be.
    """
    candidates = [
        weight
        for weight in weights(model, kernels)
        if tf.as_dtype(weight.variable.dtype).is_floating
    ]
    if prunable is None:
        selected = [w for w in candidates if w.is_kernel]
    elif callable(prunable) and not isinstance(prunable, type):
        selected = [w for w in candidates if prunable(w.layer, w)]
    else:
        many = isinstance(prunable, (list, tuple, set, frozenset))
        chosen = set()
        for item in prunable if many else [prunable]:
            taken = {w.path for w in candidates if _selects(item, w)}
            if not taken:
                raise _nothing(item, candidates, model)
            chosen |= taken
        selected = [w for w in candidates if w.path in chosen]
    if not selected:
        raise _nothing(prunable, candidates, model)
    return selected


def _selects(item, weight):
    kernel = weight.is_kernel or weight.name in _TABLES
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


def _nothing(item, candidates, model):
    integers = [
        w
        for w in weights(model)
        if tf.as_dtype(w.variable.dtype).is_integer and len(w.shape) > 1
    ]
    if not any(w.is_kernel for w in candidates) and integers:
        return ValueError(
            "Argument `model` must have kernels of a float type. Received: "
            f"model={model.name!r}, whose kernels are quantized, such as "
            f"{integers[0].path!r} (of type "
            f"{tf.as_dtype(integers[0].variable.dtype).name}). Prune first, "
            "then quantize."
        )
    some = ", ".join(repr(weight.path) for weight in candidates[:6])
    return ValueError(
        "Argument `prunable` must select at least one weight. Received: "
        f"prunable={item!r}, which selects none of this model's "
        f"{len(candidates)} weights ({some}{' ...' if candidates[6:] else ''})."
        " None selects the kernels of all layers; a layer class must be of the "
        "model's own Keras line."
    )


def value(variable):
    """Returns the value of a Keras variable, a tensor of its own dtype."""
    value = getattr(variable, "value", variable)
    return tf.convert_to_tensor(value() if callable(value) else value)


def get_constraint(variable):
    """Returns what optimizers apply to a variable after an update, or None."""
    return variable.constraint


def strategy_of(variable):
    """Returns the `tf.distribute.Strategy` that replicates it, or None."""
    variable = keras_private.tf_variable(variable)
    if isinstance(variable, tf.distribute.DistributedValues):
        return variable.distribute_strategy
    return None


def steps_per_call(model):
    """Returns how many steps Keras trains between two calls of batch hooks."""
    steps = keras_private.steps_per_execution(model)
    return 1 if steps is None else int(value(steps))
