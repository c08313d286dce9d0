"""Rates that change with the outer update."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinybilevel.arrays.checks import as_count

__all__ = ["Cosine", "Rate", "as_rate", "check_positive", "check_real", "rate"]

#: A number, or a function τ → number.
Rate = float | Callable[[int], float]


@dataclass(frozen=True)
class Cosine:
    """The rate η_τ = ½ start (1 + cos(π (τ − 1)/updates)) of update τ: from `start` to 0.

    After `updates` of them it is 0. Any other function τ → rate can take its place; one that is
    defined in a module can be pickled too.

    Parameters
    ----------
    start : float
        η_1, greater than 0.
    updates : int
        How many updates it takes to come to 0, at least 1.

    Raises
    ------
    TypeError, ValueError
        If an argument is no such number.

    References
    ----------
    Loshchilov and Hutter 2017, "SGDR", eq. (5), without restarts.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> cosine = tb.Cosine(0.2, updates=100)
    >>> cosine(1), round(cosine(51), 12), cosine(101)
    (0.2, 0.1, 0.0)
    >>> result = tb.minimize(tb.problems.toy(), optimizer=tb.Adam(cosine), iterations=100)
    """

    start: float
    updates: int

    def __post_init__(self) -> None:
        check_positive("start", self.start)
        object.__setattr__(self, "updates", as_count("updates", self.updates, minimum=1))

    def __call__(self, tau: int) -> float:
        done = min(tau - 1, self.updates) / self.updates
        return self.start * (1 + math.cos(math.pi * done)) / 2


def as_rate(name: str, lr: Any) -> None:
    """Refuse what is neither a number above 0 nor a function."""
    if not callable(lr):
        check_positive(name, lr)


def rate(lr: Rate, tau: int) -> float:
    """Return the rate of update τ, and refuse what a function of the user's returns if it is none.

    Raises
    ------
    TypeError, ValueError
        If it is no finite number of at least 0.
    """
    if not callable(lr):
        return lr
    found = lr(tau)
    check_real(f"lr({tau})", found)
    if not 0 <= found < math.inf:
        raise ValueError(f"lr({tau}) must be at least 0 and finite, got {found}")
    return float(found)


def check_positive(name: str, x: float) -> None:
    """Refuse what is no finite number above 0."""
    check_real(name, x)
    if not (np.isfinite(x) and x > 0):
        raise ValueError(f"{name} must be greater than 0 and finite, got {x}")


def check_real(name: str, x: Any) -> None:
    """Refuse what is no number."""
    if isinstance(x, bool) or not isinstance(x, int | float | np.floating | np.integer):
        raise TypeError(f"{name} must be a number, got {x!r}")
