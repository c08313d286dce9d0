"""Maps one after the other."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tinybilevel.arrays.backend import Array
from tinybilevel.maps.base import HyperMap, require_map
from tinybilevel.products import Missing

__all__ = ["Compose"]


class Compose(HyperMap):
    """θ = Φ_n(… Φ_2(Φ_1(λ))): maps in the order in which they are applied.

    Examples
    --------
    >>> import numpy as np
    >>> import tinybilevel as tb
    >>> tb.Compose(tb.Affine(2 * np.eye(2)), tb.Exp())(np.array([0.0, 1.0]))
    array([1.       , 7.3890561])
    """

    def __init__(self, *maps: HyperMap) -> None:
        if not maps:
            raise ValueError("Compose needs at least one map")
        for phi in maps:
            require_map("Compose", phi)
        self.maps = maps

    def out_size(self, n: int) -> int:
        for phi in self.maps:
            n = phi.out_size(n)
        return n

    def _inputs(self, lam: Array) -> Iterator[tuple[HyperMap, Array]]:
        for phi in self.maps:
            yield phi, lam
            lam = phi(lam)

    def __call__(self, lam: Array) -> Array:
        for phi in self.maps:
            lam = phi(lam)
        return lam

    def blame(self, lam: Array) -> str:
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            first = next(
                (pair for pair in self._inputs(lam) if not np.isfinite(pair[0](pair[1])).all()),
                (self.maps[-1], lam),
            )
        return first[0].blame(first[1])

    def lacking(self, product: str) -> Missing | None:
        return next(filter(None, (phi.lacking(product) for phi in self.maps)), None)

    def vjp(self, lam: Array, h: Array) -> Array:
        for phi, x in reversed(list(self._inputs(lam))):
            h = phi.vjp(x, h)
        return h

    def jvp(self, lam: Array, dlam: Array) -> Array:
        for phi, x in self._inputs(lam):
            dlam = phi.jvp(x, dlam)
        return dlam

    def __repr__(self) -> str:
        return f"Compose({', '.join(map(repr, self.maps))})"
