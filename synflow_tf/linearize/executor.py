"""Runs the nodes of a graph with their linear rules."""

import tensorflow as tf

from synflow_tf import graph as graph_lib
from synflow_tf import variables
from synflow_tf.linearize import registry

# Weights up to this many entries become NumPy arrays, so that what depends on
# them alone is computed while tracing; larger ones stay arguments.
_CONSTANT_SIZE = 8192

# What Keras passes to layers that ask for it; scores are for inference, on one
# example without padding.
_CONTEXT = ("training", "mask")


class LinearWeights:
    """The tensors that rules compute with, in the place of the variables.

    Args:
        tensors: dict id(variable) -> float tensor >= 0, those that scores are
            wanted for. All other variables are read from the model.
        dtype: `tf.DType` to compute in.
        affine: bool, whether biases, moving means and activations count too
            (`SynFlow(variant="authors")`).
    """

    def __init__(self, tensors, dtype, affine=False):
        self._tensors = dict(tensors)
        self._dtype = dtype
        self.affine = affine

    def __getitem__(self, variable):
        """The absolute value of a variable, of the dtype to compute in.

        A tensor, or, for small variables that no scores are wanted for, a
        NumPy array.
        """
        key = id(variable)
        if key not in self._tensors:
            with tf.init_scope():
                value = tf.cast(variables.value(variable), self._dtype)
                value = tf.abs(value)
            small = value.shape.num_elements() <= _CONSTANT_SIZE
            self._tensors[key] = value.numpy() if small else value
        return self._tensors[key]


def ones(graph, input_shape, dtype):
    """The input that scores are computed for: ones, one example.

    Args:
        graph: `graph.Graph`.
        input_shape: None, or the shape of the input without the batch
            dimension; for several inputs a list of such, in the order of
            `model.inputs`. Needed where the model leaves a size open.
        dtype: `tf.DType`.

    Returns:
        list of tensors, batch size 1.

    Raises:
        ValueError: if a size is open, or `input_shape` does not fit.
    """
    known = [slot.shape[1:] for slot in graph.inputs]
    shapes = known
    if input_shape is not None:
        several = all(isinstance(s, (list, tuple)) for s in input_shape)
        shapes = [tuple(s) for s in (input_shape if several else [input_shape])]
    fits = len(shapes) == len(known) and all(
        len(shape) == len(model_shape)
        and all(
            isinstance(n, int) and n > 0 and m in (None, n)
            for n, m in zip(shape, model_shape, strict=True)
        )
        for shape, model_shape in zip(shapes, known, strict=True)
    )
    if not fits:
        raise ValueError(
            "Argument `input_shape` must give the size of the input that "
            "scores are computed for, without the batch dimension, where the "
            f"model leaves it open: {known}. "
            f"Received: input_shape={input_shape!r}"
        )
    return [tf.ones((1, *shape), dtype) for shape in shapes]


def run(graph, weights, inputs):
    """Runs the linearized model.

    Args:
        graph: `graph.Graph`.
        weights: `LinearWeights`.
        inputs: list of tensors, in the order of `graph.inputs`.

    Returns:
        list of tensors, in the order of `graph.outputs`.

    Raises:
        ValueError: if a layer has no rule, or its rule fails; it names the
            layer.
    """
    tensors = dict(zip(graph.inputs, inputs, strict=True))

    def fill_in(structure):
        return tf.nest.map_structure(
            lambda x: tensors[x] if isinstance(x, graph_lib.Slot) else x,
            structure,
        )

    for node in graph.nodes:
        rule = registry.rule_of(node.layer)
        args = fill_in(node.args)
        kwargs = fill_in(
            {k: v for k, v in node.kwargs.items() if k not in _CONTEXT}
        )
        try:
            outputs = rule(node.layer, weights, *args, **kwargs)
        except Exception as error:
            raise ValueError(
                f"Layer {node.layer.name!r} (of type "
                f"{type(node.layer).__name__}) failed under its linear rule: "
                f"{error}"
            ) from error
        tensors.update(zip(node.outputs, tf.nest.flatten(outputs), strict=True))
    return [tensors[slot] for slot in graph.outputs]
