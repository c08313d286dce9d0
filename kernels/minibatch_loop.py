"""T steps of any lower-level algorithm on minibatches of softmax regression or one score, K back.

Step t follows g_t = s_t Σ_i θ_i ℓ_i(W) + Σ_j ρ_j w_j², i over batch t, whose rows of X are read
where they lie (`batch_rows`). The softmax of each of the last K batches is kept, a number for each
of its rows and classes: the backward pass takes two products with these rows and none with w_t, so
that few look at states again: an algorithm that keeps the gradient, a learned strength, and a
thread that is late (`tickets`), whose softmax is that of another state once its own is overwritten.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit

from tinybilevel.kernels.batch_rows import Rows, add_along, add_up, change, residual, scores
from tinybilevel.kernels.compiling import LEAN
from tinybilevel.kernels.moves import restless, square, watch
from tinybilevel.kernels.pool import LOOKS
from tinybilevel.kernels.softmax import aligned_parts
from tinybilevel.kernels.threads import cores, helpers
from tinybilevel.kernels.tickets import (
    FEW,
    PIECES,
    STRETCH,
    hand_in,
    next_ticket,
    tick_off,
    work_off,
)
from tinybilevel.kernels.tiles import ROWS, count_up
from tinybilevel.kernels.updates import (
    BUFFERS,
    NESTEROV,
    advance,
    direction,
    keeps_gradient,
    point,
    retreat,
)

__all__ = ["Batches", "MinibatchLoop", "Numbers"]

Array = np.ndarray[Any, np.dtype[Any]]


class Batches:
    """The rows of all steps, one after the other, and what each batch's sum is multiplied by.

    Parameters
    ----------
    batches : sequence of ndarray of int
        T of them.
    scale : float
        s of a sum over all n rows.
    n : int
        Number of rows; a batch counts for all of them.
    dtype : dtype
        That of X.
    """

    def __init__(self, batches: Sequence[Array], scale: float, n: int, dtype: Any) -> None:
        sizes = np.array([len(batch) for batch in batches], np.int64)
        self.largest = int(sizes.max(initial=1))
        self.starts = np.append(0, np.cumsum(sizes))
        #: Where each batch begins and ends in `index`.
        self.spans = np.stack([self.starts[:-1], self.starts[1:]], axis=1)
        self.index = np.concatenate([np.empty(0, int), *batches], dtype=np.int64, casting="unsafe")
        self.scales = (scale * n / sizes).astype(dtype)

    @classmethod
    def whole(cls, T: int, scale: float, n: int, dtype: Any) -> Batches:
        """Return all rows in each of T steps, with their numbers once."""
        batches = cls([np.arange(n)], scale, n, dtype)
        batches.spans = np.repeat(batches.spans, T, axis=0)
        batches.scales = np.repeat(batches.scales, T)
        return batches


@dataclass(frozen=True)
class Numbers:
    """What a run's θ makes of its weights, strengths and coefficients, all in the dtype of X.

    Attributes
    ----------
    weights : ndarray (n,) or (1,)
        θ_i, or one for all.
    ridge : ndarray (width,)
        2ρ_j, as W lies.
    c, each : ndarray
        The coefficients of every step, and their factors entry by entry: see `updates`.
    """

    weights: Array
    ridge: Array
    c: Array
    each: Array | None


@dataclass(frozen=True)
class Back:
    """What the backward pass finds.

    Attributes
    ----------
    alpha : ndarray (1 + b, C·d)
        α_{T−K}.
    squares : ndarray (K,)
        ‖α_{T−1}‖², …, ‖α_{T−K}‖².
    along : ndarray (2, C·d) or (0, C·d)
        What h has more, entry by entry of w, for the two coefficients, where one is learned.
    ridge : ndarray (C·d,) or (0,)
        The same for 2ρ.
    """

    alpha: Array
    squares: Array
    along: Array
    ridge: Array


class MinibatchLoop:
    """The forward and the backward pass, with the upper level between them left to the caller.

    Parameters
    ----------
    rows : Rows
        X.
    y : ndarray (n,) of int64
        Classes.
    batches : Batches
        What each step sees.
    learns_ridge : bool
        Whether a strength is learned.
    kind : int
        The algorithm, one of `updates`.
    learns : bool
        Whether a coefficient of it is learned.
    """

    #: Whether strengths, and what h has along them, are given by column of X, (d,).
    by_column = False

    def __init__(
        self,
        rows: Rows,
        y: Array,
        batches: Batches,
        learns_ridge: bool,
        kind: int,
        learns: bool,
    ) -> None:
        self.rows, self.y, self.batches, self.kind = rows, y, batches, kind
        self.learns, self.learns_ridge = learns, learns_ridge
        self.gradient = keeps_gradient(kind, learns)
        self.chunks, repay = rows.chunks(batches.largest)
        self.looks_back = self.gradient or learns_ridge or self.chunks > 1
        self.pieces = PIECES if self.chunks > 1 and rows.width >= FEW else 1
        self.threads = min(cores(), self.chunks, repay)  # at most
        # Looks for some two chunks' time.
        self.patience = max(int(rows.work(batches.largest)) // self.chunks // 8, LOOKS)

    def alone(self) -> MinibatchLoop:
        """Return the same loop on the calling thread."""
        other = copy.copy(self)
        other.threads = 1
        return other

    def forward(self, state: Array, numbers: Numbers, K: int) -> tuple[Array, Run]:
        """Return the state w_T, (1 + b, C·d), and what `backward` needs; `state` is w_0."""
        run, T = Run(self, numbers, K), len(self.batches.scales)
        first = run.ring[T % len(run.ring)]
        first[...] = self.rows.spread(state)
        if len(run.points) and T:
            y = run.points[T % len(run.ring)]
            point(self.kind, numbers.c[0], numbers.each, first, y, 0, y.size)
        run.go(_forward, T, *run.seen)
        return self.rows.gather(run.ring[0]), run

    def backward(self, run: Run, alpha: Array, h: Array) -> Back:
        """Subtract from h what the weights bring, (n,), or nothing from (0,); `alpha` is α_T."""
        rows, numbers, K = self.rows, run.numbers, run.K
        alphas, squares = rows.spread(alpha), np.zeros((K, self.pieces), rows.dtype)
        width = (rows.width,)
        shapes = (
            *((2 * self.learns, *width), (int(self.learns_ridge), *width), width, width),
            # What each thread finds of each row of the batch, and what who is done first has found.
            (self.threads + 1, self.batches.largest if h.size else 0),
        )
        along, ridge, u, Hu, found = aligned_parts(shapes, rows.dtype)
        if K:
            c, g, state = numbers.c[-1], run.grads[0], run.ring[1 % len(run.ring)]
            direction(self.kind, c, numbers.each, g, state, alphas, u, along, 0, u.size)
        run.go(_backward, K, alphas, u, Hu, h, found, squares, along, ridge)
        alpha, along, ridge = (rows.gather(each) for each in (alphas, along, ridge))
        return Back(alpha, squares.sum(axis=1), along, ridge.reshape(-1))


class Run:
    """The memory of one hypergradient.

    w_{T−t} lies in ring[t % len(ring)], and where its gradient is taken in `points` if that isn't
    w; the gradient of step T − 1 − k in grads[k % len(grads)], its softmax in kept[k].
    """

    def __init__(self, loop: MinibatchLoop, numbers: Numbers, K: int) -> None:
        rows, batches, b = loop.rows, loop.batches, BUFFERS[loop.kind]
        self.loop, self.numbers, self.K = loop, numbers, K
        states = max(K, 1) + 1 if loop.looks_back else 2
        block = min(batches.largest, 3 * rows.sizes[4] // 2) + ROWS
        shapes = (
            (states, 1 + b, rows.width),
            (states * (loop.kind == NESTEROV), rows.width),
            (max(K * loop.gradient, 1), rows.width),
            (K, batches.largest * rows.room),
            (loop.threads, block * rows.stride),
            (loop.threads * loop.chunks if loop.chunks > 1 else 0, rows.width),
            (rows.width,),
        )
        self.ring, self.points, self.grads, self.kept, *memory = aligned_parts(shapes, rows.dtype)
        self._scores, self._sums, move = memory
        # See `moves`.
        self.seen = move, np.zeros((loop.pieces, 3), rows.dtype)

    @property
    def restless(self) -> bool:
        """Whether the last steps swing and are longer than the first."""
        return restless(len(self.loop.batches.scales), self.seen[1])

    @property
    def held(self) -> int:
        """Bytes of states, of points besides them, of gradients, and of softmaxes."""
        grads = self.grads.nbytes * self.loop.gradient
        return int(self.ring.nbytes + self.points.nbytes + grads + self.kept.nbytes)

    def go(self, work: Any, steps: int, *arrays: Any) -> None:
        """Have all threads work off the tickets of so many steps."""
        loop, numbers, batches = self.loop, self.numbers, self.loop.batches
        data = loop.rows.data, loop.y, loop.rows.sizes, numbers.weights, numbers.ridge
        steps_of = batches.index, batches.spans, batches.scales
        rule = loop.kind, numbers.c, numbers.each
        sizes = loop.threads, helpers(loop.threads), steps, loop.chunks, loop.pieces, loop.patience
        memory = self._scores, self._sums, self.points, self.grads, self.ring, self.kept
        work_off(work, *sizes, data, steps_of, rule, *memory, *arrays)


@njit(**LEAN)
def _share(which, chunks, rows):  # type: ignore[no-untyped-def]
    """Return the first row of a chunk, and that of the next."""
    each = -(-rows // (chunks * ROWS)) * ROWS
    return min(which * each, rows), min((which + 1) * each, rows)


@njit(**LEAN)
def _block(rows, about):  # type: ignore[no-untyped-def]
    """Return how many rows to take at a time, `about` so many or half as many again, all alike."""
    blocks = max((rows + about // 2) // about, 1)
    return max(-(-rows // (blocks * ROWS)) * ROWS, ROWS)


@njit(**LEAN)
def _begin(which, ridge, w, total):  # type: ignore[no-untyped-def]
    """Begin a chunk's sum: the first has what the penalty adds."""
    if which:
        total[:] = 0
        return
    for j in range(total.size):
        total[j] = ridge[j] * w[j]


@njit(**LEAN)
def _add_sums(sums, places, first, last, out):  # type: ignore[no-untyped-def]
    """Write some entries of Σ_k sums[places[k]]; with one chunk they are there."""
    if places.size == 1:
        return
    out = out[first:last]
    one, two = sums[places[0], first:last], sums[places[1], first:last]
    for j in range(out.size):
        out[j] = one[j] + two[j]
    for k in range(2, places.size):
        more = sums[places[k], first:last]
        for j in range(out.size):
            out[j] += more[j]


@njit(**LEAN)
def _forward(  # type: ignore[no-untyped-def]
    queue, patience, data, steps_of, rule, S, sums, points, grads, ring, kept, move, moves
):
    X, y, sizes, theta, ridge = data
    index, spans, scales = steps_of
    kind, numbers, each = rule
    counter, T, _, places, _, pieces = queue
    chunks, states, room, block = places.size, len(ring), sizes[6], sizes[4]
    me = count_up(counter, 2, 1)
    S = S[me]
    count_up(counter, 3, -1)
    while True:
        t, which = next_ticket(queue, patience, me)
        if t < 0:
            break
        k, at, rows = T - 1 - t, (T - t) % states, index[spans[t, 0] : spans[t, 1]]
        g, w = grads[k % len(grads)], points[at] if len(points) else ring[at, 0]
        if which < chunks:
            place = me * chunks + which
            total = g if chunks == 1 else sums[place]
            _begin(which, ridge, w, total)
            first, last = _share(which, chunks, rows.size)
            taken = _block(last - first, block)
            for i in range(first, last, taken):
                some = rows[i : min(i + taken, last)]
                P = kept[k, i * room :] if k < len(kept) else S[:0]
                scores(X, some, w, sizes, S)
                residual(X, S, some, y, theta, scales[t], sizes, P)
                add_up(X, some, S, sizes, total)
            if not hand_in(queue, t, which, place):
                continue
        else:
            state, new, piece = ring[at], ring[k % states], which - chunks
            first, last, several = _piece(piece, pieces, g.size)
            for a in range(first, last, several):
                b = min(a + several, last)
                _add_sums(sums, places, a, b, g)
                advance(kind, numbers[t], each, g, state, new, a, b)
                if t == 0 or t >= T - 2:
                    watch(t, T, state[0], new[0], move, moves[piece], a, b)
                if len(points) and t + 1 < T:
                    point(kind, numbers[t + 1], each, new, points[k % states], a, b)
        tick_off(queue)
    count_up(counter, 3, 1)


@njit(**LEAN)
def _backward(  # type: ignore[no-untyped-def]
    queue,
    patience,
    data,
    steps_of,
    rule,
    S,
    sums,
    points,
    grads,
    ring,
    kept,
    alpha,
    u,
    Hu,
    h,
    found,
    squares,
    along,
    ridge_along,
):
    X, y, sizes, theta, ridge = data
    index, spans, scales = steps_of
    kind, numbers, each = rule
    counter, K, _, places, _, pieces = queue
    T, chunks, states, room, block = scales.size, places.size, len(ring), sizes[6], sizes[4]
    me = count_up(counter, 2, 1)
    S, mine, found = S[me], found[me + 1], found[0]
    count_up(counter, 3, -1)
    while True:
        k, which = next_ticket(queue, patience, me)
        if k < 0:
            break
        t = T - 1 - k
        at, rows = (k + 1) % states, index[spans[t, 0] : spans[t, 1]]
        if which < chunks:
            place = me * chunks + which
            total = Hu if chunks == 1 else sums[place]
            _begin(which, ridge, u, total)
            first, last = _share(which, chunks, rows.size)
            taken = _block(last - first, block)
            for i in range(first, last, taken):
                end = min(i + taken, last)
                some = rows[i:end]
                scores(X, some, u, sizes, S)
                change(kept[k, i * room :], S, some, y, theta, scales[t], sizes, mine[i:end])
                add_up(X, some, S, sizes, total)
            if not hand_in(queue, k, which, place):
                continue
            for i in range(first, min(last, found.size)):
                found[i] = mine[i]
        else:
            piece, state, w = which - chunks, ring[at], points[at] if len(points) else ring[at, 0]
            if piece == 0:
                add_along(h, rows, -scales[t], found)
            first, last, several = _piece(piece, pieces, u.size)
            for a in range(first, last, several):
                b = min(a + several, last)
                _add_sums(sums, places, a, b, Hu)
                if len(ridge_along):
                    _subtract(w[a:b], u[a:b], ridge_along[0, a:b])
                retreat(kind, numbers[t], each, Hu, state, alpha, along, a, b)
                for part in range(len(alpha)):
                    squares[k, piece] += square(alpha[part, a:b])
                if k + 1 < K:
                    g, before = grads[(k + 1) % len(grads)], ring[(k + 2) % states]
                    direction(kind, numbers[t - 1], each, g, before, alpha, u, along, a, b)
        tick_off(queue)
    count_up(counter, 3, 1)


@njit(**LEAN)
def _piece(piece, pieces, width):  # type: ignore[no-untyped-def]
    """Return which entries of w a piece has, first and last, and how many to take at a time."""
    if pieces == 1:
        return 0, width, max(width, 1)
    each = -(-width // pieces)
    return min(piece * each, width), min((piece + 1) * each, width), STRETCH


@njit(**LEAN)
def _subtract(x, y, out):  # type: ignore[no-untyped-def]
    for j in range(out.size):
        out[j] -= x[j] * y[j]
