"""The arguments that all ways of pruning share are the same everywhere."""

import dataclasses
import inspect
import itertools
import re

import common
import keras
import linear
import pytest

import synflow_tf
from synflow_tf import options

WAYS = {
    "prune": synflow_tf.prune,
    "compute_masks": synflow_tf.compute_masks,
    "SynFlowPruning": synflow_tf.SynFlowPruning,
    "prune_synflow": synflow_tf.tfmot.prune_synflow,
}
DEFAULTS = {
    field.name: field.default
    for field in dataclasses.fields(options.Options)
    if field.init
}
# Described where they are taken: what else they stand beside differs.
PER_WAY = {"sparsity", "pruning_schedule"}


def _documented(way):
    """The arguments that a docstring describes."""
    args = inspect.getdoc(way).partition("Args:")[2].partition("\n\n")[0]
    return re.findall(r"^    (\w+): ", args, re.M)


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_an_argument_has_one_default_and_one_place_among_the_others(way):
    parameters = inspect.signature(way).parameters
    shared = [name for name in parameters if name in DEFAULTS]
    assert {n: parameters[n].default for n in shared} == {
        n: DEFAULTS[n] for n in shared
    }
    assert set(DEFAULTS) - set(shared) <= {"pruning_schedule", "masks"}
    first = list(inspect.signature(synflow_tf.prune).parameters)[1:]
    assert [name for name in shared if name in first] == first
    for name in shared:
        by_position = parameters[name].kind is inspect.Parameter.KEYWORD_ONLY
        assert by_position == (name != "sparsity")


@pytest.mark.parametrize("name", DEFAULTS)
def test_an_argument_is_described_once(name):
    ways = [key for key, way in WAYS.items() if name in _documented(way)]
    assert len(ways) == 1 or name in PER_WAY, ways
    takers = [
        key
        for key, way in WAYS.items()
        if name in inspect.signature(way).parameters
    ]
    assert ways and set(ways) <= set(takers)


AMOUNTS = {
    "sparsity": 0.5,
    "compression": 2,
    "schedule": max,
    "keep_n_of_m": (2, 4),
}
# What an argument must be, and values that are not.
BAD = {
    "sparsity": ("a number in", [1.0, -0.1, float("nan"), "high"]),
    "compression": ("a number >= 1", [0.5]),
    "schedule": ("a schedule", [3]),
    "keep_n_of_m": (
        "two integers",
        [(5, 4), (4, 4), (0, 4), (2,), 2, (1.5, 4), (True, 4), "2:4"],
    ),
    "rounds": ("an integer >= 1", [0, 1.5]),
    "scorer": ("a `synflow_tf.scorers.Scorer`", ["synflow"]),
    "scope": ("one of 'global', 'local'", ["layer"]),
    "min_kept": ("an integer >= 0", [-1, 1.5, None]),
    "on_unscored": ("one of 'error', 'keep'", ["drop"]),
}


def _received(arguments):
    return ".*".join(f"{k}={re.escape(repr(v))}" for k, v in arguments.items())


WRONG = [
    (
        {**({} if name in AMOUNTS else {"sparsity": 0.5}), name: value},
        f"`{name}` must be {must}.* Received: {_received({name: value})}",
    )
    for name, (must, values) in BAD.items()
    for value in values
]
WRONG += [
    (dict(two), f"Exactly one of .*`schedule`.*{_received(dict(two))}")
    for two in ((), *itertools.combinations(AMOUNTS.items(), 2))
]
WRONG += [
    (
        {"keep_n_of_m": (2, 4), "min_kept": 1},
        r"`min_kept` must be 0 where `keep_n_of_m`.*min_kept=1 .*=\(2, 4\)",
    )
]


@pytest.mark.parametrize(("arguments", "message"), WRONG)
def test_all_ways_refuse_the_same_with_the_same_words(arguments, message):
    model = synflow_tf.models.fc((8, 8, 1))
    before = common.state(model)
    errors = []
    for name, way in WAYS.items():
        given = () if name == "SynFlowPruning" else (model,)
        with pytest.raises((TypeError, ValueError), match=message) as caught:
            way(*given, **arguments)
        # Of amounts, each way names its own.
        errors.append(str(caught.value).partition("Exactly one")[0])
    assert len(set(errors)) == 1
    assert common.state(model) == before


def _with_a_cut():
    """A model of two kernels with scores, and one that no flow reaches."""
    keras.utils.set_random_seed(0)

    def call(x):
        x = linear.dense(keras, 6, "a")(x)
        cut = keras.layers.Lambda(lambda x: 0 * x)(x)
        x = keras.layers.Add()([x, linear.dense(keras, 6, "cut")(cut)])
        return linear.dense(keras, 3, "b")(x)

    model = linear.functional(keras, call, (4,))
    model.compile("sgd", "mse")
    return model


def _fit(model, callback):
    x, y = keras.ops.ones((8, 4)), keras.ops.ones((8, 3))
    common.fit(model, x, y, callback, batch_size=2)
    return callback.masks


def test_what_has_no_score_takes_part_no_more_after_a_restore(tmp_path):
    def fit(model):
        return _fit(model, synflow_tf.SynFlowPruning(0.5, **arguments))

    scorer = common.Counting()
    arguments = {"rounds": 3, "on_unscored": "keep", "scorer": scorer}
    model = _with_a_cut()
    first = fit(model)
    assert list(first) == ["a/kernel", "b/kernel"] and scorer.runs > 0
    model.save_weights(tmp_path / "pruned.weights.h5")
    restored = _with_a_cut()
    restored.load_weights(tmp_path / "pruned.weights.h5")
    runs = scorer.runs
    assert fit(restored) == first
    assert scorer.runs == runs


def test_what_has_no_score_stays_in_each_fit_of_a_schedule():
    schedule = synflow_tf.schedules.LinearSparsity(0.7, 0, 10, 1)
    callback = synflow_tf.SynFlowPruning(
        pruning_schedule=schedule, rounds=3, on_unscored="keep"
    )
    model = _with_a_cut()
    kept = [_fit(model, callback).kept for _ in range(3)]
    assert kept[0] > kept[1] > kept[2] == 42 - int(0.7 * 42)
    assert list(callback.masks) == ["a/kernel", "b/kernel"]
    assert model.get_layer("cut").kernel.numpy().all()
