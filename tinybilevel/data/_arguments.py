"""Checks of arguments that the modules of `tinybilevel.data` share."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

__all__ = ["as_generator", "as_integer"]


def as_integer(name: str, value: Any, minimum: int) -> int:
    """Return an integer argument as an int, or say by its name what is wrong with it."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, got {value!r}") from None
    if number < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {number}")
    return number


def as_generator(seed: int | np.random.Generator) -> np.random.Generator:
    """Return the caller's generator, or one made from the seed.

    NumPy's default_rng would also take None and draw from the operating system, which no run
    could repeat.
    """
    if isinstance(seed, np.random.Generator):
        return seed
    number = as_integer("seed, if not a numpy.random.Generator,", seed, minimum=0)
    return np.random.default_rng(number)
