"""A symmetric matrix from its triangle."""

from __future__ import annotations

import numpy as np

from tinybilevel.arrays.backend import Array
from tinybilevel.arrays.checks import as_count, check_shape
from tinybilevel.maps.base import HyperMap

__all__ = ["Symmetric"]


class Symmetric(HyperMap):
    """θ = C.ravel(), the symmetric matrix with a zero diagonal whose upper triangle is λ.

    C_ij = C_ji = λ_k, where k counts the pairs i < j row by row. An h in θ's space has entries
    for both C_ij and C_ji, and λ_k gathers them: vjp_k = h_ij + h_ji.

    Parameters
    ----------
    size : int
        V, rows and columns of C; λ has V(V−1)/2 entries.

    Examples
    --------
    >>> import numpy as np
    >>> import tinybilevel as tb
    >>> tb.Symmetric(3)(np.array([1.0, 2.0, 3.0])).reshape(3, 3)
    array([[0., 1., 2.],
           [1., 0., 3.],
           [2., 3., 0.]])
    """

    def __init__(self, size: int) -> None:
        self.size = as_count("size", size, minimum=1)
        self._upper = np.triu_indices(self.size, 1)

    def out_size(self, n: int) -> int:
        return self.size**2

    def __call__(self, lam: Array) -> Array:
        check_shape("lam", lam, self._upper[0].shape)
        C = np.zeros_like(lam, shape=(self.size, self.size))
        C[self._upper] = lam
        return (C + C.T).ravel()

    def vjp(self, lam: Array, h: Array) -> Array:
        H = check_shape("h", h, (self.size**2,)).reshape(self.size, self.size)
        return (H + H.T)[self._upper]

    def jvp(self, lam: Array, dlam: Array) -> Array:
        return self(dlam)
