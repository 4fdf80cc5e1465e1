"""A schedule prunes a model bit by bit while it trains, and nothing revives."""

import warnings

import common
import numpy as np
import pytest
import tensorflow as tf

import synflow_tf
from synflow_tf import schedules

pytestmark = pytest.mark.in_turn

LAYERS = ("a", "b", "c")
SIZES = (6 * 12, 12 * 5, 5 * 3)
SIZE = sum(SIZES)


def _model(line, seed=0, compiled=True, **options):
    """A chain of three kernels, of which a part of the units stays alive."""
    line.utils.set_random_seed(seed)
    model = line.Sequential(
        [
            line.Input((6,)),
            line.layers.Dense(12, "tanh", name="a"),
            line.layers.Dense(5, "tanh", name="b"),
            line.layers.Dense(3, name="c"),
        ]
    )
    if compiled:
        loss = line.losses.MeanSquaredError()
        # Its momentum would revive what is not held at 0.
        optimizer = line.optimizers.SGD(0.05, momentum=0.9)
        model.compile(optimizer, **{"loss": loss, **options})
    return model


def _data(n=10):
    rng = np.random.default_rng(0)
    return rng.normal(size=(n, 6)), rng.normal(size=(n, 3))


def _pruning(schedule, rounds=3, **options):
    return synflow_tf.SynFlowPruning(
        pruning_schedule=schedule, rounds=rounds, **options
    )


def _kernels(model):
    return {f"{x}/kernel": model.get_layer(x).get_weights()[0] for x in LAYERS}


def _flat(arrays):
    return np.concatenate([array.ravel() for array in arrays.values()])


def _steps_done(model):
    return int(model.optimizer.iterations.numpy())


class _Record:
    """The kernels after each batch, by the number of the step it took."""

    def __init__(self, line, model):
        self.line, self.model = line, model
        self.before, self.kernels, self.masks = [], {}, {}

    def _begin(self, batch, logs=None):
        enforced = synflow_tf.Masks.enforced(self.model)
        self.before.append(
            (_steps_done(self.model), self.model.get_weights(), enforced)
        )

    def _end(self, batch, logs=None):
        step = _steps_done(self.model) - 1
        self.kernels[step] = _flat(_kernels(self.model))
        self.masks[step] = synflow_tf.Masks.enforced(self.model)

    def fit(self, *callbacks, epochs=6):
        """Trains 3 batches an epoch, of which the last is a partial one."""
        make = self.line.callbacks.LambdaCallback
        first = make(on_train_batch_begin=self._begin)
        last = make(on_train_batch_end=self._end)
        callbacks = [first, *callbacks, last]
        common.fit(self.model, *_data(), *callbacks, epochs=epochs)
        return self

    def check(self, sparsity_at, begin, end, frequency):
        """Checks what was recorded against a schedule of the steps."""
        assert self.kernels
        removed, dead = 0, np.zeros(SIZE, bool)
        for step in range(max(self.kernels) + 1):
            if begin <= step <= end and (step - begin) % frequency == 0:
                density = 1 - sparsity_at(step)
                removed = int((1 - density) * SIZE)
            if step not in self.kernels:
                continue
            zeros = self.kernels[step] == 0
            assert np.count_nonzero(zeros) == removed, step
            assert np.all(zeros[dead]), step
            np.testing.assert_array_equal(_flat(self.masks[step]), ~zeros)
            if step - 1 in self.kernels:
                kept = ~zeros
                change = self.kernels[step] != self.kernels[step - 1]
                assert np.count_nonzero(change & kept) > 0.5 * kept.sum(), step
            dead = zeros


def _linear(begin=2, end=14, frequency=3):
    schedule = schedules.LinearSparsity(0.9, begin, end, frequency)

    def sparsity_at(step):
        return 0.9 * (step - begin) / (end - begin)

    return schedule, (sparsity_at, begin, end, frequency)


def _exponential():
    schedule = schedules.ExponentialSparsity(0.9, 1, 13, 4)
    return schedule, (lambda step: 1 - 0.1 ** ((step - 1) / 12), 1, 13, 4)


def _polynomial():
    # Within the test, since the import says what `tf.keras` is.
    import tensorflow_model_optimization as tfmot

    schedule = tfmot.sparsity.keras.PolynomialDecay(
        0.1, 0.8, begin_step=2, end_step=12, power=3, frequency=2
    )

    def sparsity_at(step):
        return 0.8 - 0.7 * (1 - (step - 2) / 10) ** 3

    return schedule, (sparsity_at, 2, 12, 2)


def _constant():
    import tensorflow_model_optimization as tfmot

    schedule = tfmot.sparsity.keras.ConstantSparsity(
        0.7, begin_step=3, end_step=-1, frequency=4
    )
    return schedule, (lambda step: 0.7, 3, 10**9, 4)


@pytest.mark.parametrize(
    "made", [_linear, _exponential, _polynomial, _constant]
)
def test_the_sparsity_after_each_step_is_what_the_schedule_said(line, made):
    schedule, expected = made()
    pruning = _pruning(schedule)
    record = _Record(line, _model(line)).fit(pruning)
    assert list(record.kernels) == list(range(18))
    record.check(*expected)
    assert pruning.masks == record.masks[17]


def _numpy_scores(kernels):
    """|w| dR/d|w| of a chain of kernels, R the flow of ones through it."""
    a, b, c = (np.abs(kernels[f"{x}/kernel"]).astype(float) for x in LAYERS)
    first, last = np.ones(6), np.ones(3)
    flows = {
        "a": a * np.outer(first, b @ c @ last),
        "b": b * np.outer(first @ a, c @ last),
        "c": c * np.outer(first @ a @ b, last),
    }
    return _flat(flows)


def test_the_weights_of_the_moment_decide_what_is_removed(line):
    schedule, (sparsity_at, *_) = _linear()
    pruning = _pruning(schedule, rounds=1)
    record = _Record(line, _model(line)).fit(pruning)
    copy = _model(line, compiled=False)
    as_at_first = 0
    first = _numpy_scores(_kernels(copy))
    for step, weights, enforced in record.before:
        if step not in (5, 8, 11, 14):
            continue
        copy.set_weights(weights)
        alive = _flat(enforced)
        count = int(sparsity_at(step) * SIZE)
        kept = _lowest_removed(_numpy_scores(_kernels(copy)), alive, count)
        np.testing.assert_array_equal(_flat(record.masks[step]), kept)
        as_at_first += np.array_equal(
            kept, _lowest_removed(first, alive, count)
        )
    assert as_at_first < 4


def _lowest_removed(scores, alive, count):
    """What is kept after removing the lowest of those that are alive."""
    kept = np.ones(SIZE, bool)
    order = np.argsort(np.where(alive, scores, -1), kind="stable")
    kept[order[:count]] = False
    return kept


@pytest.mark.parametrize("batches", [8, 10])
def test_a_call_of_several_steps_is_pruned_before_it_and_traced_once(
    line, batches
):
    seen, traces = [], []

    def loss(y, predicted):
        # The weights that each step sees, also within a call.
        kernels = [model.get_layer(x).kernel for x in LAYERS]
        flat = [tf.reshape(tf.convert_to_tensor(k), [-1]) for k in kernels]
        look = tf.numpy_function(
            lambda value: seen.append(value == 0), [tf.concat(flat, 0)], []
        )
        traces.append(1)
        with tf.control_dependencies([look]):
            return tf.reduce_mean(tf.square(tf.cast(y, tf.float32) - predicted))

    model = _model(line, loss=loss, steps_per_execution=4, jit_compile=False)
    schedule, (sparsity_at, *_) = _linear(begin=0, end=20, frequency=5)
    pruning = _pruning(schedule)
    after, check = common.watch(line, lambda: (_steps_done(model), len(traces)))
    data = _data(2 * batches)
    common.fit(model, *data, pruning, check, batch_size=2, epochs=3)
    steps = 3 * batches
    assert len(seen) == steps
    for step, zeros in enumerate(seen):
        # The last event of the call that the step is in.
        start = step // batches * batches
        end = min((step - start) // 4 * 4 + 4, batches) + start
        event = min((end - 1) // 5 * 5, 20)
        density = 1 - sparsity_at(event)
        assert np.count_nonzero(zeros) == int((1 - density) * SIZE), step
        assert np.all(zeros[seen[max(step - 1, 0)]]), step
    ends, traced = zip(*after, strict=True)
    assert ends[-1] == steps and len(ends) == 3 * -(-batches // 4)
    # There are events in later calls than the first ones as well.
    assert len(set(traced[3:])) == 1


def test_a_callback_goes_on_in_later_fits_and_begins_with_another_model(line):
    schedule, expected = _linear()
    scorer = common.Counting()
    pruning = _pruning(schedule, scorer=scorer)
    record = _Record(line, _model(line))
    with warnings.catch_warnings():
        # That nothing was pruned would be a wrong one.
        warnings.simplefilter("error", UserWarning)
        record.fit(pruning, epochs=3)
        assert 0 < pruning.masks.sparsity < 0.9
        record.fit(pruning, epochs=3)
        scored = scorer.calls
        record.fit(pruning, epochs=2)
    assert list(record.kernels) == list(range(24))
    record.check(*expected)
    assert scorer.calls == scored
    last = pruning.masks
    assert last == record.masks[17] == record.masks[23]
    other = _Record(line, _model(line, seed=1)).fit(pruning)
    other.check(*expected)
    assert other.masks[17] != last
    assert synflow_tf.Masks.enforced(record.model) == last


class _InterruptionError(Exception):
    pass


@pytest.mark.parametrize(
    "backup_first, save_freq", [(True, "epoch"), (False, "epoch"), (False, 2)]
)
def test_a_run_that_was_interrupted_goes_on_at_its_step(
    line, backup_first, save_freq, tmp_path
):
    schedule, expected = _linear()

    def callbacks():
        backup = line.callbacks.BackupAndRestore(
            str(tmp_path / "backup"), save_freq=save_freq
        )
        pruning = _pruning(schedule)
        return [backup, pruning] if backup_first else [pruning, backup]

    def interrupt(batch, logs=None):
        if len(first.kernels) == 11:
            raise _InterruptionError

    first = _Record(line, _model(line))
    stop = line.callbacks.LambdaCallback(on_train_batch_begin=interrupt)
    with pytest.raises(_InterruptionError):
        first.fit(*callbacks(), stop)
    assert list(first.kernels) == list(range(11))
    # Other initial weights: what it goes on with comes from the backup.
    second = _Record(line, _model(line, seed=1)).fit(*callbacks())
    start = {"epoch": 9, 2: 10}[save_freq]
    assert min(second.kernels) == start
    second.check(*expected)
    assert max(second.kernels) >= 17
    before = first.kernels[start - 1] == 0
    assert before.sum() > 0
    assert all(np.all(k[before] == 0) for k in second.kernels.values())


def test_best_weights_of_before_are_masked_by_a_callback_that_is_listed_last(
    line,
):
    schedule, (sparsity_at, *_) = _linear()
    pruning = _pruning(schedule)
    # The first epoch counts as the best; it was less sparse.
    stopping = line.callbacks.EarlyStopping(
        "loss", mode="max", patience=4, restore_best_weights=True
    )
    record = _Record(line, _model(line)).fit(stopping, pruning, epochs=9)
    assert list(record.kernels) == list(range(15))
    last = record.masks[14]
    assert last.size - last.kept == int(sparsity_at(14) * SIZE)
    best = np.where(_flat(last), record.kernels[2], 0)
    np.testing.assert_array_equal(_flat(_kernels(record.model)), best)
    assert np.count_nonzero(record.kernels[2] == 0) < last.size - last.kept


def test_a_schedule_that_asks_for_nothing_in_a_fit_warns(line):
    pruning = _pruning(schedules.LinearSparsity(0.9, 100, 200))
    with pytest.warns(UserWarning, match="Nothing was pruned: the schedule"):
        record = _Record(line, _model(line)).fit(pruning, epochs=1)
    record.check(lambda step: 0, 100, 200, 100)
    assert pruning.masks.kept == SIZE


@pytest.mark.parametrize("from_step", [0, 4])
def test_a_sparsity_that_is_none_is_refused_and_changes_no_weight(
    line, from_step
):
    def schedule(step):
        bad = tf.cast(step >= from_step, tf.float32)
        return tf.constant(True), 0.5 + bad

    model = _model(line)
    record = _Record(line, model)
    before = model.get_weights()
    with pytest.raises(ValueError, match=r"sparsities in \[0, 1\).*1.5 at st"):
        record.fit(_pruning(schedule))
    assert _steps_done(model) == from_step
    if from_step:
        step, before, enforced = record.before[-1]
        assert step == from_step
        assert synflow_tf.Masks.enforced(model) == enforced
        assert enforced.kept == SIZE - int(0.5 * SIZE)
    common.assert_equal(before, model.get_weights())


def test_a_schedule_whose_sparsity_falls_gives_no_weight_back(line):
    def schedule(step):
        return tf.constant(True), 0.8 - 0.1 * tf.cast(step, tf.float32) / 3

    pruning = _pruning(schedule)
    record = _Record(line, _model(line)).fit(pruning, epochs=3)
    record.check(lambda step: 0.8, 0, 0, 1)


def test_with_the_local_scope_each_kernel_follows_the_schedule(line):
    schedule, (sparsity_at, begin, end, frequency) = _linear()
    pruning = _pruning(schedule, scope="local")
    record = _Record(line, _model(line)).fit(pruning)
    for step, masks in record.masks.items():
        event = min(step, end)
        event -= (event - begin) % frequency
        density = 1 - sparsity_at(event) if step >= begin else 1
        for path, mask in masks.items():
            removed = int((1 - density) * mask.size)
            assert np.count_nonzero(~mask) == removed, (step, path)
        zeros = record.kernels[step] == 0
        np.testing.assert_array_equal(zeros, ~_flat(masks))
    assert len(record.masks) == 18


@pytest.mark.parametrize("min_kept", [0, 1])
def test_min_kept_weights_of_each_kernel_are_left_at_each_step(line, min_kept):
    def uneven():
        # Beside a skip connection a kernel of small weights empties first.
        line.utils.set_random_seed(0)
        inputs = line.Input((6,))
        small = line.initializers.RandomUniform(1e-6, 1e-5)
        x = line.layers.Dense(6, name="a", kernel_initializer=small)(inputs)
        x = line.layers.Add()([inputs, x])
        x = line.layers.Dense(10, name="b")(x)
        model = line.Model(inputs, line.layers.Dense(3, name="c")(x))
        model.compile(line.optimizers.SGD(1e-6), "mse")
        return model

    record = _Record(line, uneven())
    pruning = _pruning(_linear()[0], min_kept=min_kept)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        record.fit(pruning)
    least = [
        min(np.count_nonzero(mask) for mask in masks.values())
        for masks in record.masks.values()
    ]
    assert least[-1] == min(least) == min_kept
    size = pruning.masks.size
    assert pruning.masks.kept == size - int(0.9 * size)
    zeros = _flat(_kernels(record.model)) == 0
    np.testing.assert_array_equal(zeros, ~_flat(pruning.masks))


@pytest.mark.parametrize("amount", ["pruning_schedule", "sparsity"])
def test_only_what_is_prunable_is_pruned_beside_masks_of_others(line, amount):
    model = _model(line)
    synflow_tf.prune(model, sparsity=0.5, rounds=3, prunable="a")
    asked = {"pruning_schedule": _linear()[0], "sparsity": 0.9}[amount]
    pruning = synflow_tf.SynFlowPruning(
        **{amount: asked}, rounds=3, prunable="b"
    )
    record = _Record(line, model).fit(pruning)
    assert list(pruning.masks) == ["b/kernel"]
    for masks in record.masks.values():
        assert list(masks) == ["a/kernel", "b/kernel"]
    zeros = [np.count_nonzero(k == 0) for k in _kernels(model).values()]
    assert zeros == [36, 54, 0]


def test_pruning_further_is_strictly_nested_also_where_scores_are_0(line):
    model = _model(line, compiled=False)
    layer = model.get_layer("c")
    kernel, bias = layer.get_weights()
    # The smallest weights come last in the order, and are removed first.
    kernel[0, :2] *= 1e-6
    layer.set_weights([kernel, bias])
    first = synflow_tf.prune(model, sparsity=0.02, rounds=1)
    assert list(first["c/kernel"][0]) == [False, False, True]
    # From three units nothing goes on: weights that are kept score 0 as those
    # that are removed, and come before them in the order.
    layer = model.get_layer("b")
    kernel, bias = layer.get_weights()
    kernel[:3] = 0
    layer.set_weights([kernel, bias])
    unscored = _numpy_scores(_kernels(model)) == 0
    assert np.count_nonzero(unscored & _flat(first)) == 3 * 6 + 3 * 5
    previous = first
    for sparsity in (0.03, 0.05, 0.3, 0.6, 0.9):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            masks = synflow_tf.prune(model, sparsity, rounds=4)
        assert masks.kept == SIZE - int(sparsity * SIZE)
        common.assert_nested(masks, previous)
        assert synflow_tf.Masks.enforced(model) == masks
        previous = masks


def _pruned_and_changed(line):
    """A pruned model whose kept weights have changed since, and its masks."""
    model = _model(line, compiled=False)
    masks = synflow_tf.prune(model, sparsity=0.8, rounds=4)
    rng = np.random.default_rng(1)
    model.set_weights([rng.normal(size=w.shape) for w in model.get_weights()])
    masks.apply(model)
    return model, masks


def test_pruning_less_is_refused_and_the_same_again_changes_nothing(line):
    model, masks = _pruned_and_changed(line)
    before = [weight.tobytes() for weight in model.get_weights()]

    def assert_unchanged():
        assert synflow_tf.Masks.enforced(model) == masks
        assert [w.tobytes() for w in model.get_weights()] == before

    assert synflow_tf.prune(model, sparsity=0.8, rounds=4) == masks
    assert_unchanged()
    way_out = r"`synflow_tf\.Masks\.enforced\(model\)\.release\(model\)`"
    for call in (
        lambda: synflow_tf.prune(model, sparsity=0.5, rounds=4),
        lambda: synflow_tf.prune(model, compression=2, rounds=4),
        lambda: synflow_tf.compute_masks(model, sparsity=0.79),
    ):
        with pytest.raises(ValueError, match=way_out):
            call()
        assert_unchanged()
    synflow_tf.Masks.enforced(model).release(model)
    assert synflow_tf.Masks.enforced(model) is None
    again = synflow_tf.prune(model, sparsity=0.5, rounds=4)
    assert again.kept == SIZE - int(0.5 * SIZE)
    assert synflow_tf.Masks.enforced(model) == again


def test_values_written_over_removed_weights_do_not_count_when_pruned_further(
    line,
):
    model, _ = _pruned_and_changed(line)
    expected = synflow_tf.compute_masks(model, sparsity=0.9, rounds=4)
    for name in LAYERS:
        kernel = model.get_layer(name).kernel
        kernel.assign(np.where(kernel.numpy() == 0, 100.0, kernel.numpy()))
    assert not np.any(_flat(_kernels(model)) == 0)
    assert synflow_tf.compute_masks(model, sparsity=0.9, rounds=4) == expected


def test_rounds_that_ask_for_no_more_than_is_removed_are_not_in_the_history(
    line,
):
    model = _model(line, compiled=False)
    begun = SIZE - synflow_tf.prune(model, sparsity=0.5, rounds=2).kept
    masks = synflow_tf.compute_masks(model, sparsity=0.9, rounds=10)
    removed = [int((1 - 0.1 ** (t / 10)) * SIZE) for t in range(1, 11)]
    expected = [SIZE - count for count in removed if count > begun]
    assert 0 < len(expected) < 10
    assert [entry.kept for entry in masks.history] == expected
