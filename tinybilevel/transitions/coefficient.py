"""Coefficients of a transition (step size, momentum, threshold): fixed, scheduled or learned."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import numpy as np

from tinybilevel.arrays.backend import (
    Array,
    Movable,
    as_count,
    block_size,
    check_shape,
    promote,
    take_block,
)

__all__ = ["Coefficient", "Learned", "as_coefficient"]


class Coefficient(Movable):
    """A number c_t(λ), or one per entry of w, that a transition multiplies by.

    The coefficient is fixed or scheduled in this class; `Learned` reads it from λ.

    Parameters
    ----------
    values : float, sequence of float or callable
        c; c_0, c_1, …; or t → c_t.
    """

    learned = False

    def __init__(self, name: str, values: float | Sequence[float] | Callable[[int], float]) -> None:
        self.name, self.values = name, values
        if isinstance(values, int | float):
            self._check(float(values))
        elif not callable(values):
            self.values = tuple(self._check(float(c)) for c in values)

    def _check(self, c: float) -> float:
        if not np.isfinite(c) or c < 0:
            raise ValueError(f"{self.name} must be finite and at least 0, got {c}")
        return c

    def __call__(self, t: int, lam: Array) -> float | Array:
        """Return c_t."""
        if isinstance(self.values, tuple):
            if t >= len(self.values):
                raise ValueError(
                    f"{self.name} has {len(self.values)} entries; step t={t} needs one more"
                )
            return self.values[t]
        if callable(self.values):
            return self._check(float(self.values(t)))
        return float(self.values)  # type: ignore[arg-type]

    def pull(self, u: Array, h: Array) -> Array:
        """Return h + (∂c/∂λ)ᵀ u, where u (M,) belongs to c entry by entry of w; it writes to h."""
        return h

    def push(self, dlam: Array) -> float | Array:
        """Return (∂c/∂λ) dλ. Here: 0."""
        return 0.0


class Learned(Coefficient):
    """A coefficient read from a block of θ, one for all of w or one per block of w.

    Put a positive map (`Exp`, `Softplus`) on the block to keep the coefficient positive.

    Parameters
    ----------
    block : slice
        The entries of θ that hold it, as ``layout["step"]`` gives.
    sizes : sequence of int, optional
        Lengths of the consecutive blocks of w that share one entry each. The default is one entry
        for all of w.

    Examples
    --------
    >>> import numpy as np
    >>> import tinybilevel as tb
    >>> c = tb.Learned(slice(0, 2), sizes=[1, 2])
    >>> c(0, np.array([0.1, 0.5]))
    array([0.1, 0.5, 0.5])
    """

    learned = True

    def __init__(self, block: slice, sizes: Sequence[int] | None = None) -> None:
        self.block = block
        self.sizes = (
            None if sizes is None else tuple(as_count("sizes", s, minimum=1) for s in sizes)
        )
        self.count = 1 if self.sizes is None else len(self.sizes)
        if block_size(block) not in (None, self.count):
            raise ValueError(
                f"block must have {self.count} entries, one for all of w or one for each of sizes, "
                f"got {block}"
            )

    def __call__(self, t: int, lam: Array) -> Array:
        return self._expand(lam)

    def pull(self, u: Array, h: Array) -> Array:
        h = h.astype(promote(h, u), copy=False)
        if self.sizes is None:
            h[self.block] += u.sum()
        else:
            check_shape(f"w, in blocks of {self.sizes},", u, (sum(self.sizes),))
            ends = accumulate(self.sizes)
            parts = [u[end - size : end] for end, size in zip(ends, self.sizes, strict=True)]
            h[self.block] += np.stack([part.sum() for part in parts])
        return h

    def push(self, dlam: Array) -> Array:
        return self._expand(dlam)

    def _expand(self, lam: Array) -> Array:
        c = take_block(lam, self.block, self.count)
        return c if self.sizes is None else np.repeat(c, self.sizes)


def as_coefficient(name: str, value: Any) -> Coefficient:
    """Read an argument: a number, a sequence, a function t → c_t, a slice or a `Learned`."""
    if isinstance(value, Coefficient):
        return value
    if isinstance(value, slice):
        return Learned(value)
    if isinstance(value, bool) or not (
        isinstance(value, int | float | np.floating | np.integer)
        or callable(value)
        or np.ndim(value) == 1
    ):
        raise TypeError(
            f"{name} must be a number, a sequence, a function of t, a slice of lam or "
            f"Learned(...), got {value!r}"
        )
    return Coefficient(name, float(value) if np.ndim(value) == 0 and not callable(value) else value)
