"""Converts models to TFLite, runs such files, and reads what is in them."""

import collections
import contextlib
import re
import tempfile
import typing

import numpy as np
import tensorflow as tf

from synflow_tf.graph import inputs as inputs_lib
from synflow_tf.graph import keras_private
from synflow_tf.graph import lines


class Function(typing.NamedTuple):
    """A model in inference, as a function of named inputs."""

    inputs: dict  # name -> `tf.TensorSpec`, in the order of the model's
    call: typing.Callable  # of a dict of name to tensor, gives another one


def function(model, batch_size=None, inputs=None):
    """Returns a model as a `Function`; see `export_tflite` and `graph.read`.

    Inputs have the names they have in the model, or "input_0" ...; outputs are
    "output_0" ..., or the keys of the model's dict.
    """
    structure, *_ = inputs_lib.signatures(model, lines.line_of(model), inputs)
    tensors = inputs_lib.flat(structure)
    names = [x.name for x in tensors]
    # TFLite takes the names as those of arguments.
    valid = all(re.fullmatch("[A-Za-z][A-Za-z0-9_]*", name) for name in names)
    if len(set(names)) < len(names) or not valid:
        names = [f"input_{number}" for number in range(len(tensors))]
    specs = {
        name: tf.TensorSpec((batch_size, *x.shape[1:]), x.dtype, name)
        for name, x in zip(names, tensors, strict=True)
    }

    def call(given):
        args, kwargs = inputs_lib.filled(structure, map(given.get, specs))
        outputs = model(*args, **kwargs)
        if isinstance(outputs, dict) and all(
            isinstance(key, str) and tf.is_tensor(value)
            for key, value in outputs.items()
        ):
            return dict(outputs)
        flat = tf.nest.flatten(outputs)
        return {f"output_{number}": x for number, x in enumerate(flat)}

    return Function(specs, call)


@contextlib.contextmanager
def saved(function):
    """Writes a `Function` as a SavedModel, and yields its folder meanwhile."""
    traced = tf.function(
        lambda **given: function.call(given), autograph=False
    ).get_concrete_function(**function.inputs)
    module = tf.Module()
    module.captured = list(traced.graph.variables)
    with tempfile.TemporaryDirectory() as folder:
        tf.saved_model.save(module, folder, signatures=traced)
        yield folder


def convert(folder, model_name, quantize, samples, sparse):
    """Converts a SavedModel to the bytes of a TFLite file.

    See `export_tflite` for `quantize` and the error; `samples` are as those of
    `comparison`, or None.
    """
    optimizations = []
    if quantize is not None:
        optimizations.append(tf.lite.Optimize.DEFAULT)
    if sparse:
        optimizations.append(tf.lite.Optimize.EXPERIMENTAL_SPARSITY)
    converter = tf.lite.TFLiteConverter.from_saved_model(folder)
    converter.optimizations = optimizations
    if quantize == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if samples is not None:
        converter.representative_dataset = lambda: iter(samples)
    try:
        return converter.convert()
    except (keras_private.converter_error(), RuntimeError, ValueError) as error:
        raise ValueError(
            f"TFLite cannot convert model {model_name!r}. Recurrent layers may "
            "need `batch_size=1`; layers that compute in float16 (mixed "
            "precision) must be built again in float32, and be given the "
            f"weights. {type(error).__name__}: {str(error)[:500]}"
        ) from error


def run(path, batches):
    """Runs a file on a list of dicts of name to array, and returns another.

    Raises RuntimeError or ValueError if the interpreter cannot run it.
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
    """Returns LiteRT's interpreter if it is installed, else TensorFlow's."""
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        return tf.lite.Interpreter
    return Interpreter


# The operations whose second input is weights.
_WITH_WEIGHTS = (
    "CONV_2D",
    "CONV_3D",
    "DEPTHWISE_CONV_2D",
    "FULLY_CONNECTED",
    "TRANSPOSE_CONV",
)
_FLOATS = (0, 1)  # float32 and float16 in TFLite's schema


class Operation(typing.NamedTuple):
    """A kind of operation with weights, and how often a file has it.

    Attributes:
        name: str, TFLite's name, such as "CONV_2D 1x1".
        kernel: str, what the interpreter computes with. "dense": weights that
            are stored dense. "sparse": the sparse weights themselves.
            "unpacked": sparse weights, made dense when the file is loaded.
            "xnnpack": likewise; but XNNPACK can use sparse ones, if 2/3 are
            zeros, not on x86, in a float network that it takes as a whole, from
            a 3x3 convolution of stride 2 to the last pooling (LiteRT's README).
        count: int, how many.
    """

    name: str
    kernel: str
    count: int


def operations(path):
    """Returns the operations of a file that have weights, as `Operation`s."""
    # Here, because TensorFlow is to drop `tf.lite` one day.
    from tensorflow.lite.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model(str(path))
    found = collections.Counter()
    for graph in model.subgraphs:
        unpacked = set()
        for op in graph.operators:  # in the order in which they run
            name = flatbuffer_utils.opcode_to_name(model, op.opcodeIndex)
            again = name == "DEQUANTIZE" and op.inputs[0] in unpacked
            if name == "DENSIFY" or again:
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
                is_float = weights.type in _FLOATS
                if kernel == "unpacked" and height == width == 1 and is_float:
                    kernel = "xnnpack"
            found[name, kernel] += 1
    counts = sorted(found.items())
    return tuple(Operation(*kind, count) for kind, count in counts)
