"""What small dense objectives compute, compiled: the bodies that `dense_loops` puts into its loops.

Each takes the data first and adds to what it is handed:

==========================================================  ====================================
``evaluate(data, w, lam, scale, grad_w, grad_lam, work)``   returns s g; adds s ∇_w g and s ∇_λ g
``grad(data, w, lam, scale, out, work)``                    adds s ∇_w g
``grad_vjp(data, w, lam, v, scale, hessian, mixed, work)``  adds s ∇²_ww g · v and s ∇²_λw g · v
==========================================================  ====================================

s stands for `scale`; `work` is memory for 2 M numbers. Data are arguments and never constants of
the code, so that all problems of one form share it. All of it is put into the loop in place, by
``inline``: a call would count the users of each array that it takes, again at every step.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from tinybilevel.kernels.loops import _upper

__all__ = ["OWN", "Functions", "add"]


class Functions(NamedTuple):
    """What an objective can compute; see the top of this file."""

    evaluate: Any
    grad: Any
    grad_vjp: Any


@njit(nogil=True, inline="always")
def _evaluate_quadratic(data, w, lam, scale, grad_w, grad_lam, work):  # type: ignore[no-untyped-def]
    G, C, d = data
    r = _residual(C, d, w, lam, work)
    value = w.dtype.type(0)
    for j in range(w.size):
        curved = scale * _row(G, r, j)
        value += curved * r[j] / 2
        grad_w[j] += curved
        _pull(C, j, -curved, grad_lam)
    return value


@njit(nogil=True, inline="always")
def _grad_quadratic(data, w, lam, scale, out, work):  # type: ignore[no-untyped-def]
    G, C, d = data
    r = _residual(C, d, w, lam, work)
    for j in range(w.size):
        out[j] += scale * _row(G, r, j)


@njit(nogil=True, inline="always")
def _grad_vjp_quadratic(data, w, lam, v, scale, hessian, mixed, work):  # type: ignore[no-untyped-def]
    G, C, _ = data
    for j in range(w.size):
        curved = scale * _row(G, v, j)
        hessian[j] += curved
        _pull(C, j, -curved, mixed)


@njit(nogil=True, inline="always")
def _residual(C, d, w, lam, r):  # type: ignore[no-untyped-def]
    """r = w − C λ − d."""
    for j in range(w.size):
        r[j] = w[j] - d[j]
        if C.shape[0]:
            for i in range(lam.size):
                r[j] -= C[j, i] * lam[i]
        else:
            r[j] -= lam[j]
    return r


@njit(nogil=True, inline="always")
def _row(G, v, j):  # type: ignore[no-untyped-def]
    """Entry j of G v; a G of one row is a diagonal."""
    M = G.shape[1]
    if G.shape[0] < M:
        return G[0, j] * v[j]
    total = v.dtype.type(0)
    for k in range(M):
        total += G[j, k] * v[k]
    return total


@njit(nogil=True, inline="always")
def _pull(C, j, x, out):  # type: ignore[no-untyped-def]
    """Add Cᵀ x, of which this is entry j of x."""
    if C.shape[0]:
        for i in range(out.size):
            out[i] += C[j, i] * x
    else:
        out[j] += x


@njit(nogil=True, inline="always")
def _evaluate_l2(data, w, lam, scale, grad_w, grad_lam, work):  # type: ignore[no-untyped-def]
    fixed, groups, learned = data
    value = w.dtype.type(0)
    for j in range(w.size):
        k = groups[j] if groups.size else 0
        rho = lam[k] if learned else fixed[k]
        square = scale * w[j] * w[j]
        value += rho * square
        grad_w[j] += 2 * scale * rho * w[j]
        if learned:
            grad_lam[k] += square
    return value


@njit(nogil=True, inline="always")
def _grad_l2(data, w, lam, scale, out, work):  # type: ignore[no-untyped-def]
    fixed, groups, learned = data
    for j in range(w.size):
        k = groups[j] if groups.size else 0
        out[j] += 2 * scale * (lam[k] if learned else fixed[k]) * w[j]


@njit(nogil=True, inline="always")
def _grad_vjp_l2(data, w, lam, v, scale, hessian, mixed, work):  # type: ignore[no-untyped-def]
    fixed, groups, learned = data
    for j in range(w.size):
        k = groups[j] if groups.size else 0
        hessian[j] += 2 * scale * (lam[k] if learned else fixed[k]) * v[j]
        if learned:
            mixed[k] += 2 * scale * w[j] * v[j]


@njit(nogil=True, inline="always")
def _scores(x, w, S):  # type: ignore[no-untyped-def]
    """S = W x."""
    for c in range(S.size):
        total = w.dtype.type(0)
        for j in range(x.size):
            total += w[c * x.size + j] * x[j]
        S[c] = total


@njit(nogil=True, inline="always")
def _softmax(S):  # type: ignore[no-untyped-def]
    """Turn S into its softmax; return log Σ exp S."""
    top = S.max()
    total = S.dtype.type(0)
    for c in range(S.size):
        S[c] = math.exp(S[c] - top)
        total += S[c]
    for c in range(S.size):
        S[c] /= total
    return top + math.log(total)


@njit(nogil=True, inline="always")
def _add_outer(scale, r, x, out):  # type: ignore[no-untyped-def]
    for c in range(r.size):
        for j in range(x.size):
            out[c * x.size + j] += scale * r[c] * x[j]


@njit(nogil=True, inline="always")
def _evaluate_softmax(data, w, lam, scale, grad_w, grad_lam, work):  # type: ignore[no-untyped-def]
    X, y, s, weighted = data
    S = work[: w.size // X.shape[1]]
    value = w.dtype.type(0)
    for i in range(y.size):
        _scores(X[i], w, S)
        own = S[y[i]]
        loss = scale * s * (_softmax(S) - own)
        theta = lam[i] if weighted else w.dtype.type(1)
        value += theta * loss
        if weighted:
            grad_lam[i] += loss
        S[y[i]] -= 1
        _add_outer(scale * s * theta, S, X[i], grad_w)
    return value


@njit(nogil=True, inline="always")
def _grad_softmax(data, w, lam, scale, out, work):  # type: ignore[no-untyped-def]
    X, y, s, weighted = data
    S = work[: w.size // X.shape[1]]
    for i in range(y.size):
        _scores(X[i], w, S)
        _softmax(S)
        S[y[i]] -= 1
        theta = lam[i] if weighted else w.dtype.type(1)
        _add_outer(scale * s * theta, S, X[i], out)


@njit(nogil=True, inline="always")
def _grad_vjp_softmax(data, w, lam, v, scale, hessian, mixed, work):  # type: ignore[no-untyped-def]
    X, y, s, weighted = data
    C = w.size // X.shape[1]
    P, D = work[:C], work[C : 2 * C]
    for i in range(y.size):
        _scores(X[i], w, P)
        _softmax(P)
        _scores(X[i], v, D)
        mean = w.dtype.type(0)
        for c in range(C):
            mean += P[c] * D[c]
        if weighted:
            mixed[i] += scale * s * (mean - D[y[i]])
        theta = lam[i] if weighted else w.dtype.type(1)
        for c in range(C):
            P[c] *= D[c] - mean
        _add_outer(scale * s * theta, P, X[i], hessian)


@njit(nogil=True, inline="always")
def _evaluate_upper(data, w, lam, scale, grad_w, grad_lam, work):  # type: ignore[no-untyped-def]
    """Take an upper level of `loops`."""
    kind, numbers = data
    direct_w, direct_lam = np.empty_like(w), np.empty_like(lam)
    value = _upper(kind, numbers, w, lam, direct_w, direct_lam)
    add(scale, direct_w, grad_w)
    add(scale, direct_lam, grad_lam)
    return scale * value


@njit(nogil=True, inline="always")
def add(scale, x, out):  # type: ignore[no-untyped-def]
    """Add scale x to out."""
    for j in range(out.size):
        out[j] += scale * x[j]


OWN = {
    "quadratic": Functions(_evaluate_quadratic, _grad_quadratic, _grad_vjp_quadratic),
    "l2": Functions(_evaluate_l2, _grad_l2, _grad_vjp_l2),
    "softmax": Functions(_evaluate_softmax, _grad_softmax, _grad_vjp_softmax),
    "upper": Functions(_evaluate_upper, None, None),
}
