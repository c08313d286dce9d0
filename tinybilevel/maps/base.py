"""What a hyperparameter map θ = Φ(λ) is: what objectives and transitions see of λ."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array, Movable
from tinybilevel.arrays.checks import reads_only
from tinybilevel.products import Missing, writes

__all__ = ["HyperMap", "Identity", "require_map"]


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

    ``P = N``, where `out_size` does not say otherwise.

    Examples
    --------
    >>> import numpy as np
    >>> import tinybilevel as tb
    >>> class Square(tb.HyperMap):
    ...     def __call__(self, lam):
    ...         return lam**2
    ...
    ...     def vjp(self, lam, h):
    ...         return 2 * lam * h
    ...
    ...     def jvp(self, lam, dlam):
    ...         return 2 * lam * dlam
    >>> Square()(np.array([1.0, 3.0]))
    array([1., 9.])
    >>> tb.testing.assert_map_adjoints(Square(), [1.0, 3.0])["vjp"] < 1e-12
    True
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        reads_only(cls, "__call__", "vjp", "jvp")

    def out_size(self, n: int) -> int:
        """Return P for N = n."""
        return n

    def __call__(self, lam: Array) -> Array:
        """Return θ."""
        raise TypeError(f"{type(self).__name__} must define __call__, vjp and jvp")

    def vjp(self, lam: Array, h: Array) -> Array:
        """Return (∂θ/∂λ)ᵀ h, (N,)."""
        raise TypeError(f"{type(self).__name__} must define __call__, vjp and jvp")

    def jvp(self, lam: Array, dlam: Array) -> Array:
        """Return (∂θ/∂λ) dλ, (P,)."""
        raise TypeError(f"{type(self).__name__} must define __call__, vjp and jvp")

    def blame(self, lam: Array) -> str:
        """Say which entry of θ is not finite, and which map made it."""
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            theta = self(lam)
        i = int(np.argmin(np.isfinite(theta)))
        return f"{type(self).__name__} makes {float(theta[i])}{self._origin(lam, i)}, entry {i}"

    def _origin(self, lam: Array, i: int) -> str:
        """Say what entry i of θ was made of, where that is one number."""
        return ""

    def lacking(self, product: str) -> Missing | None:
        """Return which part of the map does not write `product` out; None if all do."""
        return None if writes(self, HyperMap, product) else (self, product)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class Identity(HyperMap):
    """θ = λ, the default.

    Examples
    --------
    >>> import numpy as np
    >>> import tinybilevel as tb
    >>> tb.Identity().vjp(np.array([1.0, 2.0]), h=np.array([0.5, 0.25]))
    array([0.5 , 0.25])
    """

    def __call__(self, lam: Array) -> Array:
        return lam

    def vjp(self, lam: Array, h: Array) -> Array:
        return h

    def jvp(self, lam: Array, dlam: Array) -> Array:
        return dlam


def require_map(name: str, phi: Any) -> None:
    """Refuse what is not a map, such as a class in place of its instance."""
    if not isinstance(phi, HyperMap):
        raise TypeError(f"{name} takes a HyperMap such as Exp(), got {phi!r}")
