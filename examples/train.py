"""Trains a model of the paper dense and pruned by SynFlow, and compares them.

    python examples/train.py
    python examples/train.py --dataset=cifar10 --model=resnet20 \
        --compression=10,100 --epochs=160 --optimizer=momentum \
        --learning_rate=0.01 --lr_drops=80,120 --batch_size=128

Writes results.csv, results.png and the masks to --output_dir. Without flags:
handwritten digits, which need no network, in a few minutes.
"""

import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import experiment
import keras
import tf_keras
from absl import app
from absl import flags
from absl import logging

import synflow_tf

_LINES = {"keras": keras, "tf_keras": tf_keras}
_OPTIMIZERS = {
    "adam": lambda o, rate: o.Adam(rate),
    "momentum": lambda o, rate: o.SGD(rate, momentum=0.9, nesterov=True),
    "rmsprop": lambda o, rate: o.RMSprop(rate),
    "sgd": lambda o, rate: o.SGD(rate),
}

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
    "model", "wide_resnet20", sorted(synflow_tf.models.__all__), "Network."
)
_KERAS = flags.DEFINE_enum("keras", "keras", sorted(_LINES), "Keras line.")
_COMPRESSION = flags.DEFINE_list(
    "compression", None, "Prunable / kept weights, each >= 1. [10,100,1000]"
)
_SPARSITY = flags.DEFINE_list(
    "sparsity", None, "Instead: fractions of the weights to remove, in [0, 1)."
)
_ROUNDS = flags.DEFINE_integer(
    "rounds", 100, "Rounds of iterative pruning.", lower_bound=1
)
_SCOPE = flags.DEFINE_enum(
    "scope", "global", ["global", "local"], "One ranking, or one per layer."
)
_EPOCHS = flags.DEFINE_integer("epochs", 20, "Epochs.", lower_bound=1)
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", 64, "Images per step.", lower_bound=1
)
_OPTIMIZER = flags.DEFINE_enum(
    "optimizer", "momentum", sorted(_OPTIMIZERS), "Optimizer."
)
_LEARNING_RATE = flags.DEFINE_float(
    "learning_rate", 0.05, "Learning rate.", lower_bound=0.0
)
_LR_DROPS = flags.DEFINE_list(
    "lr_drops", ["12", "16"], "Epochs at which the learning rate drops."
)
_LR_DROP_RATE = flags.DEFINE_float(
    "lr_drop_rate", 0.1, "What it is multiplied by there.", lower_bound=0.0
)
_SEED = flags.DEFINE_integer("seed", 0, "Of the initialization and the data.")
_OUTPUT_DIR = flags.DEFINE_string("output_dir", "results", "Where to write.")


def _compressions():
    """Returns the compressions asked for, the dense model first."""
    if _SPARSITY.value and _COMPRESSION.value:
        raise app.UsageError("Give --sparsity or --compression, not both.")
    try:
        if _SPARSITY.value:
            asked = [1 / (1 - float(s)) for s in _SPARSITY.value]
        else:
            asked = [float(c) for c in _COMPRESSION.value or (10, 100, 1000)]
    except (ValueError, ZeroDivisionError) as error:
        raise app.UsageError(f"--sparsity, --compression: {error}") from error
    if any(c < 1 for c in asked):
        raise app.UsageError(
            "--sparsity must be in [0, 1), --compression >= 1."
        )
    return sorted({1.0, *asked})


def main(argv):
    """Runs the experiment that the flags describe."""
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {argv[1:]}")
    logging.set_verbosity(logging.WARNING)
    line = _LINES[_KERAS.value]
    spec = synflow_tf.datasets.spec(_DATASET.value)
    build = getattr(synflow_tf.models, _MODEL.value)
    folder = pathlib.Path(_OUTPUT_DIR.value)
    folder.mkdir(parents=True, exist_ok=True)

    def load(split):
        return synflow_tf.datasets.load(
            _DATASET.value,
            _BATCH_SIZE.value,
            split=split,
            seed=_SEED.value,
            data_dir=_DATA_DIR.value,
        )

    train, test = load("train"), load("test")
    results = []
    for compression in _compressions():
        print(f"Training {_MODEL.value} at compression {compression:g} ...")
        result = experiment.train_one(
            line,
            lambda: build(spec.input_shape, spec.classes, line),
            lambda: _OPTIMIZERS[_OPTIMIZER.value](
                line.optimizers, _LEARNING_RATE.value
            ),
            train,
            test,
            compression=compression,
            epochs=_EPOCHS.value,
            seed=_SEED.value,
            drops=[int(epoch) for epoch in _LR_DROPS.value],
            drop_rate=_LR_DROP_RATE.value,
            rounds=_ROUNDS.value,
            scope=_SCOPE.value,
        )
        result.masks.save(folder / f"masks_{compression:g}x.npz")
        results.append(result)
    print(experiment.table(results))
    experiment.write_csv(results, folder / "results.csv")
    title = f"SynFlow: {_MODEL.value} on {_DATASET.value}"
    experiment.plot(results, folder / "results.png", title)
    print(f"Wrote results.csv, results.png and masks to {folder}.")


if __name__ == "__main__":
    app.run(main)
