"""Softmax regression, or one score, on some rows of X, read where they lie, as `index` says.

Rows are dense, row i in X[0][i·ld : (i + 1)·ld] with zeros after the last feature, and W is C rows
of `ld` numbers. Or they are sparse: row i has the numbers X[0][p], p = X[2][i] … X[2][i + 1] − 1,
each in the column that begins in W at X[1][p], and W is d rows of `stride` numbers, a whole number
of vectors that holds C. Scores are rows of `stride` numbers in both.

Losses of one score per example (`across_one`) have C = 1 and a stride of 1; X[3] has the labels ±1
or the targets. Of a softmax P is kept, of these ℓ'(z) and ℓ''(z).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from tinybilevel.kernels.across_one import SQUARES
from tinybilevel.kernels.compiling import LEAN
from tinybilevel.kernels.softmax import aligned, row_length
from tinybilevel.kernels.tiles import (
    ROWS,
    add_rows_tile,
    dot_rows_tile,
    lanes,
    row_change,
    row_dot,
    row_exp,
    row_keep,
    row_max,
    row_residual,
    sparse_gather,
    sparse_scatter,
)

__all__ = ["Rows", "add_up", "change", "residual", "scores"]

Array = np.ndarray[Any, np.dtype[Any]]

_CLASSES, _VECTORS = 5, 4
#: Bytes of X that a block of rows may take, well below the second-level cache of a core.
_BLOCK = 300_000
#: Nonzeros of a batch for each column of X from which all columns are updated as fast.
_FEW = 1.5

_dot, _dot_class = dot_rows_tile(ROWS, _CLASSES), dot_rows_tile(ROWS, 1)
_dot_row, _dot_one = dot_rows_tile(1, _CLASSES), dot_rows_tile(1, 1)
_add, _add_class = add_rows_tile(_VECTORS, _CLASSES), add_rows_tile(_VECTORS, 1)
_add_vector, _add_one = add_rows_tile(1, _CLASSES), add_rows_tile(1, 1)
_gather, _scatter = sparse_gather(1), sparse_scatter(1)


class Rows:
    """The rows of X as these functions read them.

    Parameters
    ----------
    X : ndarray or scipy.sparse.csr_array (n, d)
        Examples, float32 or float64.
    n_classes : int
        C.
    padded : ndarray, optional
        X in rows of whole vectors where it lies so already.
    loss : int
        `LOGISTIC` or `SQUARES` of `across_one`, of one score; 0 is softmax.
    targets : ndarray (n,), optional
        What these have for each row.
    """

    def __init__(
        self,
        X: Any,
        n_classes: int,
        padded: Array | None = None,
        loss: int = 0,
        targets: Array | None = None,
    ) -> None:
        self.shape, self.dtype, self.n_classes = X.shape, X.dtype, n_classes
        vector = lanes(X.dtype.itemsize)
        self.stride = 1 if loss else -(-n_classes // vector) * vector
        #: How many numbers are kept of a row.
        self.room = 2 if loss else self.stride
        self.sparse = not isinstance(X, np.ndarray)
        if self.sparse:
            data, ld = X.data, self.stride
            small = np.int32 if X.shape[1] * ld < 2**31 else np.int64
            (self.columns,) = _read_only(X.indices.astype(np.int32, copy=False))
            places, starts = X.indices.astype(small) * small(ld), X.indptr.astype(np.int64)
        else:
            if padded is None:
                padded = aligned((len(X), row_length(X.shape[1], vector)), X.dtype)
                padded[:, : X.shape[1]] = X
            ld = padded.shape[1]
            data, places = padded.reshape(-1), np.empty(0, np.int32)
            starts = np.empty(0, np.int64)
        mean = X.nnz / len(X.indptr) if self.sparse else ld
        block = max(int(_BLOCK / max(mean * X.dtype.itemsize, 1)) // ROWS, 4) * ROWS
        self.sizes = n_classes, ld, self.stride, vector, block, loss, self.room
        targets = np.empty(0) if targets is None else targets
        self.data = _read_only(data, places, starts, targets.astype(X.dtype))
        self.width = X.shape[1] * self.stride if self.sparse else n_classes * ld

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, data=_read_only(*state["data"]))
        if self.sparse:
            (self.columns,) = _read_only(self.columns)

    def few_columns(self, index: Array, T: int) -> bool:
        """Return whether T batches, of all rows in `index`, have few nonzeros for d columns."""
        lengths = np.diff(self.data[2])
        return self.sparse and int(lengths[index].sum()) < _FEW * self.shape[1] * T

    def matrix(self, flat: Array) -> Array:
        """View as (C, d) the memory of a W, (width,)."""
        if self.sparse:
            return flat.reshape(-1, self.stride)[:, : self.n_classes].T
        return flat.reshape(self.n_classes, -1)[:, : self.shape[1]]

    def spread(self, values: Array) -> Array:
        """Return rows of C·d numbers as W lies in memory."""
        flat = aligned((len(values), self.width), self.dtype)
        for row, part in zip(flat, values, strict=True):
            self.matrix(row)[...] = part.reshape(self.n_classes, -1)
        return flat

    def gather(self, flat: Array) -> Array:
        """Return what `spread` was given."""
        values = np.empty((len(flat), self.n_classes * self.shape[1]), self.dtype)
        for part, row in zip(values, flat, strict=True):
            part.reshape(self.n_classes, -1)[...] = self.matrix(row)
        return values


def _read_only(*arrays: Array) -> tuple[Array, ...]:
    """Return views of one type for Numba, whoever holds the arrays."""
    views = tuple(array.view() for array in arrays)
    for view in views:
        view.flags.writeable = False
    return views


@njit(**LEAN)
def scores(X, index, W, sizes, S):  # type: ignore[no-untyped-def]
    """S[i, c] = W_c · x_{index[i]}."""
    data, places, starts, _ = X
    classes, ld, stride, vector, _, loss, _ = sizes
    rows = index.size
    if starts.size and loss:
        # Unsigned: no look at negative indices, which would take as long as the product.
        for i in range(rows):
            first, last = np.uintp(starts[index[i]]), np.uintp(starts[index[i] + 1])
            total = S.dtype.type(0)
            for p in range(first, last):
                total += data[p] * W[np.uintp(places[p])]
            S[i] = total
        return
    if starts.size:
        S[: rows * stride] = 0
        for i in range(rows):
            first, last = starts[index[i]], starts[index[i] + 1]
            for c in range(0, stride, vector):
                _gather(data, places, first, last, W, c, S, i * stride + c, 0)
        return
    n = ld // vector
    tall, wide = rows - rows % ROWS, classes - classes % _CLASSES
    for i in range(0, tall, ROWS):
        s = i * stride
        for c in range(0, wide, _CLASSES):
            _dot(data, index, i, ld, W, c * ld, ld, n, S, s + c, stride)
        for c in range(wide, classes):
            _dot_class(data, index, i, ld, W, c * ld, ld, n, S, s + c, stride)
    for i in range(tall, rows):
        s = i * stride
        for c in range(0, wide, _CLASSES):
            _dot_row(data, index, i, ld, W, c * ld, ld, n, S, s + c, stride)
        for c in range(wide, classes):
            _dot_one(data, index, i, ld, W, c * ld, ld, n, S, s + c, stride)


@njit(**LEAN)
def add_up(X, index, R, sizes, G):  # type: ignore[no-untyped-def]
    """G_c += Σ_i R[i, c] x_{index[i]}; G lies as W does."""
    data, places, starts, _ = X
    classes, ld, stride, vector, _, loss, _ = sizes
    rows = index.size
    if starts.size and loss:
        for i in range(rows):
            first, last = np.uintp(starts[index[i]]), np.uintp(starts[index[i] + 1])
            r = R[i]
            for p in range(first, last):
                G[np.uintp(places[p])] += r * data[p]
        return
    if starts.size:
        for i in range(rows):
            first, last = starts[index[i]], starts[index[i] + 1]
            for c in range(0, stride, vector):
                _scatter(data, places, first, last, R, i * stride + c, 0, G, c)
        return
    wide, far = classes - classes % _CLASSES, ld - ld % (_VECTORS * vector)
    for c in range(0, wide, _CLASSES):
        for j in range(0, far, _VECTORS * vector):
            _add(R, c, stride, rows, data, index, 0, ld, j, G, c * ld + j, ld)
        for j in range(far, ld, vector):
            _add_vector(R, c, stride, rows, data, index, 0, ld, j, G, c * ld + j, ld)
    for c in range(wide, classes):
        for j in range(0, far, _VECTORS * vector):
            _add_class(R, c, stride, rows, data, index, 0, ld, j, G, c * ld + j, ld)
        for j in range(far, ld, vector):
            _add_one(R, c, stride, rows, data, index, 0, ld, j, G, c * ld + j, ld)


@njit(**LEAN)
def residual(X, S, index, y, weights, scale, sizes, P):  # type: ignore[no-untyped-def]
    """Turn scores into s θ_i (P − Y), and keep the softmax P where there is room."""
    classes, _, stride, _, _, loss, _ = sizes
    if loss:
        for i in range(index.size):
            slope, curvature = _slopes(loss, S[i], X[3][index[i]])
            if P.size:
                P[2 * i], P[2 * i + 1] = slope, curvature
            S[i] = scale * (weights[index[i]] if weights.size > 1 else weights[0]) * slope
        return
    for i in range(index.size):
        row, at = i * stride, index[i]
        total = row_exp(S, row, classes, row_max(S, row, classes))
        if P.size:
            row_keep(S, row, P, row, classes, 1 / total)
        weight = scale * (weights[at] if weights.size > 1 else weights[0])
        row_residual(S, row, classes, weight / total, y[at], weight)


@njit(**LEAN)
def change(P, D, index, y, weights, scale, gain, sizes, h):  # type: ignore[no-untyped-def]
    """Turn scores D along V into s θ_i P ∘ (D − mean); h_i += gain ∇ℓ_i·V where h has room."""
    classes, _, stride, _, _, loss, _ = sizes
    if loss:
        for i in range(index.size):
            at, along = index[i], D[i]
            if h.size:
                h[at] += gain * (P[2 * i] * along)
            weight = scale * (weights[at] if weights.size > 1 else weights[0])
            D[i] = weight * P[2 * i + 1] * along
        return
    for i in range(index.size):
        row, at = i * stride, index[i]
        mean = row_dot(P, row, D, row, classes)
        if h.size:
            h[at] += gain * (mean - D[row + y[at]])
        weight = scale * (weights[at] if weights.size > 1 else weights[0])
        row_change(D, row, P, row, D, row, classes, weight, mean)


@njit(**LEAN)
def _slopes(loss, z, target):  # type: ignore[no-untyped-def]
    """Return ℓ'(z) and ℓ''(z); no exponential overflows."""
    one = type(z)(1)
    if loss == SQUARES:
        return z - target, one
    m = target * z
    e = math.exp(-abs(m))
    share = one / (one + e)
    other = e * share
    return -target * (other if m > 0 else share), share * other
