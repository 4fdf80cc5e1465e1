"""Reads a Keras model, of either line, as one flat list of operations.

It is traced once for inference; calls are inlined, loops unrolled, constants
computed. This is the only room that knows the insides of Keras and TensorFlow.
"""

import dataclasses
import functools
import typing

import tensorflow as tf

from synflow_tf.graph import flatten as flatten
from synflow_tf.graph import inputs as inputs_lib
from synflow_tf.graph import keras_private
from synflow_tf.graph import leaves
from synflow_tf.graph import lines
from synflow_tf.graph import trace as trace_lib
from synflow_tf.graph import values as values
from synflow_tf.graph.flatten import Unsupported as Unsupported
from synflow_tf.graph.values import Node as Node
from synflow_tf.graph.values import Value as Value


@dataclasses.dataclass(eq=False)
class Graph:
    """A model as nodes in an order in which they can run.

    Attributes:
        model: the Keras model, or the layer.
        line: its Keras line, the module `keras` or `tf_keras`.
        nodes: list of `Node`.
        inputs: list of `Value`, flat.
        outputs: list of `Value`, flat, in the order of the model's outputs.
        cut: list of `Node` that are left out: they multiply flow by 0.
        repeated: `IdentitySet` of variables, kernels that a loop applies.
    """

    model: typing.Any
    line: typing.Any
    nodes: list
    inputs: list
    outputs: list
    cut: list
    repeated: typing.Any
    _flatten: typing.Any

    @functools.cached_property
    def opened(self):
        """Reads the same without leaf layers."""
        return self._flatten(lambda layer: False)

    def uses(self, variable):
        """Returns whether an output depends on a variable."""
        needed = values.needed(self.nodes, self.outputs)
        return any(v is variable for node in needed for v in node.variables)


def read(model, inputs=None):
    """Reads a model as a graph, for one example.

    Layers with a rule of their own stay one node; see `leaves`.

    Args:
        model: a built model of Keras 3 or tf_keras; it is left as it is.
        inputs: None, or an example batch, or specs, in the structure that the
            model takes: arrays, tensors, `tf.TensorSpec`, `keras.KerasTensor`.
            Needed where the model does not know its inputs, or leaves a size
            open. Floats are not looked at; integers, bools and strings are used
            as they are (by default 1, True and "").

    Returns:
        `Graph`.

    Raises:
        TypeError: if `model` is not a Keras model, or a layer in it is of the
            other Keras line.
        ValueError: if `model` is not built, if `inputs` is needed or does not
            fit, or if it cannot be traced.
    """
    line = lines.line_of(model)
    lines.check_built(model)
    lines.check_one_line(model, line)
    failed = None
    for signature in inputs_lib.signatures(model, line, inputs):
        try:
            traced = trace_lib.trace(model, line, signature)
        except (lines.NotBuilt, keras_private.Incompatible):
            raise
        except Exception as error:  # A model may raise anything.
            failed = failed or (error, signature)
        else:
            return _graph(model, line, signature, *traced)
    error, signature = failed
    raise ValueError(
        "Argument `model` must be callable on inputs of shape "
        f"{[x.shape for x in inputs_lib.flat(signature)]}. "
        f"Received: model={model.name!r} (of type {type(model).__name__}), "
        f"which failed: {error} Say the right sizes and types with `inputs=`: "
        "an example batch, or `tf.TensorSpec`s."
    ) from error


def read_layer(layer, line, *tensors):
    """Reads a built layer as a `Graph`, for inputs of the shapes of tensors."""
    dtype = tf.as_dtype(layer.compute_dtype or line.backend.floatx())
    args = tf.nest.map_structure(
        lambda x: inputs_lib.Input(tuple(x.shape), dtype), tensors
    )
    signature = (args, {})
    traced = trace_lib.trace(layer, line, signature)
    return _graph(layer, line, signature, *traced)


def _graph(layer, line, signature, traced, calls):
    """Flattens what a layer does; see `trace.trace`."""
    # Later ones win: those of TensorFlow are what Keras' own ones hold. Beside
    # its weights, a layer has variables of seeds and metrics.
    held = [*traced.variables, *layer.weights, *layer.variables]

    def flattened(is_leaf):
        # Constants are computed now, also where a rule reads a layer while it
        # is traced itself.
        with tf.init_scope():
            flattener = flatten.Flattener(held, calls, is_leaf)
            inputs = list(map(_value, inputs_lib.flat(signature)))
            outputs = flattener.flatten(traced, inputs)
        return Graph(
            layer,
            line,
            flattener.nodes,
            inputs,
            outputs,
            flattener.cut,
            flattener.repeated,
            flattened,
        )

    return flattened(leaves.is_leaf)


def _value(x):
    """Returns the value of an `inputs.Input`."""
    if x.dtype.is_floating or x.dtype.is_complex:
        return Value(values.FLOW, x.shape, x.dtype, name=x.name)
    return Value(values.INDEX, x.shape, x.dtype, x.constant(), name=x.name)
