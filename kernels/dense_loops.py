"""Whole-loop K-RMD on small dense objectives, by any algorithm, for one λ or many at once.

What the levels compute is in `dense`, and what a step does to w in `updates`. Numba keeps the loop
on disk, one for all problems of a dtype.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numba import njit

from tinybilevel.kernels.compiling import LEAN
from tinybilevel.kernels.dense import evaluate, grad, grad_vjp
from tinybilevel.kernels.forms import Level
from tinybilevel.kernels.loops import IN_ANY_ORDER
from tinybilevel.kernels.moves import restless, watch
from tinybilevel.kernels.pool import pool, wait
from tinybilevel.kernels.threads import helpers
from tinybilevel.kernels.tiles import count_up
from tinybilevel.kernels.updates import (
    BUFFERS,
    NESTEROV,
    advance,
    direction,
    keeps_gradient,
    point,
    retreat,
)

__all__ = ["DenseLoop", "Found"]

Array = np.ndarray[Any, np.dtype[Any]]

#: λ of a batch that a thread takes at a time.
_CHUNK = 16


class Found(NamedTuple):
    """What a call finds; `along` is what h has more by entry of w, for γ, and for μ or τ."""

    value: float  # not finite if anything is not
    state: Array  # w_T and its buffers, (1 + b, M)
    h: Array
    norms: Array  # ‖α_T‖ … ‖α_{T−K}‖
    along: Array
    alpha: Array  # α_{T−K}, (1 + b, M)
    restless: bool  # whether the last steps swing and are longer than the first


class DenseLoop:
    """The steps of an algorithm of `updates` on g, f, and K steps back.

    Parameters
    ----------
    lower, upper : tuple
        Forms of g and f; see `forms`.
    M : int
        Entries of w.
    dtype : dtype
        Of everything.
    kind : int
        The algorithm, one of `updates`.
    numbers : ndarray (T, ·)
        What `updates` calls c, for each step.
    learned : bool
        Whether h holds what `each` does, see `updates`.
    """

    def __init__(
        self,
        lower: Any,
        upper: Any,
        M: int,
        dtype: Any,
        kind: int,
        numbers: Array,
        learned: bool = False,
    ) -> None:
        self._made_of = lower, upper, M, dtype, kind, numbers, learned
        self.M, self.dtype = M, np.dtype(dtype)
        self._lower, self._upper = Level(lower, dtype), Level(upper, dtype)
        if self._lower.upper_only:
            raise TypeError("the lower level has no compiled grad_vjp")
        self._keeps, self._learned = keeps_gradient(kind, learned), learned
        self._rule = kind, np.ascontiguousarray(numbers, dtype), self._keeps
        self.fits: set[Any] = set()  # shapes of θ that are known to be right

    def __reduce__(self) -> Any:
        return DenseLoop, self._made_of  # addresses hold in this process alone

    def held(self, K: int) -> int:
        """Return the bytes of the states and gradients that the way back needs."""
        states = (max(K, 1) + 1) * (1 + BUFFERS[self._rule[0]])
        return (states + (max(K, 1) if self._keeps else 0)) * self.M * self.dtype.itemsize

    def __call__(self, theta: Array, K: int, given: Array) -> Found:
        """Run forward and K steps back.

        `given` are the rows of the state at w_0, 1 + b, and then the two that `updates` calls each.
        """
        T, M, shape = len(self._rule[1]), self.M, (len(given) - 2, self.M)
        size, more = shape[0] * M, 2 * M if self._learned else 0
        # In one array: each that a compiled function is handed costs 0.2 µs.
        ends = np.empty(2 * size + more + 4 + K + theta.size, self.dtype)
        value = _single(self._levels, self._rule, given, theta, K, more, ends)
        state, alpha = ends[:size].reshape(shape), ends[size : 2 * size].reshape(shape)
        along, ends = ends[2 * size : 2 * size + more].reshape(-1, M), ends[2 * size + more :]
        swings = bool(ends[1] < 0) and restless(T, ends[None, :3])
        norms, h = ends[3 : 4 + K], ends[4 + K :]
        return Found(float(value), state, h, norms, along, alpha, swings)

    def batch(self, thetas: Array, K: int, given: Array) -> tuple[Array, Array]:
        """Return f and h_{T−K} for each row of `thetas`, in parallel; f as in a call."""
        values, grads = np.empty(len(thetas), self.dtype), np.empty_like(thetas)
        chunks = -(-len(thetas) // _CHUNK)
        counter = np.zeros(2, np.int64)
        args = (self._levels, self._rule, given, thetas, K, values, grads)
        _many(counter, 0, *args)  # compile it before it is shared
        counter[:] = 0
        pool.share(helpers(chunks), _many, (counter, chunks, *args))
        _many(counter, chunks, *args)
        wait(counter, chunks)
        return values, grads

    @cached_property
    def _levels(self) -> tuple[Any, Any]:
        return self._lower.data(1, 2), self._upper.data(0)


@njit(nogil=True, cache=True)
def _single(levels, rule, given, theta, K, more, ends):  # type: ignore[no-untyped-def]
    rows, M = given.shape[0] - 2, given.shape[1]
    state, ends = ends[: rows * M].reshape((rows, M)), ends[rows * M :]
    alpha, ends = ends[: rows * M].reshape((rows, M)), ends[rows * M :]
    along, ends = ends[:more].reshape((2, more // 2)), ends[more:]
    moves, norms, h = ends[:3], ends[3 : 4 + K], ends[4 + K :]
    along[:], moves[:] = 0, 0
    ends_ = state, alpha, along, moves, norms, h
    return _one(levels, rule, given, theta, K, ends_, _memory(rows, M, K, rule[2], ends))


@njit(nogil=True, cache=True)
def _many(counter, chunks, levels, rule, given, thetas, K, values, grads):  # type: ignore[no-untyped-def]
    rows, M = given.shape[0] - 2, given.shape[1]
    state, alpha = np.empty((2, rows, M), given.dtype)
    along, moves, norms = np.empty((2, 0), given.dtype), values[:0], values[:0]
    memory = _memory(rows, M, K, rule[2], values)
    while True:
        k = count_up(counter, 0, 1)
        if k >= chunks:
            return
        for i in range(k * _CHUNK, min((k + 1) * _CHUNK, len(thetas))):
            ends = state, alpha, along, moves, norms, grads[i]
            values[i] = _one(levels, rule, given, thetas[i], K, ends, memory)
        count_up(counter, 1, 1)


@njit(nogil=True, cache=True)
def _memory(rows, M, K, keeps, like):  # type: ignore[no-untyped-def]
    """Return it for K + 1 states, for gradients, and for six vectors.

    The state w_{T−k} lies in ring[k % len(ring)], the gradient of step T − 1 − k in
    grads[k % len(grads)].
    """
    ring = np.empty((max(K, 1) + 1, rows, M), like.dtype)
    grads = np.empty((max(K, 1) if keeps else 1, M), like.dtype)
    return ring, grads, np.empty(6 * M, like.dtype)


@njit(**LEAN, fastmath=IN_ANY_ORDER)
def _one(levels, rule, given, theta, K, ends, memory):  # type: ignore[no-untyped-def]
    (kind, numbers, _), (ring, grads, rows) = rule, memory
    (lower, upper), (state, alpha, along, moves, norms, h) = levels, ends
    T, M, B, rings = len(numbers), given.shape[1], len(state), len(ring)
    start, each = given[:B], given[B:]
    y, u, Hu = rows[:M], rows[M : 2 * M], rows[2 * M : 3 * M]
    move, work = rows[3 * M : 4 * M], rows[4 * M :]
    _copy(start, ring[T % rings])
    for t in range(T):
        k = T - t
        now, new, g = ring[k % rings], ring[(k - 1) % rings], grads[(k - 1) % len(grads)]
        w = now[0]
        if kind == NESTEROV:
            point(kind, numbers[t], each, now, y, 0, M)
            w = y
        for j in range(M):
            g[j] = 0
        grad(lower, w, theta, g, work)
        advance(kind, numbers[t], each, g, now, new, 0, M)
        if moves.size and (t == 0 or t >= T - 2):
            watch(t, T, now[0], new[0], move, moves, 0, M)
    _copy(ring[0], state)
    for i in range(h.size):
        h[i] = 0
    for b in range(len(alpha)):
        for j in range(M):
            alpha[b, j] = 0
    value = evaluate(upper, state[0], theta, alpha[0], h, work)
    if norms.size:
        norms[0] = _norm(alpha)
    for i in range(h.size):
        h[i] = -h[i]  # B α is subtracted
    for k in range(1, K + 1):
        c, now, g = numbers[T - k], ring[k], grads[(k - 1) % len(grads)]
        w = now[0]
        if kind == NESTEROV:
            point(kind, c, each, now, y, 0, M)
            w = y
        direction(kind, c, each, g, now, alpha, u, along, 0, M)
        for j in range(M):
            Hu[j] = 0
        grad_vjp(lower, w, theta, u, Hu, h, work)
        retreat(kind, c, each, Hu, now, alpha, along, 0, M)
        if norms.size:
            norms[k] = _norm(alpha)
    for i in range(h.size):
        h[i] = -h[i]
        value += 0 * h[i]  # NaN if it is not finite
    for j in range(M):
        value += 0 * state[0, j]
    return value


@njit(**LEAN)
def _copy(rows, out):  # type: ignore[no-untyped-def]
    for b in range(len(rows)):
        for j in range(rows.shape[1]):
            out[b, j] = rows[b, j]


@njit(**LEAN, fastmath=IN_ANY_ORDER)
def _norm(alpha):  # type: ignore[no-untyped-def]
    square = alpha.dtype.type(0)
    for row in alpha:
        for j in range(row.size):
            square += row[j] * row[j]
    return math.sqrt(square)
