"""`prune_synflow`, in the place of tfmot's `prune_low_magnitude`."""

import dataclasses

import tf_keras

from synflow_tf import masks as masks_lib
from synflow_tf import options as options_lib
from synflow_tf import pruning
from synflow_tf.graph import identity
from synflow_tf.graph import keras_private
from synflow_tf.graph import lines
from synflow_tf.graph import selection
from synflow_tf.graph import wrappers
from synflow_tf.rounds import task as task_lib
from synflow_tf.tfmot import gradual
from synflow_tf.tfmot import wrapping


def prune_synflow(
    to_prune,
    sparsity=None,
    *,
    compression=None,
    schedule=None,
    keep_n_of_m=None,
    pruning_schedule=None,
    model=None,
    pruning_policy=None,
    rounds=100,
    scorer=None,
    scope="global",
    min_kept=0,
    prunable=None,
    inputs=None,
    on_unscored="error",
    progress=True,
):
    """Prunes by SynFlow in the place of tfmot's `prune_low_magnitude`.

    Returns what that returns, a model or layers in tfmot's wrappers, for the
    rest of the pipeline: `UpdatePruningStep`, `PruningSummaries`,
    `strip_pruning`, clustering, quantization. The wrappers hold SynFlow's
    masks, under a `ConstantSparsity` that never comes to its first step. As
    with `prune_low_magnitude`, layers and weights are shared with what is
    given, and a model must be compiled again.

    What tfmot cannot wrap and save (depthwise kernels, attention, custom
    layers and models) stays as it is and is pruned all the same: removed
    weights are kept at 0 by a constraint, as `prune` does it. Files do not
    hold it: after loading, `Masks.from_model(model).enforce(model)`.

    A model that was saved and loaded within `prune_scope` is held to its masks
    by its wrappers. Given to this function, it is pruned further, and returned
    itself, with its optimizer.

    Args:
        to_prune: a model of tf_keras, functional or sequential; or a layer, or
            a list of layers, of `model`.
        sparsity: number in [0, 1), the fraction of the prunable weights to
            remove. Exactly one of this, `compression`, `schedule`,
            `keep_n_of_m` and `pruning_schedule`. See `synflow_tf.prune` for
            all arguments that are not described here.
        pruning_schedule: a schedule over training steps, of tfmot or of
            `synflow_tf.schedules`: `fit` prunes gradually. The schedule says
            when and how much, counted by the wrappers' `pruning_step` as in
            tfmot; SynFlow scores of the weights of that moment say which.
        model: the model that layers are part of, whose flow scores them; only
            they are pruned.
        pruning_policy: a tfmot `PruningPolicy`: layers it does not allow are
            not pruned.

    Returns:
        A model of tf_keras; a layer or list of layers if such were given.

    Raises:
        TypeError: if `to_prune` is not of tf_keras.
        ValueError: if an argument is out of its range, a model is subclassed
            or not built, layers are not of `model`, wrappers prune by
            magnitude, or the model cannot be scored. Nothing was changed.

    Warns:
        UserWarning: if weights are kept at 0 by constraint; it lists them. See
            also `synflow_tf.prune`.

    >>> model = synflow_tf.models.fc((8, 8, 1), keras=tf_keras)
    >>> wrapped = prune_synflow(model, compression=10)
    >>> synflow_tf.Masks.enforced(wrapped).kept
    4740
    """
    options = options_lib.Options.of(locals())
    context, layers = _context(to_prune, model)
    wrapping.check(context)
    chosen = _allowed(context, layers, prunable, pruning_policy, inputs)
    options = dataclasses.replace(options, prunable=chosen)
    if pruning_schedule is None:
        masks = pruning.computed(context, options)
        if layers is None:
            wrapped = wrapping.wrap_model(context, masks)
            vars(wrapped).pop("fit", None)  # of gradual pruning before
            return wrapped
        wrapped = wrapping.wrap_layers(layers, context, masks)
        several = isinstance(to_prune, (list, tuple))
        return wrapped if several else wrapped[0]
    if layers is not None:
        raise ValueError(
            "Argument `pruning_schedule` is for models, whose `fit` prunes. "
            f"Received: to_prune={to_prune!r}. Give the whole model, and say "
            "with `prunable=` which layers."
        )
    held = masks_lib.Masks.enforced(context) or {}
    task = task_lib.select(context, options)
    task = task_lib.bind(task, on_unscored, held)
    masks = masks_lib.Masks(task.named(task.alive(held)))
    wrapped = wrapping.wrap_model(context, masks)
    callback = gradual.Gradual(**options.arguments())
    vars(wrapped)["fit"] = gradual.fit_with(wrapped, callback)
    return wrapped


def _context(to_prune, model):
    """Returns the model to score, and the layers to prune; None for all."""
    if isinstance(to_prune, tf_keras.Model):
        if model is not None:
            raise ValueError(
                "Argument `model` is for layers: the model that they are part "
                f"of. Received: model={model!r} beside to_prune={to_prune!r}, "
                "which is a model itself."
            )
        if not wrapping.is_graph(to_prune):
            raise ValueError(
                "Argument `to_prune` must be a functional or a sequential "
                "model: tfmot cannot wrap the layers of others. Received: "
                f"{to_prune.name!r}, of the class {type(to_prune).__name__}. "
                "`synflow_tf.prune(model, ...)` prunes it without wrappers, "
                "and keeps removed weights at 0 while it trains."
            )
        lines.check_built(to_prune)
        return to_prune, None
    layers = to_prune if isinstance(to_prune, (list, tuple)) else [to_prune]
    for layer in layers:
        if not isinstance(layer, tf_keras.layers.Layer):
            raise TypeError(_not_of_tf_keras(layer))
    if model is None or lines.line_of(model) is not tf_keras:
        raise ValueError(
            "Argument `model` must be given with layers: the tf_keras model "
            "that they are part of, whose flow scores their weights. "
            f"Received: model={model!r}"
        )
    lines.check_built(model)
    known = identity.IdentitySet([model, *keras_private.layers_within(model)])
    foreign = [layer.name for layer in layers if layer not in known]
    if foreign:
        raise ValueError(
            f"Argument `to_prune` must have layers of model {model.name!r}. "
            f"Received: the layers {foreign}, which are not in it."
        )
    return model, list(layers)


def _not_of_tf_keras(value):
    cls = type(value)
    received = f"{cls.__module__}.{cls.__qualname__}"
    keras = lines.LINES[0]
    if not isinstance(value, keras.layers.Layer):
        return (
            "Argument `to_prune` must be a tf_keras model, a layer of one or a "
            f"list of such. Received: to_prune={value!r} (of type {received})"
        )
    return (
        "Argument `to_prune` must be of tf_keras (Keras 2), as the wrappers of "
        f"tfmot are. Received: {value.name!r} of the class {received}, which "
        f"is of Keras 3 ({keras.__version__}). There are two ways out: "
        "`synflow_tf.prune(model, ...)` prunes a Keras 3 model without "
        "wrappers, and keeps it pruned in `fit`; or build the model with "
        "`tf_keras` in the place of `keras`."
    )


def _allowed(model, layers, prunable, policy, inputs):
    """Makes a `prunable` of the weights of some layers that a policy allows."""
    if layers is None and policy is None:
        return prunable
    if layers is None:
        policy.ensure_model_supports_pruning(model)
        layers = wrapping.leaves(model)
    layers = [wrappers.inside(layer) for layer in layers]
    if policy is not None:
        layers = filter(policy.allow_pruning, layers)
    within = identity.IdentitySet(v for layer in layers for v in layer.weights)
    selected = selection.select(model, prunable, inputs)
    chosen = within & [w.variable for w in selected]
    if not chosen:
        raise ValueError(
            "Argument `to_prune` must have weights to prune. Received: "
            f"pruning_policy={policy!r} and prunable={prunable!r}, which leave "
            f"none of them in model {model.name!r}."
        )
    return lambda layer, weight: weight.variable in chosen
