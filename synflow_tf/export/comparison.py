"""What a model and the file made of it are compared on, and how far apart."""

import numpy as np

_COMPARED = 8  # samples


def samples(dataset, function):
    """The samples of a representative data set.

    Args:
        dataset: see `export_tflite`.
        function: a `tflite.Function`.

    Returns:
        list of dicts of input name to array.

    Raises:
        ValueError: if they do not fit the inputs, or there are none.
    """
    found = []
    for sample in dataset():
        if not isinstance(sample, (list, tuple)) or len(sample) != len(
            function.inputs
        ):
            raise ValueError(
                "Argument `representative_dataset` must yield lists with an "
                f"array for each of the inputs {list(function.inputs)}. "
                f"Received: {sample!r}"
            )
        specs = zip(function.inputs.items(), sample, strict=True)
        found.append(
            {
                name: np.asarray(array, spec.dtype.as_numpy_dtype)
                for (name, spec), array in specs
            }
        )
    if not found:
        raise ValueError(
            "Argument `representative_dataset` must yield at least one sample. "
            f"Received: {dataset!r}, which yields none"
        )
    return found


def batches(function, samples=None):
    """What two functions are compared on.

    Args:
        function: a `tflite.Function`.
        samples: list of dicts of input name to array, of which the first are
            taken, or None for random ones.

    Returns:
        list like `samples`.
    """
    if samples is not None:
        return samples[:_COMPARED]
    rng = np.random.default_rng(0)

    def draw(spec):
        shape = [1 if n is None else n for n in spec.shape]
        if spec.dtype.is_floating:
            return rng.normal(size=shape).astype(spec.dtype.as_numpy_dtype)
        return rng.integers(2, size=shape).astype(spec.dtype.as_numpy_dtype)

    return [
        {name: draw(spec) for name, spec in function.inputs.items()}
        for _ in range(_COMPARED)
    ]


def difference(outputs, expected):
    """The largest absolute difference of outputs, and the largest output.

    Args:
        outputs: list of dicts of name to array.
        expected: list of dicts of name to array or tensor.

    Returns:
        A pair of float; nan if one of the values is.
    """
    pairs = [
        (np.asarray(got[name], np.float64), np.asarray(wanted, np.float64))
        for got, batch in zip(outputs, expected, strict=True)
        for name, wanted in batch.items()
    ]
    worst = np.max([np.max(np.abs(a - b), initial=0) for a, b in pairs])
    largest = np.max([np.max(np.abs(b), initial=0) for _, b in pairs])
    return float(worst), float(largest)
