"""Removed weights stay exactly 0 while a pruned model trains."""

import common
import keras
import numpy as np
import pytest
import tensorflow as tf

import synflow_tf

OPTIMIZERS = {
    "momentum": lambda line: line.optimizers.SGD(0.05, momentum=0.9),
    "adam": lambda line: line.optimizers.Adam(0.01),
    "adamw": lambda line: line.optimizers.AdamW(0.01, weight_decay=0.1),
}


def _data(n=64):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 6, 6, 1)).astype("float32")
    return x, rng.integers(0, 4, n)


def _model(line, seed=0):
    line.utils.set_random_seed(seed)
    layers = line.layers
    return line.Sequential(
        [
            line.Input((6, 6, 1)),
            layers.Conv2D(8, 3, padding="same", name="conv"),
            layers.BatchNormalization(name="bn"),
            layers.ReLU(name="relu"),
            layers.Flatten(name="flatten"),
            layers.Dense(16, "relu", name="hidden"),
            layers.Dense(4, name="logits"),
        ]
    )


def _mixed_model(line):
    policy = line.mixed_precision.global_policy()
    line.mixed_precision.set_global_policy("mixed_float16")
    try:
        return _model(line)
    finally:
        line.mixed_precision.set_global_policy(policy)


def _compile(line, model, optimizer, **options):
    model.compile(
        OPTIMIZERS[optimizer](line),
        line.losses.SparseCategoricalCrossentropy(from_logits=True),
        **options,
    )


def _train(model, *callbacks, **options):
    options = {"batch_size": 16, "epochs": 2, **options}
    return common.fit(model, *_data(), *callbacks, **options)


def _check_trains(line, model, masks, **options):
    """Trains, and looks for removed weights that are not 0 after each call.

    Not only at the end, when averages are masked, and all else with them.
    """
    revived, look = common.watch(line, lambda: common.revived(model, masks))
    _train(model, look, **options)
    assert revived and not any(revived)
    assert common.revived(model, masks) == 0


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("compiled_first", [True, False])
def test_removed_weights_are_zero_after_each_of_30_steps(
    line, optimizer, compiled_first
):
    model = _model(line)
    if compiled_first:
        _compile(line, model, optimizer)
    masks = synflow_tf.prune(model, sparsity=0.9, rounds=10)
    if not compiled_first:
        _compile(line, model, optimizer)
    x, y = _data(16)
    before = model.get_layer("conv").get_weights()[0]
    for _ in range(30):
        model.train_on_batch(x, y)
        assert common.revived(model, masks) == 0
    assert np.any(model.get_layer("conv").get_weights()[0] != before)
    kept = synflow_tf.Masks.from_model(model).kept
    assert kept > 0.9 * masks.kept


def test_fit_then_prune_then_fit_keeps_removed_weights_zero(line):
    model = _model(line)
    _compile(line, model, "momentum")
    _train(model)
    masks = synflow_tf.prune(model, sparsity=0.9, rounds=10)
    _check_trains(line, model, masks)


def test_removed_weights_are_zero_inside_a_call_of_several_steps(line):
    model = _model(line)
    _compile(line, model, "adam", steps_per_execution=4)
    masks = synflow_tf.prune(model, sparsity=0.9, rounds=10)
    _check_trains(line, model, masks, batch_size=8)


def test_removed_weights_are_zero_under_mixed_precision(line):
    model = _mixed_model(line)
    masks = synflow_tf.prune(model, sparsity=0.9, rounds=10)
    _compile(line, model, "adam")
    _check_trains(line, model, masks)


def test_the_callback_prunes_before_the_first_step_and_keeps_it_so(line):
    model = _model(line)
    _compile(line, model, "momentum")
    expected = synflow_tf.compute_masks(model, sparsity=0.8, rounds=10)
    callback = synflow_tf.SynFlowPruning(sparsity=0.8, rounds=10)
    revived, check = common.watch(
        line, lambda: common.revived(model, callback.masks)
    )
    _train(model, callback, check)
    assert callback.masks == expected
    assert revived == [0] * 8


def test_the_callback_keeps_the_masks_in_a_second_fit(line):
    model = _model(line)
    _compile(line, model, "adam")
    callback = synflow_tf.SynFlowPruning(compression=5, rounds=10)
    _train(model, callback)
    first = callback.masks
    _train(model, callback)
    assert callback.masks == first
    assert common.revived(model, first) == 0


def test_a_second_fit_does_not_score_again():
    scorer = common.Counting()
    model = _model(keras)
    _compile(keras, model, "adam")
    callback = synflow_tf.SynFlowPruning(0.8, rounds=5, scorer=scorer)
    for _ in range(2):
        _train(model, callback)
        assert scorer.calls == 1


def test_one_callback_prunes_two_models(line):
    callback = synflow_tf.SynFlowPruning(compression=5, rounds=10)
    for seed in (1, 2):
        model = _model(line, seed)
        _compile(line, model, "adam")
        expected = synflow_tf.compute_masks(model, compression=5, rounds=10)
        _train(model, callback)
        assert callback.masks == expected


def test_the_callback_takes_masks(line):
    model = _model(line)
    _compile(line, model, "adam")
    masks = synflow_tf.compute_masks(model, sparsity=0.7, rounds=5)
    _train(model, synflow_tf.SynFlowPruning(masks=masks))
    assert synflow_tf.Masks.from_model(model) == masks


def test_the_callback_checks_its_arguments_when_it_is_made():
    masks = synflow_tf.Masks({"w": [1, 0]})
    with pytest.raises(ValueError, match="Argument `sparsity`"):
        synflow_tf.SynFlowPruning(sparsity=1.0)
    with pytest.raises(ValueError, match="Exactly one of .*`masks`"):
        synflow_tf.SynFlowPruning(sparsity=0.5, masks=masks)
    with pytest.raises(TypeError, match="Argument `masks`"):
        synflow_tf.SynFlowPruning(masks={"w": [1, 0]})


def test_release_gives_the_weights_back(line):
    model = _model(line)
    _compile(line, model, "adam")
    masks = synflow_tf.prune(model, sparsity=0.9, rounds=5)
    masks.release(model)
    _train(model)
    assert common.revived(model, masks) > 0


def test_a_constraint_of_the_users_own_is_kept_and_comes_back(line):
    constraint = line.constraints.MaxNorm(0.1, axis=0)
    layer = line.layers.Dense(4, kernel_constraint=constraint, name="logits")
    model = line.Sequential([line.Input((8,)), layer])
    _compile(line, model, "momentum")
    masks = synflow_tf.prune(model, sparsity=0.5, rounds=5)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(64, 8)), rng.integers(0, 4, 64)
    model.fit(x, y, verbose=0)
    kernel = layer.get_weights()[0]
    assert np.all(np.linalg.norm(kernel, axis=0) <= 0.1 + 1e-6)
    assert np.all(kernel[~masks["logits/kernel"]] == 0)
    masks.release(model)
    assert layer.kernel.constraint is constraint


def test_pruning_further_keeps_what_was_removed(line):
    model = _model(line)
    first = synflow_tf.prune(model, sparsity=0.5, rounds=5)
    second = synflow_tf.prune(model, sparsity=0.9, rounds=5)
    assert second.kept == second.size - int(0.9 * second.size)
    common.assert_nested(second, first)
    _compile(line, model, "adam")
    _check_trains(line, model, second)


@pytest.mark.parametrize("make", [_model, _mixed_model])
def test_a_loop_that_names_no_optimizer_keeps_the_masks(line, make):
    model = make(line)
    masks = synflow_tf.prune(model, sparsity=0.9, rounds=5)
    optimizer = line.optimizers.Adam(0.01)
    loss = line.losses.SparseCategoricalCrossentropy(from_logits=True)

    @tf.function
    def step(x, y):
        with tf.GradientTape() as tape:
            value = loss(y, model(x, training=True))
        variables = model.trainable_variables
        gradients = tape.gradient(value, variables)
        optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return value

    x, y = _data()
    losses = []
    for _ in range(20):
        losses.append(float(step(x, y)))
        assert common.revived(model, masks) == 0
    assert losses[-1] < losses[0]
