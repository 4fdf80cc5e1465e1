"""A model is pruned, held to its masks while it trains, and set free."""

import common
import numpy as np
import pytest
import tensorflow as tf

import synflow_tf

pytestmark = pytest.mark.in_turn


def _data(n=32):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 6, 6, 1)).astype("float32")
    return x, rng.integers(0, 4, n)


def _loss(line):
    return line.losses.SparseCategoricalCrossentropy(from_logits=True)


def _model(line, seed=0, policy=None):
    line.utils.set_random_seed(seed)
    model = line.Sequential(
        [
            line.Input((6, 6, 1)),
            line.layers.Conv2D(8, 3, dtype=policy, name="conv"),
            line.layers.BatchNormalization(dtype=policy, name="bn"),
            line.layers.Flatten(name="flatten"),
            line.layers.Dense(4, dtype=policy, name="logits"),
        ]
    )
    model.compile(line.optimizers.Adam(0.01), _loss(line))
    return model


def test_a_callback_prunes_each_model_once_before_its_first_step(line):
    scorer = common.Counting()
    pruning = synflow_tf.SynFlowPruning(compression=5, rounds=5, scorer=scorer)
    for seed in (1, 2):
        model = _model(line, seed)
        expected = synflow_tf.compute_masks(model, compression=5, rounds=5)
        runs = scorer.runs
        revived, watch = common.watch(
            line, lambda model=model: common.revived(model, pruning.masks)
        )
        for _ in range(2):
            common.fit(model, *_data(), pruning, watch)
            assert pruning.masks == expected
            assert scorer.runs == runs + 6  # one for the flow
        assert revived == [0] * 16


def test_the_callback_takes_masks(line):
    model = _model(line)
    masks = synflow_tf.compute_masks(model, sparsity=0.7, rounds=5)
    common.fit(model, *_data(), synflow_tf.SynFlowPruning(masks=masks))
    assert synflow_tf.Masks.from_model(model) == masks


_MASKS = synflow_tf.Masks({"w": [1, 0]})
_SCHEDULE = synflow_tf.schedules.LinearSparsity(0.9, 0, 10)


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"masks": {"w": [1, 0]}}, TypeError, "Argument `masks` must be"),
        (
            {"pruning_schedule": 3},
            TypeError,
            "Argument `pruning_schedule` must be a schedule",
        ),
        *(
            ({**first, **second}, ValueError, "Exactly one of .*`masks`")
            for first, second in [
                ({"sparsity": 0.5}, {"masks": _MASKS}),
                ({"sparsity": 0.5}, {"pruning_schedule": _SCHEDULE}),
                ({"compression": 2}, {"pruning_schedule": _SCHEDULE}),
                ({"keep_n_of_m": (2, 4)}, {"pruning_schedule": _SCHEDULE}),
                ({"masks": _MASKS}, {"pruning_schedule": _SCHEDULE}),
            ]
        ),
    ],
)
def test_the_callback_checks_its_arguments_when_it_is_made(
    arguments, error, message
):
    with pytest.raises(error, match=message):
        synflow_tf.SynFlowPruning(**arguments)


def test_a_constraint_of_the_users_own_is_kept_and_comes_back(line):
    constraint = line.constraints.MaxNorm(0.1, axis=0)
    layer = line.layers.Dense(4, kernel_constraint=constraint, name="logits")
    model = line.Sequential([line.Input((8,)), layer])
    model.compile(line.optimizers.SGD(0.05, momentum=0.9), _loss(line))
    masks = synflow_tf.prune(model, sparsity=0.5, rounds=5)
    x, y = np.random.default_rng(0).normal(size=(64, 8)), np.arange(64) % 4
    common.fit(model, x, y)
    kernel = layer.get_weights()[0]
    assert np.all(np.linalg.norm(kernel, axis=0) <= 0.1 + 1e-6)
    assert np.all(kernel[~masks["logits/kernel"]] == 0)
    masks.release(model)
    assert layer.kernel.constraint is constraint


@pytest.mark.parametrize("policy", ["float32", "mixed_float16"])
def test_a_loop_that_names_no_optimizer_keeps_the_masks(line, policy):
    model = _model(line, policy=policy)
    masks = synflow_tf.prune(model, sparsity=0.9, rounds=5)
    optimizer = line.optimizers.Adam(0.01)

    @tf.function
    def step(x, y):
        with tf.GradientTape() as tape:
            value = _loss(line)(y, model(x, training=True))
        variables = model.trainable_variables
        gradients = tape.gradient(value, variables)
        optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return value

    losses = []
    for _ in range(20):
        losses.append(float(step(*_data())))
        assert common.revived(model, masks) == 0
    assert losses[-1] < losses[0]
