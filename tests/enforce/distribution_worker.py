"""One process of a distributed training, started by workers_test.py.

    python distribution_worker.py SCENARIO LINE FOLDER

It trains and writes down what the weights were; the test judges.
"""

import itertools
import json
import os
import pathlib
import signal
import sys
import time
import traceback

import common
import keras
import numpy as np
import tensorflow as tf
import tf_keras

import synflow_tf
from synflow_tf.graph import variables

LINES = {"keras": keras, "tf_keras": tf_keras}
# What is pruned in all scenarios.
PRUNING = {"compression": 10, "rounds": 20, "progress": False}
SCHEDULE = synflow_tf.schedules.ExponentialSparsity(
    0.9, begin_step=0, end_step=6, frequency=2
)
EPOCHS = 2
STEPS = 4  # in an epoch
_ADAM = ("Adam", {"learning_rate": 0.01, "global_clipnorm": 0.1})
_MOMENTUM = (
    "SGD",
    {"learning_rate": 0.1, "momentum": 0.9, "global_clipnorm": 0.1},
)
_EMA = {"use_ema": True, "ema_momentum": 0.5}
# Of each case: when the model is pruned, the optimizer, arguments of
# `compile`, and the dtype policy.
CASES = {
    "adam_compiled_first": ("compiled first", _ADAM, {}, None),
    "adam_pruned_first": ("pruned first", _ADAM, {}, None),
    "momentum_compiled_first": ("compiled first", _MOMENTUM, {}, None),
    "momentum_pruned_first": ("pruned first", _MOMENTUM, {}, None),
    "callback": ("callback", _ADAM, {}, None),
    "gradual_callback": ("gradual callback", _ADAM, {}, None),
    "mixed_float16": ("pruned first", _ADAM, {}, "mixed_float16"),
}
# Of each mode: arguments of Adam, and of `compile`.
MODES = {
    "ema": (_EMA, {}),
    "ema_overwrite_frequency": ({**_EMA, "ema_overwrite_frequency": 2}, {}),
    "gradient_accumulation": ({"gradient_accumulation_steps": 2}, {}),
    "jit_compile": ({}, {"jit_compile": True}),
    "steps_per_execution": ({}, {"steps_per_execution": 2}),
}
# What fails under `MirroredStrategy` without us as well, and its error.
IMPOSSIBLE = {
    ("keras", "ema_overwrite_frequency"): "`merge_call` called while defining",
    ("keras", "gradient_accumulation"): "`merge_call` called while defining",
    ("keras", "jit_compile"): "tfvariable_on_a_different_device",
    ("keras", "steps_per_execution"): "while/cond/Placeholder",
    ("tf_keras", "gradient_accumulation"): "is not a valid argument",
    ("tf_keras", "jit_compile"): "tfvariable_on_a_different_device",
}


def make_model(line, policy=None, conv=None, dense=None):
    """A model with a convolution, a normalization and dense layers.

    Args:
        line: the module `keras` or `tf_keras`.
        policy: str, a dtype policy.
        conv: class of the convolution, or None for Keras's own.
        dense: class of the dense layers, likewise.
    """
    line.utils.set_random_seed(0)
    layers = line.layers
    dense = dense or layers.Dense
    return line.Sequential(
        [
            line.Input((8, 8, 1)),
            (conv or layers.Conv2D)(8, 3, dtype=policy, name="conv"),
            layers.BatchNormalization(dtype=policy, name="bn"),
            layers.ReLU(dtype=policy, name="relu"),
            layers.Flatten(name="flatten"),
            dense(10, dtype=policy, name="hidden"),
            dense(10, dtype=policy, name="middle"),
            dense(10, dtype="float32", name="logits"),
        ]
    )


def _data():
    rng = np.random.default_rng(0)
    images = rng.normal(size=(64, 8, 8, 1)).astype("float32")
    labels = rng.integers(0, 10, 64)
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = (
        tf.data.experimental.AutoShardPolicy.DATA
    )
    data = tf.data.Dataset.from_tensor_slices((images, labels))
    return data.batch(64 // STEPS).with_options(options)


def _compile(line, strategy, model, how):
    _, (optimizer, arguments), options, _ = how
    with strategy.scope():
        model.compile(
            getattr(line.optimizers, optimizer)(**arguments),
            line.losses.SparseCategoricalCrossentropy(from_logits=True),
            **options,
        )


def _replicas(strategy, model):
    """The value of each weight on each replica here, a dict of lists."""
    found = {}
    for weight in variables.weights(model):
        variable = weight.variable
        if not isinstance(variable, tf.distribute.DistributedValues):
            variable = variable.value  # of Keras 3
        values = strategy.experimental_local_results(variable)
        found[weight.path] = [value.numpy() for value in values]
    return found


def _save_replicas(file, strategy, model):
    arrays = {
        f"{path}|{i}": value
        for path, values in _replicas(strategy, model).items()
        for i, value in enumerate(values)
    }
    np.savez(file, **arrays)


def _save_json(file, **values):
    file.write_text(json.dumps(values))


class _Record:
    """Writes down what a training does to removed weights, from its begin.

    Attributes:
        scorer: what to score with, which counts how often it does.
        revived: list of int, what `look` has found.
    """

    def __init__(self, strategy, model, folder, index=""):
        self._strategy, self._model = strategy, model
        self._folder, self._index = folder, index
        self.scorer, self.revived = common.Counting(), []
        np.savez(self._file("before", ".npz"), *model.get_weights())

    def _file(self, name, suffix=""):
        return self._folder / f"{name}{self._index}{suffix}"

    def look(self, masks):
        """Counts the removed weights that are not 0, on all replicas here."""
        replicas = _replicas(self._strategy, self._model)
        revived = [
            np.count_nonzero(value[~mask])
            for path, mask in masks.items()
            for value in replicas[path]
        ]
        self.revived.append(int(sum(revived)))

    def save(self, masks):
        """Writes down the masks, the weights and what was counted."""
        masks.save(self._file("masks"))
        file = self._file("after", ".npz")
        _save_replicas(file, self._strategy, self._model)
        _save_json(
            self._file("report", ".json"),
            revived=self.revived,
            calls=self.scorer.calls,
            runs=self.scorer.runs,
        )


def _watch(line, begin=lambda: None, end=lambda: None):
    """A callback that calls functions as a batch begins and ends."""
    return line.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs: begin(),
        on_train_batch_end=lambda batch, logs: end(),
    )


def mirrored(line, folder):
    """Trains each of `CASES` on two devices."""
    strategy = _two_devices()
    for case, how in CASES.items():
        _attempt(_train_mirrored, line, strategy, how, folder / case)
    case = "momentum_pruned_first"
    _attempt(_masked_forward, line, strategy, CASES[case], folder / case)
    case = "adam_pruned_first"
    _attempt(_unnamed, line, strategy, CASES[case], folder / "unnamed")


def modes(line, folder):
    """Trains in each of `MODES` on two devices, or fails to without us."""
    strategy = _two_devices()
    for mode, (arguments, options) in MODES.items():
        how = ("compiled first", ("Adam", arguments), options, None)
        possible = (line.__name__, mode) not in IMPOSSIBLE
        train = _train_mirrored if possible else _train_without_us
        _attempt(train, line, strategy, how, folder / mode)


def _attempt(train, line, strategy, how, folder):
    """Trains, or writes down why not, so that the next can be trained."""
    folder.mkdir(exist_ok=True)
    try:
        train(line, strategy, how, folder)
    except Exception:
        (folder / "error.txt").write_text(traceback.format_exc())


def _two_devices():
    # Before TensorFlow has started, which is when it takes them.
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()] * 2,
    )
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def _train_without_us(line, strategy, how, folder):
    with strategy.scope():
        model = make_model(line)
    _compile(line, strategy, model, how)
    model.fit(_data(), epochs=EPOCHS, verbose=0)
    (folder / "trained").touch()


def _train_mirrored(line, strategy, how, folder):
    when, *_, policy = how
    with strategy.scope():
        model = make_model(line, policy)
    record = _Record(strategy, model, folder)
    if when != "pruned first":
        _compile(line, strategy, model, how)
    if when == "callback":
        pruning = synflow_tf.SynFlowPruning(**PRUNING, scorer=record.scorer)
    elif when == "gradual callback":
        pruning = _gradual_pruning()
    else:
        pruning = line.callbacks.Callback()
        pruning.masks = synflow_tf.prune(model, **PRUNING, scorer=record.scorer)
    if when == "pruned first":
        _compile(line, strategy, model, how)
    steps = itertools.count()

    def before_pruning():
        step = next(steps)
        np.savez(folder / f"step{step}.npz", *model.get_weights())
        pruning.masks.save(folder / f"step{step}.masks")

    def look():
        record.look(pruning.masks)

    callbacks = [pruning, _watch(line, look, look)]
    if when == "gradual callback":
        callbacks.insert(0, _watch(line, before_pruning))
    model.fit(_data(), epochs=EPOCHS, callbacks=callbacks, verbose=0)
    record.save(pruning.masks)


def _gradual_pruning():
    return synflow_tf.SynFlowPruning(
        pruning_schedule=SCHEDULE, rounds=PRUNING["rounds"]
    )


def _unnamed(line, strategy, how, folder):
    """Trains by an optimizer that `enforce` was not told of."""
    _, (optimizer, arguments), *_ = how
    with strategy.scope():
        model = make_model(line)
        optimizer = getattr(line.optimizers, optimizer)(**arguments)
        optimizer.build(model.trainable_variables)
    record = _Record(strategy, model, folder)
    masks = synflow_tf.prune(model, **PRUNING)
    _loop(strategy, model, optimizer, EPOCHS, lambda: record.look(masks))
    record.save(masks)


def _masked_forward(line, strategy, how, folder):
    """Trains without us, with the masks inside the forward pass."""
    masks = synflow_tf.Masks.load(folder / "masks")

    class Conv(line.layers.Conv2D):
        def convolution_op(self, inputs, kernel):
            return super().convolution_op(inputs, kernel * _mask(self))

    class Dense(line.layers.Dense):
        def call(self, inputs):
            return tf.matmul(inputs, self.kernel * _mask(self)) + self.bias

    def _mask(layer):
        return masks[f"{layer.name}/kernel"].astype("float32")

    with strategy.scope():
        model = make_model(line, conv=Conv, dense=Dense)
    _compile(line, strategy, model, how)
    model.fit(_data(), epochs=EPOCHS, verbose=0)
    _save_replicas(folder / "masked_forward.npz", strategy, model)


def _worker(line):
    """The index of this worker, the strategy, a model and an optimizer."""
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    index = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
    with strategy.scope():
        model = make_model(line)
        if line is keras:
            optimizer = line.optimizers.Adam(**_ADAM[1])
            optimizer.build(model.trainable_variables)
            return index, strategy, model, optimizer
    _compile(line, strategy, model, CASES["adam_compiled_first"])
    return index, strategy, model, model.optimizer


def _train(line, strategy, model, optimizer, epochs, after_step):
    """Trains a model on all workers: tf_keras by `fit`, Keras 3 in a loop."""
    if line is tf_keras:
        callback = _watch(line, end=after_step)
        model.fit(_data(), epochs=epochs, callbacks=[callback], verbose=0)
    else:
        _loop(strategy, model, optimizer, epochs, after_step)


def _loop(strategy, model, optimizer, epochs, after_step):
    """Trains a model on all replicas, without `fit`."""

    def step(images, labels):
        with tf.GradientTape() as tape:
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
                labels, model(images, training=True)
            )
            mean = tf.reduce_mean(losses) / strategy.num_replicas_in_sync
        gradients = tape.gradient(mean, model.trainable_variables)
        pairs = zip(gradients, model.trainable_variables, strict=True)
        optimizer.apply_gradients(pairs)

    @tf.function
    def run(images, labels):
        strategy.run(step, (images, labels))

    shares = strategy.experimental_distribute_dataset(_data())
    for _ in range(epochs):
        for images, labels in shares:
            run(images, labels)
            after_step()


def train(line, folder):
    """Prunes and trains on several workers, until one of them is killed."""
    index, strategy, model, optimizer = _worker(line)
    record = _Record(strategy, model, folder, index)
    masks = synflow_tf.compute_masks(model, **PRUNING, scorer=record.scorer)
    masks.enforce(model, optimizer)

    def after_step():
        record.look(masks)
        steps = len(record.revived)
        if steps == EPOCHS * STEPS:
            record.save(masks)
        elif steps == EPOCHS * STEPS + 6 and _is_victim(index):
            os.kill(os.getpid(), signal.SIGKILL)

    _train(line, strategy, model, optimizer, 1_000_000, after_step)


def gradual(line, folder):
    """Prunes bit by bit, while it trains on several workers by `fit`."""
    index, strategy, model, _ = _worker(line)
    record = _Record(strategy, model, folder, index)
    pruning = _gradual_pruning()
    watch = _watch(line, end=lambda: record.look(pruning.masks))
    callbacks = [pruning, watch]
    model.fit(_data(), epochs=EPOCHS, callbacks=callbacks, verbose=0)
    record.save(pruning.masks)


def differ(line, folder):
    """Enforces masks that differ from those of the other worker."""
    index, _, model, optimizer = _worker(line)
    rng = np.random.default_rng(index)
    values = synflow_tf.Masks.from_model(model).items()
    masks = synflow_tf.Masks(
        {path: rng.random(mask.shape) < 0.5 for path, mask in values}
    )
    # The same bits, but of another weight.
    path = ("middle/kernel", "logits/kernel")[index]
    elsewhere = synflow_tf.Masks({path: np.eye(10)})
    error = _refused(folder, f"elsewhere{index}", elsewhere, model, optimizer)
    if error is None:
        elsewhere.release(model, optimizer)
    raise _refused(folder, f"random{index}", masks, model, optimizer)


def _refused(folder, name, masks, model, optimizer):
    """The error that `enforce` raises, or None; writes down what it left."""
    error = None
    np.savez(folder / f"before_{name}.npz", *model.get_weights())
    start = time.monotonic()
    try:
        masks.enforce(model, optimizer)
    except ValueError as raised:
        error = raised
    seconds = time.monotonic() - start
    np.savez(folder / f"after_{name}.npz", *model.get_weights())
    _save_json(
        folder / f"{name}.json",
        error=str(error),
        seconds=seconds,
        enforced=synflow_tf.Masks.enforced(model) is not None,
        ended=time.time(),
    )
    return error


def killed_before_enforcing(line, folder):
    """Waits to be killed before it enforces masks, or enforces them alone."""
    index, _, model, optimizer = _worker(line)
    masks = synflow_tf.compute_masks(model, **PRUNING)
    if _is_victim(index):
        for _ in range(200):
            if (folder / "enforcing").exists():
                break
            time.sleep(0.1)
        time.sleep(2)  # until the other waits for this one
        os.kill(os.getpid(), signal.SIGKILL)
    synflow_tf.Masks.from_model(model)
    synflow_tf.Masks.enforced(model)
    masks.check(model)
    (folder / "enforcing").touch()
    masks.enforce(model, optimizer)


def _is_victim(index):
    return os.environ.get("VICTIM") == str(index)


def main():
    """Runs the scenario that the command line names."""
    scenario, line, folder = sys.argv[1:]
    globals()[scenario](LINES[line], pathlib.Path(folder))


if __name__ == "__main__":
    main()
