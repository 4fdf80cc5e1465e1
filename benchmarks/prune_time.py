"""Times `compute_masks`, alone or in turn with the authors' PyTorch code.

    python benchmarks/prune_time.py
    python benchmarks/prune_time.py --reference=../Synaptic-Flow \
        --reference_python=../torch-venv/bin/python

Every run is a process of its own, after a warm-up on a tiny model there; the
time is that of the first call for the model, tracing included. Memory is the
peak above the process with the model built. Prints medians and ratios.
"""

import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from absl import app
from absl import flags

_MODELS = flags.DEFINE_list("models", ["vgg16_bn", "resnet20"], "Networks.")
_ROUNDS = flags.DEFINE_list("rounds", ["100"], "Rounds of pruning.")
_DTYPES = flags.DEFINE_list("dtypes", ["float64", "float32"], "To score in.")
_COMPRESSION = flags.DEFINE_float("compression", 1000.0, "Prunable / kept.")
_REPEATS = flags.DEFINE_integer("repeats", 3, "Runs of each.", lower_bound=1)
_REFERENCE = flags.DEFINE_string(
    "reference", None, "Checkout of ganguli-lab/Synaptic-Flow to time as well."
)
_REFERENCE_PYTHON = flags.DEFINE_string(
    "reference_python", None, "Python that has PyTorch, for --reference."
)
_WORKER = flags.DEFINE_string("worker", None, "Internal: the run to make.")

_HERE = pathlib.Path(__file__).resolve()


def _resident():
    """Returns the bytes of memory that this process has now."""
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def work(model, rounds, compression, dtype):
    """Times one call of `compute_masks` in this process.

    Args:
        model: str, name in `synflow_tf.models`.
        rounds: int.
        compression: float.
        dtype: str, see `scorers.SynFlow`.

    Returns:
        dict of seconds, peak (bytes above the process before the call), size
        (prunable weights) and kept.
    """
    import synflow_tf

    scorer = synflow_tf.scorers.SynFlow(dtype=dtype)
    tiny = synflow_tf.models.fc((8, 8, 1))
    synflow_tf.compute_masks(tiny, compression=2, rounds=2, scorer=scorer)
    model = getattr(synflow_tf.models, model)()
    idle = _resident()
    start = time.perf_counter()
    masks = synflow_tf.compute_masks(
        model,
        compression=compression,
        rounds=rounds,
        scorer=scorer,
        progress=False,
    )
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - idle
    return {
        "seconds": seconds,
        "peak": peak,
        "size": masks.size,
        "kept": masks.kept,
    }


def _run(command):
    """Runs a worker and returns what it reports on its last line."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{command} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def compare(model, rounds, compression, dtypes, repeats, reference):
    """Times one model, all kinds of runs in turn, and prints the medians.

    Args:
        model: str.
        rounds: int.
        compression: float.
        dtypes: list of str.
        repeats: int.
        reference: None, or a pair of str: checkout and Python.
    """
    runs = {}
    for dtype in dtypes:
        worker = json.dumps([model, rounds, compression, dtype])
        runs[dtype] = [sys.executable, str(_HERE), f"--worker={worker}"]
    if reference is not None:
        checkout, python = reference
        script = _HERE.with_name("reference_worker.py")
        runs["authors"] = [python, str(script), checkout, model]
        runs["authors"] += [str(rounds), str(compression)]
    results = {name: [] for name in runs}
    for _ in range(repeats):
        for name, command in runs.items():
            results[name].append(_run(command))

    def median(name, key):
        return statistics.median(result[key] for result in results[name])

    for name in runs:
        seconds = median(name, "seconds")
        weights = 4 * results[name][0]["size"]
        line = (
            f"{model:12} {rounds:4} rounds  {name:8} {seconds:7.2f} s"
            f"  kept {results[name][0]['kept']:,}"
            f"  peak {median(name, 'peak') / 2**20:6.0f} MB"
            f" = {median(name, 'peak') / weights:5.1f} x float32 weights"
        )
        if reference is not None and name != "authors":
            line += f"  ratio {seconds / median('authors', 'seconds'):.2f}"
        print(line, flush=True)


def main(argv):
    """Times what the flags ask for."""
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {argv[1:]}")
    if _WORKER.value is not None:
        print(json.dumps(work(*json.loads(_WORKER.value))))
        return
    if bool(_REFERENCE.value) != bool(_REFERENCE_PYTHON.value):
        raise app.UsageError("--reference needs --reference_python.")
    reference = None
    if _REFERENCE.value:
        reference = _REFERENCE.value, _REFERENCE_PYTHON.value
    for model in _MODELS.value:
        for rounds in map(int, _ROUNDS.value):
            compare(
                model,
                rounds,
                _COMPRESSION.value,
                _DTYPES.value,
                _REPEATS.value,
                reference,
            )


if __name__ == "__main__":
    app.run(main)
