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


@njit(nogil=True, cache=True)
def take_one(k, product, data, y, weights, W, V, mine, G, per_example, kept, sizes):  # type: ignore[no-untyped-def]
    """Write the sum over the rows of chunk k to G, and to `per_example` and `kept` their part."""
    classes, loss, _, vector, blocks, block, features = sizes
    S, D, theta, own = mine[0], mine[1], block, 3 * block
    sums, labels = D[own + features :], data.size // (features + 1) * features
    sums[: features * vector] = 0
    D[theta : theta + block] = weights[0]
    if product == KEPT_VJP:
        V = W
    if classes == 2:
        V = _difference(V, D[own : own + features])
        W = _difference(W, S[own : own + features])
    # Slopes and curvatures of a block; no array is made in this loop, which would be counted.
    P, wide = kept if kept.size else S, block == WIDE * vector
    for b in range(k * blocks, (k + 1) * blocks):
        first, x, p = b * block, b * features * block, 2 * b * block if kept.size else block
        rows = min(block, y.size - first)
        if rows <= 0:
            break
        if product != KEPT_VJP:
            if wide:
                _score(W, 0, 0, 1, features, data, x, block, S, 0, 0)
            else:
                _score_half(W, 0, 0, 1, features, data, x, block, S, 0, 0)
            if loss == SQUARES:
                _square_slopes(S, data, labels + first, P, p, block)
            elif product != LOSSES:
                curved = product == GRAD_VJP or kept.size > 0
                logistic_slopes(S, 0, data, labels + first, block, P, p, curved)
        if product == LOSSES:
            _losses(loss, S, data, labels + first, per_example, first, rows)
            continue
        if weights.size > 1:
            D[theta : theta + rows] = weights[first : first + rows]
            D[theta + rows : theta + block] = 0
        if product == GRAD:
            times(P, p, D, theta, S, 0, block)
        else:
            if wide:
                _score(V, 0, 0, 1, features, data, x, block, D, 0, 0)
            else:
                _score_half(V, 0, 0, 1, features, data, x, block, D, 0, 0)
            if per_example.size:
                _along(P, p, D, per_example, first, rows)
            times(P, p + block, D, 0, S, 0, block)
            times(S, 0, D, theta, S, 0, block)
        if wide:
            _gather(S, 0, data, x, block, features, sums, 0)
        else:
            _gather_half(S, 0, data, x, block, features, sums, 0)
    fold(sums, 0, features, G, classes - 1, classes)
    if classes == 2:
        for j in range(features):
            G[2 * j] = -G[2 * j + 1]


@njit(nogil=True, cache=True)
def _difference(W, out):  # type: ignore[no-untyped-def]
    """Write W_1 − W_0, NaN where it is infinite, as the softmax of an infinite score is."""
    zero = W.dtype.type(0)
    for j in range(out.size):
        change = W[2 * j + 1] - W[2 * j]
        out[j] = change + zero * change
    return out


@njit(nogil=True, cache=True)
def _square_slopes(z, data, target, P, p, block):  # type: ignore[no-untyped-def]
    one = z.dtype.type(1)
    for i in range(block):
        P[np.uintp(p + i)] = z[i] - data[np.uintp(target + i)]
        P[np.uintp(p + block + i)] = one


@njit(nogil=True, cache=True)
def _along(P, p, d, out, first, rows):  # type: ignore[no-untyped-def]
    for i in range(rows):
        out[np.uintp(first + i)] = P[np.uintp(p + i)] * d[i]


@njit(nogil=True, cache=True)
def _losses(loss, z, data, label, out, first, rows):  # type: ignore[no-untyped-def]
    zero, half = z.dtype.type(0), z.dtype.type(0.5)
    for i in range(rows):
        if loss == LOGISTIC:
            m = data[label + i] * z[i]
            out[first + i] = max(-m, zero) + math.log1p(math.exp(-abs(m)))
        else:
            out[first + i] = half * (z[i] - data[label + i]) ** 2
