"""The examples, on data small enough to train in seconds."""

import csv
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import synflow_tf
from examples import experiment

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"


def _slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


def _images(n=8):
    rng = np.random.default_rng(0)
    images = rng.normal(size=(n, 8, 8, 1)).astype("float32")
    labels = np.arange(n, dtype="int64") % 10
    return tf.data.Dataset.from_tensor_slices((images, labels)).batch(4)


def _train(line, compression, **kwargs):
    return experiment.train_one(
        line,
        lambda: synflow_tf.models.conv((8, 8, 1), 10, line),
        lambda: line.optimizers.SGD(0.1),
        _images(),
        _images(),
        compression=compression,
        epochs=2,
        rounds=5,
        **kwargs,
    )


def _run(script, *args, **kwargs):
    return subprocess.run(
        [sys.executable, str(EXAMPLES / script), *map(str, args)],
        capture_output=True,
        text=True,
        **kwargs,
    )


def test_a_pruned_and_a_dense_model_are_trained_and_evaluated(line):
    dense, pruned = (_train(line, compression) for compression in (1, 10))
    assert dense.masks.sparsity == 0
    assert pruned.masks.kept == pruned.masks.size - int(0.9 * 29_984)
    for result in (dense, pruned):
        assert 0 <= result.accuracy <= 1 and result.loss > 0
        assert result.prune_seconds > 0 and result.train_seconds > 0


def test_the_same_seed_gives_the_same_result():
    first, second = _train(keras, 10, seed=3), _train(keras, 10, seed=3)
    assert first.masks == second.masks
    np.testing.assert_allclose(first.loss, second.loss, rtol=1e-5)
    assert _train(keras, 10, seed=4).masks != first.masks


def test_the_learning_rate_drops_at_the_given_epochs():
    rates = []

    class Recorded(keras.optimizers.SGD):
        def apply(self, *args, **kwargs):
            return super().apply(*args, **kwargs)

    optimizer = Recorded(0.1)
    experiment.train_one(
        keras,
        lambda: synflow_tf.models.conv((8, 8, 1)),
        lambda: optimizer,
        _images(),
        _images(),
        compression=1,
        epochs=3,
        drops=(1, 2),
        drop_rate=0.5,
    )
    rates.append(float(optimizer.learning_rate))
    np.testing.assert_allclose(rates, [0.025])


def test_table_file_and_figure_show_every_result(tmp_path):
    results = [_train(keras, compression) for compression in (1, 10)]
    text = experiment.table(results).splitlines()
    assert text[0].split()[:2] == ["compression", "kept"]
    assert text[1].split()[:3] == ["dense", "29,984", "29,984"]
    assert text[2].split()[:3] == ["10x", "2,999", "29,984"]

    experiment.write_csv(results, tmp_path / "results.csv")
    with open(tmp_path / "results.csv", newline="") as file:
        read = list(csv.DictReader(file))
    assert [float(row["accuracy"]) for row in read] == [
        result.accuracy for result in results
    ]

    experiment.plot(results, tmp_path / "results.png", "title")
    png = (tmp_path / "results.png").read_bytes()
    assert png[:4] == b"\x89PNG" and len(png) > 10_000


def test_the_training_script_runs_on_digits(line, tmp_path):
    done = _run(
        "train.py",
        "--model=fc",
        "--epochs=1",
        "--rounds=5",
        "--compression=5",
        f"--keras={line.__name__}",
        f"--data_dir={tmp_path / 'data'}",
        f"--output_dir={tmp_path / 'out'}",
    )
    assert done.returncode == 0, done.stderr
    assert "9,480" in done.stdout  # 47,400 / 5
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {
        "results.csv",
        "results.png",
        "masks_1x.npz",
        "masks_5x.npz",
    }
    masks = synflow_tf.Masks.load(tmp_path / "out" / "masks_5x.npz")
    assert masks.kept == 9_480


@pytest.mark.parametrize(
    "flags, message",
    [
        (["--sparsity=0.5", "--compression=2"], "not both"),
        _slow(["--sparsity=1.0"], "--sparsity"),
        _slow(["--compression=0.5"], "--compression >= 1"),
        _slow(["--compression=many"], "--compression"),
        (["stray"], "Unknown arguments"),
    ],
)
def test_the_training_script_refuses_bad_flags(flags, message, tmp_path):
    done = _run("train.py", f"--output_dir={tmp_path}", *flags)
    assert done.returncode != 0
    assert message in done.stdout + done.stderr


def test_the_pruning_script_prunes_a_saved_model(line, tmp_path):
    model = synflow_tf.models.conv((8, 8, 1), 10, line)
    model.save(tmp_path / "dense.keras")
    done = _run(
        "prune_model.py",
        f"--keras={line.__name__}",
        f"--model={tmp_path / 'dense.keras'}",
        f"--output={tmp_path / 'pruned.keras'}",
        "--compression=10",
        "--rounds=5",
    )
    assert done.returncode == 0, done.stderr
    masks = synflow_tf.Masks.load(tmp_path / "pruned.masks.npz")
    expected = synflow_tf.compute_masks(model, compression=10, rounds=5)
    assert masks == expected
    pruned = line.models.load_model(tmp_path / "pruned.keras")
    assert synflow_tf.Masks.from_model(pruned) == expected
    report = (tmp_path / "pruned.report.txt").read_text()
    assert report == f"{masks}\n" and report in done.stdout


def test_the_pruning_script_wants_an_amount(tmp_path):
    done = _run("prune_model.py", "--model=a.keras", "--output=b.keras")
    assert done.returncode != 0
    message = "one of --sparsity, --compression and --keep_n_of_m"
    assert message in done.stdout + done.stderr


def test_the_pruning_script_keeps_n_of_m(tmp_path):
    synflow_tf.models.fc((8, 8, 1)).save(tmp_path / "dense.keras")
    done = _run(
        "prune_model.py",
        f"--model={tmp_path / 'dense.keras'}",
        f"--output={tmp_path / 'pruned.keras'}",
        "--keep_n_of_m=2,4",
        "--rounds=5",
    )
    assert done.returncode == 0, done.stderr
    masks = synflow_tf.Masks.load(tmp_path / "pruned.masks.npz")
    for mask in masks.values():
        groups = mask.T.reshape(-1, 4)
        assert np.all(groups.sum(axis=1) == 2)


def test_the_tfmot_script_trains_strips_quantizes_and_exports(tmp_path):
    done = _run(
        "tfmot_pipeline.py",
        "--model=fc",
        "--epochs=2",
        "--rounds=5",
        "--sparsity=0.9",
        f"--data_dir={tmp_path / 'data'}",
        f"--output_dir={tmp_path / 'out'}",
    )
    assert done.returncode == 0, done.stderr
    with open(tmp_path / "out" / "table.csv", newline="") as file:
        dense, magnitude, synflow = csv.DictReader(file)
    assert dense["method"] == "dense" and float(dense["sparsity"]) == 0
    assert float(synflow["sparsity"]) == 0.9
    np.testing.assert_allclose(float(magnitude["sparsity"]), 0.9, atol=1e-3)
    for row in (dense, magnitude, synflow):
        name = row["method"]
        written = tmp_path / "out" / f"{name}.tflite"
        smaller = min(int(row["tflite"]), int(row["sparse"]))
        assert written.stat().st_size == smaller
        int8 = tmp_path / "out" / f"{name}_int8.tflite"
        assert int8.stat().st_size == int(row["int8"])
        assert int(row["int8"]) < int(row["tflite"]) / 2.5
        # 360 test images
        assert abs(float(row["accuracy"]) * 360 % 1) in (0, pytest.approx(1))
        difference = float(row["accuracy"]) - float(row["int8 accuracy"])
        assert abs(difference) < 0.05
        assert f"{int(row['int8 gzip']):,}" in done.stdout
    assert int(synflow["sparse"]) < int(dense["sparse"]) / 5
    assert float(dense["accuracy"]) > 0.2


def test_the_tfmot_script_refuses_bad_flags(tmp_path):
    done = _run("tfmot_pipeline.py", f"--output_dir={tmp_path}", "--sparsity=1")
    assert done.returncode != 0
    assert "--sparsity must be between 0 and 1" in done.stdout + done.stderr
