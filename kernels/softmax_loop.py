"""T steps of gradient descent on softmax regression with an L2 penalty, and K back, on threads.

g = s Σ_i θ_i ℓ_i(W) + ρ‖W‖², so that a step is (1 − 2γρ) w − γ s Σ_i …, and a product likewise.
From one step to the next nobody returns to the interpreter. States lie as the kernels read them,
and a step is one pass over the data.

The work is a queue of tickets, numbered. A step has a ticket for each chunk of rows and then one
for each piece of w; who takes a ticket waits until all tickets of what came before are done. So
whoever is there takes the next one, and nobody waits for a thread that has not come.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from tinybilevel.kernels.pool import pool, wait
from tinybilevel.kernels.softmax import GRAD, GRAD_VJP, KEPT_VJP, Softmax, aligned, take_chunk
from tinybilevel.kernels.tiles import count_up

__all__ = ["SoftmaxLoop"]

Array = np.ndarray[Any, np.dtype[Any]]

#: Pieces of w, of which each is one thread's at a time.
_PIECES = 4


class SoftmaxLoop:
    """The forward and the backward pass, with the upper level between them left to the caller.

    Parameters
    ----------
    lower : Softmax
        ℓ_i.
    start : ndarray (M,)
        w_0, in the dtype of X.
    step_size, penalty, scale : float
        γ, ρ and s.
    T : int
        Horizon.
    remember : int
        How many of the last softmaxes to keep for the backward pass.
    """

    def __init__(
        self,
        lower: Softmax,
        start: Array,
        step_size: float,
        penalty: float,
        scale: float,
        T: int,
        remember: int = 0,
    ) -> None:
        M = lower.n_classes * lower.shape[1]
        if start.size != M:
            raise ValueError(f"initial must have {M} entries, got {start.size}")
        self.lower, self.T, self.remember = lower, T, remember
        self.start = aligned((lower.width,), lower.dtype)
        lower.matrix(self.start)[...] = start.reshape(lower.n_classes, -1)
        number = lower.dtype.type
        self.factors = number(1 - 2 * step_size * penalty), number(-step_size * scale)

    def forward(self, theta: Array, K: int) -> tuple[Array, Run]:
        """Return w_T (M,), and what `backward` needs."""
        run = Run(self, theta, K)
        run.ring[self.T % len(run.ring)] = self.start
        run.go(_descend, self.T, len(run.ring), run.ring, run.kept)
        return self._flat(run.ring[0]), run

    def backward(self, run: Run, alpha: Array, h: Array) -> Array:
        """Add to h what h_{T−K} has more than h_T; return ‖α_{T−1}‖², …, ‖α_{T−K}‖²."""
        alphas = aligned((2, self.lower.width), self.lower.dtype)
        self.lower.matrix(alphas[0])[...] = alpha.reshape(self.lower.n_classes, -1)
        squares = np.zeros((run.K, _PIECES), h.dtype)
        run.go(_ascend, run.K, run.ring, alphas, h, squares, np.empty_like(h), run.kept)
        return squares.sum(axis=1)

    def _flat(self, state: Array) -> Array:
        return np.ascontiguousarray(self.lower.matrix(state)).reshape(-1)


class Run:
    """The memory of one hypergradient: w_{T−t} lies in ring[t % len(ring)], its softmax in kept."""

    def __init__(self, loop: SoftmaxLoop, theta: Array, K: int) -> None:
        lower = loop.lower
        self.lower, self.theta, self.K, self.factors = lower, theta, K, loop.factors
        self.ring = aligned((max(K, 1) + 1, lower.width), lower.dtype)
        self.kept = aligned((min(K, loop.remember), lower.room_size), lower.dtype)
        self._scratch, self._sums = lower.loop_memory()

    def go(self, work: Any, steps: int, *arrays: Any) -> None:
        """Have all threads work off the tickets of so many steps."""
        lower = self.lower
        # The next ticket, how many are done, and the next thread's scratch.
        counter = np.zeros(3, np.int64)
        data = lower.X, lower.y, lower.sizes, lower.layout, self.theta, *self.factors
        args = (counter, steps, *data, self._scratch, self._sums, *arrays)
        pool.share(lower.threads - 1, work, args)
        work(*args)
        wait(counter, steps * (len(self._sums) + _PIECES))


@njit(nogil=True, cache=True)
def _next(counter, steps, chunks):  # type: ignore[no-untyped-def]
    """Take a ticket, and wait for its turn; return its step, or −1 if none is left, and which."""
    each = chunks + _PIECES
    k = count_up(counter, 0, 1)
    step, which = k // each, k % each
    if step >= steps:
        return -1, 0
    wait(counter, step * each + (chunks if which >= chunks else 0))
    return step, which


@njit(nogil=True, cache=True)
def _update(piece, layout, keep, scale, sums, w, out):  # type: ignore[no-untyped-def]
    """Write some rows of keep w + scale Σ_k sums[k] to out; return their square norm."""
    rows, length, ld, sum_ld = layout
    each = -(-rows // _PIECES)
    first, last = piece * each, min((piece + 1) * each, rows)
    total, square = sums[0], w.dtype.type(0)
    for k in range(1, sums.shape[0]):
        for j in range(first * sum_ld, last * sum_ld):
            total[j] += sums[k, j]
    for i in range(first, last):
        for j in range(length):
            x = keep * w[i * ld + j] + scale * total[i * sum_ld + j]
            out[i * ld + j] = x
            square += x * x
    return square


@njit(nogil=True, cache=True)
def _descend(  # type: ignore[no-untyped-def]
    counter, T, X, y, sizes, layout, theta, keep, scale, scratch, sums, rows, ring, kept
):
    mine = scratch[count_up(counter, 2, 1)]
    chunks = sums.shape[0]
    while True:
        t, which = _next(counter, T, chunks)
        if t < 0:
            return
        w, nowhere = ring[(T - t) % rows], theta[:0]
        if which < chunks:
            place = T - 1 - t
            P = kept[place] if place < kept.shape[0] else nowhere
            take_chunk(which, GRAD, X, y, theta, w, w, mine, sums[which], nowhere, P, sizes)
        else:
            _update(which - chunks, layout, keep, scale, sums, w, ring[(T - t - 1) % rows])
        count_up(counter, 1, 1)


@njit(nogil=True, cache=True)
def _ascend(  # type: ignore[no-untyped-def]
    counter,
    K,
    X,
    y,
    sizes,
    layout,
    theta,
    keep,
    scale,
    scratch,
    sums,
    ring,
    alphas,
    h,
    squares,
    along,
    kept,
):
    mine = scratch[count_up(counter, 2, 1)]
    chunks = sums.shape[0]
    _, _, _, _, blocks, block = sizes
    while True:
        k, which = _next(counter, K, chunks)
        if k < 0:
            return
        w, alpha, nowhere = ring[k + 1], alphas[k % 2], theta[:0]
        if which < chunks:
            G = sums[which]
            if k < kept.shape[0]:
                P = kept[k]
                take_chunk(which, KEPT_VJP, X, y, theta, alpha, alpha, mine, G, along, P, sizes)
            else:
                take_chunk(which, GRAD_VJP, X, y, theta, w, alpha, mine, G, along, nowhere, sizes)
            first = which * blocks * block
            for i in range(first, min(first + blocks * block, y.size)):
                h[i] += scale * along[i]
        else:
            piece, out = which - chunks, alphas[(k + 1) % 2]
            squares[k, piece] = _update(piece, layout, keep, scale, sums, alpha, out)
        count_up(counter, 1, 1)
