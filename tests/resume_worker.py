"""A training run that another process kills and starts again."""

import os
import pathlib
import time
import traceback

import keras
import numpy as np
import tf_keras

import synflow_tf

LINES = {"keras": keras, "tf_keras": tf_keras}
BATCHES, EPOCHS = 8, 16
SECONDS_PER_BATCH = 0.02


def data():
    """Returns 32 small images and their labels."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(32, 6, 6, 1)).astype("float32")
    return x, rng.integers(0, 3, 32)


def model(line, seed=0, optimizer="SGD"):
    """Returns a compiled model whose kernels differ in shape.

    Args:
        line: `keras` or `tf_keras`.
        seed: int, which initial weights.
        optimizer: "SGD", with momentum, or "Adam".
    """
    line.utils.set_random_seed(seed)
    layers = line.layers
    constraint = line.constraints.MaxNorm(1.0, axis=0)
    result = line.Sequential(
        [
            line.Input((6, 6, 1), name="image"),
            layers.Conv2D(4, 3, name="conv"),
            layers.BatchNormalization(name="bn"),
            layers.ReLU(name="relu"),
            layers.Flatten(name="flatten"),
            layers.Dense(
                8, "relu", kernel_constraint=constraint, name="hidden"
            ),
            layers.Dense(3, name="logits"),
        ],
        name="small",
    )
    more = {"momentum": 0.9} if optimizer == "SGD" else {}
    result.compile(
        getattr(line.optimizers, optimizer)(0.01, name="optimizer", **more),
        line.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return result


def backup(line, directory, save_freq):
    """Returns the callback of Keras that backs up and restores.

    Keras 3 writes over the only backup it has unless it is told to keep two;
    tf_keras writes a new file before it removes the old one.
    """
    more = {"double_checkpoint": True} if line is keras else {}
    return line.callbacks.BackupAndRestore(
        str(directory), save_freq=save_freq, **more
    )


def train(name, backup_first, save_freq, directory, attempt, started):
    """Trains with backups, from the last one on, and writes what came of it.

    Args:
        name: str, the line.
        backup_first: bool, whether the backup is the first callback.
        save_freq: "epoch" or int.
        directory: path of the run, shared by its attempts.
        attempt: int, which names the files.
        started: `multiprocessing.Event`, set when training begins.
    """
    directory = pathlib.Path(directory)
    trained = model(LINES[name])
    started.set()
    args = LINES[name], backup_first, save_freq, directory, attempt
    try:
        _train(trained, *args)
    except Exception:
        (directory / f"error-{attempt}").write_text(traceback.format_exc())
        raise


def _train(trained, line, backup_first, save_freq, directory, attempt):
    pruning = synflow_tf.SynFlowPruning(0.8, rounds=5, progress=False)

    def record(batch, logs=None):
        path = directory / f"{attempt}.masks"
        if not path.exists():
            pruning.masks.save(directory / "writing")
            step = int(trained.optimizer.iterations.numpy())
            (directory / f"{attempt}.step").write_text(str(step))
            os.replace(directory / "writing", path)

    def wait(batch, logs=None):
        time.sleep(SECONDS_PER_BATCH)

    callbacks = [backup(line, directory / "backup", save_freq), pruning]
    if not backup_first:
        callbacks.reverse()
    callbacks.append(
        line.callbacks.LambdaCallback(
            on_train_batch_begin=record, on_train_batch_end=wait
        )
    )
    x, y = data()
    batch_size = len(x) // BATCHES
    trained.fit(x, y, batch_size, EPOCHS, verbose=0, callbacks=callbacks)
    with open(directory / "writing", "wb") as file:
        np.savez(file, *trained.get_weights())
    os.replace(directory / "writing", directory / "trained.npz")
