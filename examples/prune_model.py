"""Prunes a saved Keras model.

    python examples/prune_model.py --model=dense.keras --compression=100 \
        --output=pruned.keras

Writes the pruned model, which plain Keras loads, its masks and a table of what
is left of each layer. To train it further and keep it pruned:

    model = keras.saving.load_model("pruned.keras")
    synflow_tf.Masks.load("pruned.masks.npz").enforce(model)
"""

import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import tensorflow as tf
import tf_keras
from absl import app
from absl import flags
from absl import logging

import synflow_tf

_LINES = {"keras": keras, "tf_keras": tf_keras}

_MODEL = flags.DEFINE_string("model", None, "The saved model to prune.")
_OUTPUT = flags.DEFINE_string("output", None, "Where to save the pruned model.")
_KERAS = flags.DEFINE_enum("keras", "keras", sorted(_LINES), "Keras line.")
_SPARSITY = flags.DEFINE_float(
    "sparsity", None, "Fraction of the weights to remove, in [0, 1)."
)
_COMPRESSION = flags.DEFINE_float(
    "compression", None, "Instead: prunable / kept weights, >= 1."
)
_KEEP_N_OF_M = flags.DEFINE_list(
    "keep_n_of_m", None, "Instead: 2,4 keeps 2 of every 4 along the inputs."
)
_MIN_KEPT = flags.DEFINE_integer(
    "min_kept", 0, "Weights that each kernel keeps.", lower_bound=0
)
_ROUNDS = flags.DEFINE_integer(
    "rounds", 100, "Rounds of iterative pruning.", lower_bound=1
)
_SCOPE = flags.DEFINE_enum(
    "scope", "global", ["global", "local"], "One ranking, or one per layer."
)
_PRUNABLE = flags.DEFINE_multi_string(
    "prunable", None, "Layers or weights to prune, by path or pattern. [all]"
)
_INPUT_SHAPE = flags.DEFINE_list(
    "input_shape", None, "Height,width,channels, if the model leaves it open."
)
_ON_UNSCORED = flags.DEFINE_enum(
    "on_unscored", "error", ["error", "keep"], "For kernels without any flow."
)
flags.mark_flags_as_required([_MODEL.name, _OUTPUT.name])


def prune_file(line, source, target, **arguments):
    """Prunes a saved model and saves it, its masks and its report.

    Args:
        line: the Keras line, the module `keras` or `tf_keras`.
        source: path of the saved model.
        target: `pathlib.Path` of the pruned one, ending in ".keras"; the masks
            and the report get the endings ".masks.npz" and ".report.txt".
        **arguments: those of `synflow_tf.prune`.

    Returns:
        `synflow_tf.Masks`.
    """
    model = line.models.load_model(source)
    masks = synflow_tf.prune(model, **arguments)
    model.save(target)
    masks.save(target.with_suffix(".masks.npz"))
    target.with_suffix(".report.txt").write_text(f"{masks}\n", encoding="utf-8")
    return masks


def _numbers(flag):
    """Returns the value of a flag as a tuple of int, or None."""
    return flag.value and tuple(map(int, flag.value))


def _spec(shape):
    """Returns the spec of one example, or None."""
    return None if shape is None else tf.TensorSpec((1, *shape))


def main(argv):
    """Prunes the model that the flags name."""
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {argv[1:]}")
    logging.set_verbosity(logging.WARNING)
    amounts = (_SPARSITY, _COMPRESSION, _KEEP_N_OF_M)
    if sum(flag.value is not None for flag in amounts) != 1:
        raise app.UsageError(
            "Give one of --sparsity, --compression and --keep_n_of_m."
        )
    masks = prune_file(
        _LINES[_KERAS.value],
        _MODEL.value,
        pathlib.Path(_OUTPUT.value),
        sparsity=_SPARSITY.value,
        compression=_COMPRESSION.value,
        keep_n_of_m=_numbers(_KEEP_N_OF_M),
        rounds=_ROUNDS.value,
        scope=_SCOPE.value,
        min_kept=_MIN_KEPT.value,
        prunable=_PRUNABLE.value,
        on_unscored=_ON_UNSCORED.value,
        inputs=_spec(_numbers(_INPUT_SHAPE)),
    )
    print(masks)


if __name__ == "__main__":
    app.run(main)
