"""L2 penalties with fixed or learned strengths."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array, group_sums, like, to_numpy
from tinybilevel.arrays.checks import as_float, frozen
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
        ``np.tile(np.arange(d), C)``. An entry in group −1 has no penalty, such as a bias.

    Raises
    ------
    TypeError, ValueError
        If a strength is negative or not finite, or its number is not the number of groups; if
        `groups` are no integers from −1 on, or a learned one is so large that most strengths
        would belong to no entry of w.

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
    >>> tb.L2Penalty(0.5, groups=[0, -1]).grad(np.array([1.0, 2.0]), np.zeros(3))
    array([1., 0.])
    """

    def __init__(self, strength: Any = None, groups: Any = None) -> None:
        self.groups = None if groups is None else _groups(groups, learned=strength is None)
        self.n_groups = G = 1 if self.groups is None else int(self.groups.max()) + 1
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
            self.strength = float(rho[0]) if number else frozen("strength", rho)
            self.dtype = None if number else rho.dtype

    def _rho(self, w: Array, lam: Array) -> Array | float:
        """Return ρ_{k(j)} for each entry of w; a number, or one entry, where all are the same."""
        if self.strength is None and lam.shape != (self.n_lam,):
            raise ValueError(f"lam must hold {self.n_lam} strengths, got shape {lam.shape}")
        rho = lam if self.strength is None else self.strength
        if self.groups is None:
            return rho
        if w.shape != self.groups.shape:
            raise ValueError(f"w must have shape {self.groups.shape} as groups has, got {w.shape}")
        if isinstance(rho, float):
            rho = np.full_like(w, rho, shape=1)
        # An entry in group −1 finds the 0 at the end.
        return np.concatenate([rho, np.zeros_like(rho, shape=1)])[self.groups]

    def _per_group(self, u: Array, lam: Array) -> Array:
        """Return Σ_j u_j over the entries of each group; 0 for fixed strengths."""
        if self.strength is not None:
            return np.zeros_like(lam)
        if self.groups is None:
            return u.sum(keepdims=True)
        return group_sums(self.groups, u, self.n_groups).astype(u.dtype)

    def value(self, w: Array, lam: Array) -> float:
        return float((self._rho(w, lam) * w * w).sum())

    def grad(self, w: Array, lam: Array) -> Array:
        return 2 * self._rho(w, lam) * w

    def grad_lam(self, w: Array, lam: Array) -> Array:
        return self._per_group(w * w, lam)

    def grad_vjp(self, w: Array, lam: Array, v: Array) -> tuple[Array, Array]:
        return 2 * self._rho(w, lam) * v, 2 * self._per_group(w * v, lam)

    def grad_jvp(self, w: Array, lam: Array, dw: Array, dlam: Array) -> Array:
        along = 2 * self._rho(w, lam) * dw
        return along if self.strength is not None else along + 2 * self._rho(w, dlam) * w


def _groups(groups: Any, learned: bool) -> Array:
    """Check the group of each entry of w."""
    k = np.asarray(to_numpy(groups))
    if k.ndim != 1 or k.dtype.kind not in "iu" or k.size == 0:
        raise ValueError(f"groups must be a vector of integers, got {groups!r}")
    if k.min() < -1:
        raise ValueError(f"groups must be at least 0, or −1 for no penalty, got {k.min()}")
    if k.max() < 0:
        raise ValueError("groups must hold at least one group, got −1 alone")
    count, seen = int(k.max()) + 1, np.unique(k[k >= 0]).size
    if learned and count > 2 * seen + 10:
        raise ValueError(
            f"groups has only {seen} different groups, but the largest is {count - 1}: number "
            f"them 0 … G−1 (_, groups = np.unique(groups, return_inverse=True))"
        )
    return like(groups, frozen("groups", k.astype(np.intp)))
