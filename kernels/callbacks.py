"""Whole-loop K-RMD on small problems given by jitted functions, compiled into the loop.

The loop is made anew for each problem: functions that it closes over are called as fast as code of
its own, functions that it were handed would cost 14 µs a call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from tinybilevel.kernels.loops import _upper
from tinybilevel.kernels.pool import pool, threads, wait
from tinybilevel.kernels.tiles import count_up

__all__ = ["FunctionLoop", "known_upper", "quadratic"]

Array = np.ndarray[Any, np.dtype[Any]]
Function = Callable[..., Any]

#: λ of a batch that a thread takes at a time.
_CHUNK = 16


class FunctionLoop:
    """K-RMD with w_{t+1} = w_t − γ ∇_w g(w_t, λ), in float64.

    Parameters
    ----------
    lower : pair of jitted functions
        ``grad(w, lam)`` and ``grad_vjp(w, lam, v)``, as in `tinybilevel.Objective`.
    upper : triple of jitted functions
        ``value``, ``grad`` and ``grad_lam`` of ``(w, lam)``; None for the last means 0.
    initial : ndarray (M,)
        w_0.
    N : int
        Size of λ.
    step_size : float
        γ.
    T : int
        Horizon.
    """

    def __init__(
        self,
        lower: tuple[Function, Function],
        upper: tuple[Function, Function, Function | None],
        initial: Array,
        N: int,
        step_size: float,
        T: int,
    ) -> None:
        self.M, self.N = len(initial), N
        self._parts = lower, upper, initial, N, step_size, T
        self._data = np.array(initial, float), float(step_size), int(T)
        value, grad, grad_lam = upper
        self._one, self._many = _make(*lower, value, grad, grad_lam or _nothing)

    def __reduce__(self) -> Any:
        return FunctionLoop, self._parts

    def __call__(self, lam: Array, K: int, w: Array, grad: Array, norms: Array) -> float:
        """Write w_T, h_{T−K} and ‖α_T‖ … ‖α_{T−K}‖; return f."""
        return self._one(*self._data, lam, K, w, grad, norms)

    def batch(self, lams: Array, K: int, values: Array, grads: Array) -> None:
        """Write f and h_{T−K} for each row of `lams`, in parallel."""
        chunks = -(-len(lams) // _CHUNK)
        counter = np.zeros(2, np.int64)
        args = (counter, chunks, *self._data, lams, K, values, grads)
        pool.share(min(threads(), chunks) - 1, self._many, args)
        self._many(*args)
        wait(counter, chunks)


@njit(nogil=True, cache=True)
def _nothing(w, lam):  # type: ignore[no-untyped-def]
    return np.zeros(lam.size)


def _make(
    lower_grad: Function,
    lower_vjp: Function,
    value: Function,
    upper_grad: Function,
    upper_grad_lam: Function,
) -> tuple[Function, Function]:
    @njit(nogil=True)
    def one(initial, gamma, T, lam, K, w, h, norms):  # type: ignore[no-untyped-def]
        slots = K + 1
        ring = np.empty((slots, w.size))
        ring[0] = initial
        for t in range(T):
            now, then = ring[t % slots], ring[(t + 1) % slots]
            step = lower_grad(now, lam)
            for j in range(w.size):
                then[j] = now[j] - gamma * step[j]
        w[:] = ring[T % slots]
        found = value(w, lam)
        alpha = np.empty(w.size)
        alpha[:] = upper_grad(w, lam)
        h[:] = upper_grad_lam(w, lam)
        norms[0] = np.sqrt((alpha * alpha).sum())
        for k in range(K):
            hessian, mixed = lower_vjp(ring[(T - 1 - k) % slots], lam, gamma * alpha)
            for j in range(w.size):
                alpha[j] -= hessian[j]
            for i in range(h.size):
                h[i] -= mixed[i]
            norms[k + 1] = np.sqrt((alpha * alpha).sum())
        return float(found)

    @njit(nogil=True)
    def many(counter, chunks, initial, gamma, T, lams, K, values, grads):  # type: ignore[no-untyped-def]
        w, norms = np.empty(initial.size), np.empty(K + 1)
        while True:
            k = count_up(counter, 0, 1)
            if k >= chunks:
                return
            for i in range(k * _CHUNK, min((k + 1) * _CHUNK, len(lams))):
                values[i] = one(initial, gamma, T, lams[i], K, w, grads[i], norms)
            count_up(counter, 1, 1)

    return one, many


def quadratic(G: Array, C: Array | None, d: Array) -> tuple[Function, Function]:
    """Return ∇g and its vjp for g = ½ (w − Cλ − d)ᵀ G (w − Cλ − d); a vector G is a diagonal."""
    M = len(d)
    curvature = np.diag(G) if G.ndim == 1 else np.array(G, float)
    linear, offset = np.eye(M) if C is None else np.array(C, float), np.array(d, float)

    @njit
    def times(A, v):  # type: ignore[no-untyped-def]
        return (A * v).sum(axis=1)

    @njit
    def grad(w, lam):  # type: ignore[no-untyped-def]
        return times(curvature, w - times(linear, lam) - offset)

    @njit
    def grad_vjp(w, lam, v):  # type: ignore[no-untyped-def]
        Gv = times(curvature, v)
        return Gv, -times(linear.T, Gv)

    return grad, grad_vjp


def known_upper(kind: int, data: Array) -> tuple[Function, Function, Function]:
    """Return the functions of one of the upper levels of `loops`."""

    @njit
    def all_of_it(w, lam):  # type: ignore[no-untyped-def]
        grad_w, grad_lam = np.empty(w.size), np.empty(lam.size)
        return _upper(kind, data, w, lam, grad_w, grad_lam), grad_w, grad_lam

    @njit
    def value(w, lam):  # type: ignore[no-untyped-def]
        return all_of_it(w, lam)[0]

    @njit
    def grad(w, lam):  # type: ignore[no-untyped-def]
        return all_of_it(w, lam)[1]

    @njit
    def grad_lam(w, lam):  # type: ignore[no-untyped-def]
        return all_of_it(w, lam)[2]

    return value, grad, grad_lam
