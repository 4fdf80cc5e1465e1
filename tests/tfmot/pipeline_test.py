"""`prune_synflow` in a pipeline of tensorflow-model-optimization (tfmot)."""

import fractions
import functools
import json
import pathlib

import common
import keras
import linear
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras

import synflow_tf
from synflow_tf.graph import variables
from synflow_tf.tfmot import prune_synflow

K = tfmot.sparsity.keras
L = tf_keras.layers


def _chain(*layers):
    """Layers one after the other, and a head."""
    head = L.Flatten(), L.Dense(3, name="d")
    return linear.chain(tf_keras, *layers, *head, shape=(8, 8, 1))


def _conv():
    return _chain(
        L.Conv2D(4, 3, activation="relu", name="c1"),
        L.BatchNormalization(name="bn"),
        L.Conv2D(6, 1, name="c2"),
    )


def _sequential():
    return tf_keras.Sequential(
        [L.Flatten(input_shape=(8, 8, 1)), L.Dense(5), L.Dense(3, name="d")]
    )


def _nested():
    layers = L.Flatten(input_shape=(8, 8, 1)), L.Dense(5, name="in")
    return _chain(tf_keras.Sequential(layers, name="inner"))


def _shared():
    shared = L.Dense(64, name="shared")
    return _chain(L.Flatten(), shared, shared)


def _recurrent():
    return _chain(L.Reshape((8, 8)), L.GRU(5, name="gru"))


def _efficient():
    """Depthwise kernels and attention, which tfmot does not hold."""
    inputs = tf_keras.Input((8, 8, 1))
    x = L.SeparableConv2D(4, 3, name="sep")(inputs)
    x = L.DepthwiseConv2D(3, name="depthwise")(x)
    x = L.Reshape((16, 4))(x)
    x = L.MultiHeadAttention(2, 4, name="attention")(x, x)
    return tf_keras.Model(inputs, L.Dense(3, name="d")(L.Flatten()(x)))


SUFFIXES = [".h5", ".keras", ""]
MODELS = [_conv, _sequential, _nested, _shared, _recurrent, _efficient]
# What the wrappers do not hold is said by a warning, tested below.
pytestmark = pytest.mark.filterwarnings("ignore:tfmot's wrappers do not hold")


@pytest.fixture(name="data", scope="module")
def _data():
    rng = np.random.default_rng(0)
    x = rng.random((32, 8, 8, 1)).astype("float32")
    return x, rng.random((32, 3)).astype("float32")


def _fit(model, data, *callbacks, **options):
    return common.fit(
        model, *data, K.UpdatePruningStep(), *callbacks, **options
    )


def _compile(model, optimizer="adam", **kwargs):
    model.compile(optimizer, "mse", **kwargs)
    return model


def _removed(sparsity, size):
    return int(fractions.Fraction(str(sparsity)) * size)


def _check_count(masks, sparsity):
    assert masks.size - masks.kept == _removed(sparsity, masks.size)


def _load(path):
    with K.prune_scope():
        return tf_keras.models.load_model(path)


def _watch(model):
    """The masks that the zeros show after each batch, and the callback."""
    look = functools.partial(synflow_tf.Masks.from_model, model)
    return common.watch(tf_keras, look)


MODES = {
    "plain": {},
    "jit": {"jit_compile": True},
    "steps": {"steps_per_execution": 4},
    "all": {"jit_compile": True, "steps_per_execution": 4},
}
POLICIES = ["float32", "mixed_float16"]


def _mostly_slow(cases, fast):
    """The cases as parameters; those that are not `fast` are marked slow."""
    return [
        pytest.param(*case, marks=[] if case in fast else pytest.mark.slow)
        for case in cases
    ]


def _removed_by_wrappers(model):
    """How many weights the masks in the wrappers remove; each mask is final."""
    held = {}
    for layer in model._flatten_layers():
        if hasattr(layer, "pruning_vars"):
            schedule = layer.pruning_schedule
            assert type(schedule) is K.ConstantSparsity
            assert schedule.begin_step == 2**31 - 1
            for weight, mask, _ in layer.pruning_vars:
                held[weight.name] = mask
    assert held
    return sum(int(np.sum(mask.numpy() == 0)) for mask in held.values())


@pytest.mark.parametrize(
    "make, mode, policy",
    _mostly_slow(
        [
            (make, mode, policy)
            for make in MODELS
            for mode in MODES
            for policy in POLICIES
            # tf_keras does not compile GRU by XLA on a CPU.
            if make is not _recurrent or mode not in ("jit", "all")
        ],
        [
            (_sequential, "plain", "float32"),
            (_shared, "jit", "float32"),
            (_conv, "steps", "float32"),
            (_nested, "all", "mixed_float16"),
        ],
    ),
)
def test_a_pruned_and_trained_model_has_exactly_the_zeros_of_compute_masks(
    make, mode, policy, data
):
    tf_keras.mixed_precision.set_global_policy(policy)
    try:
        model = make()
    finally:
        tf_keras.mixed_precision.set_global_policy("float32")
    masks = synflow_tf.compute_masks(model, 0.7, rounds=10)
    wrapped = prune_synflow(model, 0.7, rounds=10)
    assert synflow_tf.Masks.enforced(wrapped) == masks
    seen, watch = _watch(wrapped)
    _compile(wrapped, **MODES[mode])
    before = [w.numpy() for w in model.trainable_weights]
    _fit(wrapped, data, watch, epochs=2)
    assert len(seen) >= 4
    assert all(found == masks for found in seen)
    assert synflow_tf.Masks.enforced(wrapped) == masks
    removed = _removed_by_wrappers(wrapped)
    if make is not _efficient:
        assert removed == masks.size - masks.kept
    stripped = K.strip_pruning(wrapped)
    assert not [x for x in stripped.layers if isinstance(x, K.PrunableLayer)]
    assert synflow_tf.Masks.from_model(stripped) == masks
    _check_count(masks, 0.7)
    after = [w.numpy() for w in stripped.trainable_weights]
    assert any(np.any(a != b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("make", MODELS)
def test_wrappers_change_neither_paths_nor_scores(make):
    model = make()
    paths = [w.path for w in variables.weights(model)]
    scores = synflow_tf.score(model)
    wrapped = prune_synflow(model, 0.0)
    again = synflow_tf.score(wrapped)
    assert [w.path for w in variables.weights(wrapped)] == paths
    assert list(again) == list(scores)
    common.assert_equal(again.values(), scores.values())


@pytest.mark.parametrize(
    "make, steps",
    _mostly_slow(
        [
            (make, steps)
            for make in (_conv, _nested, _shared, _efficient)
            for steps in (1, 4)
        ],
        [(_conv, 4), (_shared, 1)],
    ),
)
def test_gradual_pruning_is_by_the_schedule_and_by_the_flow(make, steps, data):
    """The same as our callback does to the same model without wrappers."""
    schedule = K.PolynomialDecay(
        0.1, 0.8, begin_step=2, end_step=10, frequency=4
    )
    tf_keras.utils.set_random_seed(0)
    model = make()
    plain = tf_keras.models.clone_model(model)
    plain.set_weights(model.get_weights())
    wrapped = prune_synflow(model, pruning_schedule=schedule, rounds=10)
    assert synflow_tf.Masks.enforced(wrapped).sparsity == 0
    seen, watch = _watch(wrapped)
    _compile(wrapped, tf_keras.optimizers.SGD(0.01), steps_per_execution=steps)
    _fit(wrapped, data, watch, epochs=2, shuffle=False)
    # tfmot counts the first step as 1: it prunes at 2, 6 and 10.
    size = seen[0].size
    targets = [
        _removed(np.float32(schedule(tf.constant(step))[1]), size)
        for step in (2, 6, 10)
    ]
    removed = [size - masks.kept for masks in seen]
    if steps == 1:
        expected = [0] + 4 * targets[:1] + 4 * targets[1:2] + 7 * targets[2:]
    else:
        expected = [*targets, targets[-1]]
    assert removed == expected
    for one, other in zip(seen[:-1], seen[1:], strict=True):
        common.assert_nested(other, one)

    callback = synflow_tf.SynFlowPruning(
        pruning_schedule=lambda step: schedule(step + 1), rounds=10
    )
    _compile(plain, tf_keras.optimizers.SGD(0.01), steps_per_execution=steps)
    _fit(plain, data, callback, epochs=2, shuffle=False)
    assert callback.masks == synflow_tf.Masks.enforced(wrapped)
    stripped = K.strip_pruning(wrapped)
    for one, other in zip(plain.weights, stripped.weights, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_gradual_pruning_takes_callbacks_in_any_form_and_our_schedules(data):
    schedule = synflow_tf.schedules.ExponentialSparsity(0.9, 0, 8, 2)
    wrapped = _compile(prune_synflow(_conv(), pruning_schedule=schedule))
    wrapped.fit(*data, 4, 1, 0, K.UpdatePruningStep())
    masks = synflow_tf.Masks.enforced(wrapped)
    _check_count(masks, 0.9)
    several = tf_keras.callbacks.CallbackList(
        [K.UpdatePruningStep()], model=wrapped, add_history=True
    )
    wrapped.fit(*data, batch_size=4, callbacks=several, verbose=0)
    assert synflow_tf.Masks.enforced(wrapped) == masks


def test_gradual_pruning_outlives_weights_that_are_written_back(data):
    schedule = K.ConstantSparsity(0.9, begin_step=12, frequency=1)
    wrapped = prune_synflow(_conv(), pruning_schedule=schedule, rounds=5)
    _compile(wrapped, tf_keras.optimizers.SGD(0.01))
    # The first epoch counts as the best: its weights are not pruned yet.
    best = tf_keras.callbacks.EarlyStopping(
        "loss", patience=1, mode="max", restore_best_weights=True
    )
    history = _fit(wrapped, data, best, epochs=3)
    assert len(history.epoch) == 2 and best.best_epoch == 0
    masks = synflow_tf.Masks.enforced(wrapped)
    _check_count(masks, 0.9)
    assert synflow_tf.Masks.from_model(wrapped).kept <= masks.kept


def test_pruning_at_once_ends_gradual_pruning(data):
    schedule = K.ConstantSparsity(0.9, begin_step=0, frequency=1)
    wrapped = prune_synflow(_conv(), pruning_schedule=schedule, rounds=5)
    again = prune_synflow(wrapped, 0.5, rounds=5)
    assert again is wrapped
    _fit(_compile(again), data)
    masks = synflow_tf.Masks.enforced(again)
    _check_count(masks, 0.5)


_CONTINUE = """
import json
import sys
import numpy as np
import tensorflow_model_optimization as tfmot
import tf_keras

step = tfmot.sparsity.keras.UpdatePruningStep()
rng = np.random.default_rng(1)
x, y = rng.random((8, 8, 8, 1)), rng.random((8, 3))
for path in sys.argv[1:]:
    with tfmot.sparsity.keras.prune_scope():
        model = tf_keras.models.load_model(path)
    if not model.optimizer:
        model.compile("adam", "mse")
    model.fit(x, y, batch_size=4, epochs=2, callbacks=[step], verbose=0)
    model = tfmot.sparsity.keras.strip_pruning(model)
    kernels = [v.numpy() != 0 for v in model.weights if "kernel" in v.name]
    print(json.dumps([kernel.astype(int).tolist() for kernel in kernels]))
assert "synflow_tf" not in sys.modules
"""


@pytest.mark.parametrize(
    "make, gradual",
    _mostly_slow(
        [(m, False) for m in MODELS if m is not _efficient] + [(_conv, True)],
        [(_conv, True)],
    ),
)
def test_files_go_on_with_the_same_masks_in_a_process_without_us(
    make, gradual, data, tmp_path
):
    amount = {"sparsity": 0.7}
    if gradual:
        schedule = K.PolynomialDecay(0.5, 0.7, 0, 8, frequency=4)
        amount = {"pruning_schedule": schedule}
    wrapped = _compile(prune_synflow(make(), **amount, rounds=5))
    _fit(wrapped, data)
    masks = synflow_tf.Masks.enforced(wrapped)
    _check_count(masks, 0.7)
    paths = [str(tmp_path / f"model{suffix}") for suffix in SUFFIXES]
    for path in paths:
        wrapped.save(path)
    done = common.python("-c", _CONTINUE, *paths)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.strip().splitlines()[-len(SUFFIXES) :]
    for line in lines:
        common.assert_equal(masks.values(), json.loads(line))


@pytest.mark.parametrize(
    "make, suffix",
    _mostly_slow(
        [(make, suffix) for make in MODELS for suffix in SUFFIXES],
        [
            (_conv, ".h5"),
            (_conv, ""),
            (_recurrent, ".keras"),
        ],
    ),
)
def test_a_loaded_model_goes_on_here_and_is_pruned_further(
    make, suffix, data, tmp_path
):
    wrapped = _compile(prune_synflow(make(), 0.6, rounds=5))
    _fit(wrapped, data)
    masks = synflow_tf.Masks.enforced(wrapped)
    path = str(tmp_path / f"model{suffix}")
    wrapped.save(path)
    loaded = _load(path)
    held = synflow_tf.Masks.enforced(loaded)
    assert all(np.array_equal(held[path], masks[path]) for path in held)
    synflow_tf.Masks.from_model(loaded).enforce(loaded)
    assert synflow_tf.Masks.enforced(loaded) == masks
    _fit(loaded, data)
    assert synflow_tf.Masks.from_model(loaded) == masks
    further = prune_synflow(loaded, 0.8, rounds=5)
    assert further is loaded and further.optimizer is not None
    _fit(further, data)
    more = synflow_tf.Masks.from_model(K.strip_pruning(further))
    _check_count(more, 0.8)
    common.assert_nested(more, masks)


def test_gradual_pruning_goes_on_after_loading(data, tmp_path):
    schedule = K.PolynomialDecay(0.0, 0.8, 0, 16, power=1, frequency=4)
    wrapped = _compile(prune_synflow(_conv(), pruning_schedule=schedule))
    _fit(wrapped, data)
    wrapped.save(tmp_path / "half.keras")
    loaded = _load(tmp_path / "half.keras")
    half = synflow_tf.Masks.enforced(loaded)
    _check_count(half, 0.4)
    loaded = prune_synflow(loaded, pruning_schedule=schedule)
    seen, watch = _watch(loaded)
    _fit(loaded, data, watch)
    for masks in seen:
        common.assert_nested(masks, half)
    full = synflow_tf.Masks.enforced(loaded)
    _check_count(full, 0.8)
    common.assert_nested(full, half)


def test_what_tfmot_cannot_hold_is_listed_and_kept_at_0_all_the_same(data):
    with pytest.warns(UserWarning, match="do not hold 6 of the pruned") as seen:
        wrapped = prune_synflow(_efficient(), 0.7)
    text = str(seen[0].message)
    assert "sep/depthwise_kernel" in text
    assert "depthwise/depthwise_kernel" in text
    for part in ("query", "key", "value", "output"):
        assert f"attention/{part}_dense/kernel" in text
    assert seen[0].filename == __file__
    masks = synflow_tf.Masks.enforced(wrapped)
    _compile(wrapped, "sgd")
    _fit(wrapped, data)
    assert synflow_tf.Masks.from_model(wrapped) == masks


def test_a_model_of_which_tfmot_can_hold_nothing_is_pruned_all_the_same(data):
    depthwise = L.DepthwiseConv2D(3, depth_multiplier=3)
    pool = L.GlobalAveragePooling2D()
    model = linear.chain(tf_keras, depthwise, pool, shape=(8, 8, 1))
    schedule = K.ConstantSparsity(0.5, begin_step=3, frequency=1)
    wrapped = _compile(prune_synflow(model, pruning_schedule=schedule))
    seen, watch = _watch(wrapped)
    _fit(wrapped, data, watch)
    size = seen[0].size
    removed = [size - masks.kept for masks in seen]
    assert removed == [0, 0] + 6 * [_removed(0.5, size)]


def test_a_layer_of_two_models_within_has_one_wrapper(data):
    shared = L.Dense(8, name="shared")
    one, other = (
        tf_keras.Sequential([L.InputLayer((8, 8)), shared], name=name)
        for name in ("one", "other")
    )
    model = _chain(L.Reshape((8, 8)), one, other)
    masks = synflow_tf.compute_masks(model, 0.6)
    wrapped = _compile(prune_synflow(model, 0.6))
    around = {
        id(layer)
        for layer in wrapped._flatten_layers()
        if getattr(layer, "layer", None) is shared
    }
    assert len(around) == 1
    _fit(wrapped, data)
    assert synflow_tf.Masks.from_model(K.strip_pruning(wrapped)) == masks


def test_a_policy_says_which_layers_are_pruned(data):
    class Dense(K.PruningPolicy):
        def allow_pruning(self, layer):
            return isinstance(layer, L.Dense)

        def ensure_model_supports_pruning(self, model):
            self.asked = model

    model, policy = _conv(), Dense()
    wrapped = prune_synflow(model, 0.5, pruning_policy=policy)
    assert policy.asked is model
    masks = synflow_tf.Masks.enforced(wrapped)
    assert list(masks) == ["d/kernel"]
    assert masks == synflow_tf.compute_masks(model, 0.5, prunable=L.Dense)
    wrappers = [x.name for x in wrapped.layers if hasattr(x, "pruning_vars")]
    assert wrappers == ["prune_low_magnitude_d"]
    with pytest.raises(ValueError, match="must have weights to prune"):
        prune_synflow(_conv(), 0.5, pruning_policy=policy, prunable="c1")


def test_tfmots_own_policy_allows_1x1_convolutions():
    model = linear.chain(
        tf_keras,
        L.ZeroPadding2D(1),
        L.Conv2D(8, 3, strides=2, padding="valid", name="stem"),
        L.Conv2D(8, 1, name="one"),
        L.GlobalAveragePooling2D(keepdims=True),
        shape=(9, 9, 3),
    )
    policy = K.PruneForLatencyOnXNNPack()
    wrapped = prune_synflow(model, 0.5, pruning_policy=policy)
    assert list(synflow_tf.Masks.enforced(wrapped)) == ["one/kernel"]
    with pytest.raises(ValueError, match="Could not find"):
        prune_synflow(_conv(), 0.5, pruning_policy=policy)


def test_layers_are_scored_in_the_model_that_they_are_part_of(data):
    model = _conv()
    layer = model.get_layer("c2")
    masks = synflow_tf.compute_masks(model, 0.5, prunable="c2")
    wrapper = prune_synflow(layer, 0.5, model=model)
    assert wrapper.layer is layer
    [[weight, mask, _]] = wrapper.pruning_vars
    assert weight is layer.kernel
    np.testing.assert_array_equal(mask, masks["c2/kernel"])
    np.testing.assert_array_equal(layer.kernel != 0, masks["c2/kernel"])

    before = model.get_layer("c1"), model.get_layer("bn")
    _fit(_compile(_chain(*before, wrapper)), data)
    np.testing.assert_array_equal(layer.kernel != 0, masks["c2/kernel"])
    np.testing.assert_array_equal(mask, masks["c2/kernel"])


def test_a_list_of_layers_makes_a_model(data, tmp_path):
    model = _conv()
    masks = synflow_tf.compute_masks(model, 0.8)
    layers = prune_synflow(tuple(model.layers), 0.8, model=model)
    assert layers[0] is not model.layers[0]  # an input belongs to one model
    wrapped = _compile(tf_keras.Sequential(layers))
    assert synflow_tf.Masks.enforced(wrapped) == masks
    _fit(wrapped, data)
    wrapped.save(tmp_path / "model.keras")
    loaded = _load(tmp_path / "model.keras")
    _fit(loaded, data)
    stripped = K.strip_pruning(loaded)
    assert synflow_tf.Masks.from_model(stripped) == masks


@pytest.mark.parametrize("layer", [False, True])
def test_a_model_of_keras_3_is_refused_with_two_ways_out(layer):
    model = synflow_tf.models.fc((8, 8, 1))
    given = model.layers[-1] if layer else model
    with pytest.raises(TypeError) as caught:
        prune_synflow(given, 0.5)
    text = str(caught.value)
    cls = type(given)
    assert f"{cls.__module__}.{cls.__qualname__}" in text
    assert f"Keras 3 ({keras.__version__})" in text
    assert "`synflow_tf.prune(model, ...)`" in text
    assert "build the model with `tf_keras`" in text


def _subclassed():
    x = np.zeros((1, 4), "float32")
    dense = L.Dense(3)
    return linear.net(tf_keras, lambda self, x: self.dense(x), x, dense=dense)


def _magnitude():
    return K.prune_low_magnitude(_conv(), K.ConstantSparsity(0.5, 0))


_MODEL = _conv()
_LAYER = _MODEL.layers[1]
_OF = {"model": _MODEL}
_HALF = {"sparsity": 0.5}
_CONSTANT = K.ConstantSparsity(0.5, 0)
_SCHEDULE = {"pruning_schedule": _CONSTANT}


@pytest.mark.parametrize(
    "to_prune, arguments, error, message",
    [
        (3, _HALF, TypeError, "`to_prune` must be"),
        (_MODEL, {**_HALF, **_SCHEDULE}, ValueError, "Exactly one of"),
        (_MODEL, {"sparsity": _CONSTANT}, ValueError, "`sparsity` must be a n"),
        (_MODEL, {"pruning_schedule": 0.5}, TypeError, "must be a schedule"),
        (_MODEL, {**_HALF, **_OF}, ValueError, "`model` is for layers"),
        (_LAYER, _HALF, ValueError, "`model` must be given with layers"),
        (L.Dense(2), {**_HALF, **_OF}, ValueError, "must have layers of model"),
        (_LAYER, {**_SCHEDULE, **_OF}, ValueError, "schedule` is for models"),
        (
            _subclassed(),
            _HALF,
            ValueError,
            "functional or a sequential.*Net.*synflow_tf.prune",
        ),
        (tf_keras.Sequential([L.Dense(2)]), _HALF, ValueError, "must be built"),
        (_magnitude(), _HALF, ValueError, "magnitude too.*strip_pruning"),
    ],
)
def test_what_cannot_be_pruned_is_an_error_that_says_why(
    to_prune, arguments, error, message
):
    with pytest.raises(error, match=message):
        prune_synflow(to_prune, **arguments)


def test_a_failing_call_changes_nothing():
    model = _compile(_conv())
    model.get_layer("c2").kernel.assign(np.zeros((1, 1, 4, 6)))
    weights = [w.numpy() for w in model.weights]
    layers, optimizer = list(model.layers), model.optimizer
    for amount in (_HALF, _SCHEDULE):
        with pytest.raises(ValueError, match="returns only zeros"):
            prune_synflow(model, **amount)
    common.assert_equal(weights, model.weights)
    assert model.layers == layers and model.optimizer is optimizer
    assert "fit" not in vars(model)
    assert synflow_tf.Masks.enforced(model) is None


def test_release_frees_the_weights_of_a_wrapped_model(data):
    wrapped = _compile(prune_synflow(_conv(), 0.9), "sgd")
    masks = synflow_tf.Masks.enforced(wrapped)
    masks.release(wrapped)
    _fit(wrapped, data)
    assert synflow_tf.Masks.from_model(wrapped).kept > masks.kept


def test_tfmot_still_asks_for_its_callback(data):
    wrapped = _compile(prune_synflow(_sequential(), 0.5))
    with pytest.raises(
        tf.errors.InvalidArgumentError, match="UpdatePruningStep callback"
    ):
        wrapped.fit(*data, verbose=0)


def _scalars(folder):
    """The scalars in TensorBoard's files, as a dict of tag to values."""
    found = {}
    for file in pathlib.Path(folder).rglob("events*"):
        for event in tf.compat.v1.train.summary_iterator(str(file)):
            for value in event.summary.value:
                if value.HasField("tensor"):
                    array = tf.make_ndarray(value.tensor)
                    found.setdefault(value.tag, []).append(array)
    return found


def test_summaries_show_the_sparsity_of_each_layer(data, tmp_path):
    pytest.importorskip("tensorboard")
    wrapped = _compile(prune_synflow(_conv(), 0.7))
    masks = synflow_tf.Masks.enforced(wrapped)
    summaries = K.PruningSummaries(str(tmp_path))
    _fit(wrapped, data, summaries)
    scalars = _scalars(tmp_path)
    for name in ("c1", "c2", "d"):
        [value] = scalars[f"prune_low_magnitude_{name}/mask:0/sparsity"]
        expected = 1 - np.mean(masks[f"{name}/kernel"])
        np.testing.assert_allclose(value, expected, atol=1e-6)


_NO_TENSORBOARD = """
import sys
sys.modules["tensorboard"] = None
import numpy as np
import tensorflow_model_optimization as tfmot
import tf_keras
import synflow_tf
model = synflow_tf.models.fc((8, 8, 1), keras=tf_keras)
model = synflow_tf.tfmot.prune_synflow(model, 0.5, rounds=1)
model.compile("sgd", "mse")
keras = tfmot.sparsity.keras
callbacks = [keras.UpdatePruningStep(), keras.PruningSummaries(sys.argv[1])]
model.fit(np.zeros((4, 8, 8, 1)), np.zeros((4, 10)), callbacks=callbacks)
"""


def test_without_tensorboard_the_summaries_say_so(tmp_path):
    done = common.python("-c", _NO_TENSORBOARD, str(tmp_path))
    assert done.returncode != 0
    assert "TensorBoard is not installed" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, others",
    [("MobileNetV2", 17), ("ResNet50", 0), ("EfficientNetB0", 16)],
)
def test_applications_go_through(name, others, tmp_path):
    model = getattr(tf_keras.applications, name)(
        weights=None, input_shape=(32, 32, 3), classes=10
    )
    masks = synflow_tf.compute_masks(model, 0.9, rounds=5)
    wrapped = prune_synflow(model, 0.9, rounds=5)
    held = sum(
        len(layer.pruning_vars)
        for layer in wrapped.layers
        if hasattr(layer, "pruning_vars")
    )
    assert len(masks) - held == others
    _compile(wrapped, "sgd", steps_per_execution=2)
    x = np.random.default_rng(0).random((8, 32, 32, 3)).astype("float32")
    y = np.eye(10, dtype="float32")[:8]
    _fit(wrapped, (x, y), batch_size=2)
    wrapped.save(tmp_path / "model.keras")
    loaded = _load(tmp_path / "model.keras")
    synflow_tf.Masks.from_model(loaded).enforce(loaded)
    _fit(loaded, (x, y), batch_size=2)
    for trained in (wrapped, loaded):
        stripped = K.strip_pruning(trained)
        assert synflow_tf.Masks.from_model(stripped) == masks
        _check_count(masks, 0.9)
        assert [x.name for x in stripped.layers] == [
            x.name for x in model.layers
        ]
