"""Runs every test that takes a `line` with Keras 3 and with tf_keras."""

import collections
import re
import types

import common
import pytest


def pytest_generate_tests(metafunc):
    """Gives a test both lines, unless it says which."""
    marks = metafunc.definition.iter_markers("parametrize")
    named = [str(mark.args[0]) for mark in marks]
    if "line" in metafunc.fixturenames and not any("line" in n for n in named):
        metafunc.parametrize("line", common.LINES)


def pytest_make_parametrize_id(val):
    """Names a line in the id of a test."""
    return val.__name__ if isinstance(val, types.ModuleType) else None


@pytest.hookimpl(tryfirst=True)  # before pytest looks for what is slow
def pytest_collection_modifyitems(items):
    """Marks what is `in_turn` slow in one of the lines, in each in turn."""
    twins = collections.defaultdict(list)
    for item in items:
        params = item.callspec.params if hasattr(item, "callspec") else {}
        if "line" in params and item.get_closest_marker("in_turn"):
            parts = re.split(r"[][-]", item.name)
            parts.remove(getattr(params["line"], "__name__", params["line"]))
            twins[(item.path, *parts)].append(item)
    for turn, pair in enumerate(twins.values()):
        left_out = [m.name for item in pair for m in item.iter_markers()]
        if len(pair) == 2 and not {"skip", "slow"} & set(left_out):
            pair[turn % 2].add_marker("slow")
