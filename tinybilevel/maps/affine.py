"""Affine maps θ = A λ + b."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array
from tinybilevel.arrays.checks import as_float, check_shape, frozen
from tinybilevel.maps.base import HyperMap

__all__ = ["Affine"]


class Affine(HyperMap):
    """θ = A λ + b.

    Parameters
    ----------
    A : float, array_like (N,) or array_like (P, N)
        A number or a vector scales λ entry by entry; a matrix multiplies it.
    b : float or array_like (P,)
        Offset.

    Examples
    --------
    >>> import numpy as np
    >>> import tinybilevel as tb
    >>> tb.Affine(2.0, 1.0)(np.array([0.0, 3.0]))
    array([1., 7.])
    """

    def __init__(self, A: Any = 1.0, b: Any = 0.0) -> None:
        self.A, self.b = _constant("A", A), _constant("b", b)
        if np.ndim(self.A) > 2:
            raise ValueError(f"A must be a number, a vector or a matrix, got shape {np.shape(A)}")
        if np.ndim(self.b) > 1:
            raise ValueError(f"b must be a number or a vector, got shape {np.shape(b)}")
        if np.ndim(self.A) > 0 and np.ndim(self.b) > 0:
            check_shape("b", self.b, np.shape(self.A)[:1])

    def out_size(self, n: int) -> int:
        return np.shape(self.A)[0] if np.ndim(self.A) == 2 else n

    def _apply(self, lam: Array) -> Array:
        if np.ndim(self.A) > 0:
            check_shape("lam", lam, np.shape(self.A)[-1:])
        return self.A @ lam if np.ndim(self.A) == 2 else self.A * lam

    def __call__(self, lam: Array) -> Array:
        theta = self._apply(lam)
        return theta + (check_shape("b", self.b, theta.shape) if np.ndim(self.b) else self.b)

    def vjp(self, lam: Array, h: Array) -> Array:
        return h @ self.A if np.ndim(self.A) == 2 else self.A * h

    def jvp(self, lam: Array, dlam: Array) -> Array:
        return self._apply(dlam)

    def __repr__(self) -> str:
        shown = (
            f"{name}={c}" if np.ndim(c) == 0 else f"{name}=<{' × '.join(map(str, c.shape))}>"
            for name, c in (("A", self.A), ("b", self.b))
        )
        return f"Affine({', '.join(shown)})"


def _constant(name: str, c: Any) -> Any:
    """Return a number as a float and an array as one that nobody changes."""
    c = as_float(name, c)
    return float(c) if c.ndim == 0 else frozen(name, c)
