"""Writes a pruned model as a TFLite file, and reports what pruning gained."""

import dataclasses
import gzip
import os
import pathlib
import tempfile
import typing

from synflow_tf import _validation
from synflow_tf.export import comparison
from synflow_tf.export import tflite
from synflow_tf.graph import lines
from synflow_tf.graph import wrappers

# Largest differences allowed of outputs, over the largest output. Those of 8
# bits are wide: what a network loses by rounding differs by depth.
_TOLERANCES = {None: 1e-3, "float16": 1e-2, "dynamic": 0.2, "int8": 0.2}
# The same for a sparse and a dense file, which hold the same numbers.
_SAME = 1e-3
_KERNELS = {
    "dense": "dense weights, dense kernels",
    "sparse": "sparse kernels (blocks of 1x4 zeros)",
    "unpacked": "made dense when the file is loaded, dense kernels",
    "xnnpack": (
        "made dense when loaded; XNNPACK can use sparse kernels (not on x86, "
        "at 2/3 zeros or more, in a network it takes as a whole)"
    ),
}


@dataclasses.dataclass(frozen=True)
class Size:
    """The bytes of a file as it is, and after gzip, as packages hold it."""

    raw: int
    gzip: int


@dataclasses.dataclass(frozen=True)
class TFLiteReport:
    """The result of `export_tflite`; `print` shows it as a few lines.

    Attributes:
        path: str, the file.
        is_sparse: bool, whether it is in the sparse encoding.
        dense: `Size` of the dense encoding.
        sparse: `Size` of the sparse encoding, or None.
        refused: str, why there is none though it was tried, or None.
        difference: float, the largest absolute difference from the model.
        largest: float, the largest absolute output of the model.
        operations: tuple of the kinds of operations that have weights, each
            with its `name`, the `kernel` that can run it, and its `count`.
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
        encoding = "sparse" if self.is_sparse else "dense"
        text = [
            f"{self.path}: {encoding} encoding",
            f"{'bytes':8} {'raw':>12} {'gzip':>12}",
        ]
        for name, size in (("dense", self.dense), ("sparse", self.sparse)):
            if size is not None:
                text.append(f"{name:8} {size.raw:12,} {size.gzip:12,}")
        if self.refused is not None:
            text.append(f"no sparse encoding: {self.refused}")
        text.append(
            f"largest difference of outputs: {self.difference:.3g} "
            f"(of {self.largest:.3g})"
        )
        for name, kernel, count in self.operations:
            text.append(f"{count:4} {name}: {_KERNELS[kernel]}")
        return "\n".join(text)


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
    ones. A file that differs is not written. LiteRT (`ai-edge-litert`) runs the
    file where it is installed, else `tf.lite`.

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
    _check(model, path, sparse, quantize, representative_dataset, tolerance)
    if tolerance is None:
        tolerance = _TOLERANCES[quantize]
    function = tflite.function(model, batch_size, inputs)
    samples = comparison.samples(representative_dataset, function)
    batches = comparison.batches(function, samples)
    expected = [function.call(batch) for batch in batches]
    with (
        # Beside the target, so that the file can be moved there at once.
        tempfile.TemporaryDirectory(dir=_folder(path)) as scratch,
        tflite.saved(function) as saved,
    ):

        def write(sparse):
            content = tflite.convert(
                saved, model.name, quantize, samples, sparse
            )
            file = pathlib.Path(scratch, f"sparse_{sparse}.tflite")
            file.write_bytes(content)
            try:
                outputs = tflite.run(file, batches)
            except (RuntimeError, ValueError) as error:
                raise ValueError(
                    "The interpreter cannot run the file of model "
                    f"{model.name!r} (quantize={quantize!r}): {error}"
                ) from error
            size = Size(len(content), len(gzip.compress(content, mtime=0)))
            return _File(file, size, outputs)

        dense = write(sparse=False)
        _check_outputs(model, quantize, dense, expected, tolerance)
        encoded, refused = _encode(write, dense) if sparse else (None, None)
        if refused and sparse is True:
            raise ValueError(
                f"Argument `sparse` must not be True here: {refused}. "
                f"Received: sparse=True, quantize={quantize!r} for model "
                f"{model.name!r}. With sparse='auto' the file is dense then."
            )
        chosen = dense
        if encoded and (sparse is True or encoded.size.raw < dense.size.raw):
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
        operations=tflite.operations(path),
    )


class _File(typing.NamedTuple):
    """A file that was written and run, and its outputs."""

    path: pathlib.Path
    size: Size
    outputs: list


def _folder(path):
    return os.path.dirname(os.path.abspath(path))


def _check(model, path, sparse, quantize, representative_dataset, tolerance):
    """Raises if an argument of `export_tflite` is out of its range."""
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
    if not os.path.isdir(_folder(path)) or os.path.isdir(path):
        raise ValueError(
            "Argument `path` must be a file in a folder that exists. "
            f"Received: path={os.fspath(path)!r}"
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
    difference, largest = comparison.difference(file.outputs, expected)
    if not difference <= tolerance * largest:
        raise ValueError(
            f"The file of model {model.name!r} (quantize={quantize!r}) gives "
            f"other outputs than the model: the largest difference is "
            f"{difference:.3g}, the largest output {largest:.3g}, and the "
            f"tolerance {tolerance:g} of that. It was not written. Quantize "
            "less, or train with quantization (tfmot's `quantize_apply`)."
        )


def _encode(write, dense):
    """Returns the sparse file, or None and why it cannot replace the dense."""
    try:
        file = write(sparse=True)
    except ValueError as error:
        return None, f"the sparse file fails: {str(error).splitlines()[0]}"
    difference, largest = comparison.difference(file.outputs, dense.outputs)
    if not difference <= _SAME * largest:
        return None, (
            f"its outputs differ by {difference:.3g} from those of the dense "
            f"file, of which the largest is {largest:.3g}"
        )
    return file, None
