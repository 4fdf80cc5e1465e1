"""Every example in README.md and in the docstrings runs."""

import doctest
import importlib
import pathlib
import pkgutil
import re
import runpy

import pytest

import synflow_tf

README = (pathlib.Path(__file__).parent.parent / "README.md").read_text()
SNIPPETS = re.findall(r"^```python\n(.*?)^```", README, re.DOTALL | re.M)
MODULES = [
    module.name
    for module in pkgutil.walk_packages(synflow_tf.__path__, "synflow_tf.")
]


def test_the_readme_has_snippets():
    assert len(SNIPPETS) >= 4


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_a_snippet_of_the_readme_runs(number, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "snippet.py"
    file.write_text(SNIPPETS[number])
    assert runpy.run_path(str(file))["synflow_tf"] is synflow_tf


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_of_a_module_give_what_they_say(
    name, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)  # some write files
    module = importlib.import_module(name)
    results = doctest.testmod(
        module,
        extraglobs={"synflow_tf": synflow_tf},
        optionflags=doctest.ELLIPSIS,
    )
    assert results.failed == 0
    # Every module with public functions shows how to use them.
    assert results.attempted or name not in (
        "synflow_tf.export.export",
        "synflow_tf.masks",
        "synflow_tf.pruning",
        "synflow_tf.schedules",
        "synflow_tf.scoring",
        "synflow_tf.tfmot.pruning",
    )
