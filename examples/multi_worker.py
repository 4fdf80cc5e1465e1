"""Trains a pruned network on several workers, all on this machine.

    python examples/multi_worker.py
    python examples/multi_worker.py --keras=keras --compression=100

Starts the workers as processes that find each other through TF_CONFIG, on the
loopback interface; on a cluster, start `--role=worker` once on each machine
with the TF_CONFIG of that machine. Each worker computes the masks, which are
compared, and trains on its share of the handwritten digits: tf_keras by `fit`,
Keras 3 by a loop of its own, since its `fit` does not take this strategy.
"""

import json
import os
import socket
import subprocess
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import tensorflow as tf
import tf_keras
from absl import app
from absl import flags
from absl import logging

import synflow_tf

_LINES = {"keras": keras, "tf_keras": tf_keras}

_ROLE = flags.DEFINE_enum(
    "role", "launcher", ["launcher", "worker"], "Start workers, or be one."
)
_WORKERS = flags.DEFINE_integer("workers", 2, "Processes.", lower_bound=1)
_KERAS = flags.DEFINE_enum("keras", "tf_keras", sorted(_LINES), "Keras line.")
_MODEL = flags.DEFINE_enum(
    "model", "conv", sorted(synflow_tf.models.__all__), "Network."
)
_COMPRESSION = flags.DEFINE_float("compression", 10.0, "Prunable / kept.")
_ROUNDS = flags.DEFINE_integer("rounds", 100, "Rounds of pruning.")
_EPOCHS = flags.DEFINE_integer("epochs", 5, "Epochs.", lower_bound=1)
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", 64, "Images per step, of all workers.", lower_bound=1
)


def fit(strategy, line, make_model, train, *, epochs, **pruning):
    """Prunes and trains a tf_keras model with `fit`.

    Args:
        strategy: `tf.distribute.MultiWorkerMirroredStrategy`.
        line: the module `tf_keras`.
        make_model: function () -> model with logits as output.
        train: `tf.data.Dataset` of batches (images, labels) of all workers.
        epochs: int.
        **pruning: arguments of `synflow_tf.compute_masks`.

    Returns:
        The model and its `Masks`.
    """
    with strategy.scope():
        model = make_model()
        model.compile(
            line.optimizers.Adam(),
            line.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
    callback = synflow_tf.SynFlowPruning(**pruning)
    model.fit(train, epochs=epochs, callbacks=[callback], verbose=0)
    return model, callback.masks


def loop(strategy, line, make_model, train, *, epochs, **pruning):
    """Prunes and trains a Keras 3 model in a loop; see `fit`."""
    with strategy.scope():
        model = make_model()
        optimizer = line.optimizers.Adam()
        optimizer.build(model.trainable_variables)
    masks = synflow_tf.compute_masks(model, **pruning)
    masks.enforce(model, optimizer)

    def step(images, labels):
        with tf.GradientTape() as tape:
            losses = tf.nn.sparse_softmax_cross_entropy_with_logits(
                labels, model(images, training=True)
            )
            # The optimizer sums the gradients of all workers.
            mean = tf.reduce_mean(losses) / strategy.num_replicas_in_sync
        gradients = tape.gradient(mean, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)

    @tf.function
    def run(images, labels):
        strategy.run(step, (images, labels))

    shares = strategy.experimental_distribute_dataset(train)
    for _ in range(epochs):
        for images, labels in shares:
            run(images, labels)
    return model, masks


def work():
    """Prunes and trains as the worker that TF_CONFIG names."""
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    line = _LINES[_KERAS.value]
    spec = synflow_tf.datasets.spec("digits")
    line.utils.set_random_seed(0)
    options = tf.data.Options()  # the digits are one file: share its images
    options.experimental_distribute.auto_shard_policy = (
        tf.data.experimental.AutoShardPolicy.DATA
    )
    train = synflow_tf.datasets.load("digits", _BATCH_SIZE.value)
    model, masks = (loop if line is keras else fit)(
        strategy,
        line,
        lambda: getattr(synflow_tf.models, _MODEL.value)(
            spec.input_shape, spec.classes, line
        ),
        train.with_options(options),
        epochs=_EPOCHS.value,
        compression=_COMPRESSION.value,
        rounds=_ROUNDS.value,
        progress=False,
    )
    zeros = synflow_tf.Masks.from_model(model)
    test = synflow_tf.datasets.load("digits", 1000, split="test")
    images, labels = next(iter(test))
    right = tf.argmax(model(images), axis=1) == labels
    accuracy = tf.reduce_mean(tf.cast(right, tf.float32))
    index = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
    print(
        f"worker {index}: kept {masks.kept:,} of {masks.size:,}, non-zero "
        f"after training {zeros.kept:,}, accuracy {float(accuracy):.2%}",
        flush=True,
    )


def launch(count, arguments):
    """Starts workers on this machine, waits, and returns 0 if all succeed.

    Args:
        count: int, how many.
        arguments: list of str, the command line of each.
    """
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    addresses = [f"127.0.0.1:{s.getsockname()[1]}" for s in sockets]
    for s in sockets:
        s.close()
    workers = []
    for index in range(count):
        task = {"type": "worker", "index": index}
        config = {"cluster": {"worker": addresses}, "task": task}
        environment = {**os.environ, "TF_CONFIG": json.dumps(config)}
        workers.append(subprocess.Popen(arguments, env=environment))
    return max(abs(worker.wait()) for worker in workers)


def main(argv):
    """Starts workers, or is one."""
    if len(argv) > 1:
        raise app.UsageError(f"Unknown arguments: {argv[1:]}")
    logging.set_verbosity(logging.WARNING)
    if _ROLE.value == "worker":
        work()
        return
    synflow_tf.datasets.load("digits", 1)  # prepares them, once
    sys.exit(
        launch(_WORKERS.value, [sys.executable, *sys.argv, "--role=worker"])
    )


if __name__ == "__main__":
    app.run(main)
