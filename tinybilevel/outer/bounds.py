"""Where λ may lie: SciPy's bounds or a pair (low, high), and a projection of the user's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array, like, to_numpy
from tinybilevel.arrays.checks import as_float, check_shape

__all__ = ["Projection", "box"]

Box = tuple[Array, Array]


class Projection:
    """λ → the nearest λ in the box, then what `projection` makes of it.

    Parameters
    ----------
    bounds : optional
        See `box`.
    projection : callable, optional
        λ → λ, of the same size.
    lam : ndarray (N,)
        Any λ, for its shape and dtype.
    """

    def __init__(
        self, bounds: Any, projection: Callable[[Array], Array] | None, lam: Array
    ) -> None:
        if projection is not None and not callable(projection):
            raise TypeError(f"projection must be a function of lam, got {projection!r}")
        self.box = None if bounds is None else box(bounds, lam)
        self.projection = projection

    def __call__(self, lam: Array) -> Array:
        if self.box is not None:
            lam = np.clip(lam, *(like(lam, side) for side in self.box))
        if self.projection is None:
            return lam
        # Copies on the way in and out: an optimizer may keep the λ that it returned, and the
        # projection may return a buffer of its own, or another dtype.
        found = check_shape("projection(lam)", self.projection(lam.copy()), lam.shape)
        found = as_float("projection(lam)", found, finite=False)
        if not bool(np.isfinite(found).all()):
            raise ValueError("projection(lam) must be finite")
        if self.box is not None:
            self._check_inside(found)
        return found.astype(lam.dtype)

    def _check_inside(self, found: Array) -> None:
        low, high = (like(found, side) for side in self.box or ())
        room = np.sqrt(np.finfo(found.dtype).eps) * np.maximum(1, np.abs(found))
        outside = (found < low - room) | (found > high + room)
        if bool(outside.any()):
            i = int(outside.argmax())
            raise ValueError(
                f"projection(lam) leaves the bounds: lam[{i}] becomes {float(found[i]):.6g}. It is "
                "applied after the bounds and must keep to them"
            )


def box(bounds: Any, lam: Array) -> Box:
    """Return the lowest and the highest λ, each a number or (N,), that `bounds` names.

    Two readings of a sequence are possible where N = 2: N pairs (low_i, high_i), as SciPy's, and
    (low, high). A list of tuples is the first and a tuple of two arrays the second; of anything
    else, both are tried. A reading with low > high somewhere, or that leaves a single λ, is none.

    Parameters
    ----------
    bounds : Bounds, sequence of N pairs, or (low, high)
        ``scipy.optimize.Bounds``; N pairs; or two sides, each a number or (N,). None in the place
        of a number means no bound.
    lam : ndarray (N,)
        Any λ, for its shape and dtype.

    Raises
    ------
    ValueError
        If `bounds` is nothing of that kind, or can be read both ways.

    Examples
    --------
    >>> import numpy as np
    >>> from tinybilevel.outer.bounds import box
    >>> box([(-1, 1), (0, None)], np.zeros(2))
    (array([-1.,  0.]), array([ 1., inf]))
    """
    if hasattr(bounds, "lb") and hasattr(bounds, "ub"):
        return _checked(_sides((bounds.lb, bounds.ub), lam), bounds, lam)
    entries = tuple(bounds) if isinstance(bounds, list | tuple | np.ndarray) else ()
    pairs, sides = _pairs(entries, lam), _sides(entries, lam)
    if type(bounds) is list and all(type(entry) is tuple for entry in entries):
        sides = sides if pairs is None else None
    elif type(bounds) is tuple and all(getattr(entry, "ndim", 0) for entry in entries):
        pairs = pairs if sides is None else None
    if pairs is None or sides is None:
        return _checked(sides if pairs is None else pairs, bounds, lam)
    if all(bool((pair == side).all()) for pair, side in zip(pairs, sides, strict=True)):
        return _checked(pairs, bounds, lam)
    meant = [reading for reading in (pairs, sides) if _has_room(reading)]
    if len(meant) == 2:
        raise ValueError(
            f"bounds = {bounds!r} can be read in two ways: as N = 2 pairs (low_i, high_i), "
            f"{_told(pairs)}; or as (low, high), {_told(sides)}. Pass a list of tuples for the "
            "first, a tuple of two arrays for the second, or scipy.optimize.Bounds(low, high)"
        )
    return _checked(meant[0] if meant else pairs, bounds, lam)


def _pairs(entries: tuple[Any, ...], lam: Array) -> Box | None:
    """Read N pairs (low_i, high_i); None where there are none."""
    if len(entries) != lam.size:
        return None
    columns = []
    for entry in entries:
        low_high = (None, None) if entry is None else _tuple(entry)
        if len(low_high) != 2 or any(np.ndim(x) for x in low_high if x is not None):
            return None
        columns.append(low_high)
    low, high = zip(*columns, strict=True)
    return _numbers(low, -np.inf, lam), _numbers(high, np.inf, lam)


def _sides(entries: tuple[Any, ...], lam: Array) -> Box | None:
    """Read (low, high); None where it is something else."""
    if len(entries) != 2:
        return None
    low, high = (_numbers(*side, lam) for side in zip(entries, (-np.inf, np.inf), strict=True))
    fits = all(side.shape in ((), (1,), lam.shape) for side in (low, high))
    return (low, high) if fits else None


def _tuple(entry: Any) -> tuple[Any, ...]:
    sequence = isinstance(entry, list | tuple) or getattr(entry, "ndim", 0) > 0
    return tuple(entry) if sequence else ()


def _numbers(x: Any, missing: float, lam: Array) -> Array:
    x = [missing if y is None else y for y in x] if isinstance(x, list | tuple) else x
    try:
        numbers = np.asarray(to_numpy(missing if x is None else x))
    except ValueError:  # ragged
        numbers = np.asarray(None)
    if numbers.dtype.kind not in "iuf":
        raise ValueError(f"bounds must be numbers or None, got {x!r}")
    return numbers.astype(lam.dtype)


def _has_room(sides: Box) -> bool:
    low, high = sides
    return bool((low <= high).all() and (low < high).any())


def _told(sides: Box) -> str:
    low, high = (np.broadcast_to(side, 2) for side in sides)
    return " and ".join(f"{low[i]:g} <= lam[{i}] <= {high[i]:g}" for i in range(2))


def _checked(found: Box | None, bounds: Any, lam: Array) -> Box:
    if found is None:
        raise ValueError(
            f"bounds must be scipy.optimize.Bounds, N = {lam.size} pairs (low_i, high_i), or "
            f"(low, high), each a number or of shape {lam.shape}; got {bounds!r}"
        )
    low, high = (np.broadcast_to(side, lam.shape) for side in found)
    if not bool((low <= high).all()):
        i = int(np.argmin(low <= high))
        raise ValueError(f"bounds must have low <= high; for lam[{i}] they are {low[i]}, {high[i]}")
    return found
