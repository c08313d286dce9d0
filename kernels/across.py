"""Softmax regression with few classes or short rows: examples across the vectors.

Where rows are long, a vector holds features of one example, and its scores are sums over the
vector. Of short rows most of the work would be in those sums, and in exponentials of vectors that
few classes fill. Here a vector holds one feature of some examples, so that scores are computed as
the sum over examples is there, and the other way round: the same two tiles, exchanged.

X lies block by block of rows, transposed: number i of feature j of block b is
data[(b · features + j) · block + i]. Zeros fill the features up to whole tiles, and the rows to
whole vectors. W and the sum over examples are `features` rows of C; scores, C rows of `block`.

Two classes have one score, and are left to `across_one`.
"""

from __future__ import annotations

import math

from numba import njit

from tinybilevel.kernels.compiling import APART, LEAN
from tinybilevel.kernels.tiles import add_tile, dot_tile, exps

__all__ = [
    "FEATURES",
    "GRAD",
    "GRAD_VJP",
    "KEPT_VJP",
    "LOSSES",
    "VECTORS",
    "scratch",
    "take_across",
]

LOSSES, GRAD, GRAD_VJP, KEPT_VJP = range(4)
#: Features and vectors of examples in a tile.
FEATURES, VECTORS = 4, 4

# Of five classes, of three and of one.
_add_5, _add_3, _add_1 = (add_tile(VECTORS, classes) for classes in (5, 3, 1))
_dot_5, _dot_3, _dot_1 = (dot_tile(FEATURES, classes, add=True) for classes in (5, 3, 1))


def scratch(classes: int, block: int) -> int:
    """Return how many numbers of working memory the scores along one W take."""
    return (classes + 2) * block


@njit(**APART)
def take_across(k, product, data, y, weights, W, V, mine, G, per_example, kept, sizes):  # type: ignore[no-untyped-def]
    """Write the sum over the rows of chunk k to G, and to `per_example` and `kept` their part."""
    classes, _, _, vector, blocks, block, features = sizes
    S, D, size = mine[0], mine[1], classes * block
    top, total = S[size : size + block], S[size + block : size + 2 * block]
    theta = D[size : size + block]
    if product == KEPT_VJP:
        V = W
    G[:] = 0
    for b in range(k * blocks, (k + 1) * blocks):
        first, x = b * block, b * features * block
        rows = min(block, y.size - first)
        if rows <= 0:
            break
        own, out = y[first : first + rows], per_example[first : first + rows]
        if product == KEPT_VJP:
            _copy(kept[b * size : (b + 1) * size], S[:size])
        else:
            _scores(data, x, W, classes, features, rows, block, vector, S)
            _softmax(S, classes, block, own, top, total)
            if product == GRAD and kept.size:
                _copy(S[:size], kept[b * size : (b + 1) * size])
        if product == LOSSES or (product == GRAD and out.size):
            for i in range(rows):
                out[i] = math.log(total[i]) + top[i]
        if product == LOSSES:
            continue
        for i in range(rows):
            theta[i] = weights[first + i] if weights.size > 1 else weights[0]
        if product == GRAD:
            for c in range(classes):
                _residual(S[c * block :], c, theta, own)
        else:
            _scores(data, x, V, classes, features, rows, block, vector, D)
            _change(S, D, classes, block, theta, own, out, top)
        for c in range(classes):
            S[c * block + rows : (c + 1) * block] = 0
        _sums(data, x, S, classes, features, rows, block, vector, G)


@njit(**LEAN)
def _copy(x, out):  # type: ignore[no-untyped-def]
    for i in range(out.size):
        out[i] = x[i]


@njit(**LEAN)
def _scores(data, x, W, classes, features, rows, block, vector, S):  # type: ignore[no-untyped-def]
    """S[c, i] = Σ_j W[j, c] x_ij."""
    for i in range(0, rows, VECTORS * vector):
        c = 0
        while c < classes:
            at, to = x + i, c * block + i
            if classes - c >= 5:
                _add_5(W, c, classes, features, data, at, block, S, to, block, 0)
                c += 5
            elif classes - c >= 3:
                _add_3(W, c, classes, features, data, at, block, S, to, block, 0)
                c += 3
            else:
                _add_1(W, c, classes, features, data, at, block, S, to, block, 0)
                c += 1


@njit(**LEAN)
def _sums(data, x, R, classes, features, rows, block, vector, G):  # type: ignore[no-untyped-def]
    """G[j, c] += Σ_i R[c, i] x_ij."""
    n = -(-rows // vector)
    for j in range(0, features, FEATURES):
        c = 0
        while c < classes:
            at, r, to = x + j * block, c * block, j * classes + c
            if classes - c >= 5:
                _dot_5(data, at, block, R, r, block, n, G, to, classes)
                c += 5
            elif classes - c >= 3:
                _dot_3(data, at, block, R, r, block, n, G, to, classes)
                c += 3
            else:
                _dot_1(data, at, block, R, r, block, n, G, to, classes)
                c += 1


@njit(**LEAN, error_model="numpy")
def _softmax(S, classes, block, own, top, total):  # type: ignore[no-untyped-def]
    """Turn S into P; write Σ_c exp(S − max) to `total`, and the max less the label's to `top`."""
    rows = own.size
    for i in range(rows):
        top[i] = S[i]
    for c in range(1, classes):
        s = S[c * block :]
        for i in range(rows):
            top[i] = s[i] if s[i] > top[i] else top[i]
    for c in range(classes):
        s = S[c * block :]
        for i in range(rows):
            s[i] -= top[i]
    for i in range(rows):
        top[i] = -S[own[i] * block + i]
    for c in range(classes):
        exps(S, c * block, rows)
    for i in range(rows):
        total[i] = S[i]
    for c in range(1, classes):
        s = S[c * block :]
        for i in range(rows):
            total[i] += s[i]
    for c in range(classes):
        s = S[c * block :]
        for i in range(rows):
            s[i] /= total[i]


@njit(**LEAN)
def _residual(P, c, theta, own):  # type: ignore[no-untyped-def]
    """P_i = θ_i (P_i − [c = y_i])."""
    zero = theta.dtype.type(0)
    for i in range(own.size):
        P[i] = theta[i] * P[i] - (theta[i] if own[i] == c else zero)


@njit(**LEAN)
def _change(P, D, classes, block, theta, own, out, mean):  # type: ignore[no-untyped-def]
    """Turn P into θ P ∘ (D − mean), mean = Σ_c P ∘ D, and write mean − D_y."""
    rows = own.size
    for i in range(rows):
        mean[i] = P[i] * D[i]
    for c in range(1, classes):
        p, d = P[c * block :], D[c * block :]
        for i in range(rows):
            mean[i] += p[i] * d[i]
    for i in range(rows):
        out[i] = mean[i] - D[own[i] * block + i]
    for c in range(classes):
        p, d = P[c * block :], D[c * block :]
        for i in range(rows):
            p[i] *= theta[i] * (d[i] - mean[i])
