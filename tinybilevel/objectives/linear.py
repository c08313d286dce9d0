"""Losses of one linear score per example: what least squares and logistic regression share."""

from __future__ import annotations

import copy
from typing import Any, Self

import numpy as np

from tinybilevel.arrays.backend import Array, like, promote
from tinybilevel.arrays.checks import (
    as_examples,
    as_flag,
    as_float,
    as_number,
    as_rows,
    check_shape,
    frozen,
    reads_only,
)
from tinybilevel.objectives.base import Objective

__all__ = ["LinearLoss"]


class LinearLoss(Objective):
    """g(w, θ) = s Σ_i θ_i ℓ_i(z_i), z = X w.

    A subclass writes ℓ_i(z) and its first two derivatives.

    Conventions:

    ===================  =======  =====================================
    ``X``                (n, d)   one example per row
    ``w``                (d,)     so that M = d
    ``lam``              (n,)     θ, one weight per example, or any size
    ``loss(z)``          (n,)     ℓ_i(z_i)
    ``slope(z)``         (n,)     ℓ_i'(z_i)
    ``curvature(z)``     (n,)     ℓ_i''(z_i), or one number
    ===================  =======  =====================================

    Parameters
    ----------
    X : array_like or scipy.sparse array (n, d)
        Examples, float32 or float64; append a column of ones for a bias.
    y : array_like (n,)
        Targets.
    weighted : bool
        True: θ = ``lam`` holds one weight per example. False: all weights are 1 and `lam`
        does not enter.
    scale : float, optional
        s; by default 1/n, the mean.

    Examples
    --------
    A regression for counts:

    >>> import numpy as np
    >>> import tinybilevel as tb
    >>> class Poisson(tb.LinearLoss):
    ...     def loss(self, z):
    ...         return np.exp(z) - self.y * z
    ...
    ...     def slope(self, z):
    ...         return np.exp(z) - self.y
    ...
    ...     def curvature(self, z):
    ...         return np.exp(z)
    >>> g = Poisson(np.eye(2), np.array([1.0, 3.0]))
    >>> g.grad(np.zeros(2), np.ones(2))
    array([ 0., -1.])
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        reads_only(cls, "loss", "slope", "curvature")

    def __init__(
        self, X: Any, y: Any, *, weighted: bool = True, scale: float | None = None
    ) -> None:
        X = as_examples("X", X)
        n = X.shape[0]
        y = frozen("y", check_shape("y", as_float("y", y), (n,)))
        self.X, self.y = X, like(X, y)
        self.weighted = as_flag("weighted", weighted)
        self.scale = 1.0 / n if scale is None else as_number("scale", scale)
        self.n_lam = n if weighted else None
        self.dtype = promote(X.dtype, y)
        self._rows: Array | None = None

    @property
    def size(self) -> int:
        """M = d, the number of entries of w."""
        return int(self.X.shape[1])

    def loss(self, z: Array) -> Array:
        """Return ℓ_i(z_i), (n,)."""
        raise TypeError(f"{type(self).__name__} must define loss, slope and curvature")

    def slope(self, z: Array) -> Array:
        """Return ℓ_i'(z_i), (n,)."""
        raise TypeError(f"{type(self).__name__} must define loss, slope and curvature")

    def curvature(self, z: Array) -> Array | float:
        """Return ℓ_i''(z_i), (n,) or one number."""
        raise TypeError(f"{type(self).__name__} must define loss, slope and curvature")

    def value(self, w: Array, lam: Array) -> float:
        return float((self._weights(lam) * self.losses(w)).sum())

    def grad(self, w: Array, lam: Array) -> Array:
        """Return Xᵀ (sθ ∘ ℓ')."""
        return self.X.T @ (self._weights(lam) * self.slope(self._scores(w)))

    def grad_lam(self, w: Array, lam: Array) -> Array:
        return self._scatter(lam, self.losses(w)) if self.weighted else np.zeros_like(lam)

    def grad_vjp(self, w: Array, lam: Array, v: Array) -> tuple[Array, Array]:
        """Return Xᵀ (sθ ∘ ℓ'' ∘ Xv) and s ℓ' ∘ Xv."""
        z, dz = self._scores(w), self._scores(v)
        hessian = self.X.T @ (self._weights(lam) * self.curvature(z) * dz)
        return hessian, self._scatter(lam, self.slope(z) * dz)

    def grad_jvp(self, w: Array, lam: Array, dw: Array, dlam: Array) -> Array:
        """Return Xᵀ (sθ ∘ ℓ'' ∘ X dw + s dθ ∘ ℓ')."""
        z, dz = self._scores(w), self._scores(dw)
        change = self._weights(lam) * self.curvature(z) * dz
        if self.weighted:
            change = change + self._weights(dlam) * self.slope(z)
        return self.X.T @ change

    def losses(self, w: Array) -> Array:
        """Return ℓ_i for each example, (n,), unweighted and unscaled."""
        return self.loss(self._scores(w))

    def restrict(self, index: Array) -> Self:
        """Return the same loss over the rows in `index` (in that order), rescaled by n/len(index).

        `lam` keeps its n entries; the products are scattered back into them.
        """
        index = like(self.y, as_rows(index, len(self.y)))
        part = copy.copy(self)
        part.X, part.y = self.X[index], self.y[index]
        part.scale = self.scale * len(self.y) / len(index)
        part._rows = index if self._rows is None else self._rows[index]
        return part

    def whole_dense(self) -> bool:
        """Return whether X is dense, and its rows are not a part of other data's."""
        return self._rows is None and not hasattr(self.X, "tocsr")

    def score(self, w: Array, X: Any) -> Array:
        """Return X w for other examples, a matrix of as many columns."""
        X = X if hasattr(X, "shape") else as_float("X", X)
        if X.shape[1:] != (self.size,):
            raise ValueError(
                f"X must have {self.size} columns, with a bias where the examples have one, got "
                f"shape {X.shape}"
            )
        return X @ check_shape("w", w, (self.size,))

    def _scores(self, w: Array) -> Array:
        return self.X @ check_shape("w", w, (self.size,))

    def _weights(self, lam: Array) -> Array | float:
        """Return sθ."""
        if not self.weighted:
            return self.scale
        if lam.shape != (self.n_lam,):
            raise ValueError(f"lam must hold {self.n_lam} example weights, got shape {lam.shape}")
        return self.scale * (lam if self._rows is None else lam[self._rows])

    def _scatter(self, lam: Array, per_example: Array) -> Array:
        """Return s times one number per example, in the place of its weight."""
        if not self.weighted:
            return np.zeros_like(lam)
        per_example = self.scale * per_example
        if self._rows is None:
            return per_example
        whole = np.zeros_like(per_example, shape=lam.shape)
        np.add.at(whole, self._rows, per_example)
        return whole
