"""BUILD names every file, and each target depends on what it imports."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
FILES = {
    str(path.relative_to(ROOT))
    for folder in ("synflow_tf", "tests", "examples", "benchmarks")
    for path in (ROOT / folder).rglob("*.py")
}
# Files whose folder is on the path of the tests or the scripts.
_BARE = {"examples/", "tests/"}


def _targets():
    """Maps the name of each target to its kind and keyword arguments."""
    targets = {}
    for statement in ast.parse((ROOT / "BUILD").read_text()).body:
        if not isinstance(statement.value, ast.Call):
            continue
        call = statement.value
        arguments = {
            keyword.arg: ast.literal_eval(keyword.value)
            for keyword in call.keywords
            if not isinstance(keyword.value, ast.Call)  # glob()
        }
        if "srcs" in arguments:
            targets[arguments["name"]] = (call.func.id, arguments)
    return targets


TARGETS = _targets()
OWNER = {
    source: name
    for name, (_, arguments) in TARGETS.items()
    for source in arguments["srcs"]
    if source != "tests/bazel_main.py"
}


def _file_of(module):
    """The file of a module of this repository, or None."""
    path = module.replace(".", "/")
    for prefix in ("", *_BARE):
        for name in (f"{prefix}{path}.py", f"{prefix}{path}/__init__.py"):
            if name in FILES:
                return name
    return None


def _imported_files(source):
    """The files of this repository that a file imports."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / source).read_text())):
        if isinstance(node, ast.Import):
            found |= {_file_of(alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                inner = _file_of(f"{node.module}.{alias.name}")
                found.add(inner or _file_of(node.module))
    return found - {None, source}


def test_every_file_is_in_exactly_one_target():
    sources = [s for _, a in TARGETS.values() for s in a["srcs"]]
    assert set(sources) == FILES
    assert len(OWNER) == len(FILES) - 1
    assert len(sources) == len(OWNER) + sources.count("tests/bazel_main.py")


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_depends_on_what_it_imports_and_on_nothing_else(name):
    kind, arguments = TARGETS[name]
    (source,) = set(arguments["srcs"]) - {"tests/bazel_main.py"}
    expected = {f":{OWNER[file]}" for file in _imported_files(source)}
    assert set(arguments.get("deps", [])) == expected
    is_test = source.startswith("tests/") and source.endswith("_test.py")
    assert (kind == "py_test") == is_test
    if is_test:
        assert arguments["args"] == [source]
