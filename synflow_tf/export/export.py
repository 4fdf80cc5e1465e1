"""Writes a pruned model as a TFLite file, and says what pruning gained."""

import dataclasses
import gzip
import os
import tempfile

from synflow_tf import _validation
from synflow_tf.export import comparison
from synflow_tf.export import tflite
from synflow_tf.graph import lines
from synflow_tf.graph import wrappers

# Largest differences of outputs, over the largest output.
_TOLERANCES = {None: 1e-3, "float16": 1e-2, "dynamic": 0.2, "int8": 0.2}
# Of the same numbers, stored in another way.
_SAME = 1e-3


@dataclasses.dataclass(frozen=True)
class Size:
    """The size of a file.

    Attributes:
        raw: int, bytes.
        gzip: int, bytes after gzip, which is what travels in most packages.
    """

    raw: int
    gzip: int


@dataclasses.dataclass(frozen=True)
class TFLiteReport:
    """What `export_tflite` wrote.

    Attributes:
        path: str, the file.
        is_sparse: bool, whether it is in the sparse encoding.
        dense: `Size` of the dense encoding.
        sparse: `Size` of the sparse encoding, or None.
        refused: str, why there is none though it was tried, or None.
        difference: float, the largest absolute difference between an output
            of the file and of the model.
        largest: float, the largest absolute output of the model.
        operations: tuple of `tflite.Operation`, those of the file that have
            weights, and whether they can use sparse kernels.
    """

    path: str
    is_sparse: bool
    dense: Size
    sparse: Size | None
    refused: str | None
    difference: float
    largest: float
    operations: tuple

    def __str__(self):
        """A few lines: sizes, difference, operations."""
        encoding = "sparse" if self.is_sparse else "dense"
        lines = [
            f"{self.path}: {encoding} encoding",
            f"{'bytes':8} {'raw':>12} {'gzip':>12}",
        ]
        for name, size in (("dense", self.dense), ("sparse", self.sparse)):
            if size is not None:
                lines.append(f"{name:8} {size.raw:12,} {size.gzip:12,}")
        if self.refused is not None:
            lines.append(f"no sparse encoding: {self.refused}")
        lines.append(
            f"largest difference of outputs: {self.difference:.3g} "
            f"(of {self.largest:.3g})"
        )
        for name, kernel, count in self.operations:
            lines.append(f"{count:4} {name}: {_KERNELS[kernel]}")
        return "\n".join(lines)


_KERNELS = {
    "dense": "dense weights, dense kernels",
    "sparse": "sparse kernels (blocks of 1x4 zeros)",
    "unpacked": "made dense when the file is loaded, dense kernels",
    "xnnpack": (
        "made dense when loaded; XNNPACK can use sparse kernels (not on x86, "
        "at 2/3 zeros or more, in a network it takes as a whole)"
    ),
}


def export_tflite(
    model,
    path,
    sparse="auto",
    *,
    quantize=None,
    representative_dataset=None,
    batch_size=None,
    inputs=None,
    tolerance=None,
):
    """Writes a model as a TFLite file, and checks the file.

    The outputs of the file are compared with those of the model, on random
    inputs (normal; integers 0 and 1) or, for "int8", on the representative
    ones. A file that differs is not written. The interpreter is LiteRT's
    (`ai-edge-litert`) where it is installed, else `tf.lite`.

    The sparse encoding makes a file smaller, from about a third of zeros on,
    and hardly ever faster: see `TFLiteReport.operations`. A dense file of a
    pruned model is as small once it is compressed.

    Args:
        model: a built model of Keras 3 or tf_keras, without pruning wrappers.
        path: str or `os.PathLike`, the file. It is replaced at the end, or
            stays as it was.
        sparse: "auto" keeps the sparse encoding if it is smaller and gives the
            same outputs; True insists on it; False does not try.
        quantize: None; "float16" for weights; "dynamic" for weights of 8 bits
            (dynamic range quantization); "int8" for weights and activations,
            which needs a `representative_dataset`, unless the model was
            trained with tfmot's quantization.
        representative_dataset: function without arguments that yields lists of
            arrays, one for each input of the model, batch dimension first
            (TFLite's contract).
        batch_size: int, or None, which leaves the size of a batch open. Some
            models (LSTM, GRU) can be converted with a fixed one only; those of
            tf_keras then keep their states from one call of the interpreter to
            the next, until its `reset_all_variables()`.
        inputs: an example batch, or specs, where the model leaves a size open
            or was never called; see `prune`.
        tolerance: number, the largest difference allowed, over the largest
            output. By default 0.001; 0.01 for "float16"; 0.2 for "dynamic"
            and "int8".

    Returns:
        `TFLiteReport`.

    Raises:
        TypeError: if `model` is not a Keras model.
        ValueError: if an argument is out of its range, TFLite cannot convert
            the model, or the file differs from it; with `sparse=True` also if
            the sparse encoding cannot be run or differs.

    >>> model = synflow_tf.models.fc((8, 8, 1))
    >>> masks = synflow_tf.prune(model, sparsity=0.9)
    >>> report = synflow_tf.export_tflite(model, "fc.tflite")
    >>> report.is_sparse, report.sparse.raw < report.dense.raw / 5
    (True, True)
    """
    _check(model, sparse, quantize, representative_dataset, tolerance)
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder) or os.path.isdir(path):
        raise ValueError(
            "Argument `path` must be a file in a folder that exists. "
            f"Received: path={os.fspath(path)!r}"
        )
    function = tflite.function(model, batch_size, inputs)
    samples = None
    if representative_dataset is not None:
        samples = comparison.samples(representative_dataset, function)
    batches = comparison.batches(function, samples)
    expected = [function.call(batch) for batch in batches]
    with (
        tempfile.TemporaryDirectory(dir=folder) as scratch,
        tflite.saved(function) as saved,
    ):

        def file(name, **options):
            try:
                content = tflite.convert(saved, quantize, samples, **options)
            except Exception as error:
                raise ValueError(_cannot_convert(model, error)) from error
            return _File(os.path.join(scratch, name), content, batches)

        chosen = dense = file("dense")
        _check_outputs(model, quantize, dense, expected, tolerance)
        encoded = refused = None
        if sparse:
            try:
                encoded = file("sparse", sparse=True)
                refused = _problem(encoded, dense)
            except ValueError as error:
                refused = str(error)
        if refused and sparse is True:
            raise ValueError(
                f"Argument `sparse` must not be True here: {refused}. "
                f"Received: sparse=True, quantize={quantize!r} for model "
                f"{model.name!r}. With sparse='auto' the file is dense then."
            )
        if refused:
            encoded = None
        elif encoded and (sparse is True or encoded.size.raw < dense.size.raw):
            chosen = encoded
        os.replace(chosen.path, path)
    difference, largest = comparison.difference(chosen.outputs, expected)
    return TFLiteReport(
        path=os.fspath(path),
        is_sparse=chosen is encoded,
        dense=dense.size,
        sparse=None if encoded is None else encoded.size,
        refused=refused,
        difference=difference,
        largest=largest,
        operations=tflite.operations(chosen.content),
    )


class _File:
    """A file that was written and run.

    Attributes:
        path: str.
        content: bytes.
        size: `Size`.
        outputs: list of dicts of name to array, or None.
        error: the exception that running it raised, or None.
    """

    def __init__(self, path, content, batches):
        with open(path, "wb") as stream:
            stream.write(content)
        self.path, self.content = path, content
        self.size = Size(len(content), len(gzip.compress(content, mtime=0)))
        self.outputs = self.error = None
        try:
            self.outputs = tflite.run(path, batches)
        except (RuntimeError, ValueError) as error:
            self.error = error


def _check(model, sparse, quantize, representative_dataset, tolerance):
    lines.line_of(model)
    lines.check_built(model)
    if wrappers.within(model):
        raise ValueError(
            "Argument `model` must not have pruning wrappers. Received: "
            f"model={model.name!r}, which has. Take them off: "
            "`tfmot.sparsity.keras.strip_pruning(model)`."
        )
    _validation.choice("sparse", sparse, ("auto", True, False))
    _validation.choice("quantize", quantize, tuple(_TOLERANCES))
    if tolerance is not None and not tolerance > 0:
        raise ValueError(
            "Argument `tolerance` must be a number > 0. "
            f"Received: tolerance={tolerance!r}"
        )
    given = representative_dataset is not None
    if given and (quantize != "int8" or not callable(representative_dataset)):
        raise ValueError(
            "Argument `representative_dataset` must be a function that yields "
            "lists of arrays, and is for quantize='int8'. Received: "
            f"representative_dataset={representative_dataset!r}, "
            f"quantize={quantize!r}"
        )
    if quantize == "int8" and not given and not wrappers.is_quantized(model):
        raise ValueError(
            "Argument `representative_dataset` must be given for "
            "quantize='int8': activations are quantized by the range that they "
            "have on it. Received: representative_dataset=None. A hundred "
            "training images will do."
        )


def _check_outputs(model, quantize, file, expected, tolerance):
    """Raises unless a file gives what the model gives."""
    if tolerance is None:
        tolerance = _TOLERANCES[quantize]
    if file.error is not None:
        raise ValueError(
            f"The interpreter cannot run the file of model {model.name!r} "
            f"(quantize={quantize!r}): {file.error}"
        ) from file.error
    difference, largest = comparison.difference(file.outputs, expected)
    if not difference <= tolerance * largest:
        raise ValueError(
            f"The file of model {model.name!r} (quantize={quantize!r}) gives "
            f"other outputs than the model: the largest difference is "
            f"{difference:.3g}, the largest output {largest:.3g}, and the "
            f"tolerance {tolerance:g} of that. It was not written. Quantize "
            "less, or train with quantization (tfmot's `quantize_apply`)."
        )


def _problem(encoded, dense):
    """Why a sparse file cannot stand for the dense one, or None."""
    if encoded.error is not None:
        line = str(encoded.error).splitlines()[0]
        return f"the interpreter cannot run it ({line})"
    difference, largest = comparison.difference(encoded.outputs, dense.outputs)
    if not difference <= _SAME * largest:
        return (
            f"its outputs differ by {difference:.3g} from those of the dense "
            f"file, of which the largest is {largest:.3g}"
        )
    return None


def _cannot_convert(model, error):
    return (
        f"TFLite cannot convert model {model.name!r}. Recurrent layers may "
        "need `batch_size=1`; layers that compute in float16 (mixed precision) "
        "must be built again in float32, and be given the weights. "
        f"{type(error).__name__}: {str(error)[:500]}"
    )
