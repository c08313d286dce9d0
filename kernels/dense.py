"""What small dense objectives compute, compiled: sums of terms, of which each has a kind.

The kind of a term is a number in the data and not in the code, so that Numba keeps one loop on
disk for all problems. A level is a tuple (terms, numbers, whole), as `forms` makes it: a row of
`terms` for each term, see `TERM`, and the data of all, in one dtype and in integers.

What computes a term takes its data, flat, and adds to what it is handed; c = data[0] is its factor:

===============================================  ===================================================
``_evaluate_…(…, w, lam, grad_w, grad_lam)``     returns c g; adds c ∇_w g and c ∇_λ g
``_grad_…(…, w, lam, out)``                      adds c ∇_w g
``_grad_vjp_…(…, w, lam, v, hessian, mixed)``    adds c ∇²_ww g · v and c ∇²_λw g · v
===============================================  ===================================================

`lam` is the term's block of θ; its integers and its flag come after `data` where a kind has them,
and memory for 2 M numbers at the end where it needs that.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from tinybilevel.kernels.compiling import LEAN
from tinybilevel.kernels.dense_linear import evaluate_linear, grad_linear, grad_vjp_linear
from tinybilevel.kernels.loops import IN_ANY_ORDER, _upper
from tinybilevel.kernels.own import call

__all__ = [
    "L2",
    "LEAST_SQUARES",
    "LOGISTIC",
    "OWN",
    "QUADRATIC",
    "SOFTMAX",
    "TERM",
    "UPPER",
    "evaluate",
    "grad",
    "grad_vjp",
]

QUADRATIC, L2, SOFTMAX, LEAST_SQUARES, LOGISTIC, UPPER, OWN = range(7)
#: A row of `terms`: the kind; the block of θ, up to its end where it has −1; which numbers are the
#: data, and which integers; and the flag.
TERM = "kind", "start", "stop", "first", "last", "first_whole", "last_whole", "flag"


@njit(**LEAN, no_cpython_wrapper=True, no_cfunc_wrapper=True, fastmath=IN_ANY_ORDER)
def evaluate(level, w, theta, grad_w, grad_theta, work):  # type: ignore[no-untyped-def]
    """Return g; add ∇_w g and ∇_θ g."""
    value = w.dtype.type(0)
    for k in range(len(level[0])):
        kind, a, b, data, whole, flag = _term(level, k, theta)
        lam, h = theta[a:b], grad_theta[a:b]
        if kind == QUADRATIC:
            value += _evaluate_quadratic(data, flag, w, lam, grad_w, h, work)
        elif kind == L2:
            value += _evaluate_l2(data, whole, flag, w, lam, grad_w, h)
        elif kind == SOFTMAX:
            value += _evaluate_softmax(data, whole, flag, w, lam, grad_w, h, work)
        elif kind == UPPER:
            value += _upper(flag, data[1:], w, lam, grad_w, h)  # always the only term
        elif kind == OWN:
            value += call(whole[0], data[0], w, lam, w, grad_w, h)
        else:
            value += evaluate_linear(kind == LOGISTIC, data, flag, w, lam, grad_w, h)
    return value


@njit(**LEAN, no_cpython_wrapper=True, no_cfunc_wrapper=True, fastmath=IN_ANY_ORDER)
def grad(level, w, theta, out, work):  # type: ignore[no-untyped-def]
    """Add ∇_w g."""
    for k in range(len(level[0])):
        kind, a, b, data, whole, flag = _term(level, k, theta)
        lam = theta[a:b]
        if kind == QUADRATIC:
            _grad_quadratic(data, flag, w, lam, out, work)
        elif kind == L2:
            _grad_l2(data, whole, flag, w, lam, out)
        elif kind == SOFTMAX:
            _grad_softmax(data, whole, flag, w, lam, out, work)
        elif kind == OWN:
            status = call(whole[1], data[0], w, lam, w, out, lam)
            out[0] += 0 * status  # NaN where it has raised
        else:
            grad_linear(kind == LOGISTIC, data, flag, w, lam, out)


@njit(**LEAN, no_cpython_wrapper=True, no_cfunc_wrapper=True, fastmath=IN_ANY_ORDER)
def grad_vjp(level, w, theta, v, hessian, mixed, work):  # type: ignore[no-untyped-def]
    """Add ∇²_ww g · v and ∇²_θw g · v."""
    for k in range(len(level[0])):
        kind, a, b, data, whole, flag = _term(level, k, theta)
        lam, h = theta[a:b], mixed[a:b]
        if kind == QUADRATIC:
            _grad_vjp_quadratic(data, flag, v, hessian, h)
        elif kind == L2:
            _grad_vjp_l2(data, whole, flag, w, lam, v, hessian, h)
        elif kind == SOFTMAX:
            _grad_vjp_softmax(data, whole, flag, w, lam, v, hessian, h, work)
        elif kind == OWN:
            status = call(whole[2], data[0], w, lam, v, hessian, h)
            hessian[0] += 0 * status
            if mixed.size:  # the last ∇²_ww g · v is no part of the result
                mixed[0] += 0 * status
        else:
            grad_vjp_linear(kind == LOGISTIC, data, flag, w, lam, v, hessian, h)


@njit(inline="always")
def _term(level, k, theta):  # type: ignore[no-untyped-def]
    terms, numbers, whole = level
    stop = terms[k, 2] if terms[k, 2] >= 0 else theta.size
    data, integers = numbers[terms[k, 3] : terms[k, 4]], whole[terms[k, 5] : terms[k, 6]]
    return terms[k, 0], terms[k, 1], stop, data, integers, terms[k, 7]


# Data: c, d (M), G (M × M or M), C (M × N, or none where it is the identity). Flag: a diagonal G.


@njit(**LEAN, no_cpython_wrapper=True, no_cfunc_wrapper=True, fastmath=IN_ANY_ORDER)
def _evaluate_quadratic(data, diagonal, w, lam, grad_w, grad_lam, work):  # type: ignore[no-untyped-def]
    r, G, C = _residual(data, diagonal, w, lam, work)
    value = w.dtype.type(0)
    for j in range(w.size):
        curved = data[0] * _row(G, diagonal, r, j)
        value += curved * r[j] / 2
        grad_w[j] += curved
        _pull(C, j, -curved, grad_lam)
    return value


@njit(**LEAN, no_cpython_wrapper=True, no_cfunc_wrapper=True, fastmath=IN_ANY_ORDER)
def _grad_quadratic(data, diagonal, w, lam, out, work):  # type: ignore[no-untyped-def]
    r, G, _ = _residual(data, diagonal, w, lam, work)
    for j in range(w.size):
        out[j] += data[0] * _row(G, diagonal, r, j)


@njit(**LEAN, no_cpython_wrapper=True, no_cfunc_wrapper=True, fastmath=IN_ANY_ORDER)
def _grad_vjp_quadratic(data, diagonal, v, hessian, mixed):  # type: ignore[no-untyped-def]
    _, G, C = _split(data, diagonal, v.size)
    for j in range(v.size):
        curved = data[0] * _row(G, diagonal, v, j)
        hessian[j] += curved
        _pull(C, j, -curved, mixed)


@njit(inline="always")
def _split(data, diagonal, M):  # type: ignore[no-untyped-def]
    first, last = 1 + M, 1 + M + (M if diagonal else M * M)
    return data[1:first], data[first:last], data[last:]


@njit(inline="always")
def _residual(data, diagonal, w, lam, work):  # type: ignore[no-untyped-def]
    """Return w − C λ − d, with G and C."""
    d, G, C = _split(data, diagonal, w.size)
    r, N = work[: w.size], lam.size
    for j in range(w.size):
        r[j] = w[j] - d[j]
        if C.size:
            for i in range(N):
                r[j] -= C[np.uintp(j * N + i)] * lam[i]
        else:
            r[j] -= lam[j]
    return r, G, C


@njit(**LEAN, no_cpython_wrapper=True, no_cfunc_wrapper=True, fastmath=IN_ANY_ORDER)
def _row(G, diagonal, v, j):  # type: ignore[no-untyped-def]
    """Entry j of G v."""
    if diagonal:
        return G[j] * v[j]
    total = v.dtype.type(0)
    for k in range(v.size):
        total += G[np.uintp(j * v.size + k)] * v[k]
    return total


@njit(**LEAN, no_cpython_wrapper=True, no_cfunc_wrapper=True, fastmath=IN_ANY_ORDER)
def _pull(C, j, x, out):  # type: ignore[no-untyped-def]
    """Add Cᵀ x, of which this is entry j of x."""
    if C.size:
        for i in range(out.size):
            out[i] += C[np.uintp(j * out.size + i)] * x
    else:
        out[j] += x


# Data: c, fixed strengths; whole: the group of each w_j, or none. Flag: strengths are λ.


@njit(**LEAN, no_cpython_wrapper=True, no_cfunc_wrapper=True, fastmath=IN_ANY_ORDER)
def _evaluate_l2(data, groups, learned, w, lam, grad_w, grad_lam):  # type: ignore[no-untyped-def]
    c, rho, value = data[0], lam if learned else data[1:], w.dtype.type(0)
    _grad_l2(data, groups, learned, w, lam, grad_w)
    for j in range(w.size):
        k = groups[j] if groups.size else 0
        value += c * rho[k] * w[j] * w[j]
        if learned:
            grad_lam[k] += c * w[j] * w[j]
    return value


@njit(**LEAN, no_cpython_wrapper=True, no_cfunc_wrapper=True, fastmath=IN_ANY_ORDER)
def _grad_l2(data, groups, learned, w, lam, out):  # type: ignore[no-untyped-def]
    twice, rho = data[0] + data[0], lam if learned else data[1:]
    if groups.size:
        for j in range(w.size):
            out[j] += twice * rho[groups[j]] * w[j]
    else:
        twice *= rho[0]
        for j in range(w.size):
            out[j] += twice * w[j]


@njit(**LEAN, no_cpython_wrapper=True, no_cfunc_wrapper=True, fastmath=IN_ANY_ORDER)
def _grad_vjp_l2(data, groups, learned, w, lam, v, hessian, mixed):  # type: ignore[no-untyped-def]
    _grad_l2(data, groups, learned, v, lam, hessian)
    if not learned:
        return
    twice, total = data[0] + data[0], w.dtype.type(0)
    if groups.size:
        for j in range(w.size):
            mixed[groups[j]] += twice * w[j] * v[j]
    else:
        for j in range(w.size):
            total += w[j] * v[j]
        mixed[0] += twice * total


# Data: c, X row by row; whole: y. Flag: examples have weights λ.


@njit(**LEAN, no_cpython_wrapper=True, no_cfunc_wrapper=True, fastmath=IN_ANY_ORDER)
def _evaluate_softmax(data, y, weighted, w, lam, grad_w, grad_lam, work):  # type: ignore[no-untyped-def]
    c, X, S = data[0], data[1:], _one_row(data, y, w, work)
    value = w.dtype.type(0)
    for i in range(y.size):
        _scores(X, i, w, S)
        own = S[y[i]]
        loss = c * (_softmax(S) - own)
        theta = lam[i] if weighted else w.dtype.type(1)
        value += theta * loss
        if weighted:
            grad_lam[i] += loss
        S[y[i]] -= 1
        _add_outer(c * theta, S, X, i, grad_w)
    return value


@njit(**LEAN, no_cpython_wrapper=True, no_cfunc_wrapper=True, fastmath=IN_ANY_ORDER)
def _grad_softmax(data, y, weighted, w, lam, out, work):  # type: ignore[no-untyped-def]
    c, X, S = data[0], data[1:], _one_row(data, y, w, work)
    for i in range(y.size):
        _scores(X, i, w, S)
        _softmax(S)
        S[y[i]] -= 1
        _add_outer(c * lam[i] if weighted else c, S, X, i, out)


@njit(**LEAN, no_cpython_wrapper=True, no_cfunc_wrapper=True, fastmath=IN_ANY_ORDER)
def _grad_vjp_softmax(data, y, weighted, w, lam, v, hessian, mixed, work):  # type: ignore[no-untyped-def]
    c, X, P = data[0], data[1:], _one_row(data, y, w, work)
    D = work[P.size : 2 * P.size]
    for i in range(y.size):
        _scores(X, i, w, P)
        _softmax(P)
        _scores(X, i, v, D)
        mean = w.dtype.type(0)
        for k in range(P.size):
            mean += P[k] * D[k]
        if weighted:
            mixed[i] += c * (mean - D[y[i]])
        for k in range(P.size):
            P[k] *= D[k] - mean
        _add_outer(c * lam[i] if weighted else c, P, X, i, hessian)


@njit(inline="always")
def _one_row(data, y, w, work):  # type: ignore[no-untyped-def]
    """Return memory for the scores of an example."""
    return work[: w.size * y.size // (data.size - 1)]


@njit(**LEAN, no_cpython_wrapper=True, no_cfunc_wrapper=True, fastmath=IN_ANY_ORDER)
def _scores(X, i, w, S):  # type: ignore[no-untyped-def]
    """S = W x_i."""
    d = w.size // S.size
    for k in range(S.size):
        total = w.dtype.type(0)
        for j in range(d):
            total += w[np.uintp(k * d + j)] * X[np.uintp(i * d + j)]
        S[k] = total


@njit(**LEAN, no_cpython_wrapper=True, no_cfunc_wrapper=True, fastmath=IN_ANY_ORDER)
def _softmax(S):  # type: ignore[no-untyped-def]
    """Turn S into its softmax; return log Σ exp S."""
    top, total = S[0], S.dtype.type(0)
    for k in range(1, S.size):
        top = max(top, S[k])
    for k in range(S.size):
        S[k] = math.exp(S[k] - top)
        total += S[k]
    for k in range(S.size):
        S[k] /= total
    return top + math.log(total)


@njit(**LEAN, no_cpython_wrapper=True, no_cfunc_wrapper=True, fastmath=IN_ANY_ORDER)
def _add_outer(scale, r, X, i, out):  # type: ignore[no-untyped-def]
    """Add scale r x_iᵀ."""
    d = out.size // r.size
    for k in range(r.size):
        for j in range(d):
            out[np.uintp(k * d + j)] += scale * r[k] * X[np.uintp(i * d + j)]
