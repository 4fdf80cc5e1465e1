"""Pruning a model with one call."""

import fractions

from synflow_tf import _validation
from synflow_tf import schedules
from synflow_tf.rounds import constraints
from synflow_tf.rounds import loop


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
    masks = compute_masks(
        model,
        sparsity,
        compression=compression,
        schedule=schedule,
        keep_n_of_m=keep_n_of_m,
        rounds=rounds,
        scorer=scorer,
        scope=scope,
        min_kept=min_kept,
        prunable=prunable,
        inputs=inputs,
        on_unscored=on_unscored,
        progress=progress,
    )
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
        model: see `prune`, like all other arguments.
        sparsity: number in [0, 1).
        compression: number >= 1.
        schedule: a schedule.
        keep_n_of_m: a pair of int.
        rounds: int >= 1.
        scorer: a `scorers.Scorer`.
        scope: "global" or "local".
        min_kept: int >= 0.
        prunable: which weights.
        inputs: an example batch, or specs.
        on_unscored: "error" or "keep".
        progress: bool.

    Returns:
        `Masks`, with the `history` of the rounds.

    Raises:
        TypeError: see `prune`.
        ValueError: see `prune`.

    >>> model = synflow_tf.models.fc(input_shape=(8, 8, 1))
    >>> synflow_tf.compute_masks(model, sparsity=0.5, rounds=5)
    <Masks of 6 weights: 23,700 of 47,400 kept, sparsity 0.5>
    """
    constraints.check(keep_n_of_m, min_kept)
    densities = round_densities(
        sparsity, compression, schedule, rounds, keep_n_of_m
    )
    return loop.Iteration(
        model,
        scorer=scorer,
        scope=scope,
        min_kept=min_kept,
        prunable=prunable,
        inputs=inputs,
        on_unscored=on_unscored,
        keep_n_of_m=keep_n_of_m,
    ).run(densities, progress)


def round_densities(
    sparsity=None,
    compression=None,
    schedule=None,
    rounds=100,
    keep_n_of_m=None,
):
    """Checks how much to prune, and says it for each round.

    Args:
        sparsity: number in [0, 1) or None.
        compression: number >= 1 or None.
        schedule: a schedule or None.
        rounds: int >= 1.
        keep_n_of_m: a pair of int or None; exactly one of the four is given.

    Returns:
        list of `rounds` numbers; see `schedules.densities`.

    Raises:
        ValueError: if one of them is out of its range.
    """
    rounds = _validation.integer("rounds", rounds, 1)
    given = {
        "sparsity": sparsity,
        "compression": compression,
        "schedule": schedule,
        "keep_n_of_m": keep_n_of_m,
    }
    _validation.exactly_one(given)
    if schedule is None:
        if keep_n_of_m is not None:
            n, m = keep_n_of_m
            compression = fractions.Fraction(m, n)
        density = _validation.density(sparsity, compression)
        schedule = schedules.ExponentialSparsity(1 - density, 0, rounds, 1)
    return schedules.densities(schedule, rounds)
