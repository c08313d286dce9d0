"""T steps of gradient descent on softmax regression with an L2 penalty, and K back, on threads.

g = s Σ_i θ_i ℓ_i(W) + ρ‖W‖², so that a step is w − (2γρ w + γ s Σ_i …), and a product likewise.
From one step to the next nobody returns to the interpreter. States lie as the kernels read them,
and a step is one pass over the data.

The work is a queue of tickets, numbered. A step has a ticket for each chunk of rows and then one
for each piece of w, and a ticket is there to be taken once all tickets of what came before are
done. So whoever is there takes the next one, and nobody waits for a thread that has not come.

Nor for one that has lost its core to another process in the middle of a chunk: whoever has waited
for it too long does that chunk as well. Each thread has a row for the sum of every chunk, and the
first to be done says where it is; the sum is the same, and what the late one brings is left.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from tinybilevel.kernels.pool import LOOKS, core, part, pool, rest, wait
from tinybilevel.kernels.softmax import GRAD, GRAD_VJP, KEPT_VJP, Softmax, aligned, take_chunk
from tinybilevel.kernels.tiles import count_up, swap

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
        # Looks for some two chunks' time.
        self.patience = max(lower.X[0].size // lower.chunks // 8, LOOKS)
        # Not 1 − 2γρ, whose rounding would be the same at every step.
        self.factors = number(2 * step_size * penalty), number(-step_size * scale)

    def alone(self) -> SoftmaxLoop:
        """Return the same loop on the calling thread, with the same data."""
        loop, lower = object.__new__(SoftmaxLoop), object.__new__(Softmax)
        lower.__dict__.update(self.lower.__dict__, threads=1, _as_free=False)
        loop.__dict__.update(self.__dict__, lower=lower)
        return loop

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
        along = np.empty((self.lower.threads, h.size), h.dtype)
        run.go(_ascend, run.K, run.ring, alphas, h, squares, along, run.kept)
        return squares.sum(axis=1)

    def _flat(self, state: Array) -> Array:
        return np.ascontiguousarray(self.lower.matrix(state)).reshape(-1)


class Run:
    """The memory of one hypergradient: w_{T−t} lies in ring[t % len(ring)], its softmax in kept."""

    def __init__(self, loop: SoftmaxLoop, theta: Array, K: int) -> None:
        lower = loop.lower
        self.loop, self.theta, self.K = loop, theta, K
        self.ring = aligned((max(K, 1) + 1, lower.width), lower.dtype)
        self.kept = aligned((min(K, loop.remember), lower.room_size), lower.dtype)
        self._scratch, self._sums = lower.loop_memory(lower.threads)

    def go(self, work: Any, steps: int, *arrays: Any) -> None:
        """Have all threads work off the tickets of so many steps."""
        loop, lower = self.loop, self.loop.lower
        chunks = lower.chunks
        # The next ticket, how many are done, the next thread's scratch, and −1 for each at work.
        counter = np.zeros(4, np.int64)
        # How often each step's chunks are done, and where among the sums the step's chunks are.
        done, places = np.zeros(steps * chunks, np.int64), np.zeros(chunks, np.int64)
        queue = counter, steps, done, places, np.full((lower.threads, 2), [-1, 0])
        data = lower.X, lower.y, lower.sizes, lower.layout, self.theta, *loop.factors, loop.patience
        args = (queue, *data, self._scratch, self._sums, *arrays)
        pool.share(lower.helpers(), work, args)
        work(*args)
        # The late ones too, who write to what is ours.
        wait(counter[2:], 0)


@njit(nogil=True, cache=True)
def _next(queue, patience, me):  # type: ignore[no-untyped-def]
    """Wait for the next ticket and take it; return its step, or −1 if none is left, and which.

    After so many looks, return a chunk that another thread is at.
    """
    counter, steps, done, places, cores = queue
    chunks = places.size
    each, looks = chunks + _PIECES, 0
    cores[me, 0] = core()
    while True:
        k = count_up(counter, 0, 0)
        step, which = k // each, k % each
        if step >= steps:
            return -1, 0
        if count_up(counter, 1, 0) >= step * each + (chunks if which >= chunks else 0):
            if swap(counter, 0, k, k + 1):
                return step, which
            continue
        looks += 1
        if looks < patience:
            continue
        part(cores, me)
        if which >= chunks:
            for late in range(chunks):
                if count_up(done, step * chunks + late, 0) == 0:
                    return step, late
        else:
            # Whoever is to write a piece may need this core. Not above, where the scheduler would
            # bring all threads to a core that has nothing to do for a moment, and leave them there.
            rest()


@njit(nogil=True, cache=True)
def _hand_in(queue, step, which, place):  # type: ignore[no-untyped-def]
    """Say where the sum of a chunk lies; return False if another thread has done so."""
    _, _, done, places, _ = queue
    if count_up(done, step * places.size + which, 1):
        return False
    places[which] = place
    return True


@njit(nogil=True, cache=True)
def _update(piece, layout, shrink, scale, sums, places, w, out):  # type: ignore[no-untyped-def]
    """Write some rows of w + scale Σ_k sums[places[k]] − shrink w; return their square norm."""
    rows, length, ld, sum_ld = layout
    each = -(-rows // _PIECES)
    first, last = piece * each, min((piece + 1) * each, rows)
    total, square = sums[places[0]], w.dtype.type(0)
    for k in range(1, places.size):
        addend = sums[places[k]]
        for j in range(first * sum_ld, last * sum_ld):
            total[j] += addend[j]
    for i in range(first, last):
        for j in range(length):
            x = w[i * ld + j] + (scale * total[i * sum_ld + j] - shrink * w[i * ld + j])
            out[i * ld + j] = x
            square += x * x
    return square


@njit(nogil=True, cache=True)
def _descend(  # type: ignore[no-untyped-def]
    queue, X, y, sizes, layout, theta, shrink, scale, patience, scratch, sums, rows, ring, kept
):
    counter, T, _, places, _ = queue
    chunks, me = places.size, count_up(counter, 2, 1)
    count_up(counter, 3, -1)
    while True:
        t, which = _next(queue, patience, me)
        if t < 0:
            break
        w, nowhere = ring[(T - t) % rows], theta[:0]
        if which < chunks:
            place = me * chunks + which
            P = kept[T - 1 - t] if T - 1 - t < kept.shape[0] else nowhere
            take_chunk(which, GRAD, X, y, theta, w, w, scratch[me], sums[place], nowhere, P, sizes)
            if not _hand_in(queue, t, which, place):
                continue
        else:
            out = ring[(T - t - 1) % rows]
            _update(which - chunks, layout, shrink, scale, sums, places, w, out)
        count_up(counter, 1, 1)
    count_up(counter, 3, 1)


@njit(nogil=True, cache=True)
def _ascend(  # type: ignore[no-untyped-def]
    queue,
    X,
    y,
    sizes,
    layout,
    theta,
    shrink,
    scale,
    patience,
    scratch,
    sums,
    ring,
    alphas,
    h,
    squares,
    along,
    kept,
):
    counter, _, _, places, _ = queue
    chunks, me = places.size, count_up(counter, 2, 1)
    count_up(counter, 3, -1)
    D, mine = along[me], scratch[me]
    _, _, _, _, blocks, block, _ = sizes
    while True:
        k, which = _next(queue, patience, me)
        if k < 0:
            break
        w, alpha, nowhere = ring[k + 1], alphas[k % 2], theta[:0]
        if which < chunks:
            place = me * chunks + which
            G = sums[place]
            if k < kept.shape[0]:
                take_chunk(which, KEPT_VJP, X, y, theta, alpha, alpha, mine, G, D, kept[k], sizes)
            else:
                take_chunk(which, GRAD_VJP, X, y, theta, w, alpha, mine, G, D, nowhere, sizes)
            if not _hand_in(queue, k, which, place):
                continue
            first = which * blocks * block
            for i in range(first, min(first + blocks * block, y.size)):
                h[i] += scale * D[i]
        else:
            piece, out = which - chunks, alphas[(k + 1) % 2]
            squares[k, piece] = _update(piece, layout, shrink, scale, sums, places, alpha, out)
        count_up(counter, 1, 1)
    count_up(counter, 3, 1)
