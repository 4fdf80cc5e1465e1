"""Removed weights stay 0 on every replica and worker of a strategy.

Each training runs in processes of its own, since TensorFlow takes its devices
once, and its cluster from the environment.
"""

import contextlib
import fcntl
import functools
import io
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time
import typing

import common
import distribution_worker as worker
import numpy as np
import pytest

import synflow_tf
from synflow_tf.enforce import workers

pytestmark = pytest.mark.in_turn

ROOT = pathlib.Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "multi_worker.py"
LINES = list(worker.LINES)
BOTH = pytest.mark.parametrize("line", LINES)
# All of the weights to remove before the first step.
AT_ONCE = [case for case in worker.CASES if case != "gradual_callback"]
SIZE = 3 * 3 * 8 + 6 * 6 * 8 * 10 + 10 * 10 + 10 * 10
KEPT = SIZE - SIZE * 9 // 10
# How many seconds a worker may live on without the other.
LIMIT = 60
# How many seconds all processes of a scenario may take.
TIMEOUT = 300


class Process(typing.NamedTuple):
    """A process that has ended.

    Attributes:
        code: int, its return code, or None if it took too long.
        ended: float, when it ended, in seconds.
        printed: str, all that it printed.
    """

    code: int | None
    ended: float
    printed: str


def _run(commands):
    """Runs processes at the same time, and lets none survive.

    Args:
        commands: dict of a file for what is printed to a pair: a list of
            arguments of Python, and a dict, what is added to the environment.
    """
    paths = [ROOT, ROOT / "tests", os.environ.get("PYTHONPATH", "")]
    path = os.pathsep.join(map(str, paths))
    running, deadline = {}, time.monotonic() + TIMEOUT
    try:
        for log, (arguments, environment) in commands.items():
            with open(log, "wb") as file:
                running[log] = subprocess.Popen(
                    [sys.executable, *map(str, arguments)],
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    env={**os.environ, "PYTHONPATH": path, **environment},
                )
        ended = {}
        while len(ended) < len(running) and time.monotonic() < deadline:
            for log, process in running.items():
                if log not in ended and process.poll() is not None:
                    ended[log] = time.time()
            time.sleep(0.02)
    finally:
        for process in running.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    for log, process in running.items():
        code = process.returncode if log in ended else None
        result = [code, ended.get(log, time.time())]
        log.with_suffix(".json").write_text(json.dumps(result))


def _workers(scenario, line, folder, victim):
    """The commands of two workers that find each other on this machine."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    addresses = [f"127.0.0.1:{s.getsockname()[1]}" for s in sockets]
    for s in sockets:
        s.close()
    commands = {}
    for index in range(2):
        task = {"type": "worker", "index": index}
        config = {"cluster": {"worker": addresses}, "task": task}
        commands[folder / f"{index}.log"] = (
            [worker.__file__, scenario, line, folder],
            {"TF_CONFIG": json.dumps(config), "VICTIM": str(victim)},
        )
    return commands


def _commands(scenario, line, folder, victim):
    if (scenario, line) == ("gradual", "keras"):
        return {}  # Keras 3 has no `fit` under this strategy.
    if scenario in ("mirrored", "modes"):
        arguments = [worker.__file__, scenario, line, folder]
        return {folder / "0.log": (arguments, {})}
    if scenario == "example":
        arguments = [EXAMPLE, f"--keras={line}", "--rounds=5", "--epochs=1"]
        data = {"TFDS_DATA_DIR": str(folder / "data")}
        return {folder / "0.log": (arguments, data)}
    return _workers(scenario, line, folder, victim)


@pytest.fixture
def scenario(tmp_path_factory):
    """A function that runs a scenario, in both lines at the same time.

    Once for all tests, also where several processes of pytest share them. It
    returns the folder of a line and the list of its `Process`.
    """
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent

    def run(name, line, victim=None):
        folders = {line: root / f"{name}_{victim}_{line}" for line in LINES}
        with open(root / f"{name}_{victim}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folders[line].exists():
                commands = {}
                for each, folder in folders.items():
                    folder.mkdir()
                    commands |= _commands(name, each, folder, victim)
                _run(commands)
        folder = folders[line]
        return folder, [
            Process(
                *json.loads(log.with_suffix(".json").read_text()),
                log.read_text(errors="replace"),
            )
            for log in sorted(folder.glob("?.log"))
        ]

    return run


def _arrays(file):
    with np.load(file) as data:
        return [data[name] for name in data.files]


def _replicas(path):
    """What the worker saved: a dict of weight path to list of arrays.

    Without the moving statistics, of which each replica has its own.
    """
    found = {}
    with np.load(path) as data:
        for name in data.files:
            weight, _, _ = name.partition("|")
            if "moving" not in weight:
                found.setdefault(weight, []).append(data[name])
    return found


def _report(path):
    return json.loads(path.read_text())


_masks = synflow_tf.Masks.load


@functools.lru_cache(maxsize=4)
def _single_device(line, policy, file):
    """The masks of a model without a strategy, and what counted the scoring.

    Args:
        line: str, the Keras line.
        policy: str, a dtype policy, or None.
        file: bytes of an npz file, the weights to begin with.
    """
    model = _model(line, policy, _arrays(io.BytesIO(file)))
    scorer = common.Counting()
    masks = synflow_tf.compute_masks(model, **worker.PRUNING, scorer=scorer)
    return masks, scorer


def _model(line, policy, weights):
    model = worker.make_model(worker.LINES[line], policy)
    model.set_weights(weights)
    return model


def _check_trained(replicas, masks, before):
    """Removed weights are 0 on both replicas, which are equal and trained.

    Args:
        replicas: dict of weight path to the values of the two replicas.
        masks: `Masks`.
        before: path of an npz file, the weights to begin with.
    """
    assert set(masks) <= set(replicas)
    assert masks.kept == KEPT
    for path, (first, second) in replicas.items():
        np.testing.assert_array_equal(first, second)
        if path in masks:
            assert not np.any(first[~masks[path]])
    mask = masks["conv/kernel"]
    kernel, *_ = _arrays(before)
    assert np.all(replicas["conv/kernel"][0][mask] != kernel[mask])


def _check_scored(line, policy, folder, index=""):
    """The masks are those of a single device, scored as often."""
    before = folder / f"before{index}.npz"
    expected, scorer = _single_device(line, policy, before.read_bytes())
    assert _masks(folder / f"masks{index}") == expected
    report = _report(folder / f"report{index}.json")
    assert (report["calls"], report["runs"]) == (scorer.calls, scorer.runs)
    assert scorer.runs > worker.PRUNING["rounds"]


def _mirrored(scenario, line, case, name="mirrored"):
    """The folder of a case that was trained on two devices."""
    folder = scenario(name, line)[0] / case
    error = folder / "error.txt"
    assert not error.exists(), error.read_text()
    return folder


@pytest.mark.parametrize("case", AT_ONCE)
@BOTH
def test_masks_on_two_devices_are_those_of_one_scored_as_often(
    scenario, line, case
):
    _check_scored(line, worker.CASES[case][-1], _mirrored(scenario, line, case))


# The looks at each step: as it begins and ends, in a loop as it ends.
@pytest.mark.parametrize(
    "case, looks", [*((case, 2) for case in worker.CASES), ("unnamed", 1)]
)
@BOTH
def test_removed_weights_are_0_on_both_devices_which_are_equal(
    scenario, line, case, looks
):
    revived = _check_mirrored(_mirrored(scenario, line, case))
    assert revived == [0] * looks * worker.EPOCHS * worker.STEPS


def _check_mirrored(folder):
    """Returns how many removed weights were not 0, at each look."""
    replicas, masks = _replicas(folder / "after.npz"), _masks(folder / "masks")
    _check_trained(replicas, masks, folder / "before.npz")
    return _report(folder / "report.json")["revived"]


@BOTH
def test_training_on_two_devices_is_that_of_a_masked_forward_pass(
    scenario, line
):
    folder = _mirrored(scenario, line, "momentum_pruned_first")
    masks = _masks(folder / "masks")
    replicas = _replicas(folder / "after.npz")
    expected = _replicas(folder / "masked_forward.npz")
    assert set(replicas) == set(expected)
    for path, (value, _) in replicas.items():
        np.testing.assert_allclose(
            value,
            expected[path][0] * masks.get(path, True),
            rtol=1e-3,
            atol=1e-5,
        )


@BOTH
def test_a_schedule_on_two_devices_prunes_as_on_one(scenario, line):
    folder = _mirrored(scenario, line, "gradual_callback")
    steps = range(worker.EPOCHS * worker.STEPS)
    before = [_masks(folder / f"step{step}.masks") for step in steps]
    after = [*before[1:], _masks(folder / "masks")]
    pruned = [step for step in steps if after[step] != before[step]]
    assert pruned == [2, 4, 6]
    for step in pruned:
        model = _model(line, None, _arrays(folder / f"step{step}.npz"))
        before[step].enforce(model)
        expected = synflow_tf.compute_masks(
            model,
            1 - worker.SCHEDULE.density(step),
            rounds=worker.PRUNING["rounds"],
        )
        assert after[step] == expected


@pytest.mark.slow
@pytest.mark.parametrize("mode", worker.MODES)
@BOTH
def test_modes_hold_on_two_devices_or_fail_without_us(scenario, line, mode):
    error = worker.IMPOSSIBLE.get((line, mode))
    if error is not None:
        folder = scenario("modes", line)[0] / mode
        assert error in (folder / "error.txt").read_text()
        assert not (folder / "trained").exists()
        return
    revived = _check_mirrored(_mirrored(scenario, line, mode, "modes"))
    assert revived and not any(revived)


@BOTH
def test_both_workers_have_the_masks_of_one_process_and_stay_equal(
    scenario, line
):
    folder, processes = scenario("train", line, victim=1)
    for index, process in enumerate(processes):
        report = folder / f"report{index}.json"
        assert report.exists(), process.printed[-3000:]
        _check_scored(line, None, folder, index)
    _check_workers(folder)


@pytest.mark.slow
def test_a_schedule_prunes_alike_on_both_workers(scenario):
    folder, processes = scenario("gradual", "tf_keras")
    for process in processes:
        assert process.code == 0, process.printed[-3000:]
    assert _masks(folder / "masks0") == _masks(folder / "masks1")
    _check_workers(folder)


def _check_workers(folder):
    first, second = (_replicas(folder / f"after{i}.npz") for i in range(2))
    assert set(first) == set(second)
    _check_trained(
        {path: [*first[path], *second[path]] for path in first},
        _masks(folder / "masks0"),
        folder / "before0.npz",
    )
    for index in range(2):
        revived = _report(folder / f"report{index}.json")["revived"]
        assert revived == [0] * worker.EPOCHS * worker.STEPS


@pytest.mark.parametrize("victim", [1, pytest.param(0, marks=pytest.mark.slow)])
@BOTH
def test_a_worker_fails_soon_if_the_other_is_killed_in_training(
    scenario, line, victim, record_property
):
    folder, processes = scenario("train", line, victim)
    # The killed one had come so far.
    assert (folder / f"report{victim}.json").exists()
    _check_killed(processes, victim, record_property)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
@BOTH
def test_a_worker_fails_soon_if_the_other_is_killed_before_enforcing(
    scenario, line, victim, record_property
):
    folder, processes = scenario("killed_before_enforcing", line, victim)
    _check_killed(processes, victim, record_property)
    other = processes[1 - victim]
    # What needs no other worker was done without it.
    assert (folder / "enforcing").exists(), other.printed[-3000:]
    assert "in check_same" in other.printed


def _check_killed(processes, victim, record_property):
    killed, other = processes[victim], processes[1 - victim]
    assert killed.code == -signal.SIGKILL, killed.printed[-3000:]
    # An error of TensorFlow's own, of its class in Keras's words as well.
    assert other.code == 1, other.printed[-3000:]
    assert "Collective ops is aborted by" in other.printed
    seconds = other.ended - killed.ended
    record_property("seconds", seconds)
    assert 0 < seconds < LIMIT


@BOTH
def test_workers_with_different_masks_raise_and_exit(scenario, line):
    folder, processes = scenario("differ", line)
    for index, process in enumerate(processes):
        assert process.code == 1, process.printed[-3000:]
        message = "ValueError: All workers must enforce the same masks"
        assert message in process.printed
        for name in ("random", "elsewhere"):
            _check_refused(folder, f"{name}{index}")
        report = _report(folder / f"random{index}.json")
        assert report["seconds"] < 20
        assert process.ended - report["ended"] < 20


def _check_refused(folder, name):
    report = _report(folder / f"{name}.json")
    assert report["error"].startswith("All workers must enforce the same masks")
    assert not report["enforced"]
    common.assert_equal(
        _arrays(folder / f"before_{name}.npz"),
        _arrays(folder / f"after_{name}.npz"),
    )


def _random_masks(seed=0):
    rng = np.random.default_rng(seed)
    return [rng.random(shape) < 0.5 for shape in ((3, 3, 1, 8), (7,), (5, 4))]


def test_a_checksum_is_the_same_for_equal_masks_and_below_2_to_the_63():
    checksums = []
    for seed in range(100):
        masks = _random_masks(seed)
        copies = [np.asfortranarray(mask) for mask in masks]
        checksums.append(workers.checksum(masks))
        assert workers.checksum(iter(copies)) == checksums[-1]
    assert len(set(checksums)) == 100
    assert all(0 <= checksum < 2**63 for checksum in checksums)
    # No bit that there is room for is left out.
    assert max(checksums) >= 2**62


def test_a_checksum_depends_on_each_bit_of_each_mask_and_on_their_order():
    masks = _random_masks()
    checksums = {workers.checksum(masks), workers.checksum(masks[::-1])}
    bits = 0
    for index, mask in enumerate(_random_masks()):
        for place in np.ndindex(mask.shape):
            masks = _random_masks()
            masks[index][place] = not mask[place]
            checksums.add(workers.checksum(masks))
            bits += 1
    assert len(checksums) == bits + 2


@pytest.mark.slow
@BOTH
def test_the_example_trains_on_two_workers(scenario, line):
    _, (process,) = scenario("example", line)
    assert process.code == 0, process.printed[-3000:]
    found = re.findall(
        r"worker (\d): kept ([\d,]+) of ([\d,]+), non-zero after training "
        r"([\d,]+), accuracy ([\d.]+)%",
        process.printed,
    )
    assert sorted(index for index, *_ in found) == ["0", "1"]
    assert found[0][1:] == found[1][1:]
    kept, size, nonzero, accuracy = (
        float(x.replace(",", "")) for x in found[0][1:]
    )
    assert kept == size - size * 9 // 10
    assert nonzero == kept
    assert 20 < accuracy <= 100
