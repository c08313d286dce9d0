"""Losses of one score per example, examples across the vectors.

As in `across`, but a block is one tile of `WIDE` vectors of examples, or half of one where it would
not stay in cache with all of its features; the sum over examples stays in vectors, one for each
feature, until a chunk is done. Behind the blocks, `data` has a number for each example: ±1 as its
label, or its target, and 0 where a block has no example.

Two classes of softmax regression have one score as well, z = S_1 − S_0, since only differences of
scores count: their loss is log(1 + exp(−yz)), y = ±1, and the sum for class 0 is that for class 1
with its sign changed.

With an example are kept ℓ'(z) and ℓ''(z).
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from tinybilevel.kernels.across import GRAD, GRAD_VJP, KEPT_VJP, LOSSES
from tinybilevel.kernels.compiling import LEAN
from tinybilevel.kernels.tiles import fold, gather_tile, logistic_slopes, product_tile, times

__all__ = ["LOGISTIC", "SQUARES", "WIDE", "scratch_one", "take_one"]

#: log(1 + exp(−yz)); ½ (z − y)². 0 is softmax.
LOGISTIC, SQUARES = 1, 2
#: Vectors of examples in a tile.
WIDE = 8

_score, _score_half = (product_tile(1, width, add=False) for width in (WIDE, WIDE // 2))
_gather, _gather_half = gather_tile(WIDE), gather_tile(WIDE // 2)


def scratch_one(features: int, block: int, vector: int) -> int:
    """Return how many numbers of working memory the scores along one w take."""
    return 3 * block + features * (1 + vector)


@njit(**LEAN)
def take_one(k, product, data, y, weights, W, V, mine, G, per_example, kept, sizes):  # type: ignore[no-untyped-def]
    """Write the sum over the rows of chunk k to G, and to `per_example` and `kept` their part."""
    classes, loss, _, vector, blocks, block, features = sizes
    S, D, theta, own = mine[0], mine[1], block, 3 * block
    sums, labels = D[own + features :], data.size // (features + 1) * features
    for i in range(features * vector):
        sums[i] = 0
    for i in range(theta, theta + block):
        D[np.uintp(i)] = weights[0]
    if product == KEPT_VJP:
        V = W
    if classes == 2:
        V = _difference(V, D[own : own + features])
        W = _difference(W, S[own : own + features])
    # Slopes and curvatures of a block; no array is made in this loop, which would be counted.
    P, half = kept if kept.size else S, WIDE // 2 * vector
    start, stop = k * blocks, min((k + 1) * blocks, -(-y.size // block))
    for b in range(start, stop):
        first, x, p = b * block, b * features * block, 2 * b * block if kept.size else block
        rows = min(block, y.size - first)
        wide = rows > half
        count = 2 * half if wide else half
        if product != KEPT_VJP:
            if wide:
                _score(W, 0, 0, 1, features, data, x, block, S, 0, 0)
            else:
                _score_half(W, 0, 0, 1, features, data, x, block, S, 0, 0)
            if loss == SQUARES:
                _square_slopes(S, data, labels + first, P, p, count)
            elif product != LOSSES:
                curved = product == GRAD_VJP or kept.size > 0
                logistic_slopes(S, 0, data, labels + first, count, P, p, curved)
        if product == LOSSES:
            _losses(loss, S, data, labels + first, per_example, first, rows)
            continue
        if weights.size > 1:
            for i in range(count):
                D[np.uintp(theta + i)] = weights[np.uintp(first + i)] if i < rows else 0
        if product == GRAD:
            times(P, p, D, theta, S, 0, count)
        else:
            if wide:
                _score(V, 0, 0, 1, features, data, x, block, D, 0, 0)
            else:
                _score_half(V, 0, 0, 1, features, data, x, block, D, 0, 0)
            if per_example.size:
                _along(P, p, D, per_example, first, rows)
            times(P, p + count, D, 0, S, 0, count)
            times(S, 0, D, theta, S, 0, count)
        # After the last block comes the first, in the next step.
        ahead = (b + 1 if b + 1 < stop else start) * features * block - x
        if wide:
            _gather(S, 0, data, x, block, features, sums, 0, ahead)
        else:
            _gather_half(S, 0, data, x, block, features, sums, 0, ahead)
    fold(sums, 0, features, G, classes - 1, classes)
    if classes == 2:
        for j in range(features):
            G[2 * j] = -G[2 * j + 1]


@njit(**LEAN)
def _difference(W, out):  # type: ignore[no-untyped-def]
    """Write W_1 − W_0, NaN where it is infinite, as the softmax of an infinite score is."""
    zero = W.dtype.type(0)
    for j in range(out.size):
        change = W[2 * j + 1] - W[2 * j]
        out[j] = change + zero * change
    return out


@njit(**LEAN)
def _square_slopes(z, data, target, P, p, count):  # type: ignore[no-untyped-def]
    one = z.dtype.type(1)
    for i in range(count):
        P[np.uintp(p + i)] = z[i] - data[np.uintp(target + i)]
        P[np.uintp(p + count + i)] = one


@njit(**LEAN)
def _along(P, p, d, out, first, rows):  # type: ignore[no-untyped-def]
    for i in range(rows):
        out[np.uintp(first + i)] = P[np.uintp(p + i)] * d[i]


@njit(**LEAN)
def _losses(loss, z, data, label, out, first, rows):  # type: ignore[no-untyped-def]
    zero, half = z.dtype.type(0), z.dtype.type(0.5)
    for i in range(rows):
        if loss == LOGISTIC:
            m = data[label + i] * z[i]
            out[first + i] = max(-m, zero) + math.log1p(math.exp(-abs(m)))
        else:
            out[first + i] = half * (z[i] - data[label + i]) ** 2
