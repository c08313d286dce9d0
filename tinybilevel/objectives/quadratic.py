"""The quadratic g(w, λ) = ½ (w − c(λ))ᵀ G (w − c(λ))."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array, as_float, check_shape, promote
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
        self.G = G
        self.C = None if C is None else as_float("C", C, ndim=2)
        self.d = None if d is None else as_float("d", d, ndim=1)
        M = G.shape[0]
        if self.C is not None and self.C.shape[0] != M:
            raise ValueError(f"C must have {M} rows, one for each of G, got shape {self.C.shape}")
        if self.d is not None and self.d.shape != (M,):
            raise ValueError(f"d must have shape ({M},), got {self.d.shape}")
        self.n_lam = M if self.C is None else self.C.shape[1]
        self.dtype = promote(G, self.C, self.d)

    def bound(self) -> Quadratic:
        return self._with_workspace()

    def _map(self, lam: Array) -> Array:
        """Return C λ."""
        check_shape("lam", lam, self.G.shape[:1] if self.C is None else self.C.shape[1:])
        if self.C is None:
            return lam
        return np.matmul(self.C, lam, out=self._work("change", self.C.shape[:1], self.C, lam))

    def _pull(self, Gv: Array, name: str) -> Array:
        """Return −Cᵀ G v."""
        if self.C is None:
            return np.negative(Gv, out=self._work(name, Gv.shape, Gv))
        out = np.matmul(Gv, self.C, out=self._work(name, self.C.shape[1:], Gv, self.C))
        return np.negative(out, out=out)

    def _curve(self, v: Array, name: str) -> Array:
        product = np.multiply if self.G.ndim == 1 else np.matmul
        return product(self.G, v, out=self._work(name, v.shape, self.G, v))

    def _residual(self, w: Array, lam: Array) -> Array:
        c = self._map(lam)
        if self.d is not None:
            c = np.add(c, self.d, out=self._work("change", c.shape, c, self.d))
        check_shape("w", w, c.shape)
        return np.subtract(w, c, out=self._work("change", c.shape, w, c))

    def value(self, w: Array, lam: Array) -> float:
        r = self._residual(w, lam)
        return 0.5 * float(r @ self._curve(r, "value"))

    def grad(self, w: Array, lam: Array) -> Array:
        return self._curve(self._residual(w, lam), "grad")

    def grad_lam(self, w: Array, lam: Array) -> Array:
        return self._pull(self._curve(self._residual(w, lam), "curve"), "grad_lam")

    def grad_vjp(self, w: Array, lam: Array, v: Array) -> tuple[Array, Array]:
        Gv = self._curve(v, "hessian")
        return Gv, self._pull(Gv, "mixed")

    def grad_jvp(self, w: Array, lam: Array, dw: Array, dlam: Array) -> Array:
        dc = self._map(dlam)
        change = np.subtract(dw, dc, out=self._work("change", dc.shape, dw, dc))
        return self._curve(change, "jvp")
