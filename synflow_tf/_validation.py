"""Checks of arguments, shared so that one mistake has one wording."""

import fractions
import math
import numbers


def integer(name, value, low):
    """Returns `value` as an int, or raises if it is not one or is below `low`.

    Args:
        name: str, the argument as the caller knows it.
        value: what was received.
        low: int, the smallest value allowed.

    Returns:
        int.

    Raises:
        ValueError: if `value` is not an integer >= `low`.
    """
    if (
        isinstance(value, bool)
        or not isinstance(value, numbers.Integral)
        or value < low
    ):
        raise ValueError(
            f"Argument `{name}` must be an integer >= {low}. "
            f"Received: {name}={value!r}"
        )
    return int(value)


def choice(name, value, allowed):
    """Returns `value`, or raises if it is not one of `allowed`."""
    if value not in allowed:
        names = ", ".join(repr(item) for item in allowed)
        raise ValueError(
            f"Argument `{name}` must be one of {names}. "
            f"Received: {name}={value!r}"
        )
    return value


def exactly_one(given):
    """Raises ValueError unless one of some arguments is not None.

    Args:
        given: dict of argument name to value.
    """
    if sum(value is not None for value in given.values()) != 1:
        *names, last = (f"`{name}`" for name in given)
        received = ", ".join(f"{k}={v!r}" for k, v in given.items())
        raise ValueError(
            f"Exactly one of the arguments {', '.join(names)} and {last} must "
            f"be given. Received: {received}"
        )


def _number(value):
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return real and math.isfinite(value)


def sparsity(name, value):
    """Returns `value`, or raises if it is not a sparsity.

    Args:
        name: str, the argument as the caller knows it.
        value: number, the fraction removed.

    Returns:
        `value`, unchanged.

    Raises:
        ValueError: if `value` is not a finite number in [0, 1).
    """
    if not _number(value) or not 0 <= value < 1:
        raise ValueError(
            f"Argument `{name}` must be a number in [0, 1): the fraction of "
            "the prunable weights to remove (0.99 keeps 1 %). "
            f"Received: {name}={value!r}"
        )
    return value


def density(sparsity_value=None, compression=None):
    """Returns the density that a sparsity or a compression asks for.

    The number is read as the decimal that the caller wrote, so that
    `sparsity=0.29` of 100 weights removes 29 of them and not 28.

    Args:
        sparsity_value: number in [0, 1), the fraction removed, or None.
        compression: number >= 1, prunable weights over kept weights, or None.

    Returns:
        `fractions.Fraction` in (0, 1], the fraction kept.

    Raises:
        ValueError: if a number is out of its range.
    """
    if compression is None:
        sparsity("sparsity", sparsity_value)
        return 1 - decimal(sparsity_value)
    if not _number(compression) or compression < 1:
        raise ValueError(
            "Argument `compression` must be a number >= 1: prunable weights "
            "divided by kept weights (100 keeps 1 %). "
            f"Received: compression={compression!r}"
        )
    return 1 / decimal(compression)


def decimal(value):
    """Returns a number as the exact fraction that its shortest decimal is."""
    if isinstance(value, fractions.Fraction):
        return value
    return fractions.Fraction(str(value))
