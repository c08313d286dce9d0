"""Maps that act on each entry of λ by itself: sigmoid weights, positive strengths."""

from __future__ import annotations

import numpy as np

from tinybilevel.arrays.backend import Array
from tinybilevel.maps.base import HyperMap
from tinybilevel.products import Missing, writes

__all__ = ["Elementwise", "Exp", "Sigmoid", "Softplus"]


class Elementwise(HyperMap):
    """θ_i = φ(λ_i): one derivative serves both products."""

    def derivative(self, lam: Array) -> Array:
        """Return φ'(λ_i), (N,)."""
        raise TypeError(f"{type(self).__name__} must define __call__ and derivative")

    def _origin(self, lam: Array, i: int) -> str:
        return f" of {float(lam[i]):.6g}"

    def lacking(self, product: str) -> Missing | None:
        own = product != "vjp" or type(self).vjp is not Elementwise.vjp
        if own or writes(self, Elementwise, "derivative"):
            return super().lacking(product)
        return self, "derivative"

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
    """θ = exp(λ): positive strengths and step sizes on a log scale.

    Examples
    --------
    >>> import numpy as np
    >>> import tinybilevel as tb
    >>> tb.Exp()(np.array([0.0, 1.0]))
    array([1.        , 2.71828183])
    """

    def __call__(self, lam: Array) -> Array:
        return np.exp(lam)

    def derivative(self, lam: Array) -> Array:
        return np.exp(lam)


class Softplus(Elementwise):
    """θ = log(1 + exp(λ)): positive, and linear for large λ.

    Examples
    --------
    >>> import numpy as np
    >>> import tinybilevel as tb
    >>> tb.Softplus()(np.array([-3.0, 0.0, 30.0])).round(3)
    array([ 0.049,  0.693, 30.   ])
    """

    def __call__(self, lam: Array) -> Array:
        return np.maximum(lam, 0) + np.log1p(np.exp(-np.abs(lam)))

    def derivative(self, lam: Array) -> Array:
        return Sigmoid()(lam)
