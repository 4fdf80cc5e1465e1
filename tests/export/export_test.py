"""TFLite files: what is in them, read and run apart from the library."""

import functools
import gzip
import os
import sys

import common
import keras
import linear
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from tensorflow.lite.tools import flatbuffer_utils

import synflow_tf
from synflow_tf.export import tflite

pytestmark = pytest.mark.in_turn


@pytest.fixture(name="path")
def _path(tmp_path):
    return tmp_path / "model.tflite"


@functools.lru_cache
def _fc(line, sparsity=0.9):
    """A pruned model; no test changes it."""
    line.utils.set_random_seed(0)
    model = synflow_tf.models.fc((8, 8, 1), keras=line)
    synflow_tf.prune(model, sparsity, rounds=10)
    return model


def _images(n, seed=0):
    return np.random.default_rng(seed).random((n, 8, 8, 1)).astype("float32")


def _dataset(n=32):
    return lambda: ([image[None]] for image in _images(n))


def _run(path, *inputs):
    """The outputs of a file for arrays in the order of its input names."""
    interpreter = tf.lite.Interpreter(model_path=str(path))
    [signature] = interpreter.get_signature_list().values()
    runner = interpreter.get_signature_runner()
    return runner(**dict(zip(signature["inputs"], inputs, strict=True)))


def _difference(path, model, x):
    """How far a file's output is from the model's, and how large that is."""
    [outputs] = _run(path, x).values()
    expected = model.predict(x, verbose=0)
    assert outputs.shape == expected.shape
    return np.max(np.abs(outputs - expected)), np.max(np.abs(expected))


def _kept(path):
    """How many values the sparse and the large dense weights have."""
    model = flatbuffer_utils.read_model(str(path))
    tensors = [t for g in model.subgraphs for t in g.tensors]
    return sorted(
        len(model.buffers[t.buffer].data) // 4
        for t in tensors
        if t.sparsity is not None
    )


def test_a_sparse_file_holds_what_is_kept_and_computes_the_same(line, path):
    model = _fc(line)
    report = synflow_tf.export_tflite(model, path)
    assert report.is_sparse and report.refused is None
    kernels = [w for w in model.get_weights() if w.ndim == 2]
    assert _kept(path) == sorted(np.count_nonzero(k) for k in kernels)
    difference, _ = _difference(path, model, _images(5))
    assert difference < 1e-6
    assert report.difference < 1e-6 < report.largest


def test_the_report_says_the_sizes_of_the_files(line, path, tmp_path):
    model = _fc(line)
    report = synflow_tf.export_tflite(model, path)
    dense_path = tmp_path / "dense.tflite"
    dense = synflow_tf.export_tflite(model, dense_path, sparse=False)
    assert not dense.is_sparse and dense.sparse is None
    for written, size in ((path, report.sparse), (dense_path, report.dense)):
        assert size.raw == os.path.getsize(written)
        assert size.gzip == len(gzip.compress(written.read_bytes()))
    # 4 bytes for each weight; and for each that is kept 4 and its place.
    assert report.dense.raw > 4 * 47_400 > report.sparse.raw > 4 * 4_740
    assert report.dense.gzip < report.dense.raw / 5
    assert report.path == str(path)
    text = str(report)
    for size in (report.dense, report.sparse):
        assert f"{size.raw:,}" in text and f"{size.gzip:,}" in text
    assert "sparse encoding" in text and "FULLY_CONNECTED" in text


@pytest.mark.parametrize("sparsity", [0.0, 0.2])
def test_the_file_is_dense_where_that_is_smaller(line, sparsity, path):
    report = synflow_tf.export_tflite(_fc(line, sparsity), path)
    assert not report.is_sparse
    assert report.sparse.raw >= report.dense.raw == os.path.getsize(path)
    assert _kept(path) == []


def test_sparse_with_dynamic_range_quantization_is_refused(line, path):
    model = _fc(line)
    path.write_bytes(b"before")
    with pytest.raises(ValueError, match="`sparse` must not be True here: the"):
        synflow_tf.export_tflite(model, path, sparse=True, quantize="dynamic")
    assert path.read_bytes() == b"before"
    assert os.listdir(path.parent) == [path.name]
    report = synflow_tf.export_tflite(model, path, quantize="dynamic")
    assert not report.is_sparse and report.sparse is None
    assert report.refused in str(report)
    difference, largest = _difference(path, model, _images(5))
    assert difference < 0.1 * largest
    assert report.dense.raw < 2 * 47_400


def test_a_sparse_file_with_other_outputs_is_refused(path):
    """TFLite encodes this kernel of a loop so that it is read wrongly."""
    tf_keras.utils.set_random_seed(0)
    layers = keras.layers.LSTM(3), keras.layers.Dense(2)
    model = linear.chain(keras, *layers, shape=(7, 4))
    synflow_tf.prune(model, 0.5, rounds=3)
    report = synflow_tf.export_tflite(model, path, batch_size=1)
    assert not report.is_sparse
    assert "differ" in report.refused or "cannot run" in report.refused
    x = np.random.default_rng(0).normal(size=(1, 7, 4)).astype("float32")
    difference, _ = _difference(path, model, x)
    assert difference < 1e-5


def test_a_file_that_differs_from_the_model_is_not_written(line, path):
    with pytest.raises(ValueError, match="gives other outputs than the model"):
        synflow_tf.export_tflite(
            _fc(line), path, quantize="dynamic", tolerance=1e-9
        )
    assert os.listdir(path.parent) == []


@pytest.mark.parametrize(
    "quantize, bits, error", [("float16", 16, 2e-3), ("int8", 8, 0.05)]
)
def test_quantized_files_are_smaller_and_about_the_same(
    line, quantize, bits, error, path
):
    model = _fc(line)
    dataset = _dataset() if quantize == "int8" else None
    report = synflow_tf.export_tflite(
        model, path, quantize=quantize, representative_dataset=dataset
    )
    assert 0.9 < report.dense.raw / (47_400 * bits / 8) < 1.5
    difference, largest = _difference(path, model, _images(5))
    assert difference < error * largest
    assert report.difference < error * largest
    if quantize == "float16":
        assert report.operations == (("FULLY_CONNECTED", "unpacked", 6),)


def test_int8_computes_in_int8_and_is_compared_on_the_given_images(line, path):
    model = _fc(line)
    report = synflow_tf.export_tflite(
        model, path, quantize="int8", representative_dataset=_dataset()
    )
    content = flatbuffer_utils.read_model(str(path))
    [graph] = content.subgraphs
    types = [
        graph.tensors[op.inputs[0]].type
        for op in graph.operators
        if flatbuffer_utils.opcode_to_name(content, op.opcodeIndex)
        == "FULLY_CONNECTED"
    ]
    assert types == 6 * [9]  # int8 in TFLite's schema
    images = _images(32)[:8]
    found = [_difference(path, model, image[None]) for image in images]
    difference, largest = np.max(found, axis=0)
    np.testing.assert_allclose(report.difference, difference, rtol=0.05)
    np.testing.assert_allclose(report.largest, largest, rtol=1e-3)


@pytest.mark.parametrize("quantize", [None, "int8"])
@pytest.mark.parametrize("kind", ["list", "dict"])
def test_several_inputs_and_outputs_keep_their_names_and_order(
    line, quantize, kind, path
):
    line.utils.set_random_seed(0)
    first = line.Input((5,), name="zeta")
    second = line.Input((3,), name="alpha")
    x = line.layers.Concatenate()([first, second])
    y, z = line.layers.Dense(4)(x), line.layers.Dense(2)(x)
    if kind == "list":
        model = line.Model([first, second], [y, z])
    else:
        model = line.Model({"zeta": first, "alpha": second}, {"q": y, "p": z})
    rng = np.random.default_rng(0)
    data = [
        [rng.random((1, 5)), 10 * rng.random((1, 3))]
        if kind == "list"
        else [10 * rng.random((1, 3)), rng.random((1, 5))]
        for _ in range(20)
    ]
    report = synflow_tf.export_tflite(
        model,
        path,
        quantize=quantize,
        representative_dataset=(lambda: iter(data)) if quantize else None,
    )
    a = rng.random((1, 5)).astype("float32")
    b = rng.random((1, 3)).astype("float32")
    outputs = _run(path, b, a)  # the names of a file are sorted
    if kind == "list":
        assert list(outputs) == ["output_0", "output_1"]
        expected = dict(zip(outputs, model([a, b]), strict=True))
    else:
        assert sorted(outputs) == ["p", "q"]
        expected = model({"zeta": a, "alpha": b})
    for name, output in outputs.items():
        np.testing.assert_allclose(
            output, expected[name], atol=0.2 if quantize else 1e-5
        )
    assert report.difference < 0.02 * report.largest


def _subclassed(line):
    x, dense = np.zeros((1, 4), "float32"), line.layers.Dense(3)
    return linear.net(line, lambda self, x: self.dense(x), x, dense=dense)


def _tokens(line):
    layers = line.layers.Embedding(11, 3), line.layers.Dense(2)
    return linear.chain(line, *layers, shape=(7,), dtype="int32")


def _open(line):
    layers = line.layers.Conv2D(4, 3), line.layers.GlobalAveragePooling2D()
    return linear.chain(line, *layers, shape=(None, None, 3))


def _recurrent(line):
    gru = line.layers.GRU(3, return_sequences=True)
    layers = gru, line.layers.LSTM(3), line.layers.Dense(2)
    return linear.chain(line, *layers, shape=(7, 4))


@pytest.mark.parametrize(
    "make, shape, options",
    [
        (_subclassed, (4,), {}),
        (_tokens, (7,), {}),
        (_open, (9, 9, 3), {"inputs": np.zeros((1, 9, 9, 3), np.float32)}),
        (_recurrent, (7, 4), {"batch_size": 1}),
    ],
)
def test_any_model_is_exported(line, make, shape, options, path):
    model = make(line)
    report = synflow_tf.export_tflite(model, path, **options)
    dtype = "int32" if make is _tokens else "float32"
    x = np.random.default_rng(0).integers(0, 5, (1, *shape)).astype(dtype)
    difference, _ = _difference(path, model, x)
    assert difference < 1e-4
    assert report.difference <= 1e-3 * report.largest


def test_exporting_leaves_the_model_as_it_is(line, path):
    model = _fc.__wrapped__(line)
    model.compile("adam", "mse")
    common.fit(model, _images(8), np.zeros((8, 10)))
    variables = [*model.weights, *model.optimizer.variables]
    before = [v.numpy() for v in variables]
    masks = synflow_tf.Masks.enforced(model)
    synflow_tf.export_tflite(model, path)
    common.assert_equal(before, variables)
    assert synflow_tf.Masks.enforced(model) == masks
    common.fit(model, _images(8), np.zeros((8, 10)))
    assert synflow_tf.Masks.from_model(model) == masks


def test_operations_say_which_kernels_they_can_use(path):
    rng = np.random.default_rng(0)
    model = linear.chain(
        keras,
        keras.layers.Conv2D(16, 1, name="one"),
        keras.layers.Conv2D(16, 3, name="three"),
        keras.layers.DepthwiseConv2D(3),
        keras.layers.Flatten(),
        keras.layers.Dense(32, name="blocks"),
        keras.layers.Dense(32, name="random"),
        keras.layers.Dense(32),
        shape=(8, 8, 16),
    )
    # Of "blocks", each 4 along the inputs are kept or removed as one.
    for name, rows in (("one", 1), ("three", 1), ("random", 1), ("blocks", 4)):
        kernel = model.get_layer(name).kernel
        first, *others = kernel.shape
        kept = rng.random((first // rows, *others)) < 0.1
        kernel.assign(kernel * np.repeat(kept, rows, axis=0))
    report = synflow_tf.export_tflite(model, path)
    found = {(name, kernel): n for name, kernel, n in report.operations}
    assert found == {
        ("CONV_2D 1x1", "xnnpack"): 1,
        ("CONV_2D 3x3", "unpacked"): 1,
        ("DEPTHWISE_CONV_2D", "dense"): 1,
        ("FULLY_CONNECTED", "dense"): 1,
        ("FULLY_CONNECTED", "sparse"): 1,
        ("FULLY_CONNECTED", "unpacked"): 1,
    }
    report = synflow_tf.export_tflite(model, path, sparse=False)
    assert {kernel for _, kernel, _ in report.operations} == {"dense"}


def test_the_interpreter_is_litert_or_that_of_tensorflow(path, monkeypatch):
    litert = pytest.importorskip("ai_edge_litert.interpreter")
    model = _fc(keras)
    synflow_tf.export_tflite(model, path)
    batch = {name: _images(1) for name in tflite.function(model).inputs}
    assert tflite._interpreter() is litert.Interpreter
    [one] = tflite.run(path, [batch])
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", None)
    assert tflite._interpreter() is tf.lite.Interpreter
    [other] = tflite.run(path, [batch])
    np.testing.assert_allclose(one["output_0"], other["output_0"], atol=1e-6)


def test_what_is_no_model_is_refused(path):
    with pytest.raises(TypeError, match="`model` must be"):
        synflow_tf.export_tflite(3, path)


_INT8 = {"quantize": "int8"}


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"sparse": "yes"}, "`sparse` must be one of"),
        ({"quantize": "int4"}, "`quantize` must be one of"),
        (_INT8, "must be given for"),
        ({"representative_dataset": _dataset()}, "is for quantize='int8'"),
        ({**_INT8, "representative_dataset": _images(3)}, "must be a function"),
        (
            {**_INT8, "representative_dataset": lambda: [[1, 2]]},
            "an array for each of the inputs",
        ),
        (
            {**_INT8, "representative_dataset": lambda: []},
            "at least one sample",
        ),
        ({"tolerance": 0}, "`tolerance` must be a number > 0"),
        ({"path": "no/such/folder.tflite"}, "folder that exists"),
        ({"path": "."}, "must be a file"),
        ({"model": keras.Sequential([keras.layers.Dense(2)])}, "must be built"),
        ({"model": _open(keras)}, "a size of its input open"),
        ({"model": _recurrent(keras)}, "need `batch_size=1`"),
    ],
)
def test_what_cannot_be_exported_is_an_error_that_says_why(
    arguments, message, path
):
    arguments = {"model": _fc(keras, 0.5), "path": path, **arguments}
    with pytest.raises(ValueError, match=message):
        synflow_tf.export_tflite(**arguments)
    assert not path.exists()


def test_wrappers_must_be_stripped(path):
    import tensorflow_model_optimization as tfmot

    model = synflow_tf.models.fc((8, 8, 1), keras=tf_keras)
    wrapped = synflow_tf.tfmot.prune_synflow(model, 0.9, rounds=5)
    with pytest.raises(ValueError, match="strip_pruning"):
        synflow_tf.export_tflite(wrapped, path)
    stripped = tfmot.sparsity.keras.strip_pruning(wrapped)
    assert synflow_tf.export_tflite(stripped, path).is_sparse
