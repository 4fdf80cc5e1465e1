"""SynFlow against what the authors' own code computes, in float64."""

import warnings

import golden_models
import numpy as np
import pytest

import synflow_tf
from synflow_tf.graph import variables

AUTHORS = synflow_tf.scorers.SynFlow(variant="authors")


def _load(tag, line):
    """The model, and the path of each of its weights by golden name."""
    model, names = golden_models.load(tag, line)
    paths = {id(w.variable): w.path for w in variables.weights(model)}
    return model, {name: paths[id(v)] for name, v in names.items()}


@pytest.mark.parametrize("tag", golden_models.TAGS)
def test_scores_equal_the_authors_in_round_1(tag, line):
    model, paths = _load(tag, line)
    scores = synflow_tf.score(model, scorer=AUTHORS)
    assert list(scores) == list(paths.values())
    for name, golden in golden_models.scores(tag).items():
        np.testing.assert_allclose(scores[paths[name]], golden, rtol=1e-9)
    flow = golden_models.read_meta(tag)["R1_f64"]
    np.testing.assert_allclose(10**scores.log10_flow, flow, rtol=1e-9)


def _arguments(meta):
    """What to call `prune` with for a recorded run."""
    rounds = meta["epochs"]
    arguments = {"rounds": rounds, "scope": meta["scope"]}
    if meta["schedule"] == "exponential":
        arguments["compression"] = 10 ** meta["compression_exp"]
    else:
        arguments["schedule"] = synflow_tf.schedules.LinearSparsity(
            1 - meta["sparsity"], begin_step=0, end_step=rounds, frequency=1
        )
    return arguments


@pytest.mark.parametrize("case", golden_models.cases())
def test_masks_equal_the_authors_bit_for_bit(case, line):
    meta, golden, masks = golden_models.load_case(case)
    model, paths = _load(meta["model"], line)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one-shot runs collapse
        ours = synflow_tf.compute_masks(
            model, scorer=AUTHORS, **_arguments(meta)
        )
    for name, mask in masks.items():
        np.testing.assert_array_equal(ours[paths[name]], mask, err_msg=name)
    kept = [entry.kept for entry in ours.history]
    assert kept == golden["remaining_f64"].tolist()
    flow = [entry.log10_flow for entry in ours.history]
    np.testing.assert_allclose(
        10 ** (flow - np.log10(golden["R_f64"])), 1, rtol=1e-9
    )


def test_all_recorded_runs_are_compared():
    assert len(golden_models.cases()) == 26
