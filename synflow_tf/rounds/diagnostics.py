"""What is worth telling of a problem, before its rounds and after them."""

import warnings

import tensorflow as tf

from synflow_tf import findings
from synflow_tf import linearize
from synflow_tf.enforce import constraint as constraint_lib
from synflow_tf.graph import identity
from synflow_tf.graph import variables

# More zero scores than this share in round 1 are worth a warning.
_MANY = 0.05
_SCALE = "0 in every entry, as training starts from it: counted as ones"


def settle(problem, on_unscored):
    """Inspects, and decides about weights without scores.

    Args:
        problem: `problem.Problem`; it loses the weights that are left out.
        on_unscored: "error", or "keep", which leaves them out.

    Returns:
        list of `Finding`.

    Raises:
        ValueError: if a check fails, or no weight has a score.
    """
    inspected = problem.inspect()
    if inspected is None:
        return []
    scores, zero_scales = inspected
    found = _of_scales(problem.graph.model, zero_scales)
    zeros = {
        weight: _zeros(weight, score)
        for weight, score in zip(problem.weights, scores, strict=True)
    }
    # A kernel that is masked already may well be empty.
    held = {w: constraint_lib.mask_of(w) is not None for w in zeros}
    unscored = [w for w, share in zeros.items() if share == 1 and not held[w]]
    empty = [w for w in unscored if _is_zero(w)]
    behind = _cut_off(problem, unscored, empty)
    wrong = [w for w in unscored if w not in empty and w not in behind]
    if len(unscored) == len(zeros) or (wrong and on_unscored == "error"):
        raise _unscored_error(problem, wrong or unscored)
    if empty and on_unscored == "error":
        _warn_of_zero_kernels(empty, behind)
    found += [
        findings.Finding(
            "unscored", w.path, f"kept as it is: {_why(problem, w)}"
        )
        for w in unscored
    ]
    found += [
        findings.Finding("zeros", w.path, f"{share:.1%} of its weights score 0")
        for w, share in zeros.items()
        if _MANY < share < 1 and not any(held.values())  # by their masks
    ]
    _warn_of_zeros([f.name for f in found if f.kind == "zeros"])
    problem.weights = [w for w in problem.weights if w not in unscored]
    return found


def _of_scales(model, zero_scales):
    """A finding for each scale that counts as ones."""
    if not zero_scales:
        return []
    weights = variables.weights(model)
    paths = identity.IdentityDict((w.variable, w.path) for w in weights)
    named = [paths.get(v, v.name) for v in zero_scales]
    return [findings.Finding("scale", name, _SCALE) for name in named]


def _cut_off(problem, unscored, empty):
    """Those weights without scores that kernels of zeros alone cut off."""
    if not empty or len(empty) == len(unscored):
        return []
    scores, _ = problem.inspect(empty)
    reached = {
        weight
        for weight, score in zip(problem.weights, scores, strict=True)
        if tf.reduce_any(score != 0)
    }
    return [w for w in unscored if w not in empty and w in reached]


def _unscored_error(problem, unscored):
    return ValueError(
        f"No flow passes through {len(unscored)} of {len(problem.weights)} "
        f"prunable weights of model {problem.graph.model.name!r}: "
        f"{_listed(repr(w.path) for w in unscored)}; "
        f"{_why(problem, unscored[0])} "
        "They would all be removed. Leave them out with `prunable=`, "
        "or keep them as they are with `on_unscored='keep'`; if a "
        "layer around them does more than it should, give it a rule "
        "with `synflow_tf.register_rule`."
    )


def _warn_of_zero_kernels(empty, behind):
    """Warns of kernels that are kept because they are zeros."""
    through = ""
    if behind:
        through = (
            f", and so are the {len(behind)} that flow reaches, or leaves, "
            f"through them alone ({_listed(repr(w.path) for w in behind)})"
        )
    warnings.warn(
        f"{len(empty)} kernels are 0 in every entry, so they have no score and "
        f"are kept as they are ({_listed(repr(w.path) for w in empty)})"
        f"{through}. Score after the first steps of training "
        "(`SynFlowPruning(schedule=...)`), choose with `prunable=`, or say "
        "`on_unscored='keep'`.",
        stacklevel=6,
    )


def empty_kernels(problem, masks):
    """Finds the kernels that masks empty, and warns of them.

    Args:
        problem: `problem.Problem`.
        masks: dict of weight path to bool array.

    Returns:
        list of `Finding`.
    """
    empty = [w for w in problem.weights if not masks[w.path].any()]
    if not empty:
        return []
    weights = linearize.LinearWeights(
        [
            (
                w.variable,
                tf.abs(tf.cast(variables.value(w.variable), problem.dtype))
                * tf.cast(masks[w.path], problem.dtype),
            )
            for w in problem.weights
        ],
        problem.dtype,
    )
    graph = linearize.lower(problem.graph, weights.scored)
    found = []
    places = linearize.skip_paths(
        graph, weights, problem.inputs, [w.variable for w in empty]
    )
    for weight, (where, through) in zip(empty, places, strict=True):
        text = f"empty; at {where!r} the flow comes through {through!r}"
        if not where:
            text = "empty; other outputs of the model carry the flow"
        elif where == through:
            text = f"empty; the rest of {where!r} carries the flow"
        found.append(findings.Finding("empty", weight.path, text))
    warnings.warn(
        f"All weights of {len(empty)} of {len(masks)} kernels are removed;"
        f" other paths carry the flow. {_listed(found, '; ')}",
        stacklevel=5,
    )
    return found


def _warn_of_zeros(many):
    """Warns of kernels in which many weights score 0."""
    if many:
        warnings.warn(
            f"More than {_MANY:.0%} of the weights score exactly 0 in "
            f"{len(many)} kernels ({_listed(map(repr, many))}) and are "
            "removed first. Usually the input is so small that they only see "
            "padding (say a larger one with `inputs=`), weights elsewhere are "
            "0, or "
            "float32 is too narrow.",
            stacklevel=6,
        )


def _zeros(weight, score):
    """The share of a weight's entries other than 0 that score 0."""
    nonzero = variables.value(weight.variable) != 0
    count = tf.math.count_nonzero(nonzero)
    zeros = tf.math.count_nonzero(nonzero & (score == 0))
    return float(zeros / count) if count else 1.0


def _is_zero(weight):
    """Whether a weight is 0 in every entry."""
    return not tf.reduce_any(variables.value(weight.variable) != 0)


def _why(problem, weight):
    """Why no flow passes through a weight."""
    if _is_zero(weight):
        return f"all entries of {weight.path!r} are 0."
    if not problem.graph.uses(weight.variable):
        return f"no output of the model depends on {weight.path!r}."
    return (
        f"{weight.path!r} is multiplied by 0, or its layer "
        f"{weight.layer.name!r} is not on a way from input to output."
    )


def _listed(items, separator=", ", most=6):
    """The first of some items, and that there are more."""
    items = list(map(str, items))
    return separator.join(items[:most]) + (" ..." if items[most:] else "")
