"""Checks arguments, in one place so that one mistake has one wording.

Each function takes the name of the argument as the caller knows it, returns
the value, and raises ValueError if it is out of its range.
"""

import fractions
import math
import numbers


def integer(name, value, low):
    """Returns `value` as an int, which must be an integer >= `low`."""
    is_integer = isinstance(value, numbers.Integral)
    if not is_integer or isinstance(value, bool) or value < low:
        raise ValueError(
            f"Argument `{name}` must be an integer >= {low}. "
            f"Received: {name}={value!r}"
        )
    return int(value)


def choice(name, value, allowed):
    """Returns `value`, which must be one of `allowed`."""
    if value not in allowed:
        names = ", ".join(repr(item) for item in allowed)
        raise ValueError(
            f"Argument `{name}` must be one of {names}. "
            f"Received: {name}={value!r}"
        )
    return value


def exactly_one(given):
    """Checks that one value of a dict of argument name to value is not None."""
    if sum(value is not None for value in given.values()) != 1:
        *names, last = (f"`{name}`" for name in given)
        received = ", ".join(f"{k}={v!r}" for k, v in given.items())
        raise ValueError(
            f"Exactly one of the arguments {', '.join(names)} and {last} must "
            f"be given. Received: {received}"
        )


def sparsity(name, value):
    """Returns `value`, which must be a finite number in [0, 1)."""
    if not _is_number(value) or not 0 <= value < 1:
        raise ValueError(
            f"Argument `{name}` must be a number in [0, 1): the fraction of "
            "the prunable weights to remove (0.99 keeps 1 %). "
            f"Received: {name}={value!r}"
        )
    return value


def density(sparsity_value, compression):
    """Returns the exact fraction kept that one of two numbers asks for.

    The number is read as the decimal that the caller wrote, so that
    `sparsity=0.29` of 100 weights removes 29 of them and not 28.
    """
    if compression is None:
        return 1 - decimal(sparsity("sparsity", sparsity_value))
    if not _is_number(compression) or compression < 1:
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


def _is_number(value):
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return real and math.isfinite(value)
