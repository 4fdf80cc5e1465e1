"""Compares a model with the file made of it, on given or random inputs."""

import numpy as np

_COMPARED = 8  # samples, enough to show a kernel that is decoded wrongly


def samples(dataset, function):
    """Returns a representative data set as a list of dicts of name to array.

    Returns None if there is none, and raises ValueError if it is empty, or does
    not fit the inputs of the `tflite.Function`.
    """
    if dataset is None:
        return None
    specs = function.inputs
    found = []
    for sample in dataset():
        if not isinstance(sample, (list, tuple)) or len(sample) != len(specs):
            raise ValueError(
                "Argument `representative_dataset` must yield lists with an "
                f"array for each of the inputs {list(specs)}. "
                f"Received: {sample!r}"
            )
        pairs = zip(specs.values(), sample, strict=True)
        arrays = [np.asarray(x, spec.dtype.as_numpy_dtype) for spec, x in pairs]
        found.append(dict(zip(specs, arrays, strict=True)))
    if not found:
        raise ValueError(
            "Argument `representative_dataset` must yield at least one sample. "
            f"Received: {dataset!r}, which yields none"
        )
    return found


def batches(function, samples):
    """Returns the first of `samples`, or random ones if `samples` is None."""
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
    """Computes the largest absolute difference, and the largest output.

    Both arguments are lists of dicts of name to array. The two numbers are
    float, and nan if one of the values is.
    """
    pairs = [
        (np.asarray(got[name], np.float64), np.asarray(wanted, np.float64))
        for got, batch in zip(outputs, expected, strict=True)
        for name, wanted in batch.items()
    ]
    worst = np.max([np.max(np.abs(a - b), initial=0) for a, b in pairs])
    largest = np.max([np.max(np.abs(b), initial=0) for _, b in pairs])
    return float(worst), float(largest)
