"""TFLite files: converting a model, running a file, reading what is in it."""

import collections
import contextlib
import dataclasses
import re
import tempfile
import typing

import numpy as np
import tensorflow as tf

from synflow_tf.graph import inputs as inputs_lib
from synflow_tf.graph import lines


@dataclasses.dataclass(frozen=True)
class Function:
    """What a file computes, as a function of named inputs.

    Attributes:
        inputs: dict of name to `tf.TensorSpec`, in the order of the model's
            inputs.
        call: function of a dict of name to tensor; returns a dict of name to
            tensor.
    """

    inputs: dict
    call: typing.Callable


def function(model, batch_size=None, inputs=None):
    """A model as a `Function`, in inference.

    Args:
        model: a built model of either Keras line.
        batch_size: int, or None, which leaves it open.
        inputs: see `graph.read`.

    Returns:
        `Function`. Inputs have the names they have in the model, or "input_0"
        ...; outputs are "output_0" ..., or the keys of the model's dict.

    Raises:
        ValueError: if sizes are open, see `graph.read`.
    """
    structure, *_ = inputs_lib.signatures(model, lines.line_of(model), inputs)
    leaves = tf.nest.flatten(structure)
    tensors = [leaf for leaf in leaves if isinstance(leaf, inputs_lib.Input)]
    names = [x.name for x in tensors]
    if len(set(names)) < len(names) or not all(map(_is_name, names)):
        names = [f"input_{number}" for number in range(len(tensors))]
    specs = {
        name: tf.TensorSpec((batch_size, *x.shape[1:]), x.dtype, name)
        for name, x in zip(names, tensors, strict=True)
    }

    def call(given):
        filling = iter([given[name] for name in specs])
        filled = [
            next(filling) if isinstance(leaf, inputs_lib.Input) else leaf
            for leaf in leaves
        ]
        args, kwargs = tf.nest.pack_sequence_as(structure, filled)
        outputs = model(*args, **kwargs)
        if isinstance(outputs, dict) and all(
            isinstance(key, str) and tf.is_tensor(value)
            for key, value in outputs.items()
        ):
            return dict(outputs)
        flat = tf.nest.flatten(outputs)
        return {f"output_{number}": x for number, x in enumerate(flat)}

    return Function(specs, call)


def _is_name(name):
    return re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name) is not None


@contextlib.contextmanager
def saved(function):
    """Writes a `Function` as a SavedModel, for as long as the context lasts.

    Args:
        function: a `Function`.

    Yields:
        str, the folder.
    """
    traced = tf.function(
        lambda **given: function.call(given), autograph=False
    ).get_concrete_function(**function.inputs)
    module = tf.Module()
    module.captured = list(traced.graph.variables)
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures=traced)
        yield folder


def convert(folder, quantize=None, samples=None, sparse=False):
    """Converts a SavedModel.

    Args:
        folder: str, see `saved`.
        quantize: None, "float16", "dynamic" or "int8"; see `export_tflite`.
        samples: list of dicts of name to array, representative, or None.
        sparse: bool, whether weights with enough zeros are encoded as such.

    Returns:
        bytes.
    """
    converter = tf.lite.TFLiteConverter.from_saved_model(folder)
    optimize = tf.lite.Optimize
    converter.optimizations = [
        *([optimize.DEFAULT] if quantize is not None else []),
        *([optimize.EXPERIMENTAL_SPARSITY] if sparse else []),
    ]
    if quantize == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if samples is not None:
        converter.representative_dataset = lambda: iter(samples)
    return converter.convert()


def run(path, batches):
    """Runs a file.

    Args:
        path: str, the file.
        batches: list of dicts of name to array.

    Returns:
        list of dicts of name to array, what it returns.

    Raises:
        RuntimeError, ValueError: if the interpreter cannot run it.
    """
    interpreter = _interpreter()
    outputs = []
    for batch in batches:
        # Anew, because recurrent layers may keep their states.
        runner = interpreter(model_path=str(path)).get_signature_runner()
        results = runner(**batch)
        outputs.append({name: np.array(x) for name, x in results.items()})
    return outputs


def _interpreter():
    """LiteRT's where it is installed, else the one of TensorFlow."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        return tf.lite.Interpreter
    return Interpreter


# What has weights as its second input.
_WITH_WEIGHTS = frozenset(
    (
        "CONV_2D",
        "CONV_3D",
        "DEPTHWISE_CONV_2D",
        "FULLY_CONNECTED",
        "TRANSPOSE_CONV",
    )
)
_FLOATS = (0, 1)  # float32 and float16 in TFLite's schema


class Operation(typing.NamedTuple):
    """Operations of a file that have weights.

    Attributes:
        name: str, TFLite's name, such as "CONV_2D 1x1".
        kernel: str, what the interpreter can run them with. "dense": the
            weights are stored dense. "sparse": it computes with the sparse
            weights themselves. "unpacked": sparse weights are made dense when
            the file is loaded. "xnnpack": likewise, but in float networks that
            XNNPACK takes as a whole, from a 3x3 convolution of stride 2 to the
            last pooling, it can compute with sparse weights, where 2/3 of them
            are zeros and the processor is no x86 (LiteRT's README of XNNPACK).
        count: int, how many.
    """

    name: str
    kernel: str
    count: int


def operations(content):
    """Lists the operations of a file that have weights.

    Args:
        content: bytes of the file.

    Returns:
        tuple of `Operation`.
    """
    # Here, because TensorFlow is to drop `tf.lite` one day.
    from tensorflow.lite.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(content)
    found = collections.Counter()
    for graph in model.subgraphs:
        unpacked = set()
        for op in graph.operators:  # in the order in which they run
            name = flatbuffer_utils.opcode_to_name(model, op.opcodeIndex)
            if name == "DENSIFY" or (
                name == "DEQUANTIZE" and op.inputs[0] in unpacked
            ):
                unpacked.add(op.outputs[0])
            if name not in _WITH_WEIGHTS:
                continue
            weights = graph.tensors[op.inputs[1]]
            kernel = "dense" if weights.sparsity is None else "sparse"
            if op.inputs[1] in unpacked:
                kernel = "unpacked"
            if name == "CONV_2D":
                _, height, width, _ = weights.shape
                name = f"CONV_2D {height}x{width}"
                takes = height == width == 1 and weights.type in _FLOATS
                if takes and kernel == "unpacked":
                    kernel = "xnnpack"
            found[name, kernel] += 1
    return tuple(
        Operation(name, kernel, count)
        for (name, kernel), count in sorted(found.items())
    )
