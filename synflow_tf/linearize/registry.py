"""Which linear map a layer becomes: a table of rules, open to users."""

import functools
import inspect

from synflow_tf import _lines
from synflow_tf import calls

_RULES = {}
# Keras' own layer classes that have rules, and their names in `keras.layers`.
_NAMES = {}


def register_rule(cls):
    """Registers how SynFlow sees the layers of a class: a decorator.

    A rule computes what the layer would, with the absolute values of its
    weights, without activation and without anything that is added or that
    depends on the sign or size of the input: a linear map, all of whose
    coefficients are >= 0. Compute in the dtype of the input.

    Args:
        cls: a layer class of Keras 3 or tf_keras. A subclass inherits the
            rule unless it has a `call` of its own.

    Returns:
        A decorator for a function `rule(layer, weights, *args, **kwargs)`.
        `layer` is the layer; `weights[variable]` is the tensor to use for one
        of its variables, float, of the variable's shape; the other arguments
        are those of the layer's `call`, without `training` and `mask`. It
        returns what `call` would.

    Raises:
        TypeError: if `cls` is not a class.

    >>> import keras, tensorflow as tf
    >>> class Scale(keras.layers.Layer):
    ...     def build(self, input_shape):
    ...         self.scale = self.add_weight(shape=(input_shape[-1],))
    ...     def call(self, x):
    ...         return x * self.scale
    >>> @synflow_tf.register_rule(Scale)
    ... def _scale(layer, weights, x):
    ...     return x * weights[layer.scale]
    """
    if not inspect.isclass(cls):
        raise TypeError(
            "Argument `cls` must be a layer class. "
            f"Received: cls={cls!r}. Write `@register_rule(MyLayer)`."
        )

    def decorate(rule):
        _RULES[cls] = rule
        return rule

    return decorate


def builtin(*names):
    """Registers a rule for Keras' own layers, in both lines: a decorator.

    Args:
        *names: str, names in `keras.layers` or `tf_keras.layers`.

    Returns:
        A decorator for a rule; see `register_rule`.
    """

    def decorate(rule):
        for line in _lines.LINES:
            for name in names:
                cls = getattr(line.layers, name, None)
                if cls is not None:
                    _RULES[cls] = rule
                    _NAMES.setdefault(cls, name)
        return rule

    return decorate


def operations(rule):
    """Registers the rule of all operations: a decorator."""
    _RULES[None] = rule
    return rule


def homogeneous(*names):
    """Like `builtin`, for layers that the authors' variant does not know."""

    def decorate(rule):
        @functools.wraps(rule)
        def checked(layer, weights, *args, **kwargs):
            if weights.affine:
                raise ValueError(
                    "variant='authors' knows the layers of the authors' "
                    "networks only. Use variant='homogeneous'."
                )
            return rule(layer, weights, *args, **kwargs)

        builtin(*names)(checked)
        return rule

    return decorate


def name_of(layer):
    """The name of a layer in `keras.layers`, or None if it is a user's.

    A subclass that has no `call` of its own counts as Keras' own.
    """
    base = _base_of(layer, _NAMES)
    return None if base is None else _NAMES[base]


def _base_of(layer, table):
    """The first class of a layer that is in a table and has its `call`."""
    cls = type(layer)
    for base in cls.__mro__:
        same = getattr(cls, "call", None) is getattr(base, "call", None)
        if same and base in table:
            return base
    return None


def find(layer):
    """The rule for a layer, or None; see `rule_of`."""
    if calls.operation_name(layer) is not None:
        return _RULES[None]
    base = _base_of(layer, _RULES)
    return None if base is None else _RULES[base]


def rule_of(layer):
    """Finds the rule for a layer.

    Args:
        layer: a layer of either line.

    Returns:
        A function `rule(layer, weights, *args, **kwargs)`.

    Raises:
        ValueError: if there is none.
    """
    rule = find(layer)
    if rule is not None:
        return rule
    name = type(layer).__name__
    raise ValueError(
        f"Layer {layer.name!r} (of type {type(layer).__module__}.{name}) has "
        f"no linear rule, so SynFlow cannot see through it. {how_to(layer)}"
    )


def how_to(layer):
    """Says how to register a rule for a layer."""
    if calls.operation_name(layer) is not None:
        what = "Put the operation into a layer class of your own"
    elif name_of(layer) is not None:
        what = "Replace it by a layer class of your own"
    else:
        what = None
    if what is not None:
        return (
            f"{what}, and register a rule for that class with "
            "`synflow_tf.register_rule`."
        )
    name = type(layer).__name__
    return (
        "Register a rule for it:\n\n"
        f"    @synflow_tf.register_rule({name})\n"
        "    def rule(layer, weights, x):\n"
        "        return tf.matmul(x, weights[layer.kernel])  # for example\n"
    )
