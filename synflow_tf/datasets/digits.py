"""The data set "digits": scikit-learn's handwritten digits, as a tfds builder.

It is built from the files that scikit-learn ships, so it needs no network.
"""

import numpy as np
import tensorflow_datasets as tfds

_TEST_EVERY = 5  # one example in five is a test example


def split_indices(labels):
    """Splits the examples into train and test, the same way every time.

    In the order of class, then position, every fifth example is a test example:
    each class is split in the same proportion, and no random generator matters.
    Returns a dict of "train" and "test" to increasing arrays of indices.

    >>> split_indices(np.array([0, 1, 0, 1, 0, 1, 0, 1, 0, 1]))
    {'train': array([2, 3, 4, 5, 6, 7, 8, 9]), 'test': array([0, 1])}
    """
    by_class = np.argsort(labels, kind="stable")
    is_test = np.zeros(len(labels), dtype=bool)
    is_test[by_class[::_TEST_EVERY]] = True
    return {"train": np.flatnonzero(~is_test), "test": np.flatnonzero(is_test)}


class Digits(tfds.core.GeneratorBasedBuilder):
    """Builder of 1,797 digits in 10 classes: 1,437 to train, 360 to test.

    The feature `image` is uint8 of shape `(8, 8, 1)` in the source's own range,
    0 to 16 inclusive: each pixel counts the inked cells of a 4x4 block. The
    feature `label` is the digit. Examples are stored in the source's order.
    Importing this module registers the builder as "digits" with tfds.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "Initial release."}

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            description=(
                "The 8x8 handwritten digits that scikit-learn ships: the test "
                "set of UCI's Optical Recognition of Handwritten Digits. "
                "Sorted by class, every fifth is a test example."
            ),
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(8, 8, 1)),
                    "label": tfds.features.ClassLabel(num_classes=10),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://scikit-learn.org/stable/datasets/toy_dataset.html",
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        del dl_manager  # Part of the interface: nothing to download.
        try:
            from sklearn import datasets
        except ImportError as error:
            raise ImportError(
                "The data set 'digits' is built from scikit-learn's files, and "
                "scikit-learn cannot be imported. "
                "Run: pip install synflow_tf[examples]"
            ) from error
        source = datasets.load_digits()
        images = source.images.astype(np.uint8)[..., np.newaxis]
        return {
            split: self._generate_examples(images, source.target, indices)
            for split, indices in split_indices(source.target).items()
        }

    def _generate_examples(self, images, labels, indices):
        for index in indices.tolist():
            yield index, {"image": images[index], "label": labels[index]}
