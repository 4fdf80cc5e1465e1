"""Imports run downwards: no room knows of one that is above it."""

import ast
import pathlib

import pytest

FOLDER = pathlib.Path(__file__).parents[1] / "synflow_tf"
# From the ground up. Rooms of one floor do not know of each other.
FLOORS = [
    "_validation findings",
    "graph",
    "schedules linearize models mask_files",
    "scorers datasets",
    "rounds enforce export",
    "masks options",
    "pruning scoring",
    "callbacks",
    "tfmot",
    "__init__",
]
FLOOR = {room: i for i, floor in enumerate(FLOORS) for room in floor.split()}


@pytest.mark.parametrize(
    "path", sorted(FOLDER.rglob("*.py")), ids=lambda p: p.name
)
def test_a_file_imports_from_its_room_and_those_below(path):
    room = path.relative_to(FOLDER).parts[0].removesuffix(".py")
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            package, *parts = name.split(".")
            if package == "synflow_tf" and parts[0] != room:
                assert FLOOR[parts[0]] < FLOOR[room], name
