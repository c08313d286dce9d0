"""Whole-loop K-RMD by gradient descent on small dense objectives, for one λ or many at once.

A loop is made for each kind of lower and upper level. What they compute is bound in a closure,
since a compiled function that is handed over as an argument costs a call 14 µs. Numba keeps no
closure on disk: the first call in a process compiles, some seconds.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
from numba import njit

from tinybilevel.kernels.dense import Functions
from tinybilevel.kernels.forms import build
from tinybilevel.kernels.loops import IN_ANY_ORDER
from tinybilevel.kernels.pool import pool, wait
from tinybilevel.kernels.threads import helpers
from tinybilevel.kernels.tiles import count_up

__all__ = ["DenseLoop"]

Array = np.ndarray[Any, np.dtype[Any]]

#: λ of a batch that a thread takes at a time.
_CHUNK = 16


class DenseLoop:
    """K-RMD with w_{t+1} = w_t − γ ∇_w g(w_t, θ).

    Parameters
    ----------
    lower, upper : tuple
        Forms of g and f; see `forms`.
    initial : ndarray (M,)
        w_0, in the dtype of everything else.
    step_size : float
        γ.
    T : int
        Horizon.
    """

    def __init__(self, lower: Any, upper: Any, initial: Array, step_size: float, T: int) -> None:
        self.dtype, self.M = initial.dtype, initial.size
        self._forms = lower, upper
        self._start, self._gamma, self._T = initial, self.dtype.type(step_size), int(T)
        (g, lower_data), (f, upper_data) = build(lower, self.dtype), build(upper, self.dtype)
        if g.grad_vjp is None:
            raise TypeError("the lower level has no compiled grad_vjp")
        self._data = lower_data, upper_data
        self._single, self._many = _loops(g, f)
        self.fits: set[Any] = set()  # shapes of θ that are known to be right

    def __reduce__(self) -> Any:
        # Not what is compiled.
        return DenseLoop, (*self._forms, self._start, float(self._gamma), self._T)

    def __call__(self, theta: Array, K: int, w: Array, h: Array, norms: Array) -> float:
        """Write w_T, h_{T−K} and ‖α_T‖ … ‖α_{T−K}‖; return f, not finite if any of it is not."""
        return self._single(*self._data, self._start, self._gamma, self._T, theta, K, w, h, norms)

    def batch(self, thetas: Array, K: int, values: Array, grads: Array) -> None:
        """Write f and h_{T−K} for each row of `thetas`, in parallel; f as in a call."""
        chunks = -(-len(thetas) // _CHUNK)
        counter = np.zeros(2, np.int64)
        data = *self._data, self._start, self._gamma, self._T
        args = (counter, chunks, *data, thetas, K, values, grads)
        self._many(counter, 0, *data, thetas, K, values, grads)  # compile it before it is shared
        counter[:] = 0
        pool.share(helpers(chunks), self._many, args)
        self._many(*args)
        wait(counter, chunks)


@cache
def _loops(g: Functions, f: Functions) -> tuple[Any, Any]:
    """Return the loop for one θ and the loop for many."""
    grad, grad_vjp, evaluate = g.grad, g.grad_vjp, f.evaluate

    @njit(nogil=True, fastmath=IN_ANY_ORDER)
    def one(g_data, f_data, start, gamma, T, theta, K, w, h, norms, ring, rows):  # type: ignore[no-untyped-def]
        M = start.size
        alpha, change, state = rows[:M], rows[M : 2 * M], rows[2 * M : 3 * M]
        work, slot = rows[3 * M :], 0
        for j in range(M):
            w[j] = start[j]
            alpha[j] = 0
        for i in range(h.size):
            h[i] = 0
        for t in range(T):
            if t >= T - K:
                for j in range(M):
                    ring[slot, j] = w[j]
                slot += 1
            for j in range(M):
                change[j] = 0
            grad(g_data, w, theta, -gamma, change, work)
            for j in range(M):
                w[j] += change[j]
        value = evaluate(f_data, w, theta, start.dtype.type(1), alpha, h, work)
        for k in range(K + 1):
            if k:
                slot -= 1
                for j in range(M):
                    state[j] = ring[slot, j]
                    change[j] = 0
                grad_vjp(g_data, state, theta, alpha, -gamma, change, h, work)
                for j in range(M):
                    alpha[j] += change[j]
            if norms.size:
                square = start.dtype.type(0)
                for j in range(M):
                    square += alpha[j] * alpha[j]
                norms[k] = math.sqrt(square)
        for j in range(M):
            value += 0 * w[j]  # NaN if w_j is not finite
        for i in range(h.size):
            value += 0 * h[i]
        return value

    @njit(nogil=True)
    def single(g_data, f_data, start, gamma, T, theta, K, w, h, norms):  # type: ignore[no-untyped-def]
        ring, rows = np.empty((K, w.size), w.dtype), np.empty(5 * w.size, w.dtype)
        return one(g_data, f_data, start, gamma, T, theta, K, w, h, norms, ring, rows)

    @njit(nogil=True)
    def many(counter, chunks, g_data, f_data, start, gamma, T, thetas, K, values, grads):  # type: ignore[no-untyped-def]
        M, dtype = start.size, start.dtype
        w, norms = np.empty(M, dtype), np.empty(0, dtype)
        ring, rows = np.empty((K, M), dtype), np.empty(5 * M, dtype)
        while True:
            k = count_up(counter, 0, 1)
            if k >= chunks:
                return
            for i in range(k * _CHUNK, min((k + 1) * _CHUNK, len(thetas))):
                # What a user's function raises would end a thread that the caller waits for.
                try:
                    values[i] = one(
                        g_data,
                        f_data,
                        start,
                        gamma,
                        T,
                        thetas[i],
                        K,
                        w,
                        grads[i],
                        norms,
                        ring,
                        rows,
                    )
                except Exception:
                    values[i] = np.nan
            count_up(counter, 1, 1)

    return single, many
