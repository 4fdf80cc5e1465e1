"""Removed weights stay 0 when a model is saved, loaded, killed and resumed."""

import functools
import itertools
import multiprocessing
import random
import re
import shutil
import signal
import subprocess
import sys
import zipfile

import common
import keras
import numpy as np
import pytest
import resume_worker
import tensorflow as tf
import tf_keras

import synflow_tf

pytestmark = pytest.mark.in_turn

ORDERS = pytest.mark.parametrize(
    "backup_first", [True, False], ids=["backup-pruning", "pruning-backup"]
)
# What a reader that has never heard of this library gets out of each file.
_READ = """
import pathlib
import sys

import numpy as np
import tensorflow as tf
import {line} as line

directory = pathlib.Path(sys.argv[1])
x = np.load(directory / "x.npy")


def write(name, weights, predictions):
    weights = [np.asarray(weight) for weight in weights]
    np.savez(directory / (name + ".npz"), *weights, predictions=predictions)


for name in {whole}:
    model = line.models.load_model(directory / name)
    write(name, model.get_weights(), model.predict(x, verbose=0))


def read(name, load):
    model.set_weights([weight + 1 for weight in model.get_weights()])
    load(str(directory / name))
    write(name, model.get_weights(), model.predict(x, verbose=0))


def restore(path):
    tf.train.Checkpoint(model=model).restore(path).expect_partial()


read("only.weights.h5", model.load_weights)
read("checkpoint", restore)
exported = tf.saved_model.load(directory / "exported")
write("exported", exported.variables, exported.serve(x))
assert "synflow_tf" not in sys.modules
"""
# The files from which each line loads a whole model.
WHOLE = {
    keras: ["whole.keras"],
    tf_keras: ["whole.keras", "whole.h5", "whole_tf"],
}


class _InterruptionError(Exception):
    pass


def _save_more(line, model, directory):
    """Writes a model into files of all other kinds that the line has."""
    model.save_weights(directory / "only.weights.h5")
    if line is tf_keras:
        model.save(directory / "whole.h5", save_format="h5")
        model.save(directory / "whole_tf", save_format="tf")
    quiet = {"verbose": False} if line is keras else {}
    model.export(str(directory / "exported"), **quiet)


@pytest.fixture(scope="module", params=common.LINES)
def saved(request, tmp_path_factory):
    """A line, a model of it that was pruned and trained, its masks and files.

    The files are in `pruned`, and in `plain` those of a model that is not.
    """
    line = request.param
    directory = tmp_path_factory.mktemp("files")
    for name in ("plain", "pruned"):
        (directory / name).mkdir()
        model = resume_worker.model(line, optimizer="Adam")
        config = model.to_json()
        if name == "pruned":
            masks = synflow_tf.prune(model, sparsity=0.8, rounds=5)
        _fit(model, epochs=2)
        assert model.to_json() == config
        model.save(directory / name / "whole.keras")
        checkpoint = str(directory / name / "checkpoint")
        tf.train.Checkpoint(model=model).write(checkpoint)
    _save_more(line, model, directory / "pruned")
    np.save(directory / "pruned" / "x.npy", resume_worker.data()[0])
    return line, model, masks, directory


@pytest.fixture(scope="module")
def read(saved):
    """What was read, by the name of the file: weights and predictions."""
    line, _, _, directory = saved
    code = _READ.format(line=line.__name__, whole=WHOLE[line])
    done = subprocess.run(
        [sys.executable, "-c", code, directory / "pruned"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    result = {}
    for name in [*_names(line), "exported"]:
        with np.load(directory / "pruned" / f"{name}.npz") as file:
            arrays = dict(file)
        result[name] = arrays.pop("predictions"), list(arrays.values())
    return result


def _kernel(weights, mask):
    """The kernel among weights, known by its shape."""
    (kernel,) = (w for w in weights if w.shape == mask.shape)
    return kernel


def _revived(weights, masks):
    """How many removed weights are not 0."""
    return sum(
        int(np.count_nonzero(_kernel(weights, mask)[~mask]))
        for mask in masks.values()
    )


def _check_count(masks):
    assert masks.kept == masks.size - int(0.8 * masks.size)


def _fit(model, *callbacks, **options):
    options = {"batch_size": 8, **options}
    return common.fit(model, *resume_worker.data(), *callbacks, **options)


def test_each_file_is_the_same_for_a_reader_without_this_library(saved, read):
    _, model, masks, _ = saved
    _check_count(masks)
    expected = model.predict(resume_worker.data()[0], verbose=0)
    for name, (predictions, weights) in read.items():
        assert _revived(weights, masks) == 0, name
        for path, mask in masks.items():
            trained = model.get_layer(path.partition("/")[0]).get_weights()[0]
            np.testing.assert_array_equal(
                _kernel(weights, mask), trained, err_msg=name
            )
        np.testing.assert_allclose(
            predictions, expected, rtol=1e-5, atol=1e-6, err_msg=name
        )


def test_no_file_mentions_this_library(saved):
    _, _, _, directory = saved
    files = [p for p in (directory / "pruned").rglob("*") if p.is_file()]
    assert len(files) >= 8
    for path in files:
        parts = [path.read_bytes()]
        if path.suffix == ".keras":
            with zipfile.ZipFile(path) as archive:
                parts = [archive.read(name) for name in archive.namelist()]
        for part in parts:
            assert not re.search(rb"synflow|MaskConstraint", part), path


def test_config_and_entries_are_those_of_files_of_a_plain_model(saved):
    _, _, _, directory = saved
    configs, entries = [], []
    for name in ("plain", "pruned"):
        with zipfile.ZipFile(directory / name / "whole.keras") as archive:
            configs.append(archive.read("config.json").decode())
        path = str(directory / name / "checkpoint")
        entries.append(tf.train.list_variables(path))
    assert configs[0] == configs[1]
    assert "MaxNorm" in configs[1]
    assert entries[0] == entries[1]


def _load(line, name, directory):
    """A compiled model as it is in a file, plainly loaded."""
    if name in WHOLE[line]:
        return line.models.load_model(directory / name)
    model = resume_worker.model(line, seed=1, optimizer="Adam")
    if name == "checkpoint":
        tf.train.Checkpoint(model=model).restore(str(directory / name))
    else:
        model.load_weights(str(directory / name))
    return model


def _names(line):
    return [*WHOLE[line], "only.weights.h5", "checkpoint"]


def test_a_loaded_model_revives_weights_until_masks_are_enforced(saved):
    line, _, masks, directory = saved
    loaded = _load(line, "whole.keras", directory / "pruned")
    _fit(loaded)
    assert _revived(loaded.get_weights(), masks) > 0


def test_a_loaded_model_trains_on_with_zeros_once_its_masks_are_enforced(saved):
    line, _, masks, directory = saved
    for name in _names(line):
        loaded = _load(line, name, directory / "pruned")
        assert synflow_tf.Masks.enforced(loaded) is None
        found = synflow_tf.Masks.from_model(loaded)
        assert found == masks, name
        found.enforce(loaded)
        hidden = loaded.get_layer("hidden")
        before = hidden.get_weights()[0]
        seen, look = common.watch(
            line, functools.partial(common.revived, loaded, masks)
        )
        _fit(loaded, look)
        assert seen == [0] * 4
        after = hidden.get_weights()[0]
        changed = np.count_nonzero(after != before)
        assert changed > 0.5 * np.count_nonzero(masks["hidden/kernel"])
        # The constraint that the layer has of its own was applied as well.
        assert np.all(np.linalg.norm(after, axis=0) <= 1 + 1e-5)


@pytest.mark.parametrize("pruning_first", [True, False])
def test_each_file_of_model_checkpoint_is_sparse(line, pruning_first, tmp_path):
    model = resume_worker.model(line)
    pruning = synflow_tf.SynFlowPruning(0.8, rounds=5)
    checkpoint = line.callbacks.ModelCheckpoint
    callbacks = [
        pruning,
        checkpoint(str(tmp_path / "{epoch}.keras")),
        checkpoint(
            str(tmp_path / "{epoch}-{batch}.weights.h5"),
            save_weights_only=True,
            save_freq=3,
        ),
    ]
    if not pruning_first:
        callbacks.reverse()
    _fit(model, *callbacks, batch_size=4, epochs=2)
    _check_count(pruning.masks)
    whole = list(tmp_path.glob("*.keras"))
    weights = list(tmp_path.glob("*.weights.h5"))
    assert (len(whole), len(weights)) == (2, 5)
    for path in whole + weights:
        restored = resume_worker.model(line)
        restored.load_weights(path)
        assert common.revived(restored, pruning.masks) == 0, path


@functools.cache
def _fresh_masks(line):
    """What a run that finds no backup computes."""
    model = resume_worker.model(line, seed=1)
    return synflow_tf.compute_masks(model, sparsity=0.8, rounds=5)


def _interrupted(line, backup_first, save_freq, directory, batches, seed):
    """Starts a run; returns its callback and its model."""
    model = resume_worker.model(line, seed)
    pruning = synflow_tf.SynFlowPruning(0.8, rounds=5, scorer=common.Counting())
    callbacks = [resume_worker.backup(line, directory, save_freq), pruning]
    if not backup_first:
        callbacks.reverse()
    seen = []

    def stop(batch, logs=None):
        seen.append(batch)
        if len(seen) == batches:
            raise _InterruptionError

    interrupt = line.callbacks.LambdaCallback(on_train_batch_end=stop)
    try:
        _fit(model, *callbacks, interrupt, epochs=4)
    except _InterruptionError:
        assert batches is not None
    else:
        assert batches is None
    return pruning, model


def _check_resumed(args, first):
    """Starts a run again; returns how many steps it counts at its end."""
    # Other initial weights: pruned anew, they would have other masks.
    line, *_, directory = args
    assert directory.exists() and _fresh_masks(line) != first.masks
    second, model = _interrupted(*args, batches=None, seed=1)
    assert first._options.scorer.calls > 0
    assert second._options.scorer.calls == 0
    assert second.masks == first.masks
    assert synflow_tf.Masks.enforced(model) == first.masks
    assert common.revived(model, first.masks) == 0
    return int(model.optimizer.iterations.numpy())


@ORDERS
@pytest.mark.parametrize("save_freq", ["epoch", 3])
def test_a_resumed_run_takes_the_masks_of_the_first(
    line, backup_first, save_freq, tmp_path
):
    args = line, backup_first, save_freq, tmp_path / "backup"
    first, _ = _interrupted(*args, batches=10, seed=0)
    # Keras 3 begins its epoch again, but does not turn the optimizer back.
    again = 1 if line is keras and save_freq == 3 else 0
    assert _check_resumed(args, first) == 16 + again


@pytest.mark.parametrize(
    "line, backup_first", [(keras, True), (tf_keras, False)]
)
def test_a_run_that_left_no_backup_is_pruned_anew(line, backup_first, tmp_path):
    args = line, backup_first, "epoch", tmp_path / "backup"
    first, _ = _interrupted(*args, batches=2, seed=0)
    expected = _fresh_masks(line)
    second, model = _interrupted(*args, batches=None, seed=1)
    assert second.masks == expected != first.masks
    assert common.revived(model, expected) == 0


@pytest.mark.parametrize(
    "backup_first, left", [(True, 0), (True, 0.5), (False, 0.95)]
)
def test_a_backup_of_keras_3_cut_off_while_written_is_not_needed(
    backup_first, left, tmp_path
):
    args = keras, backup_first, "epoch", tmp_path / "backup"
    first, _ = _interrupted(*args, batches=10, seed=0)
    path = tmp_path / "backup" / "latest.weights.h5"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(left * len(whole))])
    # From the backup before, so that the second epoch is run again.
    assert _check_resumed(args, first) == 16


@ORDERS
def test_a_backup_of_tf_keras_cut_off_while_written_is_not_read(
    backup_first, tmp_path
):
    args = tf_keras, backup_first, "epoch", tmp_path / "backup"
    first, _ = _interrupted(*args, batches=10, seed=0)
    (data,) = (tmp_path / "backup" / "chief").glob("*.data-*")
    # A kill leaves parts of the next one; the file that names the last one is
    # replaced at the end only.
    number = int(re.search(r"ckpt-(\d+)", data.name).group(1)) + 1
    name = re.sub(r"ckpt-\d+", f"ckpt-{number}", data.name)
    data.with_name(name).write_bytes(data.read_bytes()[:100])
    _check_resumed(args, first)


# A server that has imported all this, so that each attempt, a process of its
# own, starts in an instant.
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["synflow_tf"])


def _attempt(args, directory, number, seconds):
    """Runs the worker, and kills it a while after it has started.

    Returns its exit code: -9 if it was killed, 0 if it was done before.
    """
    started = _PROCESSES.Event()
    process = _PROCESSES.Process(
        target=resume_worker.train,
        args=(*args, str(directory), number, started),
    )
    process.start()
    assert started.wait(120)
    process.join(seconds)
    process.kill()
    process.join()
    return process.exitcode


def _unreadable(directory, number):
    """Whether Keras 3 failed on a backup of which it has no other.

    The very first weights, or the file that numbers the epoch, cut off while
    written: Keras raises, and a user has to remove the backup.
    """
    path = directory / f"error-{number}"
    error = path.read_text() if path.exists() else ""
    no_other = not list((directory / "backup").glob("*.h5.bkp"))
    return "JSONDecode" in error or ("_load_model" in error and no_other)


_FAST = [("keras", True, 2), ("tf_keras", False, 2)]
_SLOW = itertools.product(["keras", "tf_keras"], [True, False], [10])


@pytest.mark.parametrize(
    "name, backup_first, kills",
    [*_FAST, *(pytest.param(*case, marks=pytest.mark.slow) for case in _SLOW)],
)
def test_a_run_that_is_killed_ends_as_sparse_as_it_began(
    name, backup_first, kills, tmp_path
):
    """Kills runs and starts them again until there were so many kills.

    And until a run has gone on from a backup at least once.
    """
    seed = random.SystemRandom().randrange(10**6)
    moments = random.Random(seed)
    killed = resumed = runs = 0
    while killed < kills or not resumed:
        run = tmp_path / str(runs)
        run.mkdir()
        args = name, backup_first, moments.choice(["epoch", 3])
        number = 0
        while not (run / "trained.npz").exists():
            said = f"seed {seed}, run {runs}, attempt {number}, {args}"
            enough = killed >= kills and resumed
            # Longer each time, so that it gets on also where all is slow.
            wait = 120 if enough else moments.uniform(0, 4 + number)
            code = _attempt(args, run, number, wait)
            if code != 0 and _unreadable(run, number):
                shutil.rmtree(run / "backup")
            else:
                assert code in (0, -signal.SIGKILL), said
                assert not (run / f"error-{number}").exists(), said
            killed += code == -signal.SIGKILL
            step = run / f"{number}.step"
            resumed += step.exists() and int(step.read_text()) > 0
            assert killed < kills + 10, f"{said}: no run went on"
            number += 1
        files = sorted(run.glob("*.masks"), key=lambda path: int(path.stem))
        first = synflow_tf.Masks.load(files[0])
        _check_count(first)
        for path in files:
            assert synflow_tf.Masks.load(path) == first, f"{said}: {path.name}"
        with np.load(run / "trained.npz") as trained:
            assert _revived(list(trained.values()), first) == 0, said
        runs += 1
    print(f"seed {seed}: {killed} kills in {runs} runs, {resumed} resumed")


@pytest.mark.parametrize("pruning_first", [True, False])
def test_the_best_weights_that_come_back_at_the_end_are_sparse(
    line, pruning_first
):
    model = resume_worker.model(line)
    pruning = synflow_tf.SynFlowPruning(0.8, rounds=5)
    # A loss that falls is one that does not rise: the first epoch is best.
    stopping = line.callbacks.EarlyStopping(
        "loss", mode="max", patience=2, restore_best_weights=True
    )
    epochs = []
    record = line.callbacks.LambdaCallback(
        on_epoch_end=lambda *_: epochs.append(model.get_weights())
    )
    callbacks = [pruning, stopping]
    if not pruning_first:
        callbacks.reverse()
    _fit(model, *callbacks, record, epochs=9)
    assert len(epochs) == 3
    common.assert_equal(model.get_weights(), epochs[0])
    _check_count(pruning.masks)
    assert common.revived(model, pruning.masks) == 0
