"""Every network of `applications`, of both Keras lines: what must hold.

Random weights and the smallest input that a network takes: so small that many
taps see padding only, and a few rounds collapse some of them.
"""

import fractions
import gc
import inspect
import math
import pathlib
import re
import subprocess
import sys
import warnings

import common
import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import synflow_tf
from synflow_tf import linearize

ROOT = pathlib.Path(__file__).parents[2]

# The networks that `make test` builds; all others are slow.
_QUICK = {keras: {"EfficientNetB0"}, tf_keras: {"ResNet50"}}
_USUAL = ["ResNet50", "MobileNetV2", "EfficientNetB0", "DenseNet121"]
USUAL = pytest.mark.parametrize("name", _USUAL)

# Sparsities of the rounds, and what is left after two of them.
_SPARSITIES = (0.7, 0.9, 0.97, 0.99)
_COMPRESSIONS = {2: 10, 4: 100}


def _builders(line):
    """The functions that build a network, by name."""
    members = inspect.getmembers(line.applications, inspect.isfunction)
    return {
        name: function
        for name, function in members
        if "weights" in inspect.signature(function).parameters
    }


def _every_network():
    """A case for each network, most marked slow; see above."""
    for line, quick in _QUICK.items():
        for name in _builders(line):
            marks = () if name in quick else pytest.mark.slow
            yield pytest.param(line, name, marks=marks)


def _build(line, name, size=None):
    """A network of 10 classes, of a size or the smallest that it takes."""
    line.utils.set_random_seed(0)
    builder = _builders(line)[name]
    for least in [size] if size else range(32, 129):
        try:
            return builder(
                weights=None, input_shape=(least, least, 3), classes=10
            )
        except ValueError as error:
            refused = error
    raise refused


@pytest.fixture(autouse=True)
def _memory():
    """Gives back the memory of a network after its test."""
    yield
    for line in common.LINES:
        line.backend.clear_session()
    gc.collect()


def _kept(size, compression):
    """How many of `size` weights are left."""
    removed = math.floor((1 - fractions.Fraction(1, compression)) * size)
    return size - removed


class _Watching(synflow_tf.scorers.SynFlow):
    """SynFlow that notes what it sees.

    Attributes:
        log10_of_twice: float, log10 of the flow for the input 2, not 1.
        flowing: for each kernel, whether it has a score above 0 at first.
        seen: for each round, the number of weights that are not 0, and
            whether all scores are finite.
    """

    def __init__(self):
        super().__init__()
        self.seen = []

    def bind(self, model, weights, graph):
        bound = super().bind(model, weights, graph)
        score, check = bound.score, bound.check

        def noted(tensors, round):
            scores, flow = score(tensors, round)
            kept = tf.math.count_nonzero(_flat(tensors))
            finite = tf.reduce_all(tf.math.is_finite(_flat(scores)))
            tf.numpy_function(self._note, [kept, finite], [])
            return scores, flow

        def checked(tensors):
            pairs = zip([w.variable for w in weights], tensors, strict=True)
            linear = linearize.LinearWeights(pairs, tensors[0].dtype)
            linear.unit *= 2  # the input of constants and embeddings
            lowered = linearize.lower(graph)
            doubled = [2 * x for x in linearize.ones(lowered, linear.dtype)]
            outputs = linearize.run(lowered, linear, doubled)
            flow = sum(float(tf.reduce_sum(x)) for x in outputs)
            self.log10_of_twice = math.log10(flow)
            self.log10_of_twice += float(linear.range.exponent) * math.log10(2)
            scores = check(tensors)
            self.flowing = [bool(tf.reduce_any(s > 0)) for s in scores]
            return scores

        bound.score, bound.check = noted, checked
        return bound

    def _note(self, *values):
        self.seen.append(values)
        return []


def _flat(tensors):
    return tf.concat([tf.reshape(x, [-1]) for x in tensors], axis=0)


def _check(model):
    """Prunes 10 and 100 times, and checks what holds for every network."""
    before = common.state(model)
    scorer = _Watching()

    def schedule(step):
        return tf.constant(True), tf.constant(_SPARSITIES)[step - 1]

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        masks = synflow_tf.compute_masks(
            model, schedule=schedule, rounds=len(_SPARSITIES), scorer=scorer
        )
    kept, finite = zip(*scorer.seen, strict=True)
    assert all(finite)
    kernels = [w for w in model.trainable_weights if len(w.shape) > 1]
    assert masks.size == sum(math.prod(w.shape) for w in kernels)
    assert scorer.flowing == [True] * len(kernels)
    # R(2x) = 2 R(x), both by their logarithms
    ratio = 10 ** (scorer.log10_of_twice - masks.history[0].log10_flow)
    assert ratio == pytest.approx(2, rel=1e-9)
    for rounds, compression in _COMPRESSIONS.items():
        # Round t + 1 sees what round t has left.
        assert kept[rounds] == _kept(masks.size, compression)
        assert masks.history[rounds - 1].kept == kept[rounds]
    assert masks.kept == sum(int(mask.sum()) for mask in masks.values())
    assert masks.kept == _kept(masks.size, 100)
    unchanged = common.state(model) == before  # many bytes to print
    assert unchanged


def test_the_networks_are_found(line):
    assert _QUICK[keras] | _QUICK[line] <= set(_builders(line))


@pytest.mark.parametrize(("line", "name"), list(_every_network()))
def test_a_network_at_its_smallest_input(line, name):
    _check(_build(line, name))


@pytest.mark.slow
@USUAL
def test_a_network_at_its_usual_input_and_1000_classes(line, name):
    model = _builders(line)[name](weights=None)
    assert tuple(model.input_shape) == (None, 224, 224, 3)
    assert model.output_shape == (None, 1000)
    _check(model)


@pytest.mark.slow
@USUAL
@pytest.mark.parametrize("compression", [100, 1000])
def test_empty_kernels_are_reported_with_the_path_beside(
    line, name, compression
):
    model = _build(line, name, 64)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        masks = synflow_tf.compute_masks(model, compression=compression)
    assert np.isfinite(masks.log10_flow)
    assert masks.kept == _kept(masks.size, compression)
    assert masks.kept == sum(int(mask.sum()) for mask in masks.values())
    empty = [path for path, mask in masks.items() if not mask.any()]
    found = [f for f in masks.findings if f.kind == "empty"]
    assert [f.name for f in found] == empty
    for finding in found:
        where, through = re.fullmatch(
            "empty; at '(.+)' the flow comes through '(.+)'", finding.text
        ).groups()
        # The layer is there, takes several tensors, and one of them from
        # the other layer.
        taken = model.get_layer(where).input
        assert len(taken) > 1
        assert through in [x._keras_history[0].name for x in taken]
        assert model.get_layer(through) is not model.get_layer(where)
    text = f"All weights of {len(empty)} kernels are removed."
    told = [w for w in caught if text in str(w.message)]
    assert len(told) == bool(empty)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["MobileNetV2", "ResNet50"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_rescaling_changes_no_bit_of_masks_and_scores(line, name):
    model = _build(line, name, 32)
    scorers = [synflow_tf.scorers.SynFlow(rescale=r) for r in (True, False)]
    with_it, without = [
        synflow_tf.compute_masks(model, compression=100, rounds=5, scorer=s)
        for s in scorers
    ]
    assert with_it == without
    for one, other in zip(with_it.history, without.history, strict=True):
        assert one.log10_flow == pytest.approx(other.log10_flow, abs=1e-9)
    with_it, without = [
        synflow_tf.score(model, scorer=scorer) for scorer in scorers
    ]
    assert with_it.log10_flow == pytest.approx(without.log10_flow, abs=1e-9)
    for path, scores in with_it.items():
        np.testing.assert_array_equal(scores, without[path])


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_float32_reaches_beyond_its_range_by_rescaling(line):
    model = _build(line, "ResNet50", 32)
    double = synflow_tf.score(model).log10_flow
    assert double > np.log10(np.finfo(np.float32).max)
    scorer = synflow_tf.scorers.SynFlow(dtype="float32")
    scores = synflow_tf.score(model, scorer=scorer)
    assert scores.log10_flow == pytest.approx(double, abs=1e-4)
    assert all(np.isfinite(array).all() for array in scores.values())
    scorer = synflow_tf.scorers.SynFlow(dtype="float32", rescale=False)
    with pytest.raises(ValueError, match="the range of float32"):
        synflow_tf.score(model, scorer=scorer)


@pytest.mark.slow
def test_the_benchmark_writes_a_table(line, tmp_path):
    path = tmp_path / "table.md"
    command = [sys.executable, str(ROOT / "benchmarks" / "applications.py")]
    command += [
        f"--keras={line.__name__}",
        "--models=MobileNet",
        "--input_size=32",
    ]
    command += ["--rounds=6", f"--output={path}"]

    def run():
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        return done.stdout

    printed = run()
    text = path.read_text()
    assert f"{line.__name__}.applications" in text
    assert "6 rounds" in text and "default is 100 rounds" in text
    head, _, *rows = [x for x in text.split("\n") if x.startswith("|")]
    columns = [x.strip() for x in head.strip("|").split("|")]
    [cells] = [[x.strip() for x in row.strip("|").split("|")] for row in rows]
    table = dict(zip(columns, cells, strict=True))
    assert printed.split() == cells

    model = _build(line, "MobileNet", 32)
    kernels = [w for w in model.trainable_weights if len(w.shape) > 1]
    assert table["model"] == "MobileNet" and table["input"] == "32"
    assert int(table["kernels"]) == len(kernels)
    size = sum(math.prod(w.shape) for w in kernels)
    assert int(table["weights"].replace(",", "")) == size
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        masks = synflow_tf.compute_masks(model, compression=1000, rounds=6)
    flow = masks.history[0].log10_flow
    assert float(table["log10 R"]) == pytest.approx(flow, abs=0.051)
    assert 0 <= float(table["s / round"]) < 60
    # A chain has no path beside: nothing is empty, or it has collapsed.
    for at in ("empty at 10", "at 100", "at 1000"):
        assert table[at] in ("0", "collapsed")
    collapsed = masks.log10_flow == -np.inf
    assert table["at 1000"] == ("collapsed" if collapsed else "0")

    assert run() == ""  # It is all there.
    assert path.read_text() == text
