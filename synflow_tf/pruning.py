"""Prunes a model with one call."""

import sys

import numpy as np
import tensorflow as tf

from synflow_tf import findings
from synflow_tf import masks as masks_lib
from synflow_tf import options as options_lib
from synflow_tf.rounds import diagnostics
from synflow_tf.rounds import loop
from synflow_tf.rounds import task as task_lib


def prune(
    model,
    sparsity=None,
    *,
    compression=None,
    schedule=None,
    keep_n_of_m=None,
    rounds=100,
    scorer=None,
    scope="global",
    min_kept=0,
    prunable=None,
    inputs=None,
    on_unscored="error",
    progress=True,
):
    """Prunes a model, before training and without data.

    The removed weights are set to 0 and stay 0 when the model is trained.
    Biases and normalization parameters are not pruned.

    Args:
        model: a built model of Keras 3 or tf_keras; changed in place.
        sparsity: number in [0, 1), the fraction of the prunable weights to
            remove. Exactly one of this, `compression`, `schedule` and
            `keep_n_of_m`.
        compression: number >= 1, prunable weights over kept weights: 100 is
            sparsity 0.99.
        schedule: a schedule of `synflow_tf.schedules` or of tfmot; round t is
            its step t. By default exponential, from 0 to `sparsity`.
        keep_n_of_m: a pair of int, such as (2, 4): of every 4 weights in a row
            along the input channels (axis 0 of a Dense kernel, the last but
            one of a convolution's, the last of a transposed one's) exactly 2
            are kept. Kernels that it does not fit, such as depthwise ones and
            those of 3 input channels, stay as they are: see `findings`.
        rounds: int >= 1. Default 100, as in the paper (section 6): one-shot
            pruning (1) collapses layers at high compression.
        scorer: what each weight is worth; by default `scorers.SynFlow()`.
        scope: "global", one ranking over all prunable weights, as in the
            paper, or "local", one for each weight tensor.
        min_kept: int >= 0, how many weights of each kernel are kept in any
            case, the highest scores. Default 0, as in the paper: beside a
            skip connection, kernels can become empty. 1 prevents that.
        prunable: which weights. None takes the kernels of all layers: float
            weights that are contracted with what comes from the input, and no
            tables that tokens are read from; of a layer with tfmot's
            `get_prunable_weights()` what that says. A str
            takes the weight of that path, or the kernels of the layer (or
            nested model) of that path, or of all layers whose path it matches
            as a regular expression; a compiled pattern likewise; a layer class
            takes the kernels, or embeddings, of all layers of that class. A
            list of those takes what any of them takes. A function `(layer,
            weight) -> bool` is asked about every weight, and decides alone.
        inputs: an example batch, or specs, in the structure that the model
            takes: arrays, tensors, `tf.TensorSpec`, `keras.KerasTensor`; for a
            `call` of several arguments a dict by their names. Needed where the
            model leaves a size open or was never called. Floats are not looked
            at; integers, bools and strings are used as they are (without it
            they are 1, True and ""). Scores are those for these sizes, and for
            one example unless the model needs as many as there are.
        on_unscored: what to do with a prunable weight that no flow passes
            through: "error", because all of it would be removed, or "keep",
            which leaves it as it is. A kernel of zeros, and what only such a
            kernel leads to or from, is kept in any case, with a warning.
        progress: bool, whether to show a bar over rounds if the output is a
            terminal.

    Returns:
        `Masks`.

    Raises:
        TypeError: if `model` is not a Keras model, or mixes the lines.
        ValueError: if an argument is out of its range, the model is not built,
            nothing is prunable, a weight is not finite, no flow passes through
            a prunable weight (see `on_unscored`), or a layer is no positive
            linear map, even with all its activations left out; it names the
            layer. The model is then as it was.

    Warns:
        UserWarning: if the pruned model has collapsed: no path is left from
            its inputs to its outputs; if all weights of a kernel are removed,
            and other paths carry the flow; if many weights of a kernel score
            exactly 0 before anything is removed; if kernels are kept because
            they are zeros.

    >>> import keras
    >>> model = synflow_tf.models.fc(input_shape=(8, 8, 1))
    >>> masks = synflow_tf.prune(model, compression=10)
    >>> masks.kept, masks.size
    (4740, 47400)
    """
    options = options_lib.Options.of(locals())
    masks = computed(model, options)
    masks.enforce(model)
    return masks


def compute_masks(
    model,
    sparsity=None,
    *,
    compression=None,
    schedule=None,
    keep_n_of_m=None,
    rounds=100,
    scorer=None,
    scope="global",
    min_kept=0,
    prunable=None,
    inputs=None,
    on_unscored="error",
    progress=True,
):
    """Computes what `prune` would remove, and leaves the model as it is.

    Args:
        model: a built model of Keras 3 or tf_keras. See `prune` for all other
            arguments.

    Returns:
        `Masks`, with the `history` of the rounds.

    Raises:
        TypeError: see `prune`.
        ValueError: see `prune`.

    >>> model = synflow_tf.models.fc(input_shape=(8, 8, 1))
    >>> synflow_tf.compute_masks(model, sparsity=0.5, rounds=5)
    <Masks of 6 weights: 23,700 of 47,400 kept, sparsity 0.5>
    """
    return computed(model, options_lib.Options.of(locals()))


def computed(model, options):
    """Computes the masks of a model; see `compute_masks`."""
    held = masks_lib.Masks.enforced(model) or {}
    task = task_lib.select(model, options)
    task = task_lib.bind(task, options.on_unscored, held)
    masks = remove(loop.Step(task), options.densities, held, options.progress)
    tell(masks, options)
    return masks


def tell(masks, options, known=()):
    """Warns once of what is new among the findings of masks."""
    quiet = ("unscored",) if options.on_unscored == "keep" else ()
    findings.warn([f for f in masks.findings if f not in known], quiet)


def remove(step, densities, held, progress=False, known=()):
    """Removes weights until a density is left, from where the model is.

    Weights whose masks are enforced are removed already and stay so; rounds
    that ask for no more than those are skipped.

    Args:
        step: `rounds.loop.Step`, of the task.
        densities: list of numbers in (0, 1] that do not rise, what is left
            after each round; None for a round that does not prune.
        held: mapping of weight path to the mask that is enforced.
        progress: bool, whether to show a bar on a terminal.
        known: findings of earlier masks of the same task.

    Returns:
        `Masks`.

    Raises:
        ValueError: if more weights have been removed than asked for, a score
            is NaN, or the flow exceeds the dtype. Nothing has been changed.
    """
    task = step.task
    weights, alive = task.start(held), task.alive(held)
    start = task.removed(alive)
    plan = [(d, task.target(d)) for d in densities if d is not None]
    asked = np.max([target for _, target in plan], axis=0)
    task_lib.check_reachable(task, alive, start, asked)
    if start.any():
        plan = [(d, target) for d, target in plan if np.any(target > start)]
    history = []
    bar = _bar(len(plan), progress, task.graph.line)
    with tf.device(weights.device):
        targets = [target for _, target in plan]
        records = loop.rounds(step, weights, alive, targets)
        for (density, target), record in zip(plan, records, strict=True):
            kept = sum(task.sizes) - int(np.maximum(target, start).sum())
            history.append(
                masks_lib.Round(float(density), kept, record.log10_flow)
            )
            weights, alive = record.weights, record.alive
            bar()
        log10_flow = step.log10_flow(weights, alive)
    named = task.named(alive)
    found = diagnostics.of_masks(task, named, log10_flow, known)
    found = [*task.findings, *found]
    return masks_lib.Masks(named, history, log10_flow, found)


def _bar(rounds, wanted, line):
    """Returns a function that advances a progress bar, on a terminal."""
    if not (wanted and rounds and sys.stdout.isatty()):
        return lambda: None
    bar = line.utils.Progbar(rounds, unit_name="round")
    return lambda: bar.add(1)
