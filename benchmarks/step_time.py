"""Times a training step of a pruned model beside that of the unpruned one.

    python benchmarks/step_time.py
    python benchmarks/step_time.py --models=vgg16_bn --batch_size=128

Three models of one network take short turns in one process, each for some calls
of what `fit` calls: the unpruned one, the same with masks enforced, and
(tf_keras) the same wrapped by tensorflow-model-optimization, with its callback.
Prints medians, and the ratios to the unpruned one of the same turn.
"""

import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from absl import app
from absl import flags

_MODELS = flags.DEFINE_list("models", ["vgg16_bn", "mlp"], "Networks.")
_KERAS = flags.DEFINE_list("keras", ["keras", "tf_keras"], "Keras lines.")
_OPTIMIZER = flags.DEFINE_enum(
    "optimizer", "momentum", ["momentum", "adam"], "Optimizer."
)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 128, "Images per step.")
_STEPS = flags.DEFINE_integer(
    "steps", None, "Steps of each turn. [1, of the MLP 50]"
)
_TURNS = flags.DEFINE_integer(
    "turns", None, "Turns. [15, of the MLP 100]", lower_bound=1
)
_WORKER = flags.DEFINE_string("worker", None, "Internal: the run to make.")


def _build(line, name):
    """Builds a network with logits as output."""
    import synflow_tf

    if name != "mlp":
        return getattr(synflow_tf.models, name)((32, 32, 3), 10, line)
    # LeNet-300-100, the small network of many papers on pruning.
    return line.Sequential(
        [
            line.Input((784,)),
            line.layers.Dense(300, "relu", name="hidden1"),
            line.layers.Dense(100, "relu", name="hidden2"),
            line.layers.Dense(10, name="logits"),
        ]
    )


def _compile(line, model, optimizer):
    optimizers = {
        "momentum": lambda: line.optimizers.SGD(0.01, momentum=0.9),
        "adam": lambda: line.optimizers.Adam(),
    }
    model.compile(
        optimizers[optimizer](),
        line.losses.SparseCategoricalCrossentropy(from_logits=True),
    )


def _stepper(model, data, callbacks):
    """Returns a function that trains for a step, as `fit` does."""
    model.fit(data, steps_per_epoch=2, callbacks=callbacks, verbose=0)
    batches = iter(data)

    def step():
        for callback in callbacks:
            callback.on_train_batch_begin(0)
        model.train_function(batches)

    return step


def work(name, keras, optimizer, batch_size, steps, turns):
    """Times the variants of one network in turn.

    Args:
        name: str, "mlp" or a name in `synflow_tf.models`.
        keras: str, "keras" or "tf_keras".
        optimizer: str.
        batch_size: int.
        steps: int, how many in a turn.
        turns: int.

    Returns:
        dict of variant to list of seconds per step.
    """
    if keras == "tf_keras":
        # First, because it says what `tf.keras` is.
        import tensorflow_model_optimization as tfmot
    import importlib

    import numpy as np
    import tensorflow as tf

    import synflow_tf

    line = importlib.import_module(keras)
    models = {"unpruned": _build(line, name), "synflow_tf": _build(line, name)}
    if keras == "tf_keras":
        sparsity = tfmot.sparsity.keras
        schedule = sparsity.ConstantSparsity(0.99, 0, 0)
        models["tfmot"] = sparsity.prune_low_magnitude(
            _build(line, name), pruning_schedule=schedule
        )
    for model in models.values():
        _compile(line, model, optimizer)
    synflow_tf.prune(models["synflow_tf"], sparsity=0.99, rounds=5)
    rng = np.random.default_rng(0)
    shape = models["unpruned"].input_shape[1:]
    images = rng.normal(size=(batch_size, *shape)).astype("float32")
    labels = rng.integers(0, 10, batch_size)
    data = tf.data.Dataset.from_tensors((images, labels)).cache().repeat()
    steppers = {}
    for variant, model in models.items():
        callbacks = [sparsity.UpdatePruningStep()] if variant == "tfmot" else []
        steppers[variant] = _stepper(model, data, callbacks)
    seconds = {variant: [] for variant in models}
    for turn in range(turns + 1):
        for variant, step in steppers.items():
            start = time.perf_counter()
            for _ in range(steps):
                step()
            models[variant].trainable_variables[0].numpy()  # waits
            if turn:  # the first one warms up
                taken = (time.perf_counter() - start) / steps
                seconds[variant].append(taken)
    return seconds


def report(name, keras, seconds):
    """Prints a line for each variant."""
    for variant, taken in seconds.items():
        ratios = [
            a / b for a, b in zip(taken, seconds["unpruned"], strict=True)
        ]
        print(
            f"{name:10} {keras:9} {variant:11} "
            f"{1000 * statistics.median(taken):9.2f} ms per step  "
            f"ratio {statistics.median(ratios):.3f} "
            f"({min(ratios):.3f} to {max(ratios):.3f})",
            flush=True,
        )


def main(argv):
    """Times what the flags ask for."""
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {argv[1:]}")
    if _WORKER.value is not None:
        print(json.dumps(work(*json.loads(_WORKER.value))))
        return
    for name in _MODELS.value:
        for keras in _KERAS.value:
            steps = _STEPS.value or (50 if name == "mlp" else 1)
            turns = _TURNS.value or (100 if name == "mlp" else 15)
            arguments = [name, keras, _OPTIMIZER.value, _BATCH_SIZE.value]
            arguments += [steps, turns]
            script = str(pathlib.Path(__file__).resolve())
            worker = f"--worker={json.dumps(arguments)}"
            done = subprocess.run(
                [sys.executable, script, worker], capture_output=True, text=True
            )
            if done.returncode:
                raise RuntimeError(f"{arguments} failed:\n{done.stderr}")
            report(name, keras, json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    app.run(main)
