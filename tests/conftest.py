"""Runs every test that takes a `line` with Keras 3 and with tf_keras."""

import types

import common


def pytest_generate_tests(metafunc):
    """Gives a test both lines, unless it says which."""
    marks = metafunc.definition.iter_markers("parametrize")
    named = [str(mark.args[0]) for mark in marks]
    if "line" in metafunc.fixturenames and not any("line" in n for n in named):
        metafunc.parametrize("line", common.LINES)


def pytest_make_parametrize_id(val):
    """Names a line in the id of a test."""
    return val.__name__ if isinstance(val, types.ModuleType) else None
