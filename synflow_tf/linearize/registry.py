"""Says which linear map an operation or a layer becomes, open to users.

The rules of TensorFlow's operations are in `rules_*`, one file a family.
"""

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
        **kwargs)`: `weights[variable]` is the tensor to use for a variable of
        `layer`, float, of its shape; the other arguments are those of the
        layer's `call`, without `training` and `mask`. It returns what `call`
        would. Of an operation, for a function `rule(operation, *tensors)`:
        `operation.attributes` is a dict of its attributes; the tensors are its
        inputs: those that depend on the model's input, and the absolute values
        of weights, in the dtype to compute in; constants as they are. It
        returns a tensor, or a list where the operation has several outputs.

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
            leaves.OPERATIONS.add(target)
            return operation(target)(rule)
        return _add_layers([target], rule)

    return decorate


def operation(*types):
    """Registers the library's own rule for types of operations: a decorator.

    The rule takes a `graph.Node` and its inputs: tensors, and None for an index
    that depends on flow.
    """

    def decorate(rule):
        _OPERATIONS.update(dict.fromkeys(types, rule))
        return rule

    return decorate


def layer(*names):
    """Registers a rule for layers of either Keras line: a decorator.

    The rule is as in `register_rule`. A line may lack some of the layers.
    """
    classes = [
        getattr(line.layers, name)
        for line in lines.LINES
        for name in names
        if hasattr(line.layers, name)
    ]
    return lambda rule: _add_layers(classes, rule)


def _add_layers(classes, rule):
    for cls in classes:
        _LAYERS[cls] = rule
        leaves.add(cls)
    return rule


def rule_of_layer(layer):
    """Returns the rule for a layer, or None."""
    return _LAYERS.get(leaves.class_of(layer))


def run(node, tensors):
    """Runs the rule for the operation of a node; returns a list of tensors.

    Raises:
        ValueError: if there is none; it says how to register one.
    """
    rule = _OPERATIONS.get(node.type)
    if rule is None:
        raise ValueError(
            "none is known, so it is not known what the flow does there. "
            f"{how_to(node)}"
        )
    outputs = rule(node, *tensors)
    return list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]


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
