"""T steps of any lower-level algorithm on minibatches of softmax regression or one score, K back.

Step t follows g_t = s_t Σ_i θ_i ℓ_i(W) + Σ_j ρ_j w_j², i over batch t, whose rows of X are read
where they lie (`batch_rows`). The softmax of each of the last K batches is kept, a number for each
of its rows and classes: the backward pass takes two products with these rows and none with w_t, so
that states are kept only for the algorithms and the learned strengths that look at them again. One
thread: some hundred rows do not repay waking another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit

from tinybilevel.kernels.batch_rows import Rows, add_up, change, residual, scores
from tinybilevel.kernels.compiling import LEAN
from tinybilevel.kernels.moves import restless, watch
from tinybilevel.kernels.softmax import aligned
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
        self.looks_back = self.gradient or learns_ridge

    def forward(self, state: Array, numbers: Numbers, K: int) -> tuple[Array, Run]:
        """Return the state w_T, (1 + b, C·d), and what `backward` needs; `state` is w_0."""
        run = Run(self, numbers, K)
        run.ring[len(self.batches.scales) % len(run.ring)] = self.rows.spread(state)
        _forward(*run.arguments, *run.seen)
        return self.rows.gather(run.ring[0]), run

    def backward(self, run: Run, alpha: Array, h: Array) -> Back:
        """Subtract from h what the weights bring, (n,), or nothing from (0,); `alpha` is α_T."""
        rows = self.rows
        along = aligned((2 * self.learns, rows.width), rows.dtype)
        ridge = aligned((int(self.learns_ridge), rows.width), rows.dtype)
        alphas, squares = rows.spread(alpha), np.zeros(run.K, rows.dtype)
        _backward(*run.arguments, alphas, h, squares, along, ridge)
        found = (rows.gather(each) for each in (alphas, along, ridge))
        alpha, along, ridge = found
        return Back(alpha, squares, along, ridge.reshape(-1))


class Run:
    """The memory of one hypergradient.

    w_{T−t} lies in ring[t % len(ring)]; the softmax of step T − 1 − k in kept[k], and its gradient
    in grads[k] where the backward pass needs it.
    """

    def __init__(self, loop: MinibatchLoop, numbers: Numbers, K: int) -> None:
        rows, batches, b = loop.rows, loop.batches, BUFFERS[loop.kind]
        self.K, self.T = K, len(batches.scales)
        states = max(K, 1) + 1 if loop.looks_back else 2
        self.ring = aligned((states, 1 + b, rows.width), rows.dtype)
        self.grads = aligned((K * loop.gradient, rows.width), rows.dtype)
        self.kept = aligned((K, batches.largest * rows.room), rows.dtype)
        block = min(batches.largest, rows.sizes[4])
        scratch = aligned((3 * rows.width + block * rows.stride,), rows.dtype)
        # See `moves`.
        self.seen = aligned((rows.width,), rows.dtype), np.zeros((1, 3), rows.dtype)
        self.arguments = (
            *(loop.kind, rows.data, loop.y, rows.sizes),
            *(batches.index, batches.spans, batches.scales),
            *(numbers.weights, numbers.ridge, numbers.c, numbers.each),
            *(scratch, self.ring, self.grads, self.kept),
        )

    @property
    def restless(self) -> bool:
        """Whether the last steps swing and are longer than the first."""
        return restless(self.T, self.seen[1])

    @property
    def held(self) -> int:
        """Bytes of states, gradients and softmaxes."""
        return int(self.ring.nbytes + self.grads.nbytes + self.kept.nbytes)


@njit(**LEAN)
def _forward(  # type: ignore[no-untyped-def]
    kind,
    X,
    y,
    sizes,
    index,
    spans,
    scales,
    theta,
    ridge,
    c,
    each,
    scratch,
    ring,
    grads,
    kept,
    move,
    moves,
):
    T, width, room, block = scales.size, ridge.size, sizes[6], sizes[4]
    ahead, G, S = scratch[:width], scratch[width : 2 * width], scratch[3 * width :]
    for t in range(T):
        k = T - 1 - t
        rows, state = index[spans[t, 0] : spans[t, 1]], ring[(T - t) % len(ring)]
        g = grads[k] if k < len(grads) else G
        W = state[0]
        if kind == NESTEROV:
            point(kind, c[t], each, state, ahead, 0, width)
            W = ahead
        for j in range(width):
            g[j] = ridge[j] * W[j]
        for i in range(0, rows.size, block):
            some = rows[i : i + block]
            P = kept[k, i * room :] if k < len(kept) else S[:0]
            scores(X, some, W, sizes, S)
            residual(X, S, some, y, theta, scales[t], sizes, P)
            add_up(X, some, S, sizes, g)
        new = ring[(T - t - 1) % len(ring)]
        advance(kind, c[t], each, g, state, new, 0, width)
        watch(t, T, state[0], new[0], move, moves[0], 0, width)


@njit(**LEAN)
def _backward(  # type: ignore[no-untyped-def]
    kind,
    X,
    y,
    sizes,
    index,
    spans,
    scales,
    theta,
    ridge,
    c,
    each,
    scratch,
    ring,
    grads,
    kept,
    alpha,
    h,
    squares,
    along,
    ridge_along,
):
    T, width, room, block = scales.size, ridge.size, sizes[6], sizes[4]
    ahead, Hu, u = scratch[:width], scratch[width : 2 * width], scratch[2 * width : 3 * width]
    S = scratch[3 * width :]
    for k in range(len(kept)):
        t = T - 1 - k
        rows, state = index[spans[t, 0] : spans[t, 1]], ring[(k + 1) % len(ring)]
        g = grads[k] if k < len(grads) else Hu
        direction(kind, c[t], each, g, state, alpha, u, along, 0, width)
        for j in range(width):
            Hu[j] = ridge[j] * u[j]
        for i in range(0, rows.size, block):
            some = rows[i : i + block]
            P = kept[k, i * room :]
            scores(X, some, u, sizes, S)
            change(P, S, some, y, theta, scales[t], -scales[t], sizes, h)
            add_up(X, some, S, sizes, Hu)
        if len(ridge_along):
            W, total = state[0], ridge_along[0]
            if kind == NESTEROV:
                point(kind, c[t], each, state, ahead, 0, width)
                W = ahead
            for j in range(width):
                total[j] -= W[j] * u[j]
        retreat(kind, c[t], each, Hu, state, alpha, along, 0, width)
        for part in range(len(alpha)):
            squares[k] += _square(alpha[part])


@njit(**LEAN, fastmath={"reassoc", "contract"})
def _square(x):  # type: ignore[no-untyped-def]
    total = x.dtype.type(0)
    for j in range(x.size):
        total += x[j] * x[j]
    return total
