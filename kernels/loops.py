"""Whole-loop K-RMD on a quadratic lower level, for one λ or for many at once.

With g = ½ (w − c)ᵀ G (w − c), c = C λ + d, the products do not depend on w_t: A = I − γG and
B = γ Cᵀ G. So no state is kept, and C is applied twice per hypergradient, not twice per step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numba import njit

from tinybilevel.kernels.pool import pool, wait
from tinybilevel.kernels.threads import helpers
from tinybilevel.kernels.tiles import count_up

__all__ = ["IN_ANY_ORDER", "RIPPLED", "SQUARES", "QuadraticLoop"]

Array = np.ndarray[Any, np.dtype[Any]]

#: Upper levels. ‖w‖² + 10 ‖sin w‖² + a ‖λ − (1, 0)‖², with a = data[0].
RIPPLED = 0
#: ½ Σ_j a_j (w_j − b_j)² + ½ρ Σ_i (λ_i − t)², with a, b, ρ, t in a row in data.
SQUARES = 1

#: λ of a batch that a thread takes at a time.
_CHUNK = 64
#: Entries of w that are taken together where each runs for itself.
_FEW = 64
#: What lets sums be taken in vectors; nothing else of IEEE arithmetic is given up.
IN_ANY_ORDER = {"reassoc", "contract"}


class QuadraticLoop:
    """K-RMD with w_{t+1} = w_t − γ G (w_t − C λ − d), in float64.

    Parameters
    ----------
    G : ndarray (M, M) or (M,)
        Symmetric; a vector is a diagonal.
    C : ndarray (M, N) or None
        None is the identity.
    d, initial : ndarray (M,)
        Offset of c, and w_0.
    step_size : float
        γ.
    T : int
        Horizon.
    upper : int
        `RIPPLED` or `SQUARES`.
    upper_data : ndarray
        Its parameters.
    """

    def __init__(
        self,
        G: Array,
        C: Array | None,
        d: Array,
        initial: Array,
        step_size: float,
        T: int,
        upper: int,
        upper_data: Array,
    ) -> None:
        self.M = len(initial)
        self.N = self.M if C is None else C.shape[1]
        # In one array: each that a compiled function is handed costs 0.1 µs.
        parts = G, np.empty(0) if C is None else C, d, initial, upper_data
        self.numbers = np.concatenate([np.ravel(part).astype(float) for part in parts])
        self.sizes = self.M, self.N, int(T), int(upper), G.ndim == 1, C is not None
        self.step_size = float(step_size)

    def __call__(self, lam: Array, K: int, w: Array, grad: Array, norms: Array) -> float:
        """Write w_T, h_{T−K} and ‖α_T‖ … ‖α_{T−K}‖; return f, not finite if any of it is not."""
        return _single(self.numbers, self.step_size, self.sizes, lam, K, w, grad, norms)

    def batch(self, lams: Array, K: int, values: Array, grads: Array) -> None:
        """Write f and h_{T−K} for each row of `lams`, in parallel; f as in a call."""
        self.batch_over([self], lams, K, values, grads)

    def batch_over(
        self, loops: Sequence[QuadraticLoop], lams: Array, K: int, values: Array, grads: Array
    ) -> None:
        """Do so with a loop for each row, or one for all; their sizes are the same."""
        numbers = np.stack([loop.numbers for loop in loops])
        gammas = np.array([loop.step_size for loop in loops])
        chunks = -(-len(lams) // _CHUNK)
        counter = np.zeros(2, np.int64)
        args = (counter, chunks, numbers, gammas, self.sizes, lams, K, values, grads)
        pool.share(helpers(chunks), _many, args)
        _many(*args)
        wait(counter, chunks)


@njit(nogil=True, cache=True)
def _single(numbers, gamma, sizes, lam, K, w, grad, norms):  # type: ignore[no-untyped-def]
    work = np.empty((4, w.size))
    return _one(numbers, gamma, sizes, lam, K, w, grad, norms, work)


@njit(nogil=True, cache=True)
def _many(counter, chunks, numbers, gammas, sizes, lams, K, values, grads):  # type: ignore[no-untyped-def]
    M = sizes[0]
    w, norms, work = np.empty(M), np.empty(0), np.empty((4, M))
    while True:
        k = count_up(counter, 0, 1)
        if k >= chunks:
            return
        for i in range(k * _CHUNK, min((k + 1) * _CHUNK, len(lams))):
            p = min(i, len(numbers) - 1)
            values[i] = _one(numbers[p], gammas[p], sizes, lams[i], K, w, grads[i], norms, work)
        count_up(counter, 1, 1)


@njit(nogil=True, cache=True, fastmath=IN_ANY_ORDER)
def _one(numbers, gamma, sizes, lam, K, w, grad, norms, work):  # type: ignore[no-untyped-def]
    M, N, T, upper, diagonal, mapped = sizes
    size_G, size_C = (M if diagonal else M * M), (M * N if mapped else 0)
    G, C = numbers[:size_G], numbers[size_G : size_G + size_C]
    d, initial = numbers[size_G + size_C :], numbers[size_G + size_C + M :]
    upper_data = numbers[size_G + size_C + 2 * M :]
    center, alpha, total, curved = work[0], work[1], work[2], work[3]
    for j in range(M):
        total[j] = 0.0
        center[j] = d[j]
        w[j] = initial[j]
        if mapped:
            for i in range(N):
                center[j] += C[j * N + i] * lam[i]
        else:
            center[j] += lam[j]
    if diagonal:
        # Each entry of w runs for itself: a few of them, all T steps.
        for first in range(0, M, _FEW):
            few = slice(first, min(first + _FEW, M))
            for j in range(few.start, few.stop):
                alpha[j], curved[j] = w[j] - center[j], 1 - gamma * G[j]
            _shrink(alpha[few], curved[few], T)
            for j in range(few.start, few.stop):
                w[j] = center[j] + alpha[j]
    else:
        for _ in range(T):
            for j in range(M):
                alpha[j] = w[j] - center[j]
            _multiply(G, alpha, curved)
            for j in range(M):
                w[j] -= gamma * curved[j]
    value = _upper(upper, upper_data, w, lam, alpha, grad)
    norms[:] = 0
    if norms.size:
        for j in range(M):
            norms[0] += alpha[j] * alpha[j]
    if diagonal:
        for first in range(0, M, _FEW):
            few = slice(first, min(first + _FEW, M))
            _shrink_and_sum(alpha[few], curved[few], K, total[few], norms)
            for j in range(few.start, few.stop):
                total[j] *= gamma * G[j]
    else:
        for k in range(K):
            _multiply(G, alpha, curved)
            for j in range(M):
                total[j] += gamma * curved[j]
                alpha[j] -= gamma * curved[j]
                if norms.size:
                    norms[k + 1] += alpha[j] * alpha[j]
    for k in range(norms.size):
        norms[k] = math.sqrt(norms[k])
    for j in range(M):
        if mapped:
            for i in range(N):
                grad[i] += C[j * N + i] * total[j]
        else:
            grad[j] += total[j]
    for i in range(N):
        value += 0 * grad[i]  # NaN if it is not finite; f sees all of w
    return value


@njit(nogil=True, cache=True)
def _shrink(away, keep, T):  # type: ignore[no-untyped-def]
    """away *= keep, T times."""
    if away.size == _FEW:  # in vectors
        for _ in range(T):
            for j in range(_FEW):
                away[j] *= keep[j]
        return
    for j in range(away.size):
        a = away[j]
        for _ in range(T):
            a *= keep[j]
        away[j] = a


@njit(nogil=True, cache=True, fastmath=IN_ANY_ORDER)
def _shrink_and_sum(alpha, keep, K, total, norms):  # type: ignore[no-untyped-def]
    """K times, total += alpha and alpha *= keep; add its square norms to norms[1:]."""
    if alpha.size == _FEW:
        for k in range(K):
            square = 0.0
            for j in range(_FEW):
                total[j] += alpha[j]
                alpha[j] *= keep[j]
                square += alpha[j] * alpha[j]
            if norms.size:
                norms[k + 1] += square
        return
    for j in range(alpha.size):
        a = alpha[j]
        for k in range(K):
            total[j] += a
            a *= keep[j]
            if norms.size:
                norms[k + 1] += a * a


@njit(nogil=True, cache=True, fastmath=IN_ANY_ORDER)
def _multiply(G, v, out):  # type: ignore[no-untyped-def]
    for i in range(v.size):
        total = 0.0
        for j in range(v.size):
            total += G[i * v.size + j] * v[j]
        out[i] = total


@njit(nogil=True, cache=True)
def _upper(kind, data, w, lam, grad_w, grad_lam):  # type: ignore[no-untyped-def]
    """Write ∇_w f and ∇_λ f, and return f."""
    value = 0.0
    if kind == RIPPLED:
        for j in range(w.size):
            s = math.sin(w[j])
            value += w[j] * w[j] + 10 * s * s
            grad_w[j] = 2 * w[j] + 10 * math.sin(2 * w[j])
        for i in range(lam.size):
            direct = lam[i] - (1.0 if i == 0 else 0.0)
            value += data[0] * direct * direct
            grad_lam[i] = 2 * data[0] * direct
        return value
    M = w.size
    rho, target = data[2 * M], data[2 * M + 1]
    for j in range(M):
        r = w[j] - data[M + j]
        value += 0.5 * data[j] * r * r
        grad_w[j] = data[j] * r
    for i in range(lam.size):
        direct = lam[i] - target
        value += 0.5 * rho * direct * direct
        grad_lam[i] = rho * direct
    return value
