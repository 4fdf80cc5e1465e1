"""Checks before pruning, and diagnostics after it."""

import math

import tensorflow as tf

from synflow_tf import findings
from synflow_tf.graph import variables

# A share of zero scores in round 1 that is worth a warning. Less than one tap
# of a 5 x 5 or smaller convolution that sees only padding is no sign of it.
_MANY = 0.05


def check(task, on_unscored, held):
    """Checks the model, and finds the weights that have scores.

    Args:
        task: `task.Task`.
        on_unscored: "error", or "keep", which leaves the others out.
        held: mapping of weight path to the mask that is enforced.

    Returns:
        A pair: list of the weights that have scores, and list of `Finding`.

    Raises:
        ValueError: if a check fails, or weights without scores are an error.
    """
    alive = task.alive(held)
    # As ones: what was removed must not look like what never had a score.
    tensors = [
        tf.where(kept, x, tf.ones_like(x))
        for kept, x in zip(
            task.split(alive), task.split(task.start({})), strict=True
        )
    ]
    scores = task.bound.check(tensors)
    if scores is None:
        return task.weights, []
    found = list(task.bound.findings)
    pairs = list(zip(task.weights, scores, strict=True))
    unscored = [w for w, score in pairs if not tf.reduce_any(score != 0)]
    empty = [w for w in unscored if _is_zero(w)]
    behind = _behind(task, tensors, unscored, empty)
    wrong = [w for w in unscored if w not in empty and w not in behind]
    if len(unscored) == len(pairs) or (wrong and on_unscored == "error"):
        raise _unscored_error(task, wrong or unscored)
    for weight in sorted(unscored, key=lambda w: w not in empty):
        text = f"kept as it is: {task.bound.why_unscored(weight)}"
        found.append(findings.Finding("unscored", weight.path, text))
    if tf.reduce_all(alive):  # else masks may be why
        for weight, score in pairs:
            share = _zero_share(weight, score)
            if _MANY < share and weight not in unscored:
                text = f"{share:.1%} of its weights score 0"
                found.append(findings.Finding("zeros", weight.path, text))
    return [w for w in task.weights if w not in unscored], found


def _behind(task, tensors, unscored, empty):
    """Finds the weights that kernels of zeros alone cut off from the flow."""
    if not empty or len(empty) == len(unscored):
        return []
    opened = [
        tf.ones_like(x) if w in empty else x
        for w, x in zip(task.weights, tensors, strict=True)
    ]
    scores = zip(task.weights, task.bound.check(opened), strict=True)
    reached = [w for w, score in scores if tf.reduce_any(score != 0)]
    return [w for w in unscored if w not in empty and w in reached]


def _unscored_error(task, unscored):
    names = findings.listed(repr(weight.path) for weight in unscored)
    return ValueError(
        f"No flow passes through {len(unscored)} of {len(task.weights)} "
        f"prunable weights of model {task.graph.model.name!r}: {names}; "
        f"{task.bound.why_unscored(unscored[0])} "
        "They would all be removed. Leave them out with `prunable=`, "
        "or keep them as they are with `on_unscored='keep'`; if a "
        "layer around them does more than it should, give it a rule "
        "with `synflow_tf.register_rule`."
    )


def _zero_share(weight, score):
    """Returns the share of a weight's entries other than 0 that score 0."""
    nonzero = variables.value(weight.variable) != 0
    count = tf.math.count_nonzero(nonzero)
    zeros = tf.math.count_nonzero(nonzero & (score == 0))
    return float(zeros / count) if count else 1.0


def _is_zero(weight):
    return not tf.reduce_any(variables.value(weight.variable) != 0)


def of_masks(task, masks, log10_flow, known=()):
    """Finds what masks have emptied: kernels, or the whole model.

    `masks` is a dict of weight path to bool array, `log10_flow` that of the
    masked model. What is among the `known` findings is not looked for anew.
    """
    empty = [w for w in task.weights if not masks[w.path].any()]
    if log10_flow == -math.inf:
        names = ", ".join(weight.path for weight in empty) or "none"
        text = (
            "at this sparsity no path is left from the model's inputs to its "
            f"outputs (kernels without any weight: {names}). It cannot learn. "
            "Use more `rounds` (the paper's 100) or a lower sparsity."
        )
        return [findings.Finding("collapse", task.graph.model.name, text)]
    told = {f.name: f for f in known if f.kind == "empty"}
    new = [weight for weight in empty if weight.path not in told]
    found = [told[w.path] for w in empty if w.path in told]
    if new:
        found += task.bound.explain(new, task.split(task.start(masks)))
    return found
