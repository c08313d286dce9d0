"""Softmax regression with few classes or short rows: examples across the vectors.

Where rows are long, a vector holds features of one example, and its scores are sums over the
vector. Of short rows most of the work would be in those sums, and in exponentials of vectors that
few classes fill. Here a vector holds one feature of some examples, so that scores are computed as
the sum over examples is there, and the other way round: the same two tiles, exchanged.

X lies block by block of rows, transposed: number i of feature j of block b is
data[(b · features + j) · block + i]. Zeros fill the features up to whole tiles, and the rows to
whole vectors. W and the sum over examples are `features` rows of C; scores, C rows of `block`.

Two classes have one score, z = S_1 − S_0, since only differences of scores count: their softmax is
σ(−z) and σ(z), and the sum for class 0 is that for class 1 with its sign changed. So what is
written for one score serves logistic regression as well, and half squares beside it, whose targets
lie behind the blocks in `data`.
"""

from __future__ import annotations

import math

from numba import njit

from tinybilevel.kernels.tiles import add_tile, dot_tile, exps

__all__ = [
    "FEATURES",
    "GRAD",
    "GRAD_VJP",
    "KEPT_VJP",
    "LOGISTIC",
    "LOSSES",
    "SOFTMAX",
    "SQUARES",
    "VECTORS",
    "scratch",
    "take_across",
]

LOSSES, GRAD, GRAD_VJP, KEPT_VJP = range(4)
#: What is lost: log Σ exp less the label's score; log(1 + exp(∓z)); ½ (z − target)².
SOFTMAX, LOGISTIC, SQUARES = range(3)
#: Features and vectors of examples in a tile.
FEATURES, VECTORS = 4, 4

# Of five classes, of three and of one.
_add_5, _add_3, _add_1 = (add_tile(VECTORS, classes) for classes in (5, 3, 1))
_dot_5, _dot_3, _dot_1 = (dot_tile(FEATURES, classes, add=True) for classes in (5, 3, 1))


def scratch(scores: int, features: int, block: int) -> int:
    """Return how many numbers of working memory the scores along one W take."""
    return (scores + 2) * block + features


@njit(nogil=True, cache=True)
def take_across(k, product, data, y, weights, W, V, mine, G, per_example, kept, sizes):  # type: ignore[no-untyped-def]
    """Write the sum over the rows of chunk k to G, and to `per_example` and `kept` their part."""
    classes, loss, scores, vector, blocks, block, features = sizes
    S, D, size = mine[0], mine[1], scores * block
    top, total = S[size : size + block], S[size + block : size + 2 * block]
    theta = D[size : size + block]
    if product == KEPT_VJP:
        V = W
    if scores < classes:
        W, V = _differences(W, S[size + 2 * block :]), _differences(V, D[size + 2 * block :])
    G[:] = 0
    for b in range(k * blocks, (k + 1) * blocks):
        first, x = b * block, b * features * block
        rows = min(block, y.size - first)
        if rows <= 0:
            break
        own, out = y[first : first + rows], per_example[first : first + rows]
        if product == KEPT_VJP:
            S[:size] = kept[b * size : (b + 1) * size]
        else:
            _scores(data, x, W, scores, features, rows, block, vector, S)
            if loss == SOFTMAX:
                _softmax(S, scores, block, own, top, total)
            elif loss == SQUARES:
                for i in range(rows):
                    S[i] -= data[data.size - y.size + first + i]
            if product == GRAD and kept.size:
                kept[b * size : (b + 1) * size] = S[:size]
        if product == LOSSES:
            if loss == SOFTMAX:
                for i in range(rows):
                    out[i] = math.log(total[i]) + top[i]
            else:
                _one_loss(loss, S, own, out)
            continue
        for i in range(rows):
            theta[i] = weights[first + i] if weights.size > 1 else weights[0]
        if product != GRAD:
            _scores(data, x, V, scores, features, rows, block, vector, D)
        if loss == SQUARES:
            _one_square(product, S, D, theta, out)
        elif loss == LOGISTIC:
            _one_score(product, S, D, theta, own, out, top)
        elif product == GRAD:
            for c in range(scores):
                _residual(S[c * block :], c, theta, own)
        else:
            _change(S, D, scores, block, theta, own, out, top)
        for c in range(scores):
            S[c * block + rows : (c + 1) * block] = 0
        _sums(data, x, S, scores, features, rows, block, vector, G, classes)
    if scores < classes:
        for j in range(features):
            G[2 * j] = -G[2 * j + 1]


@njit(nogil=True, cache=True)
def _differences(W, out):  # type: ignore[no-untyped-def]
    """Write W_1 − W_0, NaN where it is infinite, as the softmax of an infinite score is."""
    zero = W.dtype.type(0)
    for j in range(out.size):
        change = W[2 * j + 1] - W[2 * j]
        out[j] = change + zero * change
    return out


@njit(nogil=True, cache=True)
def _scores(data, x, W, scores, features, rows, block, vector, S):  # type: ignore[no-untyped-def]
    """S[c, i] = Σ_j W[j, c] x_ij."""
    S[: scores * block] = 0
    for i in range(0, rows, VECTORS * vector):
        c = 0
        while c < scores:
            at, to = x + i, c * block + i
            if scores - c >= 5:
                _add_5(W, c, scores, features, data, at, block, S, to, block)
                c += 5
            elif scores - c >= 3:
                _add_3(W, c, scores, features, data, at, block, S, to, block)
                c += 3
            else:
                _add_1(W, c, scores, features, data, at, block, S, to, block)
                c += 1


@njit(nogil=True, cache=True)
def _sums(data, x, R, scores, features, rows, block, vector, G, classes):  # type: ignore[no-untyped-def]
    """G[j, c] += Σ_i R[c, i] x_ij; one score's go to class 1."""
    n, first = -(-rows // vector), classes - scores
    for j in range(0, features, FEATURES):
        c = 0
        while c < scores:
            at, r, to = x + j * block, c * block, j * classes + first + c
            if scores - c >= 5:
                _dot_5(data, at, block, R, r, block, n, G, to, classes)
                c += 5
            elif scores - c >= 3:
                _dot_3(data, at, block, R, r, block, n, G, to, classes)
                c += 3
            else:
                _dot_1(data, at, block, R, r, block, n, G, to, classes)
                c += 1


@njit(nogil=True, cache=True, error_model="numpy")
def _softmax(S, scores, block, own, top, total):  # type: ignore[no-untyped-def]
    """Turn S into P; write Σ_c exp(S − max) to `total`, and the max less the label's to `top`."""
    rows = own.size
    for i in range(rows):
        top[i] = S[i]
    for c in range(1, scores):
        s = S[c * block :]
        for i in range(rows):
            top[i] = s[i] if s[i] > top[i] else top[i]
    for c in range(scores):
        s = S[c * block :]
        for i in range(rows):
            s[i] -= top[i]
    for i in range(rows):
        top[i] = -S[own[i] * block + i]
    for c in range(scores):
        exps(S, c * block, rows)
    for i in range(rows):
        total[i] = S[i]
    for c in range(1, scores):
        s = S[c * block :]
        for i in range(rows):
            total[i] += s[i]
    for c in range(scores):
        s = S[c * block :]
        for i in range(rows):
            s[i] /= total[i]


@njit(nogil=True, cache=True)
def _residual(P, c, theta, own):  # type: ignore[no-untyped-def]
    """P_i = θ_i (P_i − [c = y_i])."""
    zero = theta.dtype.type(0)
    for i in range(own.size):
        P[i] = theta[i] * P[i] - (theta[i] if own[i] == c else zero)


@njit(nogil=True, cache=True)
def _change(P, D, scores, block, theta, own, out, mean):  # type: ignore[no-untyped-def]
    """Turn P into θ P ∘ (D − mean), mean = Σ_c P ∘ D, and write mean − D_y."""
    rows = own.size
    for i in range(rows):
        mean[i] = P[i] * D[i]
    for c in range(1, scores):
        p, d = P[c * block :], D[c * block :]
        for i in range(rows):
            mean[i] += p[i] * d[i]
    for i in range(rows):
        out[i] = mean[i] - D[own[i] * block + i]
    for c in range(scores):
        p, d = P[c * block :], D[c * block :]
        for i in range(rows):
            p[i] *= theta[i] * (d[i] - mean[i])


@njit(nogil=True, cache=True, error_model="numpy")
def _one_score(product, z, d, theta, own, out, e):  # type: ignore[no-untyped-def]
    """Turn z into θ r, r = −y σ(−yz), y = ±1; or into θ σ'(z) d, and write r d."""
    one, zero, rows = z.dtype.type(1), z.dtype.type(0), own.size
    for i in range(rows):
        e[i] = -abs(z[i])
    exps(e, 0, rows)
    if product == GRAD:
        for i in range(rows):
            label = one if own[i] == 1 else -one
            below = (e[i] if label * z[i] > zero else one) / (one + e[i])
            z[i] = -label * theta[i] * below
        return
    for i in range(rows):
        share, label = one / (one + e[i]), one if own[i] == 1 else -one
        below = (e[i] if label * z[i] > zero else one) * share
        out[i] = -label * below * d[i]
        z[i] = theta[i] * e[i] * share * share * d[i]


@njit(nogil=True, cache=True)
def _one_square(product, r, d, theta, out):  # type: ignore[no-untyped-def]
    """Turn r into θ r; or into θ d, and write r d."""
    for i in range(out.size if product != GRAD else theta.size):
        if product != GRAD:
            out[i] = r[i] * d[i]
            r[i] = d[i]
        r[i] *= theta[i]


@njit(nogil=True, cache=True)
def _one_loss(loss, z, own, out):  # type: ignore[no-untyped-def]
    """Write log(1 + exp(−z)) for class 1, and log(1 + exp(z)) for class 0; or half squares."""
    zero, half = z.dtype.type(0), z.dtype.type(0.5)
    for i in range(own.size):
        if loss == SQUARES:
            out[i] = half * z[i] * z[i]
            continue
        m = z[i] if own[i] == 1 else -z[i]
        out[i] = max(-m, zero) + math.log1p(math.exp(-abs(m)))
