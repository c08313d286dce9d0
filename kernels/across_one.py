"""Losses of one score per example, examples across the vectors.

As in `across`, but a block is one tile of `WIDE` vectors of examples, or half of one where it would
not stay in cache with all of its features; the sum over examples stays in vectors, one for each
feature, until a chunk is done. Behind the blocks, `data` has a number for each example: ±1 as its
label, or its target, and 0 where a block has no example.

Two classes of softmax regression have one score as well, z = S_1 − S_0, since only differences of
scores count: their loss is log(1 + exp(−yz)), y = ±1, and the sum for class 0 is that for class 1
with its sign changed.

With an example are kept ℓ'(z) and ℓ''(z), those of a block one after the other; or, where there is
half as much room, ℓ''(z) alone, which is all that the way back needs without weights.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from tinybilevel.kernels.across import GRAD, GRAD_VJP, KEPT_VJP, LOSSES
from tinybilevel.kernels.compiling import LEAN
from tinybilevel.kernels.tiles import (
    exps,
    fold,
    gather_tile,
    logistic_slopes,
    product_tile,
    relay_tile,
    times,
)

__all__ = ["LOGISTIC", "NEAREST", "SQUARES", "WIDE", "scratch_one", "take_one"]

#: log(1 + exp(−yz)); ½ (z − y)². 0 is softmax.
LOGISTIC, SQUARES = 1, 2
#: Vectors of examples in a tile.
WIDE = 8
#: Bytes that the cache nearest to a core holds, and the second, with room to spare.
NEAREST, SECOND = 40_000, 300_000
#: Of the series of artanh: what comes after them is below 1e-17 of it.
_TERMS = 17

_score, _score_half = (product_tile(1, width, add=False) for width in (WIDE, WIDE // 2))
_gather, _gather_half = gather_tile(WIDE), gather_tile(WIDE // 2)
_relay = relay_tile(WIDE)


def scratch_one(features: int, block: int, vector: int) -> int:
    """Return how many numbers of working memory the scores along one w take."""
    return 3 * block + features * (1 + vector)


@njit(**LEAN)
def take_one(k, product, data, y, weights, W, V, mine, G, per_example, kept, sizes, turn):  # type: ignore[no-untyped-def]
    """Write the sum over the rows of chunk k to G, and to `per_example` and `kept` their part.

    With a gradient `per_example` has the losses, if it has room. With `turn` the last block comes
    first.
    """
    classes, loss, _, vector, blocks, block, features = sizes
    S, D, theta, own = mine[0], mine[1], block, 3 * block
    sums, labels = D[own + features :], data.size // (features + 1) * features
    for i in range(features * vector):
        sums[i] = 0
    if classes == 2:
        V = _difference(V, D[own : own + features])
        W = _difference(W, S[own : own + features])
    # Where slopes, curvatures and the factors of the examples are.
    uniform, keeps, both = weights.size == 1, kept.size > 0, kept.size > labels // features
    P, Q = kept if both else S, kept if keeps else S
    R, half = P if uniform and product == GRAD else S, WIDE // 2 * vector
    start, stop = k * blocks, min((k + 1) * blocks, -(-y.size // block))
    # Whose scores come first, and whether those of the next block have been made with this one.
    Z, ready = D if product == KEPT_VJP else S, False
    tile = block * features * data.itemsize
    near = 2 * tile <= NEAREST and data.size * data.itemsize <= SECOND
    for i in range(start, stop):
        b = start + stop - 1 - i if turn else i
        first, x = b * block, b * features * block
        rows = min(block, y.size - first)
        wide = rows > half
        count = 2 * half if wide else half
        p, q = 2 * first if both else block, first if keeps else 2 * block
        q, r = p + count if both else q, p if uniform and product == GRAD else 0
        if not ready and wide:
            _score(W, 0, 0, 1, features, data, x, block, Z, 0, 0)
        elif not ready:
            _score_half(W, 0, 0, 1, features, data, x, block, Z, 0, 0)
        if product != KEPT_VJP:
            if loss == SQUARES:
                _square_slopes(S, data, labels + first, P, p, Q, q, count)
            elif product != LOSSES:
                curved = product == GRAD_VJP or keeps
                logistic_slopes(S, 0, data, labels + first, count, P, p, Q, q, curved)
        if product == LOSSES or (product == GRAD and per_example.size):
            _losses(loss, S, data, labels + first, count, D, per_example, first, rows)
        if product == LOSSES:
            continue
        if not uniform:
            for j in range(count):
                D[np.uintp(theta + j)] = weights[np.uintp(first + j)] if j < rows else 0
        if product == GRAD_VJP and wide:
            _score(V, 0, 0, 1, features, data, x, block, D, 0, 0)
        elif product == GRAD_VJP:
            _score_half(V, 0, 0, 1, features, data, x, block, D, 0, 0)
        if product != GRAD:
            if per_example.size:
                _along(P, p, D, per_example, first, rows)
            times(Q, q, D, 0, S, 0, count)
        if not uniform and product == GRAD:
            times(P, p, D, theta, S, 0, count)
        elif not uniform:
            times(S, 0, D, theta, S, 0, count)
        ahead = 0 if i + 1 == stop else -features * block if turn else features * block
        ready = near and wide and ahead != 0
        if ready:
            _relay(R, r, data, x, block, features, sums, 0, W, x + ahead, Z)
        elif wide:
            _gather(R, r, data, x, block, features, sums, 0, ahead)
        else:
            _gather_half(R, r, data, x, block, features, sums, 0, ahead)
    fold(sums, 0, features, G, classes - 1, classes)
    if uniform:
        for j in range(classes - 1, classes * features, classes):
            G[np.uintp(j)] *= weights[0]
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
def _square_slopes(z, data, target, P, p, Q, q, count):  # type: ignore[no-untyped-def]
    one = z.dtype.type(1)
    for i in range(count):
        P[np.uintp(p + i)] = z[i] - data[np.uintp(target + i)]
        Q[np.uintp(q + i)] = one


@njit(**LEAN)
def _along(P, p, d, out, first, rows):  # type: ignore[no-untyped-def]
    for i in range(rows):
        out[np.uintp(first + i)] = P[np.uintp(p + i)] * d[i]


@njit(**LEAN)
def _losses(loss, z, data, label, count, e, out, first, rows):  # type: ignore[no-untyped-def]
    """Write ℓ(z); log(1 + e) is 2 artanh(e / (2 + e)), whose series converges fast for e ≤ 1."""
    one, two, half = z.dtype.type(1), z.dtype.type(2), z.dtype.type(0.5)
    if loss == SQUARES:
        for i in range(rows):
            residual = z[i] - data[np.uintp(label + i)]
            out[np.uintp(first + i)] = half * (residual * residual)
        return
    for i in range(count):
        e[i] = -abs(data[np.uintp(label + i)] * z[i])
    exps(e, 0, count)
    e, out = e[:rows], out[first : first + rows]
    for i in range(rows):
        e[i] /= two + e[i]
        out[i] = one / z.dtype.type(2 * _TERMS - 1)
    # Term by term for all examples, which is vectorised.
    for k in range(_TERMS - 2, -1, -1):
        term = one / z.dtype.type(2 * k + 1)
        for i in range(rows):
            out[i] = out[i] * (e[i] * e[i]) + term
    for i in range(rows):
        m = data[np.uintp(label + i)] * z[i]
        out[i] = max(-m, z.dtype.type(0)) + two * e[i] * out[i]
