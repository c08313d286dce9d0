"""T steps on softmax regression with L2 penalties, and K back, on threads.

g = s Σ_i θ_i ℓ_i(W) + Σ_j ρ_j w_j², by any algorithm of `updates`, whose state has buffers too.
From one step to the next nobody returns to the interpreter: threads take `tickets`. States lie as
the kernels read them, and a step is one pass over the data.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from tinybilevel.kernels.compiling import LEAN
from tinybilevel.kernels.moves import restless, square, watch
from tinybilevel.kernels.pool import LOOKS
from tinybilevel.kernels.softmax import (
    GRAD,
    GRAD_VJP,
    KEPT_VJP,
    Softmax,
    aligned_parts,
    take_chunk,
)
from tinybilevel.kernels.tickets import (
    FEW,
    PIECES,
    STRETCH,
    hand_in,
    next_ticket,
    tick_off,
    work_off,
)
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
from tinybilevel.kernels.workspace import Workspace

__all__ = ["SoftmaxLoop"]

Array = np.ndarray[Any, np.dtype[Any]]

#: Bytes of softmaxes that are kept without being asked for.
_FREE = 8_000_000


_REUSED = Workspace(keep=False, reuse=True)


class SoftmaxLoop:
    """The forward and the backward pass, with the upper level between them left to the caller.

    Parameters
    ----------
    lower : Softmax
        ℓ_i.
    kind : int
        The algorithm, one of `updates`.
    numbers : ndarray (T, ·)
        What `updates` calls c, for each step.
    scale : float
        s.
    learned : bool
        Whether h holds what `each` does, see `updates`.
    remember : int
        How many of the last softmaxes to keep for the backward pass, at least: all of its K where
        one is no larger than w, and what takes up to `_FREE`.
    weighted : bool
        False: `backward` has no h by example, and less is kept for it.
    strengths : bool
        False: h holds none of ρ.
    """

    def __init__(
        self,
        lower: Softmax,
        kind: int,
        numbers: Array,
        scale: float,
        learned: bool = False,
        remember: int = 0,
        weighted: bool = True,
        strengths: bool = True,
    ) -> None:
        self.lower, self.kind, self.T = lower, kind, len(numbers)
        self.remember = self.T if lower.room_size <= lower.width else remember
        self.learned, self.strengths = learned, strengths
        self.room = lower.room_size if weighted or not lower.of_one_score else lower.room_size // 2
        self.numbers = numbers.astype(lower.dtype)
        # Looks for some two chunks' time.
        self.patience = max(lower.X[0].size // lower.chunks // 8, LOOKS)
        self.scale = lower.dtype.type(scale)
        self.pieces = PIECES if lower.n_classes * lower.shape[1] >= FEW else 1

    def alone(self) -> SoftmaxLoop:
        """Return the same loop on the calling thread, with the same data."""
        loop, lower = object.__new__(SoftmaxLoop), object.__new__(Softmax)
        lower.__dict__.update(self.lower.__dict__, threads=1, _as_free=False)
        loop.__dict__.update(self.__dict__, lower=lower)
        return loop

    def lay(self, rows: Array) -> Array:
        """Return rows of one number for each entry of w as the kernels read them."""
        laid = np.zeros((len(rows), self.lower.width), self.lower.dtype)
        self.lower.matrix(laid)[...] = rows.reshape(len(rows), self.lower.n_classes, -1)
        return laid

    def flat(self, laid: Array) -> Array:
        """Return rows that `lay` has laid as they were."""
        return self.lower.matrix(laid).copy().reshape(len(laid), -1)

    def forward(
        self, weights: Array, start: Array, penalty: Array, each: Array, K: int
    ) -> tuple[Array, Run]:
        """Return the state w_T (1 + b, M), and what `backward` needs.

        `weights` are the θ_i, (n,), or (1,) for all. Laid are the rest: `start` (1 + b, ·), w_0
        with its buffers; `penalty` (1, ·), 2 ρ_j; and `each` (2, ·), what `updates` says.
        """
        run = Run(self, weights, penalty[0], each, K)
        state = run.ring[self.T % len(run.ring)]
        state[...] = start
        if len(run.points) and self.T:
            y = run.points[self.T % len(run.ring)]
            point(self.kind, self.numbers[0], each, state, y, 0, y.size)
        run.go(_descend, self.T, self.T, run.points, run.grads, run.ring, run.kept, *run.seen)
        return self.flat(run.ring[0]), run

    def backward(self, run: Run, alpha: Array, h: Array) -> tuple[Array, Array, Array]:
        """Add to h what h_{T−K} has more than h_T by example, (n,), or (0,) if that is of no use.

        Return what it has more by entry of w, (3, M), for ρ, γ, and μ or τ, or (3, 0) if it holds
        none of these; ‖α_{T−1}‖², …, ‖α_{T−K}‖²; and α_{T−K} (1 + b, ·), laid.
        """
        lower, K = self.lower, run.K
        rows, width = 1 + BUFFERS[self.kind], (lower.width,)
        some = self.learned or self.strengths
        shapes = (rows, *width), width, width, (3, lower.width * some)
        alphas, u, Hu, more = aligned_parts(shapes, lower.dtype)
        lower.matrix(alphas[0])[...] = alpha.reshape(lower.n_classes, -1)
        along = more[1:] if self.learned else more[1:, :0]
        shrunk = more[0] if self.strengths else more[0, :0]
        if K:
            c, g, state = self.numbers[self.T - 1], run.grads[0], run.ring[1]
            direction(self.kind, c, run.each, g, state, alphas, u, along, 0, u.size)
        squares = np.zeros((K, self.pieces), lower.dtype)
        unseen = lower.of_one_score and not h.size
        D = np.empty((lower.threads, 0 if unseen else len(lower.y)), lower.dtype)
        results = alphas, u, Hu, h, D, shrunk, along, squares
        run.go(_ascend, K, self.T, run.points, run.grads, run.ring, run.kept, *results)
        squares = squares[:, 0] if self.pieces == 1 else squares.sum(axis=1)
        return self.flat(more) if some else more, squares, alphas


class Run:
    """The memory of one hypergradient.

    The state w_{T−k} lies in ring[k % len(ring)], and where its gradient is taken in `points` if
    that isn't w; the gradient of step T − 1 − k in grads[k % len(grads)], its softmax in kept[k].
    """

    def __init__(
        self, loop: SoftmaxLoop, weights: Array, penalty: Array, each: Array, K: int
    ) -> None:
        lower = loop.lower
        self.loop, self.weights, self.K = loop, weights, K
        self.penalty, self.each = penalty, each
        rows, width = max(K, 1) + 1, lower.width
        kept = K if keeps_gradient(loop.kind, loop.learned) else 1
        shapes = (
            (rows, 1 + BUFFERS[loop.kind], width),
            (rows if loop.kind == NESTEROV else 0, width),
            (max(kept, 1), width),
            (width,),
            *lower.loop_memory(lower.threads),
        )
        self.ring, self.points, self.grads, move, *memory = aligned_parts(shapes, lower.dtype)
        self._scratch, self._sums = memory
        # See `moves`.
        self.seen = move, np.zeros((loop.pieces, 3), lower.dtype)
        remember = max(loop.remember, _FREE // (loop.room * lower.dtype.itemsize))
        # Not a new one each time, of which the system would clear page after page.
        self.kept = _REUSED("kept", (min(K, remember), loop.room), lower.X[0])

    @property
    def restless(self) -> bool:
        """Whether the last steps swing and are longer than the first."""
        return restless(self.loop.T, self.seen[1])

    @property
    def held(self) -> int:
        """Bytes of states, of points besides them, and of gradients that the way back needs."""
        states = self.ring.shape[0] * self.ring.shape[1] + len(self.points)
        grads = len(self.grads) if keeps_gradient(self.loop.kind, self.loop.learned) else 0
        lower = self.loop.lower
        return (states + grads) * lower.n_classes * lower.shape[1] * lower.dtype.itemsize

    def go(self, work: Any, steps: int, *arrays: Any) -> None:
        """Have all threads work off the tickets of so many steps."""
        loop, lower = self.loop, self.loop.lower
        data = lower.X, lower.y, lower.sizes, lower.layout, self.weights, loop.scale, self.penalty
        rule = loop.kind, loop.numbers, self.each
        sizes = lower.threads, lower.helpers(), steps, lower.chunks, loop.pieces, loop.patience
        work_off(work, *sizes, data, rule, self._scratch, self._sums, *arrays)


@njit(**LEAN)
def _piece(piece, pieces, layout):  # type: ignore[no-untyped-def]
    """Return which rows of w a piece has, first and last, and how many to take at a time."""
    each = -(-layout[0] // pieces)
    first = min(piece * each, layout[0])
    return first, min(first + each, layout[0]), max(STRETCH // layout[2], 1)


@njit(**LEAN)
def _add_up(first, last, layout, sums, places, scale, penalty, x, out):  # type: ignore[no-untyped-def]
    """Write some rows of scale Σ_k sums[places[k]] + penalty x."""
    _, length, ld, sum_ld = layout
    a, b = first * sum_ld, last * sum_ld
    total = sums[places[0], a:b]
    if ld == sum_ld:  # what rows are padded with is 0 in all of them
        penalty, x, out = penalty[a:b], x[a:b], out[a:b]
        for j in range(out.size):
            out[j] = scale * total[j] + penalty[j] * x[j]
        for k in range(1, places.size):
            addend = sums[places[k], a:b]
            for j in range(out.size):
                out[j] += scale * addend[j]
        return
    for k in range(1, places.size):
        addend = sums[places[k], a:b]
        for j in range(total.size):
            total[j] += addend[j]
    for i in range(last - first):
        for j in range(length):
            # Unsigned: no look at negative indices, which would keep this from being vectorised.
            at, place = np.uintp((first + i) * ld + j), np.uintp(i * sum_ld + j)
            out[at] = scale * total[place] + penalty[at] * x[at]


@njit(**LEAN)
def _subtract_twice(x, y, out):  # type: ignore[no-untyped-def]
    for j in range(out.size):
        out[j] -= (x[j] + x[j]) * y[j]


@njit(**LEAN)
def _descend(  # type: ignore[no-untyped-def]
    queue, patience, data, rule, scratch, sums, T, points, grads, ring, kept, move, moves
):
    X, y, sizes, layout, theta, scale, penalty = data
    kind, numbers, each = rule
    counter, _, _, places, _, pieces = queue
    chunks, me, rows = places.size, count_up(counter, 2, 1), len(ring)
    count_up(counter, 3, -1)
    while True:
        t, which = next_ticket(queue, patience, me)
        if t < 0:
            break
        at, nowhere, k = (T - t) % rows, theta[:0], T - 1 - t
        w = points[at] if len(points) else ring[at, 0]
        if which < chunks:
            place = me * chunks + which
            P = kept[k] if k < len(kept) else nowhere
            mine, G = scratch[me], sums[place]
            take_chunk(which, GRAD, X, y, theta, w, w, mine, G, nowhere, P, sizes, t % 2)
            if not hand_in(queue, t, which, place):
                continue
        else:
            first, last, several = _piece(which - chunks, pieces, layout)
            g, state, new = grads[k % len(grads)], ring[at], ring[k % rows]
            for row in range(first, last, several):
                end = min(row + several, last)
                _add_up(row, end, layout, sums, places, scale, penalty, w, g)
                a, b = row * layout[2], end * layout[2]
                advance(kind, numbers[t], each, g, state, new, a, b)
                if t == 0 or t >= T - 2:
                    watch(t, T, state[0], new[0], move, moves[which - chunks], a, b)
                if len(points) and t + 1 < T:
                    point(kind, numbers[t + 1], each, new, points[k % rows], a, b)
        tick_off(queue)
    count_up(counter, 3, 1)


@njit(**LEAN)
def _ascend(  # type: ignore[no-untyped-def]
    queue,
    patience,
    data,
    rule,
    scratch,
    sums,
    T,
    points,
    grads,
    ring,
    kept,
    alpha,
    u,
    Hu,
    h,
    D,
    shrunk,
    along,
    squares,
):
    X, y, sizes, layout, theta, scale, penalty = data
    kind, numbers, each = rule
    counter, steps, _, places, _, pieces = queue
    chunks, me = places.size, count_up(counter, 2, 1)
    count_up(counter, 3, -1)
    D, mine = D[me], scratch[me]
    _, _, _, _, blocks, block, _ = sizes
    while True:
        k, which = next_ticket(queue, patience, me)
        if k < 0:
            break
        w, nowhere = points[k + 1] if len(points) else ring[k + 1, 0], theta[:0]
        if which < chunks:
            place = me * chunks + which
            G = sums[place]
            known = k < len(kept)
            product, P = (KEPT_VJP, kept[k]) if known else (GRAD_VJP, nowhere)
            at = u if known else w
            take_chunk(which, product, X, y, theta, at, u, mine, G, D, P, sizes, k % 2)
            if not hand_in(queue, k, which, place):
                continue
            first = which * blocks * block
            for i in range(first, min(first + blocks * block, h.size)):
                h[i] -= scale * D[i]
        else:
            piece, t = which - chunks, T - 1 - k
            first, last, several = _piece(piece, pieces, layout)
            for row in range(first, last, several):
                end = min(row + several, last)
                _add_up(row, end, layout, sums, places, scale, penalty, u, Hu)
                a, b = row * layout[2], end * layout[2]
                if shrunk.size:
                    _subtract_twice(w[a:b], u[a:b], shrunk[a:b])
                retreat(kind, numbers[t], each, Hu, ring[k + 1], alpha, along, a, b)
                for part in range(len(alpha)):
                    squares[k, piece] += square(alpha[part, a:b])
                if k + 1 < steps:
                    g = grads[(k + 1) % len(grads)]
                    direction(kind, numbers[t - 1], each, g, ring[k + 2], alpha, u, along, a, b)
        tick_off(queue)
    count_up(counter, 3, 1)
