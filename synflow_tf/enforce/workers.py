"""Makes sure that all workers of a strategy hold a model to the same masks.

Each worker computes masks of its own. They are equal as long as the weights
are; where they are not, gradients that are summed over workers would train a
different network on each, without a sign of it.
"""

import hashlib

import numpy as np
import tensorflow as tf

from synflow_tf.graph import variables


def check_same(pairs):
    """Raises ValueError unless all workers give the same masks.

    All must call it: it gathers a checksum. `pairs` is a list of pairs of a
    `variables.Weight` and its mask, a bool array.
    """
    strategies = [variables.strategy_of(w.variable) for w, _ in pairs]
    several = tf.distribute.MultiWorkerMirroredStrategy
    strategy = next((s for s in strategies if isinstance(s, several)), None)
    if strategy is None:
        return
    own = checksum((mask for _, mask in pairs), [w.path for w, _ in pairs])

    def gather():
        context = tf.distribute.get_replica_context()
        return context.all_gather(tf.constant([own], tf.int64), axis=0)

    # In a graph, since TensorFlow warns of `run` outside of one.
    gathered = tf.function(lambda: strategy.run(gather), autograph=False)()
    gathered = strategy.experimental_local_results(gathered)[0]
    if np.any(gathered.numpy() != own):
        raise ValueError(
            "All workers must enforce the same masks. Received: masks with the "
            f"checksums {sorted(set(map(hex, gathered.numpy())))}; here "
            f"{hex(own)}. Build the model within `strategy.scope()`, load the "
            "same weights on each worker, and give each the same arguments; or "
            "compute the masks in a process without the strategy, `save` them, "
            "and `load` them everywhere."
        )


def checksum(masks, paths=()):
    """Returns an int below 2**63 that differs, as good as surely, with masks.

    Args:
        masks: iterable of bool arrays.
        paths: iterable of str, their names.
    """
    digest = hashlib.sha256()
    digest.update(repr(list(paths)).encode())
    for mask in masks:
        digest.update(np.packbits(mask).tobytes())
    return int.from_bytes(digest.digest()[:8], "big") >> 1
