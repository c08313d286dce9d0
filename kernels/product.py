"""Products of matrices with few columns, in whole vectors."""

from __future__ import annotations

import numpy as np
from numba import njit

from tinybilevel.kernels.tiles import TALL, lanes, product_tile

__all__ = ["multiply"]

_HALF, _BYTES = TALL // 3, lanes(1)
_tiles = [[product_tile(rows, 2, add) for rows in (TALL, _HALF, 1)] for add in (False, True)]
(_tall, _half, _one), (_add_tall, _add_half, _add_one) = _tiles


@njit(nogil=True, cache=True)
def multiply(A, across, B, C, add):  # type: ignore[no-untyped-def]
    """Write A B to C, or Aᵀ B where `across`; or add it.

    For the shapes of convolutions, some hundred rows and 32 or 64 columns, this is faster than BLAS
    where a vector is longer than what BLAS was built for. Other numbers of columns are left to it.
    """
    rows, columns = C.shape
    n = len(B)
    lda, step = (1, A.shape[1]) if across else (A.shape[1], 1)
    pair = 2 * (_BYTES // C.itemsize)
    if columns % pair:
        if add:
            C += np.dot(A.T, B) if across else np.dot(A, B)
        elif across:
            np.dot(A.T, B, C)
        else:
            np.dot(A, B, C)
        return
    A, B, C = A.reshape(-1), B.reshape(-1), C.reshape(-1)
    for c in range(0, columns, pair):
        i = 0
        while i < rows:
            a, at = i * lda, i * columns + c
            if i + TALL <= rows:
                if add:
                    _add_tall(A, a, lda, step, n, B, c, columns, C, at, columns)
                else:
                    _tall(A, a, lda, step, n, B, c, columns, C, at, columns)
                i += TALL
            elif i + _HALF <= rows:
                if add:
                    _add_half(A, a, lda, step, n, B, c, columns, C, at, columns)
                else:
                    _half(A, a, lda, step, n, B, c, columns, C, at, columns)
                i += _HALF
            else:
                if add:
                    _add_one(A, a, lda, step, n, B, c, columns, C, at, columns)
                else:
                    _one(A, a, lda, step, n, B, c, columns, C, at, columns)
                i += 1
