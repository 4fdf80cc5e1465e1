"""Input pipelines of the paper's data sets, normalized as its authors do.

An image x of values 0 to m becomes `(x / m - mean) / std`, per channel.
"""

import contextlib
import socket
import threading
import urllib.parse
import urllib.request

import tensorflow as tf

from synflow_tf import _validation
from synflow_tf.datasets import specs

# Pixels of black border around an image before it is cropped (authors: 4).
_PADDING = 4
# A host that takes longer to answer is taken to be out of reach.
_PROBE_SECONDS = 3.0


def load(
    name,
    batch_size,
    *,
    split="train",
    augment=None,
    shuffle=None,
    seed=None,
    data_dir=None,
):
    """Loads a data set as batches that `fit` and `evaluate` take as they are.

    A data set that is not in `data_dir` is downloaded and prepared there once;
    "digits" is built without a network.

    Args:
        name: "digits", "mnist", "cifar10" or "cifar100".
        batch_size: images per batch; the last batch may be smaller.
        split: "train" or "test".
        augment: whether to crop the images at random out of a black border of
            4 pixels, and flip half of them. Default, as the authors do: for the
            training splits of cifar10 and cifar100. Digits cannot be flipped.
        shuffle: whether to reorder the whole split anew in each epoch. Default:
            for training splits.
        seed: integer that makes order and augmentation the same in each program
            (with the same `tf.random.set_seed`, if any); epochs still differ.
            Default: another order each time.
        data_dir: directory of prepared data sets. Default: tfds's own, which is
            `$TFDS_DATA_DIR` or `~/tensorflow_datasets`.

    Returns:
        A `tf.data.Dataset` of known cardinality of pairs: float32 images of
        shape `(batch,) + spec(name).input_shape`, normalized to mean 0 and
        standard deviation 1, and int64 labels of shape `(batch,)`.

    Raises:
        ValueError: if an argument is not one of the above.
        FileNotFoundError: if it is not prepared, and its host out of reach.
        ImportError: if tensorflow_datasets is missing (digits: scikit-learn).

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as data_dir:
    ...     train = load("digits", 32, data_dir=data_dir)
    ...     images, labels = next(iter(train))  # doctest: +ELLIPSIS
    Downloading and preparing dataset ...
    >>> images.shape, labels.shape, len(train)
    (TensorShape([32, 8, 8, 1]), TensorShape([32]), 45)
    """
    spec = specs.spec(name)
    _validation.integer("batch_size", batch_size, low=1)
    _validation.choice("split", split, tuple(spec.examples))
    is_train = split == "train"
    if augment and not spec.augmented:
        raise ValueError(
            f"Argument `augment` must be False or None for {name!r}, because a "
            f"flipped digit is no digit. Received: augment={augment!r}"
        )
    if augment is None:
        augment = spec.augmented and is_train
    if shuffle is None:
        shuffle = is_train
    examples = read(name, split, data_dir)
    return batches(examples, spec, batch_size, augment, shuffle, seed)


def batches(examples, spec, batch_size, augmented, shuffled, seed):
    """Batches, augments and normalizes pairs of a uint8 image and a label.

    The data set must fit into memory and know its size. See `load`.
    """
    # Images stay uint8, a quarter of the memory, until they are batched.
    examples = examples.cache()
    if shuffled:
        examples = examples.shuffle(examples.cardinality(), seed=seed)
    examples = examples.batch(batch_size)
    if augmented:
        seeds = tf.data.Dataset.random(
            seed=seed, rerandomize_each_iteration=True
        ).batch(2)
        examples = tf.data.Dataset.zip((examples, seeds)).map(
            lambda batch, seed: (augment(batch[0], seed), batch[1]),
            num_parallel_calls=tf.data.AUTOTUNE,
        )
    return examples.map(
        lambda images, labels: (normalize(images, spec), labels),
        num_parallel_calls=tf.data.AUTOTUNE,
    ).prefetch(tf.data.AUTOTUNE)


def augment(images, seed):
    """Crops each image at random out of a black border, and flips half of them.

    Each image of the batch draws its own variant of 162: one of 9 x 9 crops, or
    its mirror image. The same seed, of two integers, gives the same variants.
    """
    _, height, width, _ = images.shape
    border = [_PADDING, _PADDING]
    padded = tf.pad(images, [[0, 0], border, border, [0, 0]])
    offsets = 2 * _PADDING + 1
    shape = [tf.shape(images)[0], 1]
    variant = tf.random.stateless_uniform(
        shape, seed, maxval=2 * offsets**2, dtype=tf.int32
    )
    crop, flipped = variant // 2, variant % 2 == 1
    rows = crop // offsets + tf.range(height)
    columns = crop % offsets + tf.where(
        flipped, tf.range(width)[::-1], tf.range(width)
    )
    cropped = tf.gather(padded, rows, axis=1, batch_dims=1)
    return tf.gather(cropped, columns, axis=2, batch_dims=1)


def normalize(images, spec):
    """Scales images to [0, 1], then to mean 0 and standard deviation 1."""
    scaled = tf.cast(images, tf.float32) / spec.max_value
    return (scaled - tf.constant(spec.mean)) / tf.constant(spec.std)


def read(name, split, data_dir):
    """Reads a data set from `data_dir`, where it is prepared first if need be.

    Returns a `tf.data.Dataset` of pairs of a uint8 image and an int64 label,
    and raises as `load` does.
    """
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise ImportError(
            f"The data set {name!r} is read by tensorflow_datasets, which "
            f"cannot be imported: {error}. "
            "Run: pip install synflow_tf[examples]"
        ) from error
    if name == "digits":
        from synflow_tf.datasets import digits

        builder = digits.Digits(data_dir=data_dir)
    else:
        builder = tfds.builder(name, data_dir=data_dir)
    # Asked alone, `is_prepared` warns of a folder that is not there yet.
    if not (builder.data_path.exists() and builder.is_prepared()):
        _check_reachable(builder, data_dir)
        # From its own host, which is the one that was just reached.
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(try_download_gcs=False)
        )
    return builder.as_dataset(
        split=split,
        as_supervised=True,
        read_config=tfds.ReadConfig(try_autocache=False),  # `batches` caches
    )


def _check_reachable(builder, data_dir):
    """Fails at once where tfds would retry a download for minutes."""
    # A data set without URLs is built from what is installed.
    url = next(iter(builder.url_infos or ()), None)
    if url is None or _is_reachable(url):
        return
    name, path = builder.name, builder.data_path
    raise FileNotFoundError(
        f"Argument `data_dir` must hold the prepared data set {name!r}, "
        f"because {urllib.parse.urlsplit(url).hostname}, where it would be "
        f"downloaded from, cannot be reached. Received: data_dir={data_dir!r}, "
        f"and there is no prepared data set in {path}.\n"
        "On a machine with a network run\n"
        '    python -c "import tensorflow_datasets as tfds; '
        f"tfds.load('{name}:{builder.version}', data_dir='data')\"\n"
        f"then copy the folder data/{name} to {path.parent}, or pass as "
        "`data_dir` the directory that it is in. "
        "The data set 'digits' needs no network."
    )


def _is_reachable(url):
    """Tells whether the host of `url` can be reached, or a proxy is set."""
    parts = urllib.parse.urlsplit(url)
    if {parts.scheme, "all"} & urllib.request.getproxies().keys():
        return True
    answers = []

    def connect():
        address = parts.hostname, parts.port or 443
        with contextlib.suppress(OSError):
            socket.create_connection(address, _PROBE_SECONDS).close()
            answers.append(address)

    # In a thread, because looking up the name has no timeout of its own.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(_PROBE_SECONDS)
    return bool(answers)
