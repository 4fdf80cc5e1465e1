"""Times the authors' pruning loop once; started by prune_time.py.

    python reference_worker.py CHECKOUT MODEL ROUNDS COMPRESSION

Needs PyTorch, and neither TensorFlow nor torchvision.
"""

import json
import pathlib
import resource
import sys
import time

import torch


def _resident():
    """Returns the bytes of memory that this process has now."""
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def main(checkout, model, rounds, compression):
    """Prunes one model with the authors' code and prints what it took."""
    sys.path.insert(0, checkout)
    import prune
    from Models import lottery_resnet
    from Models import lottery_vgg
    from Models import mlp
    from Pruners import pruners
    from Utils import generator

    def run(model, shape, rounds, density):
        pruner = pruners.SynFlow(generator.masked_parameters(model))
        loader = [(torch.ones(1, *shape), None)]
        cpu = torch.device("cpu")
        prune.prune_loop(
            model,
            None,
            pruner,
            loader,
            cpu,
            density,
            "exponential",
            "global",
            rounds,
        )
        return pruner.stats()

    run(mlp.fc((1, 8, 8), 10), (1, 8, 8), 2, 0.5)
    module = lottery_vgg if model.startswith("vgg") else lottery_resnet
    shape = (3, 32, 32)
    network = getattr(module, model)(shape, 10)
    idle = _resident()
    start = time.perf_counter()
    kept, size = run(network, shape, rounds, 1 / compression)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - idle
    report = {
        "seconds": seconds,
        "peak": peak,
        "size": int(size),
        "kept": int(kept),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
