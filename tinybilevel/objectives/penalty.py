"""L2 penalties with fixed or learned strengths."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array, as_float, group_sums, take
from tinybilevel.objectives.base import Objective

__all__ = ["L2Penalty"]


class L2Penalty(Objective):
    """g(w, ρ) = Σ_j ρ_{k(j)} w_j², with the paper's convention of no ½.

    Parameters
    ----------
    strength : float or array_like (G,), optional
        ρ, fixed, at least 0. The default None reads ρ = ``lam``: learned strengths, G entries.
    groups : array_like (M,) of int, optional
        k(j), the group of each entry of w. The default puts all of w in one group (one scalar
        strength). For W of shape (C, d), one strength per feature is
        ``np.tile(np.arange(d), C)``.

    Raises
    ------
    TypeError, ValueError
        If a strength is negative or not finite, or its number is not the number of groups.

    Examples
    --------
    >>> import numpy as np
    >>> import tinybilevel as tb
    >>> ridge = tb.L2Penalty(0.5)
    >>> ridge.grad(np.array([1.0, -2.0]), np.zeros(3))
    array([ 1., -2.])
    >>> learned = tb.L2Penalty(groups=[0, 1])
    >>> learned.value(np.array([1.0, -2.0]), np.array([1.0, 10.0]))
    41.0
    """

    def __init__(self, strength: Any = None, groups: Any = None) -> None:
        self.groups = None if groups is None else np.asarray(groups)
        G = 1
        if self.groups is not None:
            if self.groups.ndim != 1 or self.groups.dtype.kind not in "iu" or self.groups.size == 0:
                raise ValueError(f"groups must be a vector of integers, got {groups!r}")
            if self.groups.min() < 0:
                raise ValueError(f"groups must be at least 0, got {self.groups.min()}")
            G = int(self.groups.max()) + 1
        self.n_groups = G
        self.n_lam = None if strength is not None else G
        self.strength: Array | float | None = None
        if strength is not None:
            number = np.ndim(strength) == 0
            strength = float(strength) if isinstance(strength, int | np.integer) else strength
            rho = as_float("strength", np.atleast_1d(strength), ndim=1)
            if rho.shape != (G,):
                raise ValueError(f"strength must have one entry per group ({G}), got {rho.shape}")
            if (rho < 0).any():
                raise ValueError(f"strength must be at least 0, got {rho.min()}")
            # A number does not decide the precision of float32 data; an array does.
            self.strength, self.dtype = (float(rho[0]), None) if number else (rho, rho.dtype)

    def bound(self) -> L2Penalty:
        return self._with_workspace()

    def _rho(self, w: Array, lam: Array) -> Array | float:
        """Expand the strengths to one per entry of w."""
        if self.strength is None:
            if lam.shape != (self.n_lam,):
                raise ValueError(f"lam must hold {self.n_lam} strengths, got shape {lam.shape}")
            return self._expand(w, lam)
        return self.strength if isinstance(self.strength, float) else self._expand(w, self.strength)

    def _expand(self, w: Array, rho: Array) -> Array:
        if self.groups is None:
            return rho  # shape (1,) broadcasts
        if w.shape != self.groups.shape:
            raise ValueError(f"w must have shape {self.groups.shape} as groups has, got {w.shape}")
        return take(rho, self.groups, out=self._work("rho", w.shape, rho))

    def _twice(self, name: str, rho: Array | float, w: Array) -> Array:
        """Return 2 ρ w."""
        out = self._work(name, w.shape, *([w] if isinstance(rho, float) else [w, rho]))
        return np.multiply(np.multiply(w, rho, out=out), 2, out=out)

    def _per_group(self, factor: float, u: Array, v: Array, lam: Array) -> Array:
        """Return factor Σ_j u_j v_j over the entries of each group; 0 for fixed strengths."""
        if self.strength is not None:
            zero = self._work("zero", lam.shape, lam)
            zero[...] = 0
            return zero
        uv = np.multiply(u, v, out=self._work("product", u.shape, u, v))
        if self.groups is None:
            return factor * uv.sum(keepdims=True)
        sums = group_sums(self.groups, uv, self.n_groups)
        return factor * sums.astype(uv.dtype)

    def value(self, w: Array, lam: Array) -> float:
        return float((self._rho(w, lam) * w * w).sum())

    def grad(self, w: Array, lam: Array) -> Array:
        return self._twice("grad", self._rho(w, lam), w)

    def grad_lam(self, w: Array, lam: Array) -> Array:
        return self._per_group(1.0, w, w, lam)

    def grad_vjp(self, w: Array, lam: Array, v: Array) -> tuple[Array, Array]:
        return self._twice("hessian", self._rho(w, lam), v), self._per_group(2.0, w, v, lam)

    def grad_jvp(self, w: Array, lam: Array, dw: Array, dlam: Array) -> Array:
        along = 2 * self._rho(w, lam) * dw
        return along if self.strength is not None else along + 2 * self._rho(w, dlam) * w
