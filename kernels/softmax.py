"""Softmax regression in one pass over X, compiled: an overlay of the definition.

A block of rows is read from memory once. While it is in cache, its scores, their softmax, what
the product needs of each example, and the block's part of the sum over examples are all computed.
Zeros are skipped where X is sparse, as a `scipy.sparse` matrix or as images are.

Threads take chunks of rows as they get to them, so that a busy core delays little. Each chunk has
its own sum, and these are added in order: results do not depend on the number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numba import njit

from tinybilevel.kernels.across import (
    FEATURES,
    GRAD,
    GRAD_VJP,
    KEPT_VJP,
    LOSSES,
    VECTORS,
    scratch,
    take_across,
)
from tinybilevel.kernels.across_one import LOGISTIC, NEAREST, WIDE, scratch_one, take_one
from tinybilevel.kernels.compiling import APART, LEAN
from tinybilevel.kernels.laid import Laid, laid
from tinybilevel.kernels.pool import pool, wait
from tinybilevel.kernels.remembered import Remembering
from tinybilevel.kernels.threads import cores, helpers
from tinybilevel.kernels.tiles import (
    ROWS,
    add_tile,
    count_up,
    dot_tile,
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
from tinybilevel.kernels.workspace import FRESH, Workspace

__all__ = [
    "ALONE",
    "CHUNKS",
    "DEEP",
    "GRAD",
    "GRAD_VJP",
    "KEPT_VJP",
    "LONG",
    "LOSSES",
    "SHORTEST",
    "Softmax",
    "aligned",
    "aligned_parts",
    "row_length",
    "take_chunk",
]

Array = np.ndarray[Any, np.dtype[Any]]

CHUNKS = 8
#: Bytes of X that a block may take, well below the second-level cache of a core.
_BLOCK = 300_000
#: The same where w does not stay in cache, which each block goes through.
_BLOCK_LONG = 450_000
#: The same across the vectors, where the more examples are in a block, the fewer sums over vectors.
_BLOCK_ACROSS = 600_000
#: Rows of a block of nonzeros: many, since each block goes through all columns.
_SPARSE_ROWS, _MOST_SPARSE_ROWS = 640, 4_000
#: Vectors of features that are taken at a time: five rows of W stay in the cache nearest to a core.
DEEP = 64
#: Rows of whole vectors whose number is a multiple of this would lie in few of a cache's sets.
_EVEN = 16
#: Rows of a chunk, at least: its sum is made and added in the time of some rows, of twice as many
#: where it is so long that it does not stay in cache.
SHORTEST, LONG = 64, 100_000
_CLASSES = 5
_VECTORS = 4
#: Rows of a chunk that has its own sum, at least.
_FEW = 256
#: Multiply-adds of a product for each thread, at least: to wake one, and to look out for it, would
#: cost as much as fewer take.
ALONE = 500_000
#: Bytes of a cache line.
_LINE = 64
#: Nonzeros of a chunk for each column, at least, but where a second thread repays.
_FILLED = 12
#: Adjacent columns that are taken together where nonzeros mostly have neighbours.
_GROUP = 4

_dot, _dot_class = dot_tile(ROWS, _CLASSES, add=True), dot_tile(ROWS, 1, add=True)
_dot_row, _dot_one = dot_tile(1, _CLASSES, add=True), dot_tile(1, 1, add=True)
_add, _add_class = add_tile(_VECTORS, _CLASSES), add_tile(_VECTORS, 1)
_add_vector, _add_one = add_tile(1, _CLASSES), add_tile(1, 1)

_gather, _gather_group = sparse_gather(1), sparse_gather(_GROUP)
_scatter, _scatter_group = sparse_scatter(1), sparse_scatter(_GROUP)


class Softmax:
    """The products of `tinybilevel.SoftmaxRegression`, compiled.

    Parameters
    ----------
    X : ndarray or scipy.sparse array (n, d)
        Examples, float32 or float64.
    y : ndarray (n,) of int
        Classes.
    n_classes : int
        C.
    plain : optional
        The same products for what is not compiled: a mix of dtypes, and `grad_jvp`.
    sparse : bool, optional
        Skip zeros. By default where X is sparse, or where that is faster.
    threads : int, optional
        By default as many as repay and are free, at each call; see `threads.helpers`.
    across : bool, optional
        Take examples across the vectors. By default where that is faster.
    """

    sizes: tuple[int, ...]
    X: tuple[Array, ...]

    def __init__(
        self,
        X: Any,
        y: Array,
        n_classes: int,
        *,
        plain: Any = None,
        sparse: bool | None = None,
        threads: int | None = None,
        across: bool | None = None,
    ) -> None:
        self.shape = X.shape
        self.plain, self._work = plain, FRESH
        self.n_classes, self.y, self.dtype = n_classes, y.astype(np.int64), X.dtype
        vector = lanes(X.dtype.itemsize)
        stride = -(-n_classes // vector) * vector
        if sparse is None:
            sparse = not isinstance(X, np.ndarray) or _skipping_pays(X, n_classes, stride)
        if across is None:
            across = not sparse and _across_pays(X.shape[1], n_classes, X.dtype.itemsize)
        if across:
            self._lay_across(X, vector)
        else:
            self._lay_along(X, vector, stride, sparse)
        self._as_free = threads is None
        if threads is None:
            scores = 1 if across and n_classes == 2 else n_classes
            repay = max(self.X[0].size * scores // ALONE, 1)
            threads = min(cores(), self.chunks, repay)
        self.threads = threads  # at most
        self._buffers: tuple[Array, ...] | None = None

    def _lay_across(self, X: Array, vector: int) -> None:
        (n, d), C = X.shape, self.n_classes
        if C == 2:
            return self._lay_one(X, vector, 2 * self.y - 1, LOGISTIC)
        features, tile = -(-d // FEATURES) * FEATURES, VECTORS * vector
        most = max(_BLOCK_ACROSS // (features * X.dtype.itemsize) // tile, 1) * tile
        chunks = self._most_chunks(vector)
        blocks = -(-n // (chunks * most))
        block = -(-n // (chunks * blocks * tile)) * tile
        self._lay_blocks(X, 0, C, vector, blocks, block, features)
        self._scratch = scratch(C, block)
        return None

    def _lay_one(self, X: Array, vector: int, labels: Array, loss: int) -> None:
        n, d = X.shape
        fits = WIDE * vector * d * X.dtype.itemsize <= NEAREST
        block = WIDE * vector if fits else WIDE // 2 * vector
        blocks = -(-n // (self._most_chunks(vector) * block))
        self._lay_blocks(X, loss, 2, vector, blocks, block, d)
        self._scratch = scratch_one(d, block, vector)
        # Behind the blocks, the examples' numbers.
        rows = self.chunks * blocks * block
        data = aligned((rows * (d + 1),), X.dtype)
        data[: rows * d], data[rows * d : rows * d + n] = self.X[0], labels
        self.X, self._laid = _alone(data), Laid(None, ())  # with labels they are shared by nobody

    def _most_chunks(self, vector: int) -> int:
        n, d = self.shape
        few = n * d * self.n_classes < ALONE
        return 1 if few else min(CHUNKS, -(-n // (_FEW // vector * vector)))

    def _lay_blocks(
        self, X: Array, loss: int, kept: int, vector: int, blocks: int, block: int, features: int
    ) -> None:
        """Lay X in blocks, with so many numbers to keep for each example."""
        (n, d), C = X.shape, self.n_classes
        self.chunks = -(-n // (blocks * block))
        self.sizes = (C, loss, kept, vector, blocks, block, features)
        self.layout, self._by_class = (d, C, C, C), False
        self.width = self._sum_width = features * C
        self.room_size = self.chunks * blocks * block * kept
        self._laid = laid(X, _transposed, self.chunks * blocks, block, features)
        self.X = self._laid.parts

    def _lay_along(self, X: Any, vector: int, stride: int, sparse: bool) -> None:
        (n, d), n_classes = X.shape, self.n_classes
        ld = n_classes if sparse else row_length(d, vector)
        # Chunks of whole blocks, blocks of whole tiles.
        long = n_classes * ld > LONG
        room, shortest = (_BLOCK_LONG, 2 * SHORTEST) if long else (_BLOCK, SHORTEST)
        most = max(room // (min(ld, DEEP * vector) * X.dtype.itemsize), SHORTEST)
        chunks = min(CHUNKS, -(-n // shortest))
        if sparse:
            # A chunk's sum has all columns, whatever few nonzeros it adds up.
            nonzeros = np.count_nonzero(X) if isinstance(X, np.ndarray) else X.nnz
            repay = 2 if nonzeros * n_classes >= 2 * ALONE else 1
            chunks = min(chunks, max(nonzeros // (_FILLED * d), repay))
            rows = 2 * _FILLED * d * n // max(nonzeros, 1)  # of a block with so many in a column
            most = max(min(rows, _MOST_SPARSE_ROWS), _SPARSE_ROWS)
        blocks = -(-n // (chunks * most))
        block = -(-n // (chunks * blocks * ROWS)) * ROWS
        self.chunks = -(-n // (blocks * block))
        self.sizes = (n_classes, ld, stride, vector, blocks, block, 0)
        self.room_size, self._scratch = n * stride, block * stride
        # W lies as d rows of C where zeros are skipped, the sum over examples as d rows of vectors;
        # a group may begin in the last row. Otherwise both lie as C rows of d.
        self.layout = (d, n_classes, ld, stride) if sparse else (n_classes, d, ld, ld)
        groups = d + _GROUP - 1
        self.width = groups * ld + stride if sparse else n_classes * ld
        self._sum_width = groups * stride if sparse else n_classes * ld
        self._by_class = not sparse
        self._laid = laid(X, _by_column, block, stride) if sparse else laid(X, _padded, ld)
        self.X = self._laid.parts

    def __setstate__(self, state: dict[str, Any]) -> None:
        # A copy or a pickle keeps the numbers, not where in memory they begin.
        self.__dict__.update(state)
        data, *rest = self.X
        self.X = (aligned(data.shape, data.dtype), *rest)
        self.X[0][...] = data
        self._buffers = None if self._buffers is None else self._allocate()

    def bound(self, remember: int = 0) -> Any:
        """Return the same products with working memory of their own, for one thread's use.

        With `remember`, its products take up so many softmaxes of its latest gradients.
        """
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other._buffers, other._work = other._allocate(), Workspace()
        other.plain = None if self.plain is None else self.plain.bound()
        return Remembering(other, remember) if remember else other

    @property
    def of_one_score(self) -> bool:
        """Whether each example has one, so that what isn't asked for by example isn't written."""
        return bool(self.sizes[1] and self.sizes[-1])

    @property
    def padded(self) -> Array | None:
        """X in rows of whole vectors, (n, ld), where it lies so."""
        return self.X[0].reshape(len(self.y), -1) if self._by_class else None

    def room(self) -> Array:
        """Return memory for the softmax of all examples, which `grad` can keep for `grad_vjp`."""
        return aligned((self.room_size,), self.dtype)

    def losses(self, W: Array) -> Array:
        """Return ℓ_i(W), (n,)."""
        if not self._knows(W):
            return self.plain.losses(W)
        out = self._work("losses", self.y.shape, W)
        return self._run(LOSSES, W, W, out, out, None)

    def grad(self, W: Array, weights: Array, keep: Array | None = None) -> Array:
        """Return Σ_i weights_i ∇ℓ_i(W), (C, d); `weights` is (n,), or (1,) for all."""
        if not self._knows(W, weights):
            return self.plain.grad(W, weights)
        out = self._work("grad", W.shape, W)
        out[...] = self._run(GRAD, W, W, weights, weights[:0], keep)
        return out

    def losses_and_grad(self, W: Array, weights: Array) -> tuple[Array, Array]:
        """Return what `losses` and `grad` do, in one pass."""
        if not self._knows(W, weights):
            return self.plain.losses(W), self.plain.grad(W, weights)
        losses, out = self._work("losses", self.y.shape, W), self._work("grad", W.shape, W)
        out[...] = self._run(GRAD, W, W, weights, losses, None)
        return losses, out

    def grad_vjp(
        self, W: Array, V: Array, weights: Array, kept: Array | None = None
    ) -> tuple[Array, Array]:
        """Return Σ_i weights_i ∇²ℓ_i(W) V, (C, d), and each ∇ℓ_i(W)·V, (n,).

        With the softmax at W in `kept`, W itself is not looked at.
        """
        if not self._knows(W, V, weights):
            return self.plain.grad_vjp(W, V, weights)
        out, along = self._work("hessian", W.shape, W), self._work("along", self.y.shape, W)
        if kept is None:
            out[...] = self._run(GRAD_VJP, W, V, weights, along, None)
        else:
            out[...] = self._run(KEPT_VJP, V, V, weights, along, kept)
        return out, along

    def grad_jvp(self, W: Array, dW: Array, weights: Array, dweights: Array) -> Array:
        """Return Σ_i (weights_i ∇²ℓ_i(W) dW + dweights_i ∇ℓ_i(W)), (C, d)."""
        return self.plain.grad_jvp(W, dW, weights, dweights)

    def _knows(self, *arrays: Array) -> bool:
        """Return whether all is of the dtype of X."""
        return all(a.dtype == self.dtype for a in arrays)

    def helpers(self) -> int:
        """Return with how many other threads to share a product now."""
        return helpers(self.threads) if self._as_free else self.threads - 1

    def loop_memory(self, copies: int = 1) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the shapes of each thread's scores of a block, and of each chunk's sums."""
        return (self.threads, 2, self._scratch), (copies * self.chunks, self._sum_width)

    def _allocate(self) -> tuple[Array, ...]:
        shapes = (2, self.width), (self._sum_width,), *self.loop_memory()
        return aligned_parts(shapes, self.dtype)

    def _run(
        self,
        product: int,
        W: Array,
        V: Array,
        weights: Array,
        per_example: Array,
        kept: Array | None,
    ) -> Array:
        """Run a product; return its sum over examples, (C, d), in working memory."""
        factors, total, scratch, sums = self._buffers or self._allocate()
        self.matrix(factors[0])[...] = W
        if product == GRAD_VJP:
            self.matrix(factors[1])[...] = V
        # The next chunk to take, how many are done, and the next thread's scratch.
        counter = np.zeros(3, np.int64)
        args: tuple[Any, ...] = (counter, product, self.X, self.y, weights)
        kept = sums[0, :0] if kept is None else kept
        args += (factors[0], factors[1], scratch, sums, per_example, kept, self.sizes)
        pool.share(self.helpers(), _work, args)
        _work(*args)
        wait(counter, self.chunks)
        if product == LOSSES:
            return per_example
        total = sums[0] if len(sums) == 1 else np.add.reduce(sums, axis=0, out=total)
        return self._view(total, self.layout[3])

    def matrix(self, flat: Array) -> Array:
        """View as (…, C, d) the memory of some W, (…, width)."""
        return self._view(flat, self.layout[2])

    def _view(self, flat: Array, ld: int) -> Array:
        rows, length = self.layout[:2]
        matrix = flat[..., : rows * ld].reshape(*flat.shape[:-1], rows, ld)[..., :length]
        return matrix if self._by_class else matrix.swapaxes(-1, -2)


def _skipping_pays(X: Array, n_classes: int, stride: int) -> bool:
    # A nonzero costs a vector of all classes; an entry of a dense row costs each class once.
    return bool(np.count_nonzero(X) / X.size * stride < 0.5 * n_classes)


def _across_pays(d: int, n_classes: int, itemsize: int) -> bool:
    return n_classes <= 4 or d * d * itemsize < _BLOCK


def row_length(d: int, vector: int) -> int:
    """Return how many numbers a row of d has in memory, in whole vectors."""
    vectors = -(-d // vector)
    return (vectors + (vectors % _EVEN == 0)) * vector


def _padded(X: Array, ld: int) -> tuple[Array, ...]:
    """Return X in rows of whole vectors, and empty arrays for what `_by_column` has more."""
    data = aligned((len(X), ld), X.dtype)
    data[:, : X.shape[1]] = X
    return _alone(data)


def _transposed(X: Array, blocks: int, block: int, features: int) -> tuple[Array, ...]:
    """Return X block by block of rows, each transposed."""
    d, data = X.shape[1], aligned((blocks, features, block), X.dtype)
    for b in range(blocks):
        part = X[b * block : (b + 1) * block]
        data[b, :d, : len(part)] = part.T
    return _alone(data)


def _alone(data: Array) -> tuple[Array, ...]:
    return data.reshape(-1), np.empty(0, np.int32), *(np.empty(0, np.int64) for _ in range(3))


def _by_column(X: Any, block: int, stride: int) -> tuple[Array, ...]:
    """Return the nonzeros of X, block by block of rows, each in groups of adjacent columns.

    The groups of block b that begin in column columns[q] have, for p from starts[q] to
    starts[q + 1], the numbers data[p·width : (p + 1)·width] in the row whose scores begin at
    index[p] of the block's; q goes from blocks[b] to blocks[b + 1]. The width is `_GROUP` or 1:
    images have their nonzeros in runs, and a group begins where a run does, or the last one ends.
    """
    from scipy.sparse import csr_array

    n = X.shape[0]
    data, index, columns, starts, blocks = [], [], [], [np.zeros(1, np.int64)], [0]
    width = total = 0
    for first in range(0, n, block):
        part = csr_array(X[first : first + block])
        part.sum_duplicates()
        row, column = np.repeat(np.arange(part.shape[0]), np.diff(part.indptr)), part.indices
        run = _adjacent_before(row, column)
        if not width:
            # Loads decide: a group of 4 takes as long as 1.75 single numbers.
            width = _GROUP if 1.75 * np.count_nonzero(run % _GROUP == 0) < part.nnz else 1
        begins = run % width == 0
        group = np.zeros((np.count_nonzero(begins), width), X.dtype)
        group[np.cumsum(begins) - 1, run % width] = part.data
        row, column = row[begins], column[begins]
        order = np.argsort(column, kind="stable")
        used, counts = np.unique(column, return_counts=True)
        starts.append(np.cumsum(counts) + total)
        total += len(row)
        data.append(group[order].reshape(-1))
        index.append((row[order] * stride).astype(np.int32))
        columns.append(used.astype(np.int64))
        blocks.append(blocks[-1] + len(used))
    return (
        *(np.concatenate(parts) for parts in (data, index, columns, starts)),
        np.array(blocks, np.int64),
    )


def _adjacent_before(row: Array, column: Array) -> Array:
    """Return how many entries are before each in its row without a gap; both are sorted."""
    place = np.arange(len(row))
    joined = np.zeros(len(row), bool)
    joined[1:] = (np.diff(row) == 0) & (np.diff(column) == 1)
    return place - np.maximum.accumulate(np.where(joined, 0, place))


def aligned(shape: tuple[int, ...], dtype: Any) -> Array:
    """Return zeros that begin on a cache line, which no vector then straddles."""
    return aligned_parts([shape], dtype)[0]


def aligned_parts(shapes: Sequence[tuple[int, ...]], dtype: Any) -> tuple[Array, ...]:
    """Return such zeros of each shape, from the system in one go, which takes a microsecond."""
    size, places = _places(tuple(shapes), np.dtype(dtype).itemsize)
    raw = np.zeros(size, np.uint8)
    start = -raw.__array_interface__["data"][0] % _LINE
    return tuple(np.ndarray(shape, dtype, raw, start + place) for shape, place in places)


@lru_cache
def _places(
    shapes: tuple[tuple[int, ...], ...], itemsize: int
) -> tuple[int, list[tuple[tuple[int, ...], int]]]:
    """Return how many bytes that takes, and each shape with where it begins."""
    places, size = [], 0
    for shape in shapes:
        places.append((shape, size))
        size += -(-math.prod(shape) * itemsize // _LINE) * _LINE
    return size + _LINE, places


@njit(nogil=True, cache=True)
def _scores(X, b, first, rows, W, sizes, S):  # type: ignore[no-untyped-def]
    """S[i, c] = W_c · x_{first+i}, for the rows of block b."""
    data, index, columns, starts, blocks = X
    classes, ld, stride, vector, _, _, _ = sizes
    if blocks.size:
        S[: rows * stride] = 0
        single = data.size == index.size
        for q in range(blocks[b], blocks[b + 1]):
            first_p, last_p, w = starts[q], starts[q + 1], columns[q] * ld
            for c in range(0, stride, vector):
                if single:
                    _scatter(data, index, first_p, last_p, W, w + c, ld, S, c)
                else:
                    _scatter_group(data, index, first_p, last_p, W, w + c, ld, S, c)
        return
    S[: rows * stride] = 0
    tall, wide = rows - rows % ROWS, classes - classes % _CLASSES
    vectors = ld // vector
    deep = -(-vectors // max((vectors + DEEP // 2) // DEEP, 1))
    for v in range(0, vectors, deep):
        n, j = min(deep, vectors - v), v * vector
        x = first * ld + j
        for c in range(0, wide, _CLASSES):
            w = c * ld + j
            for i in range(0, tall, ROWS):
                _dot(data, x + i * ld, ld, W, w, ld, n, S, i * stride + c, stride)
            for i in range(tall, rows):
                _dot_row(data, x + i * ld, ld, W, w, ld, n, S, i * stride + c, stride)
        for c in range(wide, classes):
            w = c * ld + j
            for i in range(0, tall, ROWS):
                _dot_class(data, x + i * ld, ld, W, w, ld, n, S, i * stride + c, stride)
            for i in range(tall, rows):
                _dot_one(data, x + i * ld, ld, W, w, ld, n, S, i * stride + c, stride)


@njit(nogil=True, cache=True)
def _add_up(X, b, first, rows, R, sizes, G, more):  # type: ignore[no-untyped-def]
    """G_c = Σ_i R[i, c] x_{first+i}, over the rows of block b, or += it where `more` is 1."""
    data, index, columns, starts, blocks = X
    classes, ld, stride, vector, _, _, _ = sizes
    if blocks.size:
        if not more:
            G[:] = 0
        single = data.size == index.size
        for q in range(blocks[b], blocks[b + 1]):
            first_p, last_p, g = starts[q], starts[q + 1], columns[q] * stride
            for c in range(0, stride, vector):
                if single:
                    _gather(data, index, first_p, last_p, R, c, G, g + c, stride)
                else:
                    _gather_group(data, index, first_p, last_p, R, c, G, g + c, stride)
        return
    x = first * ld
    wide, far = classes - classes % _CLASSES, ld - ld % (_VECTORS * vector)
    for j in range(0, far, _VECTORS * vector):
        for c in range(0, wide, _CLASSES):
            _add(R, c, stride, rows, data, x + j, ld, G, c * ld + j, ld, more)
        for c in range(wide, classes):
            _add_class(R, c, stride, rows, data, x + j, ld, G, c * ld + j, ld, more)
    for j in range(far, ld, vector):
        for c in range(0, wide, _CLASSES):
            _add_vector(R, c, stride, rows, data, x + j, ld, G, c * ld + j, ld, more)
        for c in range(wide, classes):
            _add_one(R, c, stride, rows, data, x + j, ld, G, c * ld + j, ld, more)


@njit(nogil=True, cache=True)
def _work(counter, product, X, y, weights, W, V, scratch, sums, per_example, kept, sizes):  # type: ignore[no-untyped-def]
    """Take chunks until none is left."""
    mine = scratch[count_up(counter, 2, 1)]
    while True:
        k = count_up(counter, 0, 1)
        if k >= sums.shape[0]:
            return
        take_chunk(k, product, X, y, weights, W, V, mine, sums[k], per_example, kept, sizes, 0)
        count_up(counter, 1, 1)


@njit(**LEAN)
def take_chunk(k, product, X, y, weights, W, V, mine, G, per_example, kept, sizes, turn):  # type: ignore[no-untyped-def]
    """Write the sum over the rows of chunk k to G, and to `per_example` and `kept` their part.

    With `turn` the last rows may come first: from one step to the next they are still in cache.
    """
    _, ld, _, _, _, _, features = sizes
    if features and ld:
        take_one(k, product, X[0], y, weights, W, V, mine, G, per_example, kept, sizes, turn)
    elif features:
        take_across(k, product, X[0], y, weights, W, V, mine, G, per_example, kept, sizes)
    else:
        _take_along(k, product, X, y, weights, W, V, mine, G, per_example, kept, sizes)


@njit(**APART)
def _take_along(k, product, X, y, weights, W, V, mine, G, per_example, kept, sizes):  # type: ignore[no-untyped-def]
    """Do the same a row at a time, or a nonzero."""
    classes, _, stride, _, blocks, block, _ = sizes
    S, D = mine[0], mine[1]
    for b in range(k * blocks, (k + 1) * blocks):
        first, more = b * block, int(b > k * blocks)
        rows = min(block, y.size - first)
        if rows <= 0:
            return
        if product == KEPT_VJP:
            _scores(X, b, first, rows, W, sizes, D)
            for i in range(rows):
                row, place = i * stride, (first + i) * stride
                weight = weights[first + i] if weights.size > 1 else weights[0]
                mean = row_dot(kept, place, D, row, classes)
                per_example[first + i] = mean - D[row + y[first + i]]
                row_change(S, row, kept, place, D, row, classes, weight, mean)
            _add_up(X, b, first, rows, S, sizes, G, more)
            continue
        _scores(X, b, first, rows, W, sizes, S)
        if product == GRAD_VJP:
            _scores(X, b, first, rows, V, sizes, D)
        for i in range(rows):
            row, own = i * stride, y[first + i]
            score, top = S[row + own], row_max(S, row, classes)
            total = row_exp(S, row, classes, top)
            if product == LOSSES or (product == GRAD and per_example.size):
                per_example[first + i] = np.log(total) + (top - score)
            if product == LOSSES:
                continue
            weight = weights[first + i] if weights.size > 1 else weights[0]
            factor = weight / total
            if product == GRAD:
                if kept.size:
                    row_keep(S, row, kept, (first + i) * stride, classes, 1 / total)
                row_residual(S, row, classes, factor, own, weight)
            else:
                mean = row_dot(S, row, D, row, classes) / total
                per_example[first + i] = mean - D[row + own]
                row_change(S, row, S, row, D, row, classes, factor, mean)
        if product != LOSSES:
            _add_up(X, b, first, rows, S, sizes, G, more)
