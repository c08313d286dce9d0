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
from tinybilevel.kernels.softmax import ALONE, CHUNKS, DEEP, LONG, SHORTEST, aligned, row_length
from tinybilevel.kernels.tiles import (
    ROWS,
    add_rows_tile,
    dot_rows_tile,
    fetch,
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

__all__ = ["Rows", "add_along", "add_up", "change", "residual", "scores"]

Array = np.ndarray[Any, np.dtype[Any]]

_CLASSES, _VECTORS = 5, 4
#: Bytes of X that a block of rows may take, well below the second-level cache of a core.
_BLOCK = 300_000
#: The same where W does not stay in cache, through which each block goes.
_BLOCK_LONG = 450_000
#: Nonzeros of a batch for each column of X from which all columns are updated as fast.
_FEW = 1.5
#: Multiply-adds of a product in whose time one nonzero is taken: of a softmax for each class, of
#: one score, and how many nonzeros a chunk has for each column at least: its sum has all columns.
_NONZERO, _NONZERO_ALONE, _FILLED = 4, 16, 3
#: How many rows of nonzeros are on their way from memory.
_AHEAD = 8

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
        self._length = X.nnz / max(X.shape[0], 1) if self.sparse else float(ld)  # of a row
        taken = self._length if self.sparse else min(ld, DEEP * vector)  # of a row at a time
        room = _BLOCK_LONG if not self.sparse and n_classes * ld > LONG else _BLOCK
        block = max(int(room / max(taken * X.dtype.itemsize, 1)) // ROWS, 4) * ROWS
        self.sizes = n_classes, ld, self.stride, vector, block, loss, self.room
        targets = np.empty(0) if targets is None else targets
        self.data = _read_only(data, places, starts, targets.astype(X.dtype))
        self.width = X.shape[1] * self.stride if self.sparse else n_classes * ld

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, data=_read_only(*state["data"]))
        if self.sparse:
            (self.columns,) = _read_only(self.columns)

    def work(self, size: int) -> float:
        """Return what a product with so many rows takes, in multiply-adds of dense rows."""
        entries = size * self._length * self.n_classes
        if not self.sparse:
            return entries
        return entries * (_NONZERO_ALONE if self.sizes[5] else _NONZERO)

    def chunks(self, size: int) -> tuple[int, int]:
        """Return in how many chunks to take a batch of so many rows, and for how many threads."""
        repay = max(int(self.work(size)) // ALONE, 1)
        if repay == 1:
            return 1, 1
        most = size // SHORTEST
        if self.sparse:
            most = min(most, int(size * self._length / (_FILLED * self.shape[1])))
        most = min(CHUNKS, max(most, min(size // ROWS, 2), 1))
        return 1 << (most.bit_length() - 1), repay  # two threads have as many each

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
def _fetch(X, index, first):  # type: ignore[no-untyped-def]
    """Have some sparse rows on their way from memory, but for those that follow another."""
    data, places, starts, _ = X
    for i in range(first, min(first + _AHEAD, index.size)):
        if index[i] != index[i - 1] + 1:
            begin, end = starts[index[i]], starts[index[i] + 1]
            for p in range(begin, end, 64 // data.itemsize):
                fetch(data, p)
            for p in range(begin, end, 64 // places.itemsize):
                fetch(places, p)


@njit(**LEAN)
def scores(X, index, W, sizes, S):  # type: ignore[no-untyped-def]
    """S[i, c] = W_c · x_{index[i]}."""
    data, places, starts, _ = X
    classes, ld, stride, vector, _, loss, _ = sizes
    rows = index.size
    if starts.size and loss:
        # Unsigned: no look at negative indices, which would take as long as the product.
        for i in range(rows):
            if i % _AHEAD == 0:
                _fetch(X, index, i + _AHEAD)
            first, last = np.uintp(starts[index[i]]), np.uintp(starts[index[i] + 1])
            total = S.dtype.type(0)
            for p in range(first, last):
                total += data[p] * W[np.uintp(places[p])]
            S[i] = total
        return
    if starts.size:
        S[: rows * stride] = 0
        for i in range(rows):
            if i % _AHEAD == 0:
                _fetch(X, index, i + _AHEAD)
            first, last = starts[index[i]], starts[index[i] + 1]
            for c in range(0, stride, vector):
                _gather(data, places, first, last, W, c, S, i * stride + c, 0)
        return
    S[: rows * stride] = 0
    tall, wide, vectors = rows - rows % ROWS, classes - classes % _CLASSES, ld // vector
    deep = -(-vectors // max((vectors + DEEP // 2) // DEEP, 1))
    for v in range(0, vectors, deep):
        n, j = min(deep, vectors - v), v * vector
        for c in range(0, wide, _CLASSES):
            w = c * ld + j
            for i in range(0, tall, ROWS):
                _dot(data, index, i, ld, j, W, w, ld, n, S, i * stride + c, stride)
            for i in range(tall, rows):
                _dot_row(data, index, i, ld, j, W, w, ld, n, S, i * stride + c, stride)
        for c in range(wide, classes):
            w = c * ld + j
            for i in range(0, tall, ROWS):
                _dot_class(data, index, i, ld, j, W, w, ld, n, S, i * stride + c, stride)
            for i in range(tall, rows):
                _dot_one(data, index, i, ld, j, W, w, ld, n, S, i * stride + c, stride)


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
    for j in range(0, far, _VECTORS * vector):
        for c in range(0, wide, _CLASSES):
            _add(R, c, stride, rows, data, index, 0, ld, j, G, c * ld + j, ld)
        for c in range(wide, classes):
            _add_class(R, c, stride, rows, data, index, 0, ld, j, G, c * ld + j, ld)
    for j in range(far, ld, vector):
        for c in range(0, wide, _CLASSES):
            _add_vector(R, c, stride, rows, data, index, 0, ld, j, G, c * ld + j, ld)
        for c in range(wide, classes):
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
def change(P, D, index, y, weights, scale, sizes, along):  # type: ignore[no-untyped-def]
    """Turn scores D along V into s θ_i P ∘ (D − mean), and write ∇ℓ_i·V where there is room."""
    classes, _, stride, _, _, loss, _ = sizes
    if loss:
        for i in range(index.size):
            at, score = index[i], D[i]
            if along.size:
                along[i] = P[2 * i] * score
            weight = scale * (weights[at] if weights.size > 1 else weights[0])
            D[i] = weight * P[2 * i + 1] * score
        return
    for i in range(index.size):
        row, at = i * stride, index[i]
        mean = row_dot(P, row, D, row, classes)
        if along.size:
            along[i] = mean - D[row + y[at]]
        weight = scale * (weights[at] if weights.size > 1 else weights[0])
        row_change(D, row, P, row, D, row, classes, weight, mean)


@njit(**LEAN)
def add_along(h, index, gain, along):  # type: ignore[no-untyped-def]
    """h_i += gain ∇ℓ_i·V, where h has room: an example may be in a batch twice."""
    if h.size:
        for i in range(index.size):
            h[index[i]] += gain * along[i]


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
