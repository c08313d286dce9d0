"""The quadratic g(w, λ) = ½ (w − c(λ))ᵀ G (w − c(λ))."""

from __future__ import annotations

from typing import Any

from tinybilevel.arrays.backend import Array, dot, promote
from tinybilevel.arrays.checks import as_float, check_shape, frozen
from tinybilevel.objectives.base import Objective

__all__ = ["Quadratic"]


class Quadratic(Objective):
    """g(w, λ) = ½ (w − c(λ))ᵀ G (w − c(λ)) with c(λ) = C λ + d.

    Without `C` and `d`, c(λ) = λ and N = M: the lower level of the paper's Section 4.1.

    Parameters
    ----------
    G : array_like (M, M) or (M,)
        Curvature; a vector is a diagonal. Only the symmetric part of a matrix enters g, so that
        is what is kept.
    C : array_like (M, N), optional
        Linear part of c. The default is the identity.
    d : array_like (M,), optional
        Offset of c. The default is 0.

    Raises
    ------
    TypeError, ValueError
        If an array is not float32 or float64, not finite, or of the wrong shape.

    Examples
    --------
    >>> import numpy as np
    >>> import tinybilevel as tb
    >>> g = tb.Quadratic([1.0, 0.5])
    >>> w, lam = np.array([2.0, 2.0]), np.array([1.0, 1.0])
    >>> g.value(w, lam)
    0.75
    >>> hessian_product, mixed_product = g.grad_vjp(w, lam, np.array([1.0, 1.0]))
    >>> mixed_product
    array([-1. , -0.5])
    """

    def __init__(self, G: Any, C: Any = None, d: Any = None) -> None:
        G = as_float("G", G)
        if G.ndim == 2 and G.shape[0] == G.shape[1]:
            G = (G + G.T) / 2
        elif G.ndim != 1:
            raise ValueError(
                f"G must be a square matrix or a vector (its diagonal), got shape {G.shape}"
            )
        self.G = frozen("G", G)
        self.C = None if C is None else frozen("C", as_float("C", C, ndim=2))
        self.d = None if d is None else frozen("d", as_float("d", d, ndim=1))
        M = G.shape[0]
        if self.C is not None and self.C.shape[0] != M:
            raise ValueError(f"C must have {M} rows, one for each of G, got shape {self.C.shape}")
        if self.d is not None and self.d.shape != (M,):
            raise ValueError(f"d must have shape ({M},), got {self.d.shape}")
        self.n_lam = M if self.C is None else self.C.shape[1]
        self.dtype = promote(G, self.C, self.d)

    def _linear(self, lam: Array) -> Array:
        """Return C λ."""
        check_shape("lam", lam, self.G.shape[:1] if self.C is None else self.C.shape[1:])
        return lam if self.C is None else self.C @ lam

    def _residual(self, w: Array, lam: Array) -> Array:
        """Return r = w − c(λ)."""
        check_shape("w", w, self.G.shape[:1])
        c = self._linear(lam)
        return w - (c if self.d is None else c + self.d)

    def _times_G(self, v: Array) -> Array:
        return self.G * v if self.G.ndim == 1 else self.G @ v

    def _pull(self, Gv: Array) -> Array:
        """Return −Cᵀ G v."""
        return -Gv if self.C is None else -(Gv @ self.C)

    def value(self, w: Array, lam: Array) -> float:
        r = self._residual(w, lam)
        return 0.5 * float(dot(r, self._times_G(r)))

    def grad(self, w: Array, lam: Array) -> Array:
        return self._times_G(self._residual(w, lam))

    def grad_lam(self, w: Array, lam: Array) -> Array:
        return self._pull(self.grad(w, lam))

    def grad_vjp(self, w: Array, lam: Array, v: Array) -> tuple[Array, Array]:
        Gv = self._times_G(v)
        return Gv, self._pull(Gv)

    def grad_jvp(self, w: Array, lam: Array, dw: Array, dlam: Array) -> Array:
        return self._times_G(dw - self._linear(dlam))
