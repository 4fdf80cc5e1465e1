"""Prunes every network of `keras.applications`, and writes a table of it.

    python benchmarks/applications.py
    python benchmarks/applications.py --keras=tf_keras --models=MobileNet

Every model has random weights and 10 classes, and is pruned in one pass to a
compression of 1000: with T rounds the density after round t is 10^(-3 t / T),
so that a third of the way is a compression of 10, two thirds are 100. The
file is written anew after every model, smallest first; a run that was stopped
goes on where it was.
"""

import gc
import inspect
import math
import os
import pathlib
import statistics
import textwrap
import time
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from absl import app
from absl import flags

_KERAS = flags.DEFINE_enum(
    "keras", "keras", ["keras", "tf_keras"], "The Keras line."
)
_MODELS = flags.DEFINE_list("models", ["all"], "Names in its `applications`.")
_INPUT_SIZE = flags.DEFINE_integer(
    "input_size", 64, "Height and width, or the least it takes.", lower_bound=1
)
_ROUNDS = flags.DEFINE_integer(
    "rounds", 30, "Rounds of pruning to 1000, a multiple of 3.", lower_bound=3
)
_OUTPUT = flags.DEFINE_string(
    "output",
    str(pathlib.Path(__file__).with_suffix(".md")),
    "The table, in Markdown. What the same command has written is kept.",
)
_NOTE = flags.DEFINE_string("note", "", "A sentence to put above the table.")
flags.register_validator(
    "rounds", lambda rounds: rounds % 3 == 0, "must be a multiple of 3"
)

# Networks take at least 32 x 32, or a few pixels more.
_LARGEST_INPUT = 256
_COLUMNS = (
    "model",
    "input",
    "weights",
    "kernels",
    "log10 R",
    "s / round",
    "empty at 10",
    "at 100",
    "at 1000",
)


def builders(line):
    """Finds the functions of `applications` that build a network.

    Args:
        line: the module `keras` or `tf_keras`.

    Returns:
        dict of name to function.
    """
    return {
        name: value
        for name, value in sorted(vars(line.applications).items())
        if inspect.isfunction(value)
        and {"weights", "classes"} <= set(inspect.signature(value).parameters)
    }


def build(builder, size):
    """Builds a network with 10 classes and random weights.

    Args:
        builder: function, see `builders`.
        size: int, height and width of the input, if it takes so small a one.

    Returns:
        The model and its height and width.

    Raises:
        ValueError: if it takes none of the sizes tried.
    """
    while True:
        try:
            shape = (size, size, 3)
            return builder(weights=None, input_shape=shape, classes=10), size
        except ValueError:
            if size >= _LARGEST_INPUT:
                raise
            size += 1


def prune(model, rounds):
    """Prunes a model to 1000, and notes what is empty at 10, 100 and 1000.

    Args:
        model: the model; it is not changed.
        rounds: int, a multiple of 3.

    Returns:
        dict of weights, kernels, log10_flow (of the dense model), seconds (the
        median round) and empty (list of 3 int, or of None once no path is
        left).
    """
    from synflow_tf import options as options_lib
    from synflow_tf.rounds import loop
    from synflow_tf.rounds import task as task_lib

    options = options_lib.Options(
        compression=1000, rounds=rounds, on_unscored="keep"
    )
    task = task_lib.bind(task_lib.select(model, options), "keep", {})
    step = loop.Step(task)
    weights, alive = task.start({}), task.alive({})
    log10_flow = step.log10_flow(weights, alive)
    targets = map(task.target, options.densities)
    seconds, empty = [], []
    start = time.perf_counter()
    for record in loop.rounds(step, weights, alive, targets):
        seconds.append(time.perf_counter() - start)
        if len(seconds) % (rounds // 3) == 0:
            masks = task.named(record.alive).values()
            flow = step.log10_flow(record.weights, record.alive)
            count = sum(not mask.any() for mask in masks)
            empty.append(count if flow > -math.inf else None)
        start = time.perf_counter()
    return {
        "weights": sum(task.sizes),
        "kernels": len(task.weights),
        "log10_flow": log10_flow,
        "seconds": statistics.median(seconds),
        "empty": empty,
    }


def row(name, size, result):
    """Makes one row of the table, a list of str."""
    counts = ["collapsed" if n is None else str(n) for n in result["empty"]]
    return [
        name,
        str(size),
        f"{result['weights']:,}",
        str(result["kernels"]),
        f"{result['log10_flow']:.1f}",
        f"{result['seconds']:.2f}",
        *counts,
    ]


def introduction(line, note):
    """Says what is above the table.

    Args:
        line: the Keras line.
        note: str, a sentence more.

    Returns:
        str, Markdown.
    """
    import tensorflow as tf

    given = [
        f"--{name}={flags.FLAGS[name].value}"
        for name in ("keras", "input_size", "rounds")
        if flags.FLAGS[name].present
    ]
    if _MODELS.present:
        given.append(f"--models={','.join(_MODELS.value)}")
    paragraphs = [
        f"# SynFlow on the networks of {line.__name__}.applications",
        f"Written by `{' '.join(['python benchmarks/applications.py', *given])}"
        f"` with {line.__name__} {line.__version__}, TensorFlow "
        f"{tf.__version__} and {os.cpu_count()} CPU cores. {note}",
        "Random weights, 10 classes, float64. *Input* is height and width: "
        f"{_INPUT_SIZE.value}, or the smallest that the network takes. "
        "*Weights* are the prunable ones, the entries of the *kernels*. *R* is "
        "the flow of the dense network. *s / round* is the median over rounds, "
        "tracing excluded.",
        "*Empty* are the kernels all of whose weights are removed at "
        "a compression of 10, 100 and 1000; paths beside them carry the flow, "
        'and R > 0, unless it says "collapsed". They come from one pass of '
        f"{_ROUNDS.value} rounds with density 10^(-3 t / {_ROUNDS.value}) "
        "after round t. (The default is 100 rounds, all of them for the "
        "compression that is asked for.)",
    ]
    return "\n\n".join(textwrap.fill(text, 80) for text in paragraphs)


def write(path, text, rows):
    """Writes the file."""
    table = [_COLUMNS, ["---", *["---:"] * (len(_COLUMNS) - 1)], *rows]
    lines = "".join(f"| {' | '.join(cells)} |\n" for cells in table)
    path.write_text(f"{text}\n\n{lines}")


def rows_of(path, text):
    """Reads the rows that the file has, if it has this text above them."""
    if not path.exists() or not path.read_text().startswith(f"{text}\n\n|"):
        return []
    lines = path.read_text().removeprefix(text).split("\n")
    return [line[2:-2].split(" | ") for line in lines if line][2:]


def main(argv):
    """Prunes what the flags ask for, smallest first."""
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {argv[1:]}")
    import importlib

    line = importlib.import_module(_KERAS.value)
    available = builders(line)
    names = _MODELS.value
    if names == ["all"]:
        names = list(available)
    unknown = sorted(set(names) - set(available))
    if unknown:
        raise app.UsageError(f"Not in {_KERAS.value}.applications: {unknown}")
    path = pathlib.Path(_OUTPUT.value)
    text = introduction(line, _NOTE.value)
    rows = rows_of(path, text)
    done = {cells[0] for cells in rows}
    sizes = {}
    for name in names:
        if name not in done:
            model, _ = build(available[name], _INPUT_SIZE.value)
            sizes[name] = model.count_params()
            del model
            line.backend.clear_session()
            gc.collect()
    for name in sorted(sizes, key=sizes.get):
        line.utils.set_random_seed(0)
        model, size = build(available[name], _INPUT_SIZE.value)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of taps that only see padding
            result = prune(model, _ROUNDS.value)
        rows.append(row(name, size, result))
        write(path, text, rows)
        print(" ".join(rows[-1]), flush=True)
        del model
        line.backend.clear_session()
        gc.collect()


if __name__ == "__main__":
    app.run(main)
