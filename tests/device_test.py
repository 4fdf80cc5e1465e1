"""A round runs on the device, without a host call, compiled or not."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import synflow_tf
from synflow_tf import options
from synflow_tf.rounds import loop
from synflow_tf.rounds import ranking
from synflow_tf.rounds import task as task_lib

GPUS = tf.config.list_physical_devices("GPU")


def _step(dtype="float64"):
    keras.utils.set_random_seed(3)
    model = synflow_tf.models.resnet20((8, 8, 3))
    scorer = synflow_tf.scorers.SynFlow(dtype=dtype)
    chosen = options.Options(sparsity=0.5, scorer=scorer)
    task = task_lib.bind(task_lib.select(model, chosen), "error", {})
    return loop.Step(task)


def _traced_round(step):
    weights = step.task.start({})
    args = (
        weights,
        tf.ones_like(weights, tf.bool),
        tf.constant([1000], tf.int64),
        tf.constant(1, tf.int64),
    )
    function = tf.function(step.run, autograph=False)
    return function.get_concrete_function(*args), args


def test_a_round_is_one_graph_without_python_or_transfers_or_pinned_devices():
    step, _ = _traced_round(_step())
    kinds = {node.op for node in step.graph.as_graph_def().node}
    for function in step.graph.as_graph_def().library.function:
        kinds |= {node.op for node in function.node_def}
    host = {"PyFunc", "EagerPyFunc", "PyFuncStateless", "Print", "_Recv"}
    assert not kinds & host
    assert "Conv2D" in kinds and "Conv2DBackpropFilter" in kinds
    assert {op.device for op in step.graph.get_operations()} == {""}


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_scoring_compiled_by_xla_gives_the_same_scores(dtype):
    task = _step(dtype).task
    weights, number = task.start({}), tf.constant(1, tf.int64)
    results = []
    for jit_compile in (False, True):
        function = tf.function(
            lambda x: task.bound.score(task.split(x), number)[0],
            autograph=False,
            jit_compile=jit_compile,
        )
        results.append([x.numpy().ravel() for x in function(weights)])
    plain, compiled = (np.concatenate(scores) for scores in results)
    tolerance = 1e-11 if dtype == "float64" else 1e-4
    np.testing.assert_allclose(compiled, plain, rtol=tolerance)


@pytest.mark.slow  # XLA takes minutes to find out
def test_the_radix_select_is_what_xla_cannot_compile():
    # tf.math.bincount and tf.where have results whose size depends on values;
    # a round is therefore a plain graph. Bisection by counting would compile,
    # but passes over all scores 63 times instead of about 3.
    scores = tf.constant(np.random.default_rng(0).random(100))
    alive, count = tf.ones(100, tf.bool), tf.constant(10, tf.int64)
    lowest = tf.function(ranking.lowest, jit_compile=True)
    with pytest.raises(tf.errors.OpError, match="(?i)bincount|where|compile"):
        lowest(scores, alive, count)


@pytest.mark.gpu
@pytest.mark.skipif(not GPUS, reason="TensorFlow sees no GPU here")
def test_masks_computed_on_a_gpu_equal_those_of_the_cpu():
    masks = {}
    for device in ("CPU:0", "GPU:0"):
        with tf.device(device):
            keras.utils.set_random_seed(3)
            model = synflow_tf.models.resnet20((32, 32, 3))
            masks[device] = synflow_tf.compute_masks(model, compression=20)
    assert masks["GPU:0"] == masks["CPU:0"]


@pytest.mark.gpu
@pytest.mark.skipif(not GPUS, reason="TensorFlow sees no GPU here")
def test_a_round_runs_on_the_gpu_that_has_the_weights():
    with tf.device("GPU:0"):
        step, args = _traced_round(_step())
        assert all("GPU" in result.device for result in step(*args)[:2])
