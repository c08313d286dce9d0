"""Hyperparameter maps θ = Φ(λ): what objectives and transitions see of λ."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tinybilevel.backend import Array, Movable, as_float, check_shape

__all__ = ["Affine", "Compose", "Exp", "HyperMap", "Identity", "Sigmoid", "Softplus"]


class HyperMap(Movable):
    """θ = Φ(λ), evaluated once per hypergradient.

    The recursion gathers h in θ's space, where it is linear in the products B_t α_t, and `vjp`
    pulls it back once: ∇_λ = (∂θ/∂λ)ᵀ h. That equals pulling back at every step.

    Conventions:

    ==================  =====  ==================
    ``Φ(lam)``          (P,)   θ
    ``vjp(lam, h)``     (N,)   (∂θ/∂λ)ᵀ h
    ``jvp(lam, dlam)``  (P,)   (∂θ/∂λ) dλ
    ==================  =====  ==================

    ``P = N`` for every map but `Affine` with a matrix and a `Compose` that holds one.
    """

    def __call__(self, lam: Array) -> Array:
        """Return θ."""
        raise TypeError(f"{type(self).__name__} must define __call__, vjp and jvp")

    def vjp(self, lam: Array, h: Array) -> Array:
        """Return (∂θ/∂λ)ᵀ h, (N,)."""
        raise TypeError(f"{type(self).__name__} must define __call__, vjp and jvp")

    def jvp(self, lam: Array, dlam: Array) -> Array:
        """Return (∂θ/∂λ) dλ, (P,)."""
        raise TypeError(f"{type(self).__name__} must define __call__, vjp and jvp")


class Identity(HyperMap):
    """θ = λ, the default."""

    def __call__(self, lam: Array) -> Array:
        return lam

    def vjp(self, lam: Array, h: Array) -> Array:
        return h

    def jvp(self, lam: Array, dlam: Array) -> Array:
        return dlam


class Elementwise(HyperMap):
    """θ_i = φ(λ_i): one derivative serves both products."""

    def derivative(self, lam: Array) -> Array:
        """Return φ'(λ_i), (N,)."""
        raise TypeError(f"{type(self).__name__} must define __call__ and derivative")

    def vjp(self, lam: Array, h: Array) -> Array:
        return self.derivative(lam) * h

    def jvp(self, lam: Array, dlam: Array) -> Array:
        return self.derivative(lam) * dlam


class Sigmoid(Elementwise):
    """θ = 1 / (1 + exp(−λ)): weights in (0, 1).

    Examples
    --------
    >>> import numpy as np
    >>> import tinybilevel as tb
    >>> tb.Sigmoid()(np.array([0.0, -1000.0]))
    array([0.5, 0. ])
    """

    def __call__(self, lam: Array) -> Array:
        # exp of −|λ| only, so that neither sign overflows.
        e = np.exp(-np.abs(lam))
        return np.where(lam >= 0, 1, e) / (1 + e)

    def derivative(self, lam: Array) -> Array:
        e = np.exp(-np.abs(lam))
        return e / (1 + e) ** 2


class Exp(Elementwise):
    """θ = exp(λ): positive strengths and step sizes on a log scale."""

    def __call__(self, lam: Array) -> Array:
        return np.exp(lam)

    def derivative(self, lam: Array) -> Array:
        return np.exp(lam)


class Softplus(Elementwise):
    """θ = log(1 + exp(λ)): positive, and linear for large λ."""

    def __call__(self, lam: Array) -> Array:
        return np.maximum(lam, 0) + np.log1p(np.exp(-np.abs(lam)))

    def derivative(self, lam: Array) -> Array:
        return Sigmoid()(lam)


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
        self.A = float(A) if np.ndim(A) == 0 else as_float("A", A)
        self.b = float(b) if np.ndim(b) == 0 else as_float("b", b, ndim=1)
        if np.ndim(self.A) > 2:
            raise ValueError(f"A must be a number, a vector or a matrix, got shape {np.shape(A)}")
        if np.ndim(self.A) > 0 and np.ndim(self.b) > 0:
            check_shape("b", self.b, np.shape(self.A)[:1])

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


class Compose(HyperMap):
    """θ = Φ_n(… Φ_2(Φ_1(λ))): maps in the order in which they are applied."""

    def __init__(self, *maps: HyperMap) -> None:
        if not maps:
            raise ValueError("Compose needs at least one map")
        for phi in maps:
            require_map("Compose", phi)
        self.maps = maps

    def _inputs(self, lam: Array) -> Iterator[tuple[HyperMap, Array]]:
        for phi in self.maps:
            yield phi, lam
            lam = phi(lam)

    def __call__(self, lam: Array) -> Array:
        for phi in self.maps:
            lam = phi(lam)
        return lam

    def vjp(self, lam: Array, h: Array) -> Array:
        for phi, x in reversed(list(self._inputs(lam))):
            h = phi.vjp(x, h)
        return h

    def jvp(self, lam: Array, dlam: Array) -> Array:
        for phi, x in self._inputs(lam):
            dlam = phi.jvp(x, dlam)
        return dlam


def require_map(name: str, phi: Any) -> None:
    """Refuse what is not a map, such as a class in place of its instance."""
    if not isinstance(phi, HyperMap):
        raise TypeError(f"{name} takes a HyperMap such as Exp(), got {phi!r}")
