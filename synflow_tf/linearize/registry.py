"""Which linear map a layer becomes: a table of rules, open to users."""

import inspect

from synflow_tf import _lines

_BY_CLASS = {}
_BY_NAME = {}


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
        _BY_CLASS[cls] = rule
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
        _BY_NAME.update(dict.fromkeys(names, rule))
        return rule

    return decorate


def rule_of(layer):
    """Finds the rule for a layer.

    Args:
        layer: a layer of either line.

    Returns:
        A function `rule(layer, weights, *args, **kwargs)`.

    Raises:
        ValueError: if there is none.
    """
    cls = type(layer)
    for base in cls.__mro__:
        rule = _BY_CLASS.get(base) or _BY_NAME.get(_keras_name(base))
        if rule is not None and cls.call is base.call:
            return rule
    name = cls.__name__
    raise ValueError(
        f"Layer {layer.name!r} (of type {cls.__module__}.{name}) has no "
        "linear rule, so SynFlow cannot see through it. Register one:\n\n"
        f"    @synflow_tf.register_rule({name})\n"
        "    def rule(layer, weights, x):\n"
        "        return tf.matmul(x, weights[layer.kernel])  # for example\n"
    )


def _keras_name(cls):
    """The name of a class in `keras.layers`, or None if it is a user's."""
    for line in _lines.LINES:
        if getattr(line.layers, cls.__name__, None) is cls:
            return cls.__name__
    return None
