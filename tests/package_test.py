"""The public names, and what importing them does to a process."""

import inspect
import json
import pathlib

import common
import pytest

import synflow_tf

ROOT = pathlib.Path(__file__).parent.parent
PUBLIC = (
    "Finding Masks Round Scores SynFlowPruning TFLiteReport Weight "
    "compute_masks datasets export_tflite models prune register_rule "
    "schedules score scorers"
).split()


def _in_a_new_process(code):
    done = common.python("-c", code)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_public_names_are_these():
    assert synflow_tf.__all__ == PUBLIC


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_is_documented_with_an_example_and_in_the_readme(
    name,
):
    public = getattr(synflow_tf, name)
    assert inspect.getdoc(public)
    assert name in (ROOT / "README.md").read_text()
    if inspect.isfunction(public):
        assert ">>>" in public.__doc__
        for section in ("Args:", "Returns:", "Raises:"):
            assert section in public.__doc__, section


# What a process looks like after Keras 3 was used, with the library or without.
_STATE = """
import json, os, sys
{imports}
import tensorflow as tf
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
{use}
assert isinstance(model, tf.keras.Model)
assert "tensorflow_model_optimization" not in sys.modules
print(json.dumps([tf.keras.__version__, dict(os.environ)]))
"""


def test_keras_3_and_the_environment_stay_where_tfmot_is_not_used(monkeypatch):
    monkeypatch.delenv("TF_USE_LEGACY_KERAS", raising=False)
    use = "synflow_tf.prune(model, sparsity=0.5, rounds=1)"
    first, second, plain = (
        json.loads(_in_a_new_process(_STATE.format(imports=imports, use=use)))
        for imports, use in (
            ("import synflow_tf\nimport keras", use),
            ("import keras\nimport synflow_tf", use),
            ("import keras, tf_keras", ""),
        )
    )
    assert first == second == plain
    assert plain[0].startswith("3.")


def test_tfmot_is_imported_when_its_part_of_the_library_is_asked_for():
    _in_a_new_process(
        "import sys, synflow_tf\n"
        "assert 'tensorflow_model_optimization' not in sys.modules\n"
        "assert callable(synflow_tf.tfmot.prune_synflow)\n"
        "assert 'tensorflow_model_optimization' in sys.modules\n"
    )
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        synflow_tf.nothing  # noqa: B018


def test_tfmot_can_be_imported_first():
    _in_a_new_process(
        "import tensorflow_model_optimization, keras, synflow_tf\n"
        "model = synflow_tf.models.fc((8, 8, 1))\n"
        "assert isinstance(model, keras.Model)\n"
        "synflow_tf.prune(model, sparsity=0.5, rounds=2)\n"
    )


def test_a_terminal_shows_a_bar_and_a_file_does_not():
    printed = _in_a_new_process(
        "import sys, synflow_tf\n"
        "model = synflow_tf.models.fc((8, 8, 1))\n"
        "for tty in (True, False):\n"
        "    sys.stdout.isatty = lambda: tty\n"
        "    for wanted in (True, False):\n"
        "        synflow_tf.compute_masks(\n"
        "            model, 0.5, rounds=3, progress=wanted\n"
        "        )\n"
        "        print(f'terminal: {tty}, wanted: {wanted};')\n"
    )
    bar, *others = printed.split(";")
    assert "3/3" in bar and "terminal: True, wanted: True" in bar
    assert [other.strip() for other in others] == [
        "terminal: True, wanted: False",
        "terminal: False, wanted: True",
        "terminal: False, wanted: False",
        "",
    ]


def test_the_setup_requires_what_is_imported():
    setup = (ROOT / "setup.py").read_text()
    for name in (
        "absl-py",
        "importlib_resources",
        "keras>=3",
        "setuptools; python_version >= '3.12'",
        "tensorflow>=2.16",
        "tensorflow-datasets",
        "tensorflow-model-optimization>=0.8.1",
        "tf-keras",
    ):
        assert f'"{name}' in setup
