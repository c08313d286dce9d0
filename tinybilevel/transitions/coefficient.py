"""Coefficients of a transition (step size, momentum, threshold): fixed, scheduled or learned."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np

from tinybilevel.arrays.backend import Array, Movable, block_sums, promote
from tinybilevel.arrays.checks import (
    as_count,
    as_float,
    block_size,
    check_shape,
    frozen,
    take_block,
)

__all__ = ["Coefficient", "Learned", "PerEntry", "PerStep", "as_coefficient"]


class Coefficient(Movable):
    """A number c_t(λ), or one per entry of w, that a transition multiplies by.

    Here c is fixed or a function of t. `PerStep` and `PerEntry` take arrays, and `Learned` reads it
    from λ.

    Parameters
    ----------
    values : float or callable
        c; or t → c_t.
    """

    learned = False
    #: What an error calls it; a transition gives it the argument's name.
    name = "coefficient"

    def __init__(self, values: float | Callable[[int], float]) -> None:
        self.values: Any = values

    def __call__(self, t: int, lam: Array) -> float | Array:
        """Return c_t."""
        return self._number(self.values(t)) if callable(self.values) else self.values

    def check(self, T: int | None, M: int | None) -> None:
        """Refuse values that do not fit T steps of a variable with M entries, where known."""

    def pull(self, u: Array, lam: Array) -> Array:
        """Return (∂c/∂λ)ᵀ u, (N,), where u (M,) belongs to c entry by entry of w."""
        return np.zeros_like(lam, dtype=promote(lam, u))

    def push(self, dlam: Array) -> float | Array:
        """Return (∂c/∂λ) dλ. Here: 0."""
        return 0.0

    def named(self, name: str) -> Self:
        """Return the same coefficient under an argument's name, its numbers checked."""
        other = copy.copy(self)
        other.name = name
        other._check_values()
        return other

    def _check_values(self) -> None:
        if not callable(self.values):
            self.values = self._number(self.values)

    def _number(self, c: Any) -> float:
        if not is_number(c):
            raise TypeError(f"{self.name} must be a number at each step, got {c!r}")
        if not np.isfinite(c) or c < 0:
            raise ValueError(f"{self.name} must be finite and at least 0, got {c}")
        return float(c)

    def _vector(self, values: Any) -> Array:
        values = as_float(self.name, values, ndim=1, finite=False)
        wrong = np.flatnonzero(~np.isfinite(values) | (values < 0))
        if wrong.size:
            raise ValueError(
                f"{self.name} must be finite and at least 0, got {values[wrong[0]]} at entry "
                f"{wrong[0]}"
            )
        return frozen(self.name, values)

    def __repr__(self) -> str:
        return getattr(self.values, "__name__", repr(self.values))


class PerStep(Coefficient):
    """One value for each step: c_0, c_1 and so on.

    A plain sequence means the same, unless it has as many entries as w: then it is refused, since
    `PerEntry` could be meant.

    Parameters
    ----------
    values : array_like (T,)
        At least one for each step.

    Examples
    --------
    >>> import numpy as np
    >>> import tinybilevel as tb
    >>> g = tb.Quadratic([1.0, 0.5])
    >>> descent = tb.GradientDescent(g, tb.PerStep([0.5, 0.1]), initial=[2.0, 2.0])
    >>> lam = np.ones(2)
    >>> descent.step(1, descent.initial(lam), lam)
    array([1.9 , 1.95])
    """

    def _check_values(self) -> None:
        self.values = tuple(self._vector(self.values).tolist())

    def check(self, T: int | None, M: int | None) -> None:
        count = len(self.values)
        if T is not None and count < T:
            raise ValueError(
                f"{self.name} has {count} entries, one for each step, and T = {T} steps are run"
            )

    def __call__(self, t: int, lam: Array) -> float:
        if t >= len(self.values):
            raise ValueError(
                f"{self.name} has {len(self.values)} entries; step t={t} needs one more"
            )
        return self.values[t]

    def __repr__(self) -> str:
        return f"PerStep(<{np.size(self.values)} values>)"


class PlainSequence(PerStep):
    """A sequence without a word on what it is one value for: `PerStep` where that is clear."""

    def check(self, T: int | None, M: int | None) -> None:
        if len(self.values) == M and M > 1:
            raise ValueError(
                f"{self.name} has {M} entries, as many as w: write PerStep(values) for one at each "
                "step, or PerEntry(values) for one at each entry of w"
            )
        super().check(T, M)


class PerEntry(Coefficient):
    """One fixed value for each entry of w, the same at every step.

    Parameters
    ----------
    values : array_like (M,)
        Without buffers: as many as the lower-level variable has.

    Examples
    --------
    >>> import numpy as np
    >>> import tinybilevel as tb
    >>> g = tb.Quadratic([1.0, 0.5])
    >>> descent = tb.GradientDescent(g, tb.PerEntry([0.5, 0.1]), initial=[2.0, 2.0])
    >>> lam = np.ones(2)
    >>> descent.step(0, descent.initial(lam), lam)
    array([1.5 , 1.95])
    """

    def _check_values(self) -> None:
        self.values = self._vector(self.values)

    def check(self, T: int | None, M: int | None) -> None:
        if M is not None:
            check_shape(f"{self.name}, one for each entry of w,", self.values, (M,))

    def __call__(self, t: int, lam: Array) -> Array:
        return self.values

    def __repr__(self) -> str:
        return f"PerEntry(<{np.size(self.values)} values>)"


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
        entries = block_size(block)
        if entries not in (None, self.count):
            raise ValueError(
                f"block must have {self.count} entries, one for all of w or one for each of sizes, "
                f"got {block} with {entries}; a schedule, one for each step, is not learned: give "
                "its numbers"
            )
        if self.sizes is not None:
            #: Which entry of the block each entry of w takes, and where in w each block starts.
            self._groups = np.repeat(np.arange(self.count), self.sizes)
            self._starts = np.cumsum(self.sizes) - self.sizes

    def _check_values(self) -> None:
        pass

    def check(self, T: int | None, M: int | None) -> None:
        if M is not None and self.sizes is not None and sum(self.sizes) != M:
            raise ValueError(
                f"{self.name}: sizes must add up to the {M} entries of w, got {sum(self.sizes)}"
            )

    def __call__(self, t: int, lam: Array) -> Array:
        return self.push(lam)

    def pull(self, u: Array, lam: Array) -> Array:
        h = super().pull(u, lam)
        h[self.block] = u.sum() if self.sizes is None else block_sums(self._groups, self._starts, u)
        return h

    def push(self, dlam: Array) -> Array:
        c = take_block(dlam, self.block, self.count)
        return c if self.sizes is None else c[self._groups]

    def __repr__(self) -> str:
        blocks = "" if self.sizes is None else f", <{self.count} blocks of w>"
        return f"Learned({self.block}{blocks})"


def is_number(c: Any) -> bool:
    """Return whether c is one real number, and no bool."""
    return np.ndim(c) == 0 and np.asarray(c).dtype.kind in "iuf"


def as_coefficient(name: str, value: Any) -> Coefficient:
    """Read an argument: a number, a sequence, a function t → c_t, a slice or a `Coefficient`."""
    if isinstance(value, slice):
        value = Learned(value)
    elif np.ndim(value) == 1:
        value = PlainSequence(value)
    elif is_number(value) or (callable(value) and not isinstance(value, Coefficient | type)):
        value = Coefficient(value)
    if not isinstance(value, Coefficient):
        raise TypeError(
            f"{name} must be a number, a sequence, a function of t, a slice of lam, PerStep(...), "
            f"PerEntry(...) or Learned(...), got {value!r}"
        )
    return value.named(name)
