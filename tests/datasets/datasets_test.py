"""Data sets: real digits offline, the others prepared in tiny or mocked."""

import socket
import sys
import time

import common
import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from sklearn import datasets as sklearn_datasets

from synflow_tf import datasets
from synflow_tf.datasets import digits
from synflow_tf.datasets import pipeline

DOWNLOADED = ["mnist", "cifar10", "cifar100"]
AUGMENTED = ["cifar10", "cifar100"]
# The authors' constants, stated a second time (Utils/load.py).
MEAN_AND_STD = {
    "mnist": ([0.1307], [0.3081]),
    "cifar10": ([0.491, 0.482, 0.447], [0.247, 0.243, 0.262]),
    "cifar100": ([0.507, 0.487, 0.441], [0.267, 0.256, 0.276]),
}


def arrays(dataset):
    """All images and all labels of a data set, as two arrays."""
    images, labels = zip(*dataset.as_numpy_iterator(), strict=True)
    return np.concatenate(images), np.concatenate(labels)


def load(name, batch_size, data_dir, **options):
    """What `load` reads, as two arrays."""
    return arrays(datasets.load(name, batch_size, data_dir=data_dir, **options))


def stored(builder, split):
    """What tfds has of a split in its own files, as two arrays."""
    dataset = builder.as_dataset(split=split, as_supervised=True)
    return arrays(dataset.batch(100))


def normalized(images, name):
    """The authors' normalization in float64."""
    mean, std = MEAN_AND_STD[name]
    return (images / 255.0 - np.array(mean)) / np.array(std)


def variants(image):
    """All 162 crops and flips of one zero-padded image."""
    height, width, _ = image.shape
    padded = np.pad(image, [(4, 4), (4, 4), (0, 0)])
    crops = [
        padded[top : top + height, left : left + width]
        for top in range(9)
        for left in range(9)
    ]
    return np.stack([flip for crop in crops for flip in (crop, crop[:, ::-1])])


def which_variants(augmented, originals):
    """Per image, which of its 162 variants it is; fails if it is none."""
    indices = []
    for image, original in zip(augmented, originals, strict=True):
        equal = (variants(original) == image).all(axis=(1, 2, 3))
        assert equal.sum() == 1
        indices.append(int(equal.argmax()))
    return indices


def pixels(images, name):
    """The uint8 pixels that were normalized to `images`."""
    mean, std = MEAN_AND_STD[name]
    values = (images * np.array(std) + np.array(mean)) * 255
    np.testing.assert_allclose(values, values.round(), atol=1e-3)
    return values.round().astype(np.uint8)


@pytest.fixture(scope="module")
def digits_dir(tmp_path_factory):
    """A data directory in which digits is prepared."""
    data_dir = tmp_path_factory.mktemp("digits")
    digits.Digits(data_dir=data_dir).download_and_prepare()
    return data_dir


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Few random images in tfds's own files, and what is in them.

    Returns:
        The data directory, and a dict of `(name, split)` to images and labels.
    """
    data_dir = tmp_path_factory.mktemp("tiny")
    rng = np.random.default_rng(0)
    contents = {}
    for name in DOWNLOADED:
        builder = tfds.builder(name, data_dir=data_dir)
        features = builder.info.features
        for split, count in [("train", 40), ("test", 12)]:
            shape = count, *features["image"].shape
            images = rng.integers(0, 256, shape, "uint8")
            labels = rng.integers(0, features["label"].num_classes, count)
            contents[name, split] = images, labels

        def split_generators(dl_manager, name=name, features=features):
            extra = {"id": "", "coarse_label": 0}
            extra = {k: v for k, v in extra.items() if k in features}
            splits = {}
            for split in ("train", "test"):
                pairs = zip(*contents[name, split], strict=True)
                examples = [{"image": x, "label": y, **extra} for x, y in pairs]
                splits[split] = list(enumerate(examples))
            return splits

        builder._split_generators = split_generators
        builder.download_and_prepare()
        # tfds stores examples in an order of its own.
        for split in ("train", "test"):
            images, labels = stored(builder, split)
            given = contents[name, split]
            assert sorted(map(bytes, images)) == sorted(map(bytes, given[0]))
            contents[name, split] = images, labels
    return data_dir, contents


@pytest.fixture
def no_proxy(monkeypatch):
    """No proxy in the environment."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def offline(monkeypatch, no_proxy):
    """A machine on which no host name can be looked up."""

    def fail(*args, **kwargs):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "create_connection", fail)
    monkeypatch.setattr(socket, "getaddrinfo", fail)


def test_digits_are_pixel_for_pixel_those_of_scikit_learn(digits_dir):
    source = sklearn_datasets.load_digits()
    by_class = sorted(range(1797), key=lambda i: (source.target[i], i))
    expected = {"test": sorted(by_class[::5])}
    expected["train"] = sorted(set(range(1797)) - set(expected["test"]))
    builder = digits.Digits(data_dir=digits_dir)
    for split, indices in expected.items():
        images, labels = stored(builder, split)
        assert images.dtype == np.uint8
        np.testing.assert_array_equal(
            images[..., 0], source.images[indices].astype(int)
        )
        np.testing.assert_array_equal(labels, source.target[indices])


def test_digits_are_normalized_by_the_statistics_of_their_training_split(
    digits_dir,
):
    originals, labels = stored(digits.Digits(data_dir=digits_dir), "train")
    scaled = originals / 16.0
    spec = datasets.spec("digits")
    assert spec.mean == (round(scaled.mean(), 4),)
    assert spec.std == (round(scaled.std(), 4),)
    images, loaded_labels = load("digits", 100, digits_dir, shuffle=False)
    assert images.dtype == np.float32
    expected = (scaled - spec.mean[0]) / spec.std[0]
    np.testing.assert_allclose(images, expected, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(loaded_labels, labels)


def test_digits_are_built_without_network_and_only_once(
    tmp_path, offline, monkeypatch
):
    first = load("digits", 64, tmp_path, split="test")
    monkeypatch.delattr(digits.Digits, "_generate_examples")
    common.assert_equal(first, load("digits", 64, tmp_path, split="test"))


def test_the_last_partial_batch_is_kept_and_cardinality_is_known(digits_dir):
    for split, count in datasets.spec("digits").examples.items():
        loaded = datasets.load("digits", 50, split=split, data_dir=digits_dir)
        sizes = [len(labels) for _, labels in loaded.as_numpy_iterator()]
        assert sizes == [50] * (count // 50) + [count % 50]
        assert loaded.cardinality() == len(sizes)
        assert loaded.element_spec == (
            tf.TensorSpec((None, 8, 8, 1), tf.float32),
            tf.TensorSpec((None,), tf.int64),
        )


def test_training_digits_are_reordered_in_each_epoch_and_by_seed(digits_dir):
    def epochs(seed):
        loaded = datasets.load("digits", 64, seed=seed, data_dir=digits_dir)
        return [arrays(loaded)[0] for _ in range(2)]

    first, second = epochs(seed=1)
    other, _ = epochs(seed=2)
    common.assert_equal([first, second], epochs(seed=1))
    assert (first != second).any()
    assert (first != other).any()
    assert sorted(map(bytes, first)) == sorted(map(bytes, second))
    in_order, _ = load("digits", 64, digits_dir, shuffle=False)
    # Over the whole split: a stored neighbour lands anywhere.
    position = {bytes(x): i for i, x in enumerate(in_order)}
    moved = np.abs([position[bytes(x)] - i for i, x in enumerate(first)])
    assert moved.mean() > len(first) / 4


@pytest.mark.parametrize("name", DOWNLOADED)
def test_a_prepared_data_set_is_read_without_network(name, tiny, offline):
    data_dir, contents = tiny
    # Nothing is augmented of mnist, without being told.
    options = {"augment": False} if name in AUGMENTED else {}
    for split in ("train", "test"):
        originals, labels = contents[name, split]
        images, loaded_labels = load(
            name, 8, data_dir, split=split, shuffle=False, **options
        )
        assert images.dtype == np.float32
        np.testing.assert_allclose(
            images, normalized(originals, name), rtol=0, atol=1e-6
        )
        np.testing.assert_array_equal(loaded_labels, labels)


@pytest.mark.parametrize("name", DOWNLOADED)
def test_a_data_set_whose_host_answers_is_downloaded(
    name, tmp_path, monkeypatch
):
    probed = []
    monkeypatch.setattr(
        pipeline, "_is_reachable", lambda url: probed.append(url) or True
    )
    spec = datasets.spec(name)
    # Here `download_and_prepare` does nothing and reading makes images up.
    with tfds.testing.mock_data(num_examples=20):
        loaded = datasets.load(name, 8, data_dir=tmp_path)
        images, labels = arrays(loaded)
    assert len(probed) == 1 and probed[0].startswith("https://")
    assert loaded.cardinality() == 3
    assert images.shape == (20, *spec.input_shape)
    assert images.dtype == np.float32
    assert 0 <= labels.min() and labels.max() < spec.classes
    black = normalized(np.zeros(spec.input_shape), name)
    white = normalized(np.full(spec.input_shape, 255), name)
    assert (images > black - 1e-6).all() and (images < white + 1e-6).all()


@pytest.mark.parametrize("name", DOWNLOADED)
def test_what_a_spec_says_is_what_tfds_says(name, tmp_path):
    spec = datasets.spec(name)
    features = tfds.builder(name, data_dir=tmp_path).info.features
    assert spec.input_shape == features["image"].shape
    assert spec.classes == features["label"].num_classes
    assert (spec.mean, spec.std) == tuple(map(tuple, MEAN_AND_STD[name]))
    train = 60000 if name == "mnist" else 50000
    assert spec.examples == {"train": train, "test": 10000}
    assert spec.max_value == 255


def test_every_crop_and_flip_of_the_padded_image_occurs_about_equally_often():
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), "uint8")
    count = 162 * 40
    images = tf.tile(tf.constant(image)[tf.newaxis], [count, 1, 1, 1])
    augmented = pipeline.augment(images, seed=[1, 2])
    assert augmented.dtype == tf.uint8 and augmented.shape == images.shape
    number = {bytes(x): i for i, x in enumerate(variants(image))}
    assert len(number) == 162
    occurrences = np.bincount([number[bytes(x)] for x in augmented.numpy()])
    # Each is binomial around 40 with a standard deviation of 6.3.
    assert len(occurrences) == 162
    assert occurrences.min() > 10 and occurrences.max() < 70


def test_images_that_are_not_square_are_cropped_to_their_own_shape():
    images = np.random.default_rng(0).integers(0, 256, (9, 6, 10, 2), "uint8")
    augmented = pipeline.augment(tf.constant(images), seed=[1, 2])
    assert len(set(which_variants(augmented.numpy(), images))) > 1


@pytest.mark.parametrize("name", AUGMENTED)
def test_each_training_image_is_cropped_out_of_a_black_border_by_itself(
    name, tiny
):
    data_dir, contents = tiny
    originals, labels = contents[name, "train"]
    images, loaded_labels = load(name, 20, data_dir, shuffle=False, seed=0)
    np.testing.assert_array_equal(loaded_labels, labels)
    chosen = which_variants(pixels(images, name), originals)
    # Per image, not per batch; and the second batch not like the first.
    assert len(set(chosen[:20])) > 10 and len(set(chosen[20:])) > 10
    assert chosen[:20] != chosen[20:]


def test_augmentation_is_another_in_each_epoch_and_follows_the_seed(tiny):
    data_dir, _ = tiny

    def epochs(seed, shuffle):
        loaded = datasets.load(
            "cifar10", 8, shuffle=shuffle, seed=seed, data_dir=data_dir
        )
        return [arrays(loaded)[0] for _ in range(2)]

    for shuffle in (False, True):
        first, second = epochs(1, shuffle)
        np.testing.assert_array_equal([first, second], epochs(1, shuffle))
        assert (first != second).any()
        assert (first != epochs(2, shuffle)[0]).any()
    assert (epochs(None, False)[0] != epochs(None, False)[0]).any()


@pytest.mark.parametrize("name", DOWNLOADED)
def test_the_test_split_is_neither_augmented_nor_reordered(name, tiny):
    data_dir, contents = tiny
    expected, labels = contents[name, "test"]
    loaded = datasets.load(name, 5, split="test", data_dir=data_dir)
    for _ in range(2):
        images, loaded_labels = arrays(loaded)
        np.testing.assert_array_equal(pixels(images, name), expected)
        np.testing.assert_array_equal(loaded_labels, labels)


@pytest.mark.parametrize("name", DOWNLOADED)
def test_a_missing_data_set_without_network_says_at_once_how_to_get_it(
    name, tmp_path, offline, monkeypatch
):
    # Without network this would retry for minutes, and then fail.
    monkeypatch.setattr(
        tfds.core.DatasetBuilder,
        "download_and_prepare",
        lambda *args, **kwargs: pytest.fail("A download was tried."),
    )
    start = time.monotonic()
    with pytest.raises(FileNotFoundError) as raised:
        datasets.load(name, 8, data_dir=tmp_path)
    assert time.monotonic() - start < 10
    message = str(raised.value)
    host = "googleapis.com" if name == "mnist" else "www.cs.toronto.edu"
    assert message.startswith(
        f"Argument `data_dir` must hold the prepared data set {name!r}"
    )
    assert f"Received: data_dir={tmp_path!r}" in message
    assert host in message
    assert f"tfds.load('{name}:3.0." in message
    assert f"copy the folder data/{name} to {tmp_path / name}" in message
    # A failed attempt leaves nothing that could be taken for a data set.
    assert not list(tmp_path.rglob("*"))


def test_a_host_name_that_is_never_found_is_waited_for_briefly(
    monkeypatch, no_proxy
):
    monkeypatch.setattr(
        socket, "create_connection", lambda *args: time.sleep(20)
    )
    assert pipeline._PROBE_SECONDS <= 5
    monkeypatch.setattr(pipeline, "_PROBE_SECONDS", 0.1)
    start = time.monotonic()
    assert not pipeline._is_reachable("https://www.cs.toronto.edu/file")
    assert time.monotonic() - start < 10


def test_a_host_is_reachable_if_and_only_if_it_accepts_a_connection(no_proxy):
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"https://127.0.0.1:{server.getsockname()[1]}/file"
        assert pipeline._is_reachable(url)
    assert not pipeline._is_reachable(url)


def test_a_proxy_is_trusted_to_reach_the_host(monkeypatch, offline):
    url = "https://www.cs.toronto.edu/file"
    assert not pipeline._is_reachable(url)
    monkeypatch.setenv("HTTP_PROXY", "http://localhost:1")
    assert not pipeline._is_reachable(url)
    monkeypatch.setenv("HTTPS_PROXY", "http://localhost:1")
    assert pipeline._is_reachable(url)


@pytest.mark.parametrize(
    "name, bad, must",
    [
        ("name", "imagenet", "one of 'digits', 'mnist', 'cifar10', 'cifar100'"),
        ("batch_size", 0, "an integer >= 1"),
        ("batch_size", 2.5, "an integer >= 1"),
        ("split", "validation", "one of 'train', 'test'"),
        ("augment", True, "False or None for 'digits'"),
    ],
)
def test_a_wrong_argument_is_named_with_what_is_right(
    name, bad, must, digits_dir
):
    arguments = {"name": "digits", "batch_size": 8, "data_dir": digits_dir}
    message = f"Argument `{name}` must be {must}.* Received: {name}={bad!r}"
    with pytest.raises(ValueError, match=message):
        datasets.load(**{**arguments, name: bad})


def test_a_missing_package_is_named_with_the_command_that_installs_it(
    tmp_path, monkeypatch
):
    remedy = r"pip install synflow_tf\[examples\]"
    for module, name in (
        ("sklearn", "scikit-learn"),
        ("tensorflow_datasets", "tensorflow_datasets"),
    ):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, module, None)
            with pytest.raises(ImportError, match=f"{name}.*{remedy}"):
                datasets.load("digits", 8, data_dir=tmp_path)
    # The first failure left nothing half done behind.
    assert len(datasets.load("digits", 1437, data_dir=tmp_path)) == 1


def test_importing_the_package_imports_no_data_set_library():
    code = """if True:
        import sys
        import keras, tensorflow  # keras imports sklearn if it is there
        before = set(sys.modules)
        import synflow_tf.datasets
        new = {name.split(".")[0] for name in set(sys.modules) - before}
        print(*new & {"tensorflow_datasets", "sklearn"})
    """
    done = common.python("-c", code)
    assert done.returncode == 0 and done.stdout.split() == []
