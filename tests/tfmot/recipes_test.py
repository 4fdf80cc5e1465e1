"""After pruning: what clustering and quantization by tfmot do to the zeros.

The recipes of README.md, on scikit-learn's handwritten digits.
"""

import common
import numpy as np
import pytest
import sklearn.datasets
import tensorflow_model_optimization as tfmot
import tf_keras
from tensorflow.lite.tools import flatbuffer_utils
from tensorflow_model_optimization.python.core.clustering.keras.experimental import (  # noqa: E501
    cluster,
)

import synflow_tf

SPARSITY = 0.8
CLUSTERS = 16
COMBINE = tfmot.experimental.combine
QUANTIZE = tfmot.quantization.keras


def _compile(model):
    model.compile(
        "adam",
        tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        ["accuracy"],
    )
    return model


@pytest.fixture(name="digits", scope="module")
def _digits():
    digits = sklearn.datasets.load_digits()
    return (digits.images / 16).astype("float32")[..., None], digits.target


@pytest.fixture(name="trained", scope="module")
def _trained(digits):
    """A network pruned, trained and stripped."""
    tf_keras.utils.set_random_seed(0)
    layers = tf_keras.layers
    inputs = tf_keras.Input((8, 8, 1))
    x = layers.Conv2D(8, 3, padding="same", name="c1")(inputs)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.Conv2D(16, 3, strides=2, padding="same", name="c2")(x)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    outputs = layers.Dense(10, name="d")(layers.Flatten()(x))
    model = tf_keras.Model(inputs, outputs)
    model = _compile(synflow_tf.tfmot.prune_synflow(model, SPARSITY))
    step = tfmot.sparsity.keras.UpdatePruningStep()
    model.fit(*digits, epochs=8, callbacks=[step], verbose=0)
    return tfmot.sparsity.keras.strip_pruning(model)


def _copy(model):
    """A copy: clustering changes the layers of the model that it is given."""
    copy = tf_keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy


def _kernels(model):
    kernels = [
        w.numpy()
        for w in model.trainable_weights
        if "kernel" in w.name and w.shape.rank > 1
    ]
    assert len(kernels) == 3
    return kernels


def _removed(model):
    return [kernel == 0 for kernel in _kernels(model)]


def _count(removed):
    return sum(int(np.sum(r)) for r in removed)


def _clustered(model, digits, preserve_sparsity=True):
    centroids = tfmot.clustering.keras.CentroidInitialization.KMEANS_PLUS_PLUS
    model = cluster.cluster_weights(
        _copy(model),
        number_of_clusters=CLUSTERS,
        cluster_centroids_init=centroids,
        preserve_sparsity=preserve_sparsity,
    )
    _compile(model).fit(*digits, epochs=1, verbose=0)
    return tfmot.clustering.keras.strip_clustering(model)


@pytest.fixture(name="clustered", scope="module")
def _clustered_once(trained, digits):
    return _clustered(trained, digits)


def _quantized(model, digits, scheme=None):
    annotated = QUANTIZE.quantize_annotate_model(_copy(model))
    scheme = [] if scheme is None else [scheme]
    model = QUANTIZE.quantize_apply(annotated, *scheme)
    _compile(model).fit(*digits, epochs=2, verbose=0)
    return model


def _accuracy(model, digits):
    return _compile(model).evaluate(*digits, verbose=0)[1]


def _check_clusters(model, removed, digits):
    """Checks that a model has few values, all zeros, and what it learned."""
    after = _removed(model)
    assert all(np.all(b <= a) for b, a in zip(removed, after, strict=True))
    assert all(len(np.unique(k)) <= CLUSTERS for k in _kernels(model))
    assert _accuracy(model, digits) > 0.8


def test_the_stripped_model_is_as_sparse_as_asked_for(trained, digits):
    removed = _removed(trained)
    size = sum(r.size for r in removed)
    assert _count(removed) == int(SPARSITY * size)
    assert _accuracy(trained, digits) > 0.8


def test_clustering_that_preserves_sparsity_keeps_every_zero(
    trained, clustered, digits
):
    before = _removed(trained)
    _check_clusters(clustered, before, digits)
    without = _removed(_clustered(trained, digits, preserve_sparsity=False))
    assert _count(without) < _count(before) / 2


def test_quantization_aware_training_that_preserves_pruning_keeps_every_zero(
    trained, digits, tmp_path
):
    before = _removed(trained)
    quantized = _quantized(
        trained, digits, COMBINE.Default8BitPrunePreserveQuantizeScheme()
    )
    after = _removed(quantized)
    common.assert_equal(before, after)
    assert _accuracy(quantized, digits) > 0.8
    assert _zeros_of_file(quantized, tmp_path) >= _count(before)
    plain = _removed(_quantized(trained, digits))
    assert _count(plain) < 0.9 * _count(before)


def test_clustering_and_quantization_together_keep_every_zero(
    trained, clustered, digits, tmp_path
):
    before = _removed(trained)
    scheme = COMBINE.Default8BitClusterPreserveQuantizeScheme(
        preserve_sparsity=True
    )
    quantized = _quantized(clustered, digits, scheme)
    _check_clusters(quantized, before, digits)
    assert _zeros_of_file(quantized, tmp_path) >= _count(before)


def _zeros_of_file(model, folder):
    """How many of the 8-bit weights are 0 in the file of a model."""
    path = folder / "model.tflite"
    synflow_tf.export_tflite(model, path, sparse=False, quantize="int8")
    content = flatbuffer_utils.read_model(str(path))
    [graph] = content.subgraphs
    sizes = {kernel.size for kernel in _kernels(model)}
    found = [
        np.asarray(content.buffers[tensor.buffer].data).view(np.int8)
        for tensor in graph.tensors
        if tensor.type == 9  # int8 in TFLite's schema
        and content.buffers[tensor.buffer].data is not None
    ]
    found = [values for values in found if values.size in sizes]
    assert len(found) == 3
    return sum(int(np.sum(values == 0)) for values in found)
