"""Optimizers never learn of the gradients of removed weights."""

import copy
import functools

import common
import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import synflow_tf
from synflow_tf.enforce import gradients
from synflow_tf.graph import variables

pytestmark = pytest.mark.in_turn

METHODS = {
    keras: {"apply", "finalize_variable_values"},
    tf_keras: {"apply_gradients", "finalize_variable_values"},
}
# How many values each optimizer gathers about a weight.
SLOTS = {"momentum": 1, "adam": 2}
ALL = pytest.mark.parametrize("name", SLOTS)
STEPS = 20
# Of `compile`, where nothing depends on what is traced: it takes less time.
EAGERLY = {"run_eagerly": True}


def _optimizer(line, name, **more):
    if name == "adam":
        return line.optimizers.Adam(0.02, **more)
    return line.optimizers.SGD(0.1, momentum=0.9, **more)


def _model(line):
    line.utils.set_random_seed(0)
    layers = line.layers
    return line.Sequential(
        [
            line.Input((5, 5, 2)),
            layers.Conv2D(4, 3, activation="relu", name="conv"),
            layers.Flatten(name="flatten"),
            layers.Dense(3, name="logits"),
        ]
    )


@functools.cache
def _masks(line):
    return synflow_tf.compute_masks(_model(line), sparsity=0.8, rounds=5)


def _square(line):
    """Four kernels of the same shape, and nothing else that trains."""
    line.utils.set_random_seed(0)
    layers = [
        line.layers.Dense(4, use_bias=False, name=f"layer{i}") for i in range(4)
    ]
    return line.Sequential([line.Input((4,)), *layers])


def _square_masks():
    rng = np.random.default_rng(0)
    return synflow_tf.Masks(
        {f"layer{i}/kernel": rng.random((4, 4)) < 0.5 for i in range(4)}
    )


def _square_data(n=16):
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(2, n, 4)).astype("float32")
    return x, y


def _batches(n=STEPS):
    rng = np.random.default_rng(0)
    return [
        (
            rng.normal(0, rng.uniform(0.5, 2), (8, 5, 5, 2)).astype("float32"),
            rng.integers(0, 3, 8),
        )
        for _ in range(n)
    ]


def _loss(line):
    return line.losses.SparseCategoricalCrossentropy(from_logits=True)


def _gradients(line, model, x, y):
    with tf.GradientTape() as tape:
        value = _loss(line)(y, model(x, training=True))
    return tape.gradient(value, model.trainable_variables)


def _step(line, model, optimizer, x, y):
    grads = _gradients(line, model, x, y)
    pairs = zip(grads, model.trainable_variables, strict=True)
    optimizer.apply_gradients(pairs)


def _train(model, n=3):
    for x, y in _batches(n):
        model.train_on_batch(x, y)


def _fit(model, *callbacks, **options):
    return common.fit(model, *_square_data(), *callbacks, **options)


def _gathered(optimizer):
    """What an optimizer has gathered, a dict of name to array."""
    found = optimizer.variables
    return {
        getattr(v, "path", v.name).replace("/", "_"): v.numpy()
        for v in (found() if callable(found) else found)
    }


def _slots(optimizer, masks):
    """Pairs of what an optimizer has gathered about a weight, and its mask."""
    return [
        (value, masks[path])
        for path in masks
        for name, value in _gathered(optimizer).items()
        if path.replace("/", "_") in name
    ]


def _assert_knows_kept_only(optimizer, masks, slots):
    found = _slots(optimizer, masks)
    assert len(found) == slots * len(masks)
    for slot, mask in found:
        assert np.all(slot[~mask] == 0)
        assert np.any(slot[mask] != 0)


def _assert_learns_of_removed(optimizer, masks):
    for slot, mask in _slots(optimizer, masks):
        assert np.any(slot[~mask] != 0)


def _assert_all_differ(first, second):
    assert all(np.any(a != b) for a, b in zip(first, second, strict=True))


def _replaced(thing):
    """Names of the methods that are replaced on an object."""
    names = {"compile", "apply", "apply_gradients", "finalize_variable_values"}
    return names & set(vars(thing))


# Training is that of masks inside the forward pass.


def _twin(line, masks):
    """`_model` with the masks inside the forward pass, and no library."""

    class Masked(line.layers.Layer):
        def __init__(self, mask, **kwargs):
            super().__init__(**kwargs)
            self.mask = mask.astype("float32")

        def build(self, shape):
            self.kernel = self.add_weight(name="kernel", shape=self.mask.shape)
            self.bias = self.add_weight(name="bias", shape=self.mask.shape[-1:])
            super().build(shape)

    class Conv(Masked):
        def call(self, x):
            x = tf.nn.conv2d(x, self.kernel * self.mask, 1, "VALID")
            return tf.nn.relu(x + self.bias)

    class Dense(Masked):
        def call(self, x):
            return tf.matmul(x, self.kernel * self.mask) + self.bias

    twin = line.Sequential(
        [
            line.Input((5, 5, 2)),
            Conv(masks["conv/kernel"], name="conv"),
            line.layers.Flatten(name="flatten"),
            Dense(masks["logits/kernel"], name="logits"),
        ]
    )
    twin.set_weights(_model(line).get_weights())
    return twin


def _trajectory(model, step):
    """The weights after each step: a list for each."""
    result = []
    for x, y in _batches():
        step(x, y)
        result.append(model.get_weights())
    return result


def _distance(first, second):
    """The largest difference between two trajectories."""
    return max(
        np.abs(a - b).max()
        for one, other in zip(first, second, strict=True)
        for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("clip", ["clipnorm", "global_clipnorm"])
@ALL
def test_clipped_training_is_that_of_masks_in_the_forward_pass(
    line, name, clip
):
    masks, limit = _masks(line), 0.02
    make = functools.partial(_optimizer, line, name, **{clip: limit})

    twin, optimizer, norms = _twin(line, masks), make(), []
    optimizer.build(twin.trainable_variables)

    @tf.function
    def in_twin(x, y):
        grads = _gradients(line, twin, x, y)
        pairs = zip(grads, twin.trainable_variables, strict=True)
        optimizer.apply_gradients(pairs)
        return [tf.norm(grad) for grad in grads]

    def recorded(x, y):
        each = [norm.numpy() for norm in in_twin(x, y)]
        norms.append(min(each) if clip == "clipnorm" else np.linalg.norm(each))

    each = [masks["conv/kernel"], True, masks["logits/kernel"], True]
    expected = [
        [np.where(m, w, 0) for m, w in zip(each, weights, strict=True)]
        for weights in _trajectory(twin, recorded)
    ]
    assert len(norms) == STEPS and min(norms) > limit

    model = masks.enforce(_model(line))
    model.compile(make(), _loss(line))
    got = _trajectory(model, model.train_on_batch)
    assert _distance(got, expected) < 1e-6

    def in_loop(hooked):
        optimizer, model = make(), _model(line)
        optimizer.build(model.trainable_variables)
        masks.enforce(model, optimizer if hooked else None)
        step = functools.partial(_step, line, model, optimizer)
        return _trajectory(model, tf.function(step))

    assert _distance(in_loop(True), expected) < 1e-6
    # With the constraint alone the clipped gradients are others.
    assert _distance(in_loop(False), expected) > 1e-3


# Which optimizers are reached.


@pytest.mark.parametrize(
    "order, name",
    [("before", "adam"), ("after", "momentum"), ("again", "adam")],
)
def test_moments_of_removed_weights_stay_0_whenever_it_is_compiled(
    line, order, name
):
    masks, model = _masks(line), _model(line)
    optimizer = _optimizer(line, name)
    if order != "after":
        first = optimizer if order == "before" else line.optimizers.RMSprop()
        model.compile(first, _loss(line))
    masks.enforce(model)
    if order != "before":
        model.compile(optimizer, _loss(line))
    for x, y in _batches(3):
        model.train_on_batch(x, y)
        assert common.revived(model, masks) == 0
    _assert_knows_kept_only(model.optimizer, masks, SLOTS[name])


@pytest.mark.parametrize("traced, name", [(False, "momentum"), (True, "adam")])
def test_moments_of_removed_weights_stay_0_in_a_loop_of_ones_own(
    line, traced, name
):
    masks, model = _masks(line), _model(line)
    optimizer = _optimizer(line, name)
    step = functools.partial(_step, line, model, optimizer)
    if traced:
        step = tf.function(step)
    assert masks.enforce(model, optimizer) is model
    for x, y in _batches(3):
        step(tf.constant(x), tf.constant(y))
    _assert_knows_kept_only(optimizer, masks, SLOTS[name])


def test_apply_without_variables_is_masked_as_well():
    masks, model = _square_masks(), _square(keras)
    optimizer = _optimizer(keras, "momentum")
    optimizer.build(model.trainable_variables)
    masks.enforce(model, optimizer)
    optimizer.apply([tf.ones((4, 4))] * 4)
    _assert_knows_kept_only(optimizer, masks, 1)


def test_a_model_trained_as_part_of_another_has_its_optimizer_masked(line):
    masks, part = _masks(line), _model(line)
    inputs = line.Input((5, 5, 2))
    outer = line.Model(inputs, line.layers.Dense(3, name="top")(part(inputs)))
    outer.compile(_optimizer(line, "adam"), _loss(line))
    masks.enforce(part, optimizer=outer.optimizer)
    _train(outer)
    _assert_knows_kept_only(outer.optimizer, masks, 2)
    assert common.revived(part, masks) == 0


def test_masks_held_through_a_part_hold_in_a_model_trained_before(line):
    masks, part = _square_masks(), _square(line)
    inputs = line.Input((4,))
    outer = line.Model(inputs, part(inputs))
    outer.compile(_optimizer(line, "momentum"), "mse")
    _fit(outer)
    masks.enforce(part)
    synflow_tf.Masks.enforced(outer).enforce(outer)
    seen, watch = common.watch(line, lambda: common.revived(part, masks))
    _fit(outer, watch)
    assert seen == [0] * 4
    _assert_knows_kept_only(outer.optimizer, masks, 1)


@pytest.mark.parametrize("compiled_first", [True, False])
def test_each_optimizer_that_a_model_holds_is_masked(line, compiled_first):
    class Pair(line.Sequential):
        def compile(self, *optimizers):
            super().compile()
            self.first, self.second = optimizers

    masks, model = _square_masks(), Pair(_square(line).layers)
    model.build((None, 4))
    optimizers = [_optimizer(line, name) for name in SLOTS]
    if compiled_first:
        model.compile(*optimizers)
    masks.enforce(model)
    if not compiled_first:
        model.compile(*optimizers)
    for optimizer, slots in zip(optimizers, SLOTS.values(), strict=True):
        grads = [tf.ones((4, 4))] * 4
        pairs = zip(grads, model.trainable_variables, strict=True)
        optimizer.apply_gradients(pairs)
        _assert_knows_kept_only(optimizer, masks, slots)


def test_each_optimizer_of_a_list_that_tf_keras_compiles_with_is_masked():
    model = _square(tf_keras)
    optimizers = [tf_keras.optimizers.SGD(), tf_keras.optimizers.Adam()]
    model.compile(optimizers, "mse")
    _square_masks().enforce(model)
    for optimizer in optimizers:
        assert _replaced(optimizer) == METHODS[tf_keras]


def test_a_model_of_which_nothing_trains_can_still_be_fitted(line):
    masks, model = _square_masks(), _square(line)
    masks.enforce(model)
    for layer in model.layers:
        layer.trainable = False
    model.compile("sgd", "mse")
    before = model.get_weights()
    _fit(model)
    common.assert_equal(before, model.get_weights())


def test_what_is_no_optimizer_is_refused_and_changes_nothing(line):
    masks, model = _masks(line), _model(line)
    before = model.get_weights()
    with pytest.raises(TypeError, match="Argument `optimizer` must.*'adam'"):
        masks.enforce(model, "adam")
    common.assert_equal(before, model.get_weights())
    for weight in variables.weights(model):
        assert variables.get_constraint(weight.variable) is None
    assert _replaced(model) == set()
    masks.enforce(model)
    with pytest.raises(TypeError, match="Argument `optimizer` must.*'adam'"):
        masks.release(model, "adam")
    assert synflow_tf.Masks.enforced(model) == masks


# What an optimizer has gathered before.


@ALL
def test_enforcing_forgets_removed_weights_and_nothing_else(line, name):
    masks, model = _square_masks(), _square(line)
    slots = SLOTS[name] + 1  # and the average
    model.compile(_optimizer(line, name, use_ema=True), "mse")
    _fit(model)
    before = _gathered(model.optimizer)
    _assert_learns_of_removed(model.optimizer, masks)
    masks.enforce(model)
    after = _gathered(model.optimizer)
    assert before.keys() == after.keys()
    checked = 0
    for key, old in before.items():
        expected = old
        for path, mask in masks.items():
            if path.replace("/", "_") in key:
                expected = np.where(mask, old, 0)
                checked += 1
        np.testing.assert_array_equal(after[key], expected, err_msg=key)
    assert checked == slots * len(masks)
    seen, watch = common.watch(line, lambda: common.revived(model, masks))
    _fit(model, watch)
    assert seen == [0] * 4
    _assert_knows_kept_only(model.optimizer, masks, slots)


def _loss_scale(line, inner):
    if line is keras:
        return keras.optimizers.LossScaleOptimizer(inner, initial_scale=1)
    return tf_keras.mixed_precision.LossScaleOptimizer(inner, initial_scale=1)


def _multi(line, inner):
    if not hasattr(line.optimizers, "MultiOptimizer"):
        pytest.skip("an older Keras")
    choice = keras.optimizers.OptimizerMap(inner)
    choice[".*layer0/.*"] = _optimizer(keras, "momentum")
    return keras.optimizers.MultiOptimizer(choice)


@pytest.mark.parametrize(
    "line, outer, slots",
    [(keras, _loss_scale, 8), (tf_keras, _loss_scale, 8), (keras, _multi, 7)],
)
def test_enforcing_forgets_within_an_optimizer_of_optimizers(
    line, outer, slots
):
    masks, model = _square_masks(), _square(line)
    optimizer = outer(line, _optimizer(line, "adam"))
    model.compile(optimizer, "mse", **EAGERLY)
    _fit(model)
    _assert_learns_of_removed(model.optimizer, masks)
    masks.enforce(model)
    found = _slots(model.optimizer, masks)
    assert len(found) == slots
    assert not any(np.any(slot[~mask]) for slot, mask in found)


# Averages.


def test_averages_written_over_the_weights_by_hand_are_masked(line):
    masks, model = _masks(line), _model(line)
    optimizer = _optimizer(line, "adam", use_ema=True)
    masks.enforce(model, optimizer)
    _step(line, model, optimizer, *_batches(1)[0])
    for variable in optimizer.variables:
        if "average" in getattr(variable, "path", variable.name):
            variable.assign(tf.ones(variable.shape))
    optimizer.finalize_variable_values(model.trainable_variables)
    conv, conv_bias, logits, logits_bias = model.get_weights()
    np.testing.assert_array_equal(conv, masks["conv/kernel"])
    np.testing.assert_array_equal(logits, masks["logits/kernel"])
    assert np.all(conv_bias == 1) and np.all(logits_bias == 1)


def test_the_averages_of_weights_that_are_kept_are_written(line):
    masks, model = _masks(line), _model(line)
    optimizer = line.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5)
    masks.enforce(model, optimizer)
    steps = [model.get_weights()]
    for x, y in _batches(3):
        _step(line, model, optimizer, x, y)
        steps.append(model.get_weights())
    optimizer.finalize_variable_values(model.trainable_variables)
    # Keras 3 starts with the weights after the first step.
    average = steps.pop(0)
    if line is keras:
        average = steps[0]
    for weights in steps:
        average = [(a + w) / 2 for a, w in zip(average, weights, strict=True)]
    for expected, got in zip(average, model.get_weights(), strict=True):
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6)


# Muon updates weights whose gradients are 0; Ftrl divides by what it gathers.
@pytest.mark.parametrize("name", ["SGD", "Adam", "Ftrl", "Muon"])
def test_averages_swapped_in_for_evaluation_are_masked(name):
    optimizer = getattr(keras.optimizers, name, None)
    if optimizer is None:
        pytest.skip("an older Keras")
    masks, model = _square_masks(), _square(keras)
    model.compile(optimizer(0.05, use_ema=True), "mse", **EAGERLY)
    _fit(model)
    masks.enforce(model)
    seen = []
    watch = keras.callbacks.LambdaCallback()
    watch.on_test_batch_begin = lambda batch, logs=None: seen.append(
        (common.revived(model, masks), model.get_weights()[0])
    )
    history = _fit(
        model,
        keras.callbacks.SwapEMAWeights(),
        watch,
        epochs=2,
        validation_data=_square_data(),
        validation_batch_size=16,
    )
    assert [revived for revived, _ in seen] == [0, 0]
    assert np.all(np.isfinite(history.history["val_loss"]))
    assert np.any(seen[0][1] != seen[1][1])


# Loss scaling.


def _half_precision_model(line):
    policy = (
        keras.config.dtype_policy()
        if line is keras
        else tf_keras.mixed_precision.global_policy()
    )
    line.mixed_precision.set_global_policy("mixed_float16")
    try:
        return _model(line)
    finally:
        line.mixed_precision.set_global_policy(policy)


@pytest.mark.parametrize("compiled_first", [True, False])
def test_under_mixed_precision_the_scaled_gradients_are_masked(
    line, compiled_first
):
    masks, model = _masks(line), _half_precision_model(line)
    inner = _optimizer(line, "momentum")
    if compiled_first:
        model.compile(inner, _loss(line))
    masks.enforce(model)
    if not compiled_first:
        model.compile(inner, _loss(line))
    optimizer = model.optimizer
    plain = _loss_scale(line, _optimizer(line, "momentum"))
    assert isinstance(optimizer, type(plain))
    assert optimizer.inner_optimizer is inner
    assert _replaced(optimizer) == METHODS[line]
    assert _replaced(inner) == set()
    _train(model, 8)
    _assert_knows_kept_only(optimizer, masks, 1)
    assert common.revived(model, masks) == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_gradients_of_removed_weights_that_are_not_finite_stop_no_update(
    line, bad
):
    masks, model = _square_masks(), _square(line)
    optimizer = _loss_scale(line, line.optimizers.SGD(1.0))
    masks.enforce(model, optimizer)

    def apply(grads):
        grads = map(tf.constant, grads)
        optimizer.apply_gradients(
            zip(grads, model.trainable_variables, strict=True)
        )

    before = model.get_weights()
    grads = [
        np.where(mask, 1, bad).astype("float32") for mask in masks.values()
    ]
    apply(grads)
    for old, new, mask in zip(
        before, model.get_weights(), masks.values(), strict=True
    ):
        np.testing.assert_array_equal(new, np.where(mask, old - 1, 0))
    # One that is kept stops it.
    grads[0][masks["layer0/kernel"]] = bad
    before = model.get_weights()
    apply(grads)
    common.assert_equal(before, model.get_weights())


# Gradients of other kinds.


def _table(line):
    line.utils.set_random_seed(0)
    model = line.Sequential(
        [
            line.Input((3,), dtype="int32"),
            line.layers.Embedding(6, 4, name="table"),
            line.layers.Flatten(name="flatten"),
            line.layers.Dense(3, name="logits"),
        ]
    )
    masks = synflow_tf.compute_masks(
        model, sparsity=0.5, rounds=3, prunable=[line.layers.Embedding]
    )
    assert list(masks) == ["table/embeddings"]
    return model, masks


def test_sparse_gradients_are_masked_as_their_dense_equivalent(line):
    model, masks = _table(line)
    mask, trained = masks["table/embeddings"], model.trainable_variables
    x, y = np.array([[0, 5, 5], [5, 2, 0]]), np.array([1, 2])
    sparse, *others = _gradients(line, model, x, y)
    indices = sparse.indices.numpy()
    assert len(indices) > len(set(indices))
    dense = tf.convert_to_tensor(sparse).numpy()
    assert np.any(dense[mask] != 0) and np.any(dense[~mask] != 0)
    masks.enforce(model)
    values = tf.where(mask[indices], sparse.values, np.nan)
    given = tf.IndexedSlices(values, indices, sparse.dense_shape)
    got, *rest, none = gradients.masked(
        [given, *others, None], [*trained, trained[0]]
    )
    assert isinstance(got, tf.IndexedSlices)
    np.testing.assert_array_equal(got.indices, indices)
    np.testing.assert_array_equal(got.dense_shape, (6, 4))
    np.testing.assert_allclose(
        tf.convert_to_tensor(got), np.where(mask, dense, 0), rtol=1e-6
    )
    # What has no mask, or is no gradient, stays as it is.
    assert all(a is b for a, b in zip(others, rest, strict=True))
    assert none is None


def test_moments_of_removed_entries_of_a_table_stay_0(line):
    model, masks = _table(line)
    optimizer = _optimizer(line, "adam", global_clipnorm=0.1)
    model.compile(optimizer, _loss(line))
    masks.enforce(model)
    rng = np.random.default_rng(0)
    for _ in range(3):
        model.train_on_batch(rng.integers(0, 6, (8, 3)), rng.integers(0, 3, 8))
    _assert_knows_kept_only(model.optimizer, masks, 2)


# Copies and files.


@pytest.mark.parametrize(
    "line, make",
    [
        (keras, keras.optimizers.Adam),
        (tf_keras, tf_keras.optimizers.legacy.Adam),
    ],
)
def test_training_with_a_deep_copy_of_an_optimizer_changes_the_copy_only(
    line, make
):
    masks, model, other = _square_masks(), _square(line), _square(line)
    optimizer = make(0.01)
    model.compile(optimizer, "mse", **EAGERLY)
    masks.enforce(model)
    x, y = _square_data()
    model.train_on_batch(x, y)
    copied = copy.deepcopy(optimizer)
    for name in _replaced(copied):
        assert vars(copied)[name].__self__ is copied
    state = _gathered(optimizer)
    weights, old = model.get_weights(), other.get_weights()
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(tf.square(other(x) - y))
    grads = tape.gradient(loss, other.trainable_variables)
    copied.apply_gradients(zip(grads, other.trainable_variables, strict=True))
    _assert_all_differ(old, other.get_weights())
    common.assert_equal(weights, model.get_weights())
    common.assert_equal(state.values(), _gathered(optimizer).values())


def test_training_a_deep_copy_of_a_model_changes_the_copy_only(line):
    masks, model = _square_masks(), _square(line)
    model.compile(line.optimizers.Adam(0.01), "mse", **EAGERLY)
    masks.enforce(model)
    x, y = _square_data()
    model.train_on_batch(x, y)
    copied = copy.deepcopy(model)
    weights, state = model.get_weights(), _gathered(model.optimizer)
    copied.train_on_batch(x, y)
    _assert_all_differ(weights, copied.get_weights())
    common.assert_equal(weights, model.get_weights())
    common.assert_equal(state.values(), _gathered(model.optimizer).values())


def test_the_configuration_of_an_optimizer_is_that_of_a_plain_one(line):
    optimizer = line.optimizers.Adam(0.01, clipnorm=0.5, use_ema=True)
    plain = optimizer.get_config()
    model = _model(line)
    _masks(line).enforce(model, optimizer)
    assert _replaced(optimizer) == METHODS[line]
    assert optimizer.get_config() == plain
    restored = type(optimizer).from_config(optimizer.get_config())
    assert _replaced(restored) == set()
    assert restored.get_config() == plain
    serialized = line.optimizers.serialize(optimizer)
    assert serialized["class_name"] == "Adam"
    assert "synflow" not in str(serialized)


@pytest.mark.parametrize(
    "line, suffix",
    [
        (keras, ".keras"),
        (tf_keras, ".keras"),
        (tf_keras, ".h5"),
        (tf_keras, ""),
    ],
)
def test_a_saved_model_is_loaded_as_a_plain_one(line, suffix, tmp_path):
    masks, model = _masks(line), _model(line)
    model.compile(line.optimizers.Adam(0.01), _loss(line), **EAGERLY)
    masks.enforce(model)
    x, y = _batches(1)[0]
    model.train_on_batch(x, y)
    path = str(tmp_path / f"model{suffix}")
    model.save(path)
    loaded = line.models.load_model(path)
    assert type(loaded) is type(model)
    assert type(loaded.optimizer) is type(model.optimizer)
    assert _replaced(loaded) == _replaced(loaded.optimizer) == set()
    common.assert_equal(model.get_weights(), loaded.get_weights())
    assert _replaced(model.optimizer) == METHODS[line]
    if not suffix:  # tf_keras gives no moments back from a SavedModel.
        return
    masks.enforce(loaded)
    for each in (model, loaded):
        each.train_on_batch(x, y)
        _assert_knows_kept_only(each.optimizer, masks, 2)
    for a, b in zip(model.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6)


# Release.


def test_release_leaves_no_method_replaced(line):
    masks, model = _masks(line), _model(line)
    model.compile(_optimizer(line, "momentum"), _loss(line), **EAGERLY)
    own = _optimizer(line, "momentum")
    masks.enforce(model, own)
    assert _replaced(model) == {"compile"}
    assert _replaced(model.optimizer) == _replaced(own) == METHODS[line]
    assert masks.release(model, own) is model
    assert _replaced(model) == set()
    assert _replaced(model.optimizer) == _replaced(own) == set()
    _train(model, 3)
    _assert_learns_of_removed(model.optimizer, masks)
    assert common.revived(model, masks) > 0
    model.compile("sgd", _loss(line))
    assert _replaced(model.optimizer) == set()


@pytest.mark.parametrize("in_loop", [False, True])
def test_releasing_some_masks_leaves_others_enforced(line, in_loop):
    model, masks = _model(line), _masks(line)
    released, held = (synflow_tf.Masks({p: masks[p]}) for p in masks)
    optimizer = _optimizer(line, "momentum")
    model.compile(optimizer, _loss(line))
    own = [optimizer] if in_loop else []

    def train(n):
        for x, y in _batches(n):
            if in_loop:
                _step(line, model, optimizer, x, y)
            else:
                model.train_on_batch(x, y)

    released.enforce(model, *own)
    held.enforce(model, *own)
    train(1)
    _assert_knows_kept_only(optimizer, released, 1)
    released.release(model, *own)
    train(3)
    _assert_knows_kept_only(optimizer, held, 1)
    _assert_learns_of_removed(optimizer, released)
    assert common.revived(model, held) == 0
    model.compile(_optimizer(line, "momentum"), _loss(line))
    assert _replaced(model.optimizer) == METHODS[line]
    held.release(model, *own)
    assert _replaced(model) == _replaced(model.optimizer) == set()
    if in_loop:
        assert _replaced(optimizer) == set()


# Optimizers of before Keras 2.11.


@pytest.mark.parametrize(
    "more, compiled_first", [({}, True), ({"clipnorm": 0.05}, False)]
)
def test_removed_weights_stay_0_under_a_legacy_optimizer(more, compiled_first):
    masks, model = _masks(tf_keras), _model(tf_keras)
    optimizer = tf_keras.optimizers.legacy.Adam(0.02, **more)
    if compiled_first:
        model.compile(optimizer, _loss(tf_keras))
        model.train_on_batch(*_batches(1)[0])
    masks.enforce(model)
    if not compiled_first:
        model.compile(optimizer, _loss(tf_keras))
    before = model.get_weights()
    for x, y in _batches(5):
        model.train_on_batch(x, y)
        assert common.revived(model, masks) == 0
    _assert_all_differ(before, model.get_weights())
