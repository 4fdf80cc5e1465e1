"""Which linear map an operation or a layer becomes: tables, open to users."""

import inspect

from synflow_tf.graph import keras_private
from synflow_tf.graph import leaves
from synflow_tf.graph import lines

_LAYERS = {}
_OPERATIONS = {}


def register_rule(target):
    """Registers how SynFlow sees an operation or the layers of a class.

    A rule computes what the operation or layer would, with the absolute values
    of its weights, without activation and without anything that is added or
    that depends on the sign or size of the input: a linear map, all of whose
    coefficients are >= 0. Compute in the dtype of the input.

    Args:
        target: a layer class of Keras 3 or tf_keras, a subclass of which
            inherits the rule unless it has a `call` of its own; or a str, the
            type of an operation of TensorFlow, such as "MatMul".

    Returns:
        A decorator. Of a class, for a function `rule(layer, weights, *args,
        **kwargs)`: `layer` is the layer; `weights[variable]` is the tensor to
        use for one of its variables, float, of the variable's shape; the other
        arguments are those of the layer's `call`, without `training` and
        `mask`. It returns what `call` would. Of an operation, for a function
        `rule(operation, *tensors)`: `operation.attributes` is a dict of its
        attributes; the tensors are its inputs: those that depend on the model's
        input in the dtype to compute in, likewise the absolute values of
        weights, and constants as they are. It returns a tensor, or a list of
        them where the operation has several outputs.

    Raises:
        TypeError: if `target` is neither a class nor a str.
        ValueError: if TensorFlow has no such operation.

    >>> import keras, tensorflow as tf
    >>> class Scale(keras.layers.Layer):
    ...     def build(self, input_shape):
    ...         self.scale = self.add_weight(shape=(input_shape[-1],))
    ...     def call(self, x):
    ...         return x * self.scale
    >>> @synflow_tf.register_rule(Scale)
    ... def _scale(layer, weights, x):
    ...     return x * weights[layer.scale]
    >>> @synflow_tf.register_rule("Betainc")
    ... def _betainc(operation, a, b, x):
    ...     return x
    """
    if isinstance(target, str):
        if keras_private.raw_operation(target) is None:
            raise ValueError(
                "Argument `target` must be a layer class, or the type of an "
                "operation as `tf.raw_ops` names it, such as 'MatMul'. "
                f"Received: target={target!r}"
            )
    elif not inspect.isclass(target):
        raise TypeError(
            "Argument `target` must be a layer class or the type of an "
            f"operation, a str. Received: target={target!r}. "
            "Write `@register_rule(MyLayer)`."
        )

    def decorate(rule):
        if isinstance(target, str):
            _OPERATIONS[target] = rule
            leaves.OPERATIONS.add(target)
        else:
            _add_layer(target, rule)
        return rule

    return decorate


def operation(*names):
    """Registers the library's own rule for operations: a decorator.

    Args:
        *names: str, types of operations.

    Returns:
        A decorator for a function of a `graph.Node` and its inputs: tensors of
        flow, and `None` for an index that depends on flow.
    """

    def decorate(rule):
        _OPERATIONS.update(dict.fromkeys(names, rule))
        return rule

    return decorate


def layer(*names):
    """Registers a rule for Keras' own layers, in both lines: a decorator.

    Args:
        *names: str, names in `keras.layers` or `tf_keras.layers`.

    Returns:
        A decorator for a rule; see `register_rule`.
    """

    def decorate(rule):
        for line in lines.LINES:
            for name in names:
                cls = getattr(line.layers, name, None)
                if cls is not None:
                    _add_layer(cls, rule)
        return rule

    return decorate


def _add_layer(cls, rule):
    _LAYERS[cls] = rule
    leaves.add(cls)


def rule_of_layer(layer):
    """The rule for a layer, or None."""
    return _LAYERS.get(leaves.class_of(layer))


def rule_of_operation(kind):
    """The rule for a type of operations, or None."""
    return _OPERATIONS.get(kind)


def how_to(node):
    """Says how to register a rule for a node."""
    ways = []
    if node.layer is not None:
        name = type(node.layer).__name__
        ways.append(
            f"for the layer, `@synflow_tf.register_rule({name})` over "
            "`def rule(layer, weights, x): return tf.matmul(x, "
            "weights[layer.kernel])` (for example)"
        )
    if node.operation is not None:
        ways.append(
            f"for the operation, `@synflow_tf.register_rule({node.type!r})` "
            "over `def rule(operation, *tensors)`"
        )
    return f"Register a rule: {'; or '.join(ways)}." if ways else ""


class NoRule(ValueError):
    """An operation has no rule; `run` says of which layer it is part."""

    def __init__(self, node):
        super().__init__(
            f"none is known, so it is not known what the flow does there. "
            f"{how_to(node)}"
        )
