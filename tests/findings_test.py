"""What is found is told in one warning, at the user's line."""

import linecache
import re
import warnings

import keras
import linear
import numpy as np
import pytest
import tensorflow_model_optimization as tfmot
import tf_keras

import synflow_tf


def _model(line):
    """A model of which one kernel of two is zeros, and the other a path."""
    line.utils.set_random_seed(0)
    some = linear.dense(line, 4, "some")
    none = linear.dense(line, 4, "none", kernel_initializer="zeros")
    add, last = line.layers.Add(), linear.dense(line, 2, "last")
    model = linear.functional(
        line, lambda x: last(add([some(x), none(x)])), (4,)
    )
    model.compile("sgd", "mse")
    return model


def _fit(model, callbacks=()):
    x, y = np.ones((8, 4), "float32"), np.ones((8, 2), "float32")
    model.fit(x, y, 4, verbose=0, callbacks=list(callbacks))


def _prune(model):
    synflow_tf.prune(model, 0.5, rounds=2)


def _compute(model):
    synflow_tf.compute_masks(model, 0.5, rounds=2)


def _callback(model):
    _fit(model, [synflow_tf.SynFlowPruning(0.5, rounds=2)])


def _third(step):
    return True, np.float32(0.3)


def _gradually(model):
    callback = synflow_tf.SynFlowPruning(pruning_schedule=_third, rounds=1)
    _fit(model, [callback])


def _told(call, *arguments):
    """The one warning that tells of the kernel of zeros."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call(*arguments)
    [ours] = [w for w in caught if "no score" in str(w.message)]
    assert "'none/kernel'" in str(ours.message)
    assert ours.filename == __file__
    return ours


@pytest.mark.parametrize("way", [_prune, _compute, _callback, _gradually])
def test_one_warning_points_at_the_line_that_called(line, way):
    told = _told(way, _model(line))
    line_of_call = linecache.getline(__file__, told.lineno)
    assert re.search(r"model.fit\(|synflow_tf\.\w+\(model", line_of_call)


def test_a_gradual_fit_of_tfmot_points_at_the_line_of_fit():
    model = synflow_tf.tfmot.prune_synflow(
        _model(tf_keras), pruning_schedule=_third, rounds=1
    )
    model.compile("sgd", "mse")
    _told(_fit, model, [tfmot.sparsity.keras.UpdatePruningStep()])


def test_findings_are_kept_by_masks_and_by_scores():
    model = _model(keras)
    with pytest.warns(UserWarning, match="no score"):
        masks = synflow_tf.compute_masks(model, 0.5, rounds=2)
    (finding,) = masks.findings
    assert isinstance(finding, synflow_tf.Finding)
    assert finding[:2] == ("unscored", "none/kernel")
    dead = keras.layers.BatchNormalization(gamma_initializer="zeros", name="bn")
    model = linear.chain(keras, dead, keras.layers.Dense(2))
    (finding,) = synflow_tf.score(model).findings
    assert finding[:2] == ("scale", "bn/gamma")


def test_a_second_fit_keeps_what_is_known_and_a_second_model_is_told_anew():
    callback = synflow_tf.SynFlowPruning(0.5, rounds=2)
    for _ in range(2):
        model = _model(keras)
        with pytest.warns(UserWarning, match="no score"):
            _fit(model, [callback])
        first = callback.masks
        assert len(first.history) == 2
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            _fit(model, [callback])
        assert callback.masks is first
