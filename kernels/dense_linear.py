"""Losses of one linear score per example, compiled; `dense` says what each body takes.

Data: c, y, X row by row. Flag: examples have weights λ.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from tinybilevel.kernels.compiling import LEAN
from tinybilevel.kernels.loops import IN_ANY_ORDER

__all__ = ["evaluate_linear", "grad_linear", "grad_vjp_linear"]


@njit(**LEAN, no_cpython_wrapper=True, no_cfunc_wrapper=True, fastmath=IN_ANY_ORDER)
def _parts(logistic, z, y):  # type: ignore[no-untyped-def]
    """Return ℓ, ℓ' and ℓ'' of log(1 + exp(−y z)), y = ±1, or of ½ (z − y)²."""
    if not logistic:
        r = z - y
        return r * r / 2, r, type(r)(1)
    m = y * z
    e = math.exp(-abs(m))  # nothing overflows
    below = (e if m > 0 else type(e)(1)) / (1 + e)  # σ(−m)
    return max(-m, type(m)(0)) + math.log1p(e), -y * below, e / ((1 + e) * (1 + e))


@njit(**LEAN, no_cpython_wrapper=True, no_cfunc_wrapper=True, fastmath=IN_ANY_ORDER)
def _dot(X, i, w):  # type: ignore[no-untyped-def]
    """Return x_i · w."""
    total = w.dtype.type(0)
    for j in range(w.size):
        total += X[np.uintp(i * w.size + j)] * w[j]
    return total


@njit(**LEAN, no_cpython_wrapper=True, no_cfunc_wrapper=True, fastmath=IN_ANY_ORDER)
def _add(scale, X, i, out):  # type: ignore[no-untyped-def]
    """Add scale x_i."""
    for j in range(out.size):
        out[j] += scale * X[np.uintp(i * out.size + j)]


@njit(inline="always")
def _examples(data, w):  # type: ignore[no-untyped-def]
    n = (data.size - 1) // (1 + w.size)
    return data[0], data[1 : 1 + n], data[1 + n :]


@njit(**LEAN, no_cpython_wrapper=True, no_cfunc_wrapper=True, fastmath=IN_ANY_ORDER)
def evaluate_linear(logistic, data, weighted, w, lam, grad_w, grad_lam):  # type: ignore[no-untyped-def]
    """Return c g; add c ∇_w g and c ∇_λ g."""
    c, y, X = _examples(data, w)
    value = w.dtype.type(0)
    for i in range(y.size):
        loss, slope, _ = _parts(logistic, _dot(X, i, w), y[i])
        theta = lam[i] if weighted else w.dtype.type(1)
        value += c * theta * loss
        if weighted:
            grad_lam[i] += c * loss
        _add(c * theta * slope, X, i, grad_w)
    return value


@njit(**LEAN, no_cpython_wrapper=True, no_cfunc_wrapper=True, fastmath=IN_ANY_ORDER)
def grad_linear(logistic, data, weighted, w, lam, out):  # type: ignore[no-untyped-def]
    """Add c ∇_w g."""
    c, y, X = _examples(data, w)
    for i in range(y.size):
        _, slope, _ = _parts(logistic, _dot(X, i, w), y[i])
        _add((c * lam[i] if weighted else c) * slope, X, i, out)


@njit(**LEAN, no_cpython_wrapper=True, no_cfunc_wrapper=True, fastmath=IN_ANY_ORDER)
def grad_vjp_linear(logistic, data, weighted, w, lam, v, hessian, mixed):  # type: ignore[no-untyped-def]
    """Add c ∇²_ww g · v and c ∇²_λw g · v."""
    c, y, X = _examples(data, w)
    for i in range(y.size):
        _, slope, curvature = _parts(logistic, _dot(X, i, w), y[i])
        along = _dot(X, i, v)
        if weighted:
            mixed[i] += c * slope * along
        _add((c * lam[i] if weighted else c) * curvature * along, X, i, hessian)
