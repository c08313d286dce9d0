"""The two checks that every derivative here goes through: the dot test and the Taylor slope."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array

__all__ = ["direction", "dot_error", "require", "taylor_slope"]


def require(ok: bool, message: str) -> None:
    """Raise an AssertionError, under ``python -O`` too."""
    if not ok:
        raise AssertionError(message)


def direction(rng: np.random.Generator, like: Array) -> Array:
    """Draw a dense random direction, read-only, scaled to the size of `like`'s entries."""
    scale = max(1.0, float(np.sqrt(np.mean(like**2)))) if like.size else 1.0
    d = np.asarray(scale * rng.standard_normal(like.shape))
    d.flags.writeable = False  # a method that writes into it fails
    return d


def dot_error(Jx: Array, y: Array, x: Array, JTy: Array) -> float:
    """Return how far ⟨Jx, y⟩ and ⟨x, Jᵀy⟩ are apart, relative to the norms of the four vectors.

    Parameters
    ----------
    Jx, y : ndarray (m,)
        A forward product and a direction in its space.
    x, JTy : ndarray (n,)
        The direction it was taken along, and the adjoint product.

    Returns
    -------
    float
        0 where both products are 0; about the rounding unit for a right adjoint; about 1 for one
        of the wrong sign.

    Examples
    --------
    >>> import numpy as np
    >>> import tinybilevel as tb
    >>> rng = np.random.default_rng(0)
    >>> J, x, y = rng.standard_normal((3, 4)), rng.standard_normal(4), rng.standard_normal(3)
    >>> tb.testing.dot_error(J @ x, y, x, J.T @ y) < 1e-15
    True
    >>> print(f"{tb.testing.dot_error(J @ x, y, x, -J.T @ y):.2f}")  # a sign is wrong
    1.23
    """
    norm = np.linalg.norm
    scale = max(float(norm(Jx) * norm(y)), float(norm(x) * norm(JTy)))
    error = abs(float(Jx @ y) - float(x @ JTy))
    return error / scale if scale else error  # max(0, NaN) is 0: a NaN must come through


def taylor_slope(remainder: Callable[[float], Any], scale: float) -> float:
    """Return the order at which a Taylor remainder vanishes.

    Parameters
    ----------
    remainder : callable
        h → F(x + h d) − (its Taylor polynomial), a number or an array.
    scale : float
        Size of F, which sets where rounding drowns the remainder.

    Returns
    -------
    float
        Slope of log ‖remainder‖ against log h over the smallest steps that rounding leaves alone:
        1 for a wrong first derivative, 2 for a right one, 3 with a right second one. Infinity where
        the remainder is nothing but rounding; NaN where F is not finite near x.

    Examples
    --------
    >>> import numpy as np
    >>> import tinybilevel as tb
    >>> def left(h, slope):  # what is left of sin(1 + h) after its Taylor polynomial
    ...     return np.sin(1 + h) - np.sin(1) - h * slope
    >>> for slope in (np.cos(1), np.sin(1)):
    ...     print(f"{tb.testing.taylor_slope(lambda h: left(h, slope), scale=1):.1f}")
    2.0
    1.0
    """
    steps = 2.0 ** -np.arange(2, 18)
    with np.errstate(invalid="ignore"):  # a large step may leave F's domain
        sizes = np.array([float(np.linalg.norm(remainder(h))) for h in steps])
    if not np.isfinite(sizes[-8:]).all():
        return float("nan")
    eps = np.finfo(np.float64).eps
    last = np.flatnonzero(sizes > 2e3 * eps * max(scale, eps))[-3:]
    if last.size < 2:
        return float("inf")
    return float(np.polyfit(np.log(steps[last]), np.log(sizes[last]), 1)[0])
