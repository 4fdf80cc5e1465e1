"""The examples, on data small enough to train in seconds."""

import csv
import pathlib

import common
import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

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


def _train(line, compression, optimizer=None, **options):
    return experiment.train_one(
        line,
        lambda: synflow_tf.models.conv((8, 8, 1), 10, line),
        lambda: optimizer or line.optimizers.SGD(0.1),
        _images(),
        _images(),
        compression=compression,
        **{"epochs": 2, "rounds": 5, **options},
    )


def _run(script, *arguments, **flags):
    arguments += tuple(f"--{name}={value}" for name, value in flags.items())
    return common.python(EXAMPLES / script, *arguments)


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
    optimizer = keras.optimizers.SGD(0.1)
    _train(keras, 1, optimizer, epochs=3, drops=(1, 2), drop_rate=0.5)
    np.testing.assert_allclose(optimizer.learning_rate, 0.025)


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
    output = tmp_path / "out"
    done = _run(
        "train.py",
        model="fc",
        epochs=1,
        rounds=5,
        compression=5,
        keras=line.__name__,
        data_dir=tmp_path / "data",
        output_dir=output,
    )
    assert done.returncode == 0, done.stderr
    assert "9,480" in done.stdout  # 47,400 / 5
    masks = {"masks_1x.npz", "masks_5x.npz"}
    written = {path.name for path in output.iterdir()}
    assert written == {"results.csv", "results.png", *masks}
    assert synflow_tf.Masks.load(output / "masks_5x.npz").kept == 9_480


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
    done = _run("train.py", *flags, output_dir=tmp_path)
    assert done.returncode != 0
    assert message in done.stdout + done.stderr


@pytest.mark.parametrize(
    "line, flag, amount",
    [
        (keras, {"compression": 10}, {"compression": 10}),
        (tf_keras, {"compression": 10}, {"compression": 10}),
        (keras, {"keep_n_of_m": "2,4"}, {"keep_n_of_m": (2, 4)}),
    ],
)
def test_the_pruning_script_prunes_a_saved_model(line, flag, amount, tmp_path):
    model = synflow_tf.models.conv((8, 8, 1), 10, line)
    model.save(tmp_path / "dense.keras")
    done = _run(
        "prune_model.py",
        keras=line.__name__,
        model=tmp_path / "dense.keras",
        output=tmp_path / "pruned.keras",
        rounds=5,
        **flag,
    )
    assert done.returncode == 0, done.stderr
    masks = synflow_tf.Masks.load(tmp_path / "pruned.masks.npz")
    assert masks == synflow_tf.compute_masks(model, rounds=5, **amount)
    pruned = line.models.load_model(tmp_path / "pruned.keras")
    assert synflow_tf.Masks.from_model(pruned, prunable=list(masks)) == masks
    report = (tmp_path / "pruned.report.txt").read_text()
    assert report == f"{masks}\n" and report in done.stdout


def test_the_pruning_script_wants_an_amount(tmp_path):
    done = _run("prune_model.py", model="a.keras", output="b.keras")
    assert done.returncode != 0
    message = "one of --sparsity, --compression and --keep_n_of_m"
    assert message in done.stdout + done.stderr


def test_the_tfmot_script_trains_strips_quantizes_and_exports(tmp_path):
    done = _run(
        "tfmot_pipeline.py",
        model="fc",
        epochs=2,
        rounds=5,
        sparsity=0.9,
        data_dir=tmp_path / "data",
        output_dir=tmp_path / "out",
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
    done = _run("tfmot_pipeline.py", output_dir=tmp_path, sparsity=1)
    assert done.returncode != 0
    assert "--sparsity must be between 0 and 1" in done.stdout + done.stderr
