"""Losses of one linear score per example, compiled; `dense` says what each body takes."""

from __future__ import annotations

import math
from typing import Any

from numba import njit

from tinybilevel.kernels.dense import Functions

__all__ = ["LINEAR"]


@njit(nogil=True, inline="always")
def _half_square(z, y):  # type: ignore[no-untyped-def]
    """Return ℓ, ℓ' and ℓ'' of ½ (z − y)²."""
    r = z - y
    return r * r / 2, r, type(r)(1)


@njit(nogil=True, inline="always")
def _log_one_plus_exp(z, y):  # type: ignore[no-untyped-def]
    """Return those of log(1 + exp(−y z)), y = ±1; nothing overflows."""
    m = y * z
    e = math.exp(-abs(m))
    below = (e if m > 0 else type(e)(1)) / (1 + e)  # σ(−m)
    return max(-m, type(m)(0)) + math.log1p(e), -y * below, e / ((1 + e) * (1 + e))


@njit(nogil=True, inline="always")
def _dot(x, w):  # type: ignore[no-untyped-def]
    total = w.dtype.type(0)
    for j in range(x.size):
        total += x[j] * w[j]
    return total


def _linear(parts: Any) -> Functions:
    """Return g = s Σ_i θ_i ℓ_i(x_i·w); the data are (X, y, s, weighted)."""

    @njit(nogil=True, inline="always")
    def evaluate(data, w, lam, scale, grad_w, grad_lam, work):  # type: ignore[no-untyped-def]
        X, y, s, weighted = data
        value = w.dtype.type(0)
        for i in range(y.size):
            loss, slope, _ = parts(_dot(X[i], w), y[i])
            theta = lam[i] if weighted else w.dtype.type(1)
            value += scale * s * theta * loss
            if weighted:
                grad_lam[i] += scale * s * loss
            for j in range(w.size):
                grad_w[j] += scale * s * theta * slope * X[i, j]
        return value

    @njit(nogil=True, inline="always")
    def grad(data, w, lam, scale, out, work):  # type: ignore[no-untyped-def]
        X, y, s, weighted = data
        for i in range(y.size):
            _, slope, _ = parts(_dot(X[i], w), y[i])
            theta = lam[i] if weighted else w.dtype.type(1)
            for j in range(w.size):
                out[j] += scale * s * theta * slope * X[i, j]

    @njit(nogil=True, inline="always")
    def grad_vjp(data, w, lam, v, scale, hessian, mixed, work):  # type: ignore[no-untyped-def]
        X, y, s, weighted = data
        for i in range(y.size):
            _, slope, curvature = parts(_dot(X[i], w), y[i])
            along = _dot(X[i], v)
            theta = lam[i] if weighted else w.dtype.type(1)
            if weighted:
                mixed[i] += scale * s * slope * along
            for j in range(w.size):
                hessian[j] += scale * s * theta * curvature * along * X[i, j]

    return Functions(evaluate, grad, grad_vjp)


LINEAR = {"least squares": _linear(_half_square), "logistic": _linear(_log_one_plus_exp)}
