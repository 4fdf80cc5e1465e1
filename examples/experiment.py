"""Trains a model dense and pruned by SynFlow, and shows the results.

The library part of `train.py`: models, data and optimizers are arguments.
"""

import csv
import dataclasses
import math
import time

import numpy as np

import synflow_tf


@dataclasses.dataclass(frozen=True)
class Result:
    """The results of one trained model.

    Attributes:
        compression: float, prunable weights over kept weights asked for; 1 is
            the dense model.
        accuracy: float in [0, 1], on the test set after the last epoch.
        loss: float, cross-entropy on the test set.
        masks: `synflow_tf.Masks` of the model; all True if dense.
        prune_seconds: float, what pruning took.
        train_seconds: float, what training took, without pruning.
    """

    compression: float
    accuracy: float
    loss: float
    masks: synflow_tf.Masks
    prune_seconds: float
    train_seconds: float


class _Timed(synflow_tf.SynFlowPruning):
    """SynFlowPruning that notes how long pruning takes."""

    seconds = 0.0

    def on_epoch_begin(self, epoch, logs=None):
        start = time.perf_counter()
        super().on_epoch_begin(epoch, logs)
        self.seconds += time.perf_counter() - start


def train_one(
    line,
    make_model,
    make_optimizer,
    train,
    test,
    *,
    compression,
    epochs,
    seed=0,
    drops=(),
    drop_rate=0.1,
    rounds=100,
    scope="global",
    verbose=0,
):
    """Initializes, prunes, trains and evaluates one model.

    Args:
        line: the Keras line, the module `keras` or `tf_keras`.
        make_model: function () -> model of that line, with logits as output.
        make_optimizer: function () -> optimizer of that line.
        train: `tf.data.Dataset` of batches (images, labels).
        test: likewise.
        compression: number >= 1; 1 trains the dense model.
        epochs: int.
        seed: int, of the initialization; the same weights for each compression.
        drops: epochs at whose begin the learning rate is multiplied.
        drop_rate: number that it is multiplied by.
        rounds: see `synflow_tf.prune`.
        scope: see `synflow_tf.prune`.
        verbose: see `model.fit`.

    Returns:
        `Result`.
    """
    line.utils.set_random_seed(seed)
    model = make_model()
    model.compile(
        optimizer=make_optimizer(),
        loss=line.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    pruning = _Timed(
        compression=compression,
        rounds=rounds if compression > 1 else 1,
        scope=scope,
    )
    callbacks = [pruning]
    if drops:
        schedule = line.callbacks.LearningRateScheduler(
            lambda epoch, rate: rate * drop_rate if epoch in drops else rate
        )
        callbacks.append(schedule)
    start = time.perf_counter()
    model.fit(
        train,
        epochs=epochs,
        callbacks=callbacks,
        shuffle=False,  # the data set does it
        verbose=verbose,
    )
    seconds = time.perf_counter() - start - pruning.seconds
    loss, accuracy = model.evaluate(test, verbose=0)
    return Result(
        compression, accuracy, loss, pruning.masks, pruning.seconds, seconds
    )


HEADER = ("compression", "kept", "of", "accuracy", "loss", "prune s", "train s")


def rows(results):
    """Returns the results as rows of values, in the order of `HEADER`."""
    return [
        (
            r.compression,
            r.masks.kept,
            r.masks.size,
            r.accuracy,
            r.loss,
            r.prune_seconds,
            r.train_seconds,
        )
        for r in results
    ]


def table(results):
    """Returns the results as text, with a line for each model."""
    lines = ["".join(f"{name:>13}" for name in HEADER)]
    for compression, kept, size, accuracy, loss, prune, fit in rows(results):
        name = "dense" if compression == 1 else f"{compression:g}x"
        lines.append(
            f"{name:>13}{kept:13,}{size:13,}{accuracy:13.2%}{loss:13.3f}"
            f"{prune:13.1f}{fit:13.1f}"
        )
    return "\n".join(lines)


def write_csv(results, path):
    """Writes the results to a file of comma-separated values."""
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(HEADER)
        writer.writerows(rows(results))


def plot(results, path, title=""):
    """Draws accuracy against compression, and the density of each layer.

    Args:
        results: list of `Result`.
        path: the file to write; its ending says the format.
        title: str.
    """
    import matplotlib.figure

    figure = matplotlib.figure.Figure(figsize=(10, 4), layout="constrained")
    figure.suptitle(title)
    left, right = figure.subplots(1, 2)
    pruned = [r for r in results if r.compression > 1]
    for result in results:
        if result.compression == 1:
            left.axhline(100 * result.accuracy, color="gray", ls="--")
            left.annotate(
                "dense",
                (0.02, 100 * result.accuracy),
                xycoords=("axes fraction", "data"),
                va="bottom",
                color="gray",
            )
    left.plot(
        [r.compression for r in pruned],
        [100 * r.accuracy for r in pruned],
        marker="o",
    )
    left.set(
        xscale="log",
        xlabel="compression (prunable weights / kept weights)",
        ylabel="test accuracy, %",
    )
    for result in pruned:
        density = [np.mean(mask) for mask in result.masks.values()]
        right.plot(
            range(1, len(density) + 1),
            [d or math.nan for d in density],
            marker=".",
            label=f"{result.compression:g}x",
        )
    right.set(
        yscale="log", xlabel="kernel, from input to output", ylabel="density"
    )
    if pruned:
        right.legend(title="compression")
    figure.savefig(path, dpi=120)
