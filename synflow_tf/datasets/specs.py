"""Describes the paper's data sets: shapes, counts and normalization."""

import dataclasses

from synflow_tf import _validation


@dataclasses.dataclass(frozen=True)
class Spec:
    """Shapes, counts and normalization of a data set.

    Attributes:
        input_shape: height, width and channels of an image.
        classes: number of classes; labels are 0 to `classes - 1`.
        examples: dict of "train" and "test" to the number of examples.
        mean: per channel, of training images scaled to [0, 1].
        std: standard deviation, like `mean`.
        max_value: the pixel value that is scaled to 1.
        augmented: whether training images are cropped and flipped by default.
    """

    input_shape: tuple[int, int, int]
    classes: int
    examples: dict[str, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    max_value: int = 255
    augmented: bool = False


# Means and standard deviations of mnist, cifar10 and cifar100 are those of the
# authors' code (Utils/load.py); those of digits are of its training split.
SPECS = {
    "digits": Spec(
        input_shape=(8, 8, 1),
        classes=10,
        examples={"train": 1437, "test": 360},
        mean=(0.3058,),
        std=(0.3762,),
        max_value=16,
    ),
    "mnist": Spec(
        input_shape=(28, 28, 1),
        classes=10,
        examples={"train": 60000, "test": 10000},
        mean=(0.1307,),
        std=(0.3081,),
    ),
    "cifar10": Spec(
        input_shape=(32, 32, 3),
        classes=10,
        examples={"train": 50000, "test": 10000},
        mean=(0.491, 0.482, 0.447),
        std=(0.247, 0.243, 0.262),
        augmented=True,
    ),
    "cifar100": Spec(
        input_shape=(32, 32, 3),
        classes=100,
        examples={"train": 50000, "test": 10000},
        mean=(0.507, 0.487, 0.441),
        std=(0.267, 0.256, 0.276),
        augmented=True,
    ),
}


def spec(name):
    """Returns the `Spec` of "digits", "mnist", "cifar10" or "cifar100".

    Raises:
        ValueError: if there is no data set of that name.

    >>> spec("cifar10").input_shape
    (32, 32, 3)
    """
    return SPECS[_validation.choice("name", name, tuple(SPECS))]
