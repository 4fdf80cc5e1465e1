"""From training to small files with tfmot: dense, by magnitude, by SynFlow.

    python examples/tfmot_pipeline.py
    python examples/tfmot_pipeline.py --dataset=cifar10 --model=vgg16_bn \
        --sparsity=0.9,0.99 --epochs=160

For each sparsity the network is pruned by tfmot's `prune_low_magnitude` while
it trains, and by `prune_synflow` before; then stripped, exported as a float
TFLite file, dense and sparse, quantized to int8 on training images, and
exported again. Everything else is the same: weights to start from, order of the
images, epochs. Prints a table, and writes it and the files to --output_dir.
"""

import csv
import math
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras
from absl import app
from absl import flags
from absl import logging

import synflow_tf
from synflow_tf.export import tflite

_DATASET = flags.DEFINE_enum(
    "dataset",
    "digits",
    sorted(synflow_tf.datasets.SPECS),
    "Images to train on.",
)
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Where prepared data sets are; tfds's default if not set."
)
_MODEL = flags.DEFINE_enum(
    "model", "resnet20", sorted(synflow_tf.models.__all__), "Network."
)
_SPARSITY = flags.DEFINE_list(
    "sparsity", ["0.9", "0.99"], "Fractions of the weights to remove."
)
_ROUNDS = flags.DEFINE_integer(
    "rounds", 100, "Rounds of SynFlow.", lower_bound=1
)
_EPOCHS = flags.DEFINE_integer("epochs", 20, "Epochs.", lower_bound=1)
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", 64, "Images per step.", lower_bound=1
)
_LEARNING_RATE = flags.DEFINE_float(
    "learning_rate", 0.05, "Of SGD with momentum; it falls along a cosine."
)
_SEED = flags.DEFINE_integer("seed", 0, "Of the initialization and the data.")
_OUTPUT_DIR = flags.DEFINE_string(
    "output_dir", "results/tfmot", "Where to write."
)

HEADER = (
    "method",
    "sparsity",
    "accuracy",
    "tflite",
    "gzip",
    "sparse",
    "int8",
    "int8 gzip",
    "int8 accuracy",
)
_CALIBRATION = 100  # images


def magnitude(model, sparsity, steps):
    """Wraps a model for tfmot: up to the sparsity at half of the steps."""
    end_step = steps // 20 * 10  # a multiple of the frequency, or it is missed
    schedule = tfmot.sparsity.keras.PolynomialDecay(
        0.0, sparsity, begin_step=0, end_step=end_step, frequency=10
    )
    return tfmot.sparsity.keras.prune_low_magnitude(model, schedule)


def synflow(model, sparsity, steps):
    """Wraps a model for tfmot, pruned by SynFlow at once."""
    del steps
    return synflow_tf.tfmot.prune_synflow(model, sparsity, rounds=_ROUNDS.value)


def train(model, prune, sparsity, images):
    """Prunes, trains and strips a model.

    Args:
        model: a model of tf_keras with logits as output.
        prune: `magnitude`, `synflow`, or None.
        sparsity: number in [0, 1).
        images: `tf.data.Dataset` of batches (images, labels).

    Returns:
        A trained model without wrappers.
    """
    steps = _EPOCHS.value * len(images)
    callbacks = []
    if prune is not None:
        model = prune(model, sparsity, steps)
        callbacks.append(tfmot.sparsity.keras.UpdatePruningStep())
    rate = tf_keras.optimizers.schedules.CosineDecay(
        _LEARNING_RATE.value, steps
    )
    model.compile(
        tf_keras.optimizers.SGD(rate, momentum=0.9, nesterov=True),
        tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    model.fit(
        images,
        epochs=_EPOCHS.value,
        callbacks=callbacks,
        shuffle=False,  # the data set does it
        verbose=0,
    )
    return tfmot.sparsity.keras.strip_pruning(model)


def measure(name, model, images, test, folder):
    """Exports a trained model, and measures the files.

    Args:
        name: str, what the files are called.
        model: a model of tf_keras.
        images: `tf.data.Dataset` of batches (images, labels), to calibrate on.
        test: likewise, to measure accuracy on.
        folder: `pathlib.Path`.

    Returns:
        list of the values of `HEADER` from "sparsity" on.
    """
    x, y = (np.concatenate(part) for part in zip(*test, strict=True))

    def representative():
        few = images.unbatch().batch(1).take(_CALIBRATION)
        return ([image.numpy()] for image, _ in few)

    logits = model.predict(x, verbose=0)
    plain = synflow_tf.export_tflite(model, folder / f"{name}.tflite")
    path = folder / f"{name}_int8.tflite"
    int8 = synflow_tf.export_tflite(
        model,
        path,
        sparse=False,
        quantize="int8",
        representative_dataset=representative,
        tolerance=math.inf,  # the last column says what it costs
    )
    [input_name] = tflite.function(model).inputs
    [int8_logits] = tflite.run(path, [{input_name: x}])[0].values()
    return [
        synflow_tf.Masks.from_model(model).sparsity,
        np.mean(np.argmax(logits, axis=-1) == y),
        plain.dense.raw,
        plain.dense.gzip,
        plain.sparse.raw,
        int8.dense.raw,
        int8.dense.gzip,
        np.mean(np.argmax(int8_logits, axis=-1) == y),
    ]


def table(rows):
    """Returns the rows as text."""
    lines = ["".join(f"{name:>14}" for name in HEADER)]
    for name, sparsity, accuracy, *sizes, int8_accuracy in rows:
        lines.append(
            f"{name:>14}{sparsity:14.2%}{accuracy:14.2%}"
            + "".join(f"{size:14,}" for size in sizes)
            + f"{int8_accuracy:14.2%}"
        )
    return "\n".join(lines)


def _sparsities():
    """Returns the sparsities asked for, as numbers."""
    try:
        asked = [float(s) for s in _SPARSITY.value]
    except ValueError as error:
        raise app.UsageError(f"--sparsity: {error}") from error
    if not all(0 < s < 1 for s in asked):
        raise app.UsageError("--sparsity must be between 0 and 1.")
    return asked


def main(argv):
    """Runs the pipeline that the flags describe."""
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {argv[1:]}")
    runs = [("dense", None, 0.0)]
    for sparsity in _sparsities():
        runs.append((f"magnitude_{sparsity:g}", magnitude, sparsity))
        runs.append((f"synflow_{sparsity:g}", synflow, sparsity))
    logging.set_verbosity(logging.WARNING)
    tf.get_logger().setLevel("ERROR")
    spec = synflow_tf.datasets.spec(_DATASET.value)
    folder = pathlib.Path(_OUTPUT_DIR.value)
    folder.mkdir(parents=True, exist_ok=True)
    images, test = (
        synflow_tf.datasets.load(
            _DATASET.value,
            _BATCH_SIZE.value,
            split=split,
            seed=_SEED.value,
            data_dir=_DATA_DIR.value,
        )
        for split in ("train", "test")
    )
    rows = []
    for name, prune, sparsity in runs:
        print(f"Training {_MODEL.value}: {name} ...", flush=True)
        tf_keras.utils.set_random_seed(_SEED.value)
        build = getattr(synflow_tf.models, _MODEL.value)
        model = build(spec.input_shape, spec.classes, tf_keras)
        model = train(model, prune, sparsity, images)
        rows.append([name, *measure(name, model, images, test, folder)])
    print(table(rows))
    with open(folder / "table.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(HEADER)
        writer.writerows(rows)
    print(f"Wrote table.csv and the files to {folder}.")


if __name__ == "__main__":
    app.run(main)
