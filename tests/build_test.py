"""BUILD has every file in one target, and a test target for every test."""

import pathlib

ROOT = pathlib.Path(__file__).parent.parent
FOLDERS = ("synflow_tf", "tests", "examples", "benchmarks")


def _glob(include, exclude=()):
    """The glob of Bazel, of what git does not ignore."""
    found = {p for pattern in include for p in ROOT.glob(pattern)}
    found -= {p for pattern in exclude for p in ROOT.glob(pattern)}
    return sorted(str(p.relative_to(ROOT)) for p in found if p.is_file())


def _rules():
    """Evaluates BUILD, which is Python too: a list of kind and arguments."""
    rules, names = [], {"glob": _glob}
    for kind in ("py_binary", "py_library", "py_test"):
        names[kind] = lambda kind=kind, **args: rules.append((kind, args))
    for other in ("load", "package", "licenses", "exports_files"):
        names[other] = lambda *args, **kwargs: None
    exec(compile((ROOT / "BUILD").read_text(), "BUILD", "exec"), names)
    return rules


def test_every_file_is_in_one_target_and_every_test_is_a_test():
    rules, main = _rules(), "tests/bazel_main.py"
    files = _glob(f"{folder}/**/*.py" for folder in FOLDERS)
    sources = [file for _, args in rules for file in args["srcs"]]
    tests = [args["srcs"] for kind, args in rules if kind == "py_test"]
    assert sorted(sources) == sorted([*files, *len(tests) * [main]])
    assert tests == [[f, main] for f in files if f.endswith("_test.py")]
    assert len({args["name"] for _, args in rules}) == len(rules)


def test_targets_depend_on_targets_that_are_there():
    names = {":" + args["name"] for _, args in _rules()}
    for _, args in _rules():
        assert set(args.get("deps", [])) <= names, args["name"]
