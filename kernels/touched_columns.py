"""T steps of gradient descent on minibatches of a sparse softmax regression, and K back.

A step meets the columns of its batch's nonzeros alone. What the penalty does to any other column
is to multiply it, w_{t+1} = (1 − 2γ_t ρ_j) w_t, and so it does with α on the way back. With one
strength for all columns, w = s ŵ, and s alone is multiplied. With one for each, a number of each
column is kept up, the product of these factors, and its C entries are multiplied by it when a batch
next meets it. For ‖α_t‖, ‖α_j‖² is kept up likewise.

States are not kept. The backward pass takes the softmax of each batch. Learned strengths take w_t
too: forward, what a step overwrites is written to a log, and backward the log is undone. Over steps
t = a … b − 1 that leave a column alone, w_t·α_{t+1} is w_a·α_b times all of their factors but that
of t, so that these are caught up as well.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from tinybilevel.kernels.batch_rows import Rows, add_along, add_up, change, residual, scores
from tinybilevel.kernels.minibatch_loop import Back, Batches, Numbers
from tinybilevel.kernels.softmax import aligned
from tinybilevel.kernels.tiles import row_dot, row_keep

__all__ = ["TouchedColumns"]

Array = np.ndarray[Any, np.dtype[Any]]

#: An s below this is multiplied out.
_TINY = 1e-10


class TouchedColumns:
    """The same as `minibatch_loop.MinibatchLoop`, for sparse rows and gradient descent.

    Parameters
    ----------
    rows : Rows
        X, sparse.
    y : ndarray (n,) of int64
        Classes.
    batches : Batches
        What each step sees.
    learns_ridge : bool
        Whether a strength is learned.
    """

    #: What strengths and what h has along them are given by.
    by_column = True

    def __init__(self, rows: Rows, y: Array, batches: Batches, learns_ridge: bool) -> None:
        self.rows, self.y, self.batches, self.learns_ridge = rows, y, batches, learns_ridge
        lengths = np.append(0, np.cumsum(np.diff(rows.data[2])[batches.index]))[batches.starts]
        #: Columns that each step meets, at most.
        self.most = np.minimum(np.diff(lengths), rows.shape[1])

    def alone(self) -> TouchedColumns:
        """Return this loop: it is one thread's work."""
        return self

    def forward(self, state: Array, numbers: Numbers, K: int) -> tuple[Array, Run]:
        """Return w_T, (1, C·d), and what `backward` needs.

        Of `numbers`, `ridge` is (d,), twice the strength of each column; `each` is not looked at.
        """
        run = Run(self, state, numbers, K)
        final = np.empty_like(run.W)
        _forward(*run.arguments, run.kept, final, *run.log)
        return self.rows.gather(final[None]), run

    def backward(self, run: Run, alpha: Array, h: Array) -> Back:
        """Subtract from h what the weights bring, (n,), or nothing from (0,); `alpha` is α_T.

        What h has more for 2ρ is found by column, (d,).
        """
        ridge = np.zeros(self.rows.shape[1] * self.learns_ridge)
        alphas, squares = self.rows.spread(alpha), np.zeros(len(run.kept))
        dtype = self.rows.dtype
        found = np.empty(self.batches.largest if h.size else 0, dtype)
        _backward(*run.arguments, run.kept, alphas[0], h, found, squares, ridge, *run.log)
        none = np.empty((0, alpha.size), dtype)
        return Back(self.rows.gather(alphas), squares, none, ridge.astype(dtype))


class Run:
    """The memory of one hypergradient."""

    #: Not looked at: no step goes over all columns.
    restless = False

    def __init__(self, loop: TouchedColumns, state: Array, numbers: Numbers, K: int) -> None:
        rows, batches, most = loop.rows, loop.batches, loop.most
        d, stride, T = rows.shape[1], rows.stride, len(most)
        self.kept = aligned((K, batches.largest * stride), rows.dtype)
        self.W = rows.spread(state)[0]
        # A log has memory for more than it may need, which the system hands out when it is used.
        count = int(most[T - K :].sum()) * loop.learns_ridge
        self.log = (
            np.empty(count * stride, rows.dtype),
            np.empty(count),
            np.zeros(K + 1, np.int64),
        )
        self.arguments = (
            *(loop.learns_ridge, rows.data, rows.columns, loop.y, rows.sizes),
            *(batches.index, batches.starts, batches.scales, numbers.weights),
            *(numbers.ridge.astype(float), numbers.c[:, 0].astype(float)),
            *(aligned((batches.largest * stride,), rows.dtype), self.W),
            *(np.ones(d), np.full(d, -1), np.empty(int(most.max(initial=1)) + 1, np.int64)),
        )

    @property
    def held(self) -> int:
        """Bytes of states, softmaxes and what is logged."""
        values, factors, ends = self.log
        logged = int(ends[0]) * (values.size // max(factors.size, 1) * values.itemsize + 8)
        return int(2 * self.W.nbytes + self.kept.nbytes + logged)


@njit(nogil=True, cache=True)
def _meet(X, columns, rows, mark, seen, met):  # type: ignore[no-untyped-def]
    """Write the columns of some rows to `met`, each once; return how many there are."""
    starts, count = X[2], 0
    for i in rows:
        for p in range(starts[i], starts[i + 1]):
            j = columns[p]
            met[count] = j  # without a branch that nobody could predict
            count += seen[j] != mark
            seen[j] = mark
    return count


@njit(nogil=True, cache=True)
def _shrink(W, met, count, ridge, gamma, classes, stride):  # type: ignore[no-untyped-def]
    """Take the penalty's part of a step for the columns that it meets."""
    for k in range(count):
        j = met[k]
        w = j * stride
        row_keep(W, w, W, w, classes, W.dtype.type(1 - gamma * ridge[j]))


@njit(nogil=True, cache=True)
def _scale(W, factor, size):  # type: ignore[no-untyped-def]
    if factor != 1:
        row_keep(W, 0, W, 0, size, W.dtype.type(factor))


@njit(nogil=True, cache=True)
def _shrink_all(W, s, factor):  # type: ignore[no-untyped-def]
    """Return what W is multiplied by after this factor too; 1 where that has been done."""
    s *= factor
    if abs(s) > _TINY:
        return s
    _scale(W, s, W.size)
    return 1.0


@njit(nogil=True, cache=True)
def _forward(  # type: ignore[no-untyped-def]
    learns,
    X,
    columns,
    y,
    sizes,
    index,
    starts,
    scales,
    theta,
    ridge,
    gammas,
    S,
    W,
    since,
    seen,
    met,
    kept,
    final,
    log,
    log_factor,
    log_ends,
):
    """`since` has the product of the factors that each w_j still lacks; leave it as of T − K."""
    T, K, classes, stride, number = scales.size, len(kept), sizes[0], sizes[2], W.dtype.type
    d, used, lacking = since.size, 0, since.copy()
    one, s = not learns and (ridge == ridge[0]).all(), 1.0
    for t in range(T):
        rows, gamma = index[starts[t] : starts[t + 1]], gammas[t]
        if t == T - K:
            since[:] = lacking
        if not one:
            count = _meet(X, columns, rows, t, seen, met)
            for k in range(count):
                j = met[k]
                w = j * stride
                if learns and t >= T - K:
                    row_keep(W, w, log, used * stride, classes, number(1))
                    log_factor[used] = lacking[j]
                    used += 1
                row_keep(W, w, W, w, classes, number(lacking[j]))
                lacking[j] = 1
        if t >= T - K:
            log_ends[T - 1 - t] = used
        scores(X, rows, W, sizes, S)
        if one:
            _scale(S, s, rows.size * stride)
            s = _shrink_all(W, s, 1 - gamma * ridge[0])
        P = kept[T - 1 - t] if t >= T - K else S[:0]
        residual(X, S, rows, y, theta, number(-gamma * scales[t] / s), sizes, P)
        if not one:
            for j in range(d):
                lacking[j] *= 1 - gamma * ridge[j]
            for k in range(count):
                lacking[met[k]] = 1
            _shrink(W, met, count, ridge, gamma, classes, stride)
        add_up(X, rows, S, sizes, W)
    if K == 0:
        since[:] = lacking
    for j in range(d):
        row_keep(W, j * stride, final, j * stride, classes, number(s * lacking[j]))


@njit(nogil=True, cache=True)
def _backward(  # type: ignore[no-untyped-def]
    learns,
    X,
    columns,
    y,
    sizes,
    index,
    starts,
    scales,
    theta,
    ridge,
    gammas,
    S,
    W,
    since,
    seen,
    met,
    kept,
    alpha,
    h,
    found,
    squares,
    ridge_along,
    log,
    log_factor,
    log_ends,
):
    T, K, classes, stride, number = scales.size, len(kept), sizes[0], sizes[2], W.dtype.type
    d = since.size
    one, s = not learns and (ridge == ridge[0]).all(), 1.0
    # What each α_j still lacks; the sum over these steps of γ_t times all factors but that of t.
    lacking, but_one, column_squares = np.ones(d), np.zeros(d), np.empty(d)
    for j in range(d):
        column_squares[j] = row_dot(alpha, j * stride, alpha, j * stride, classes)
    for k in range(K):
        t = T - 1 - k
        rows, gamma, place = index[starts[t] : starts[t + 1]], gammas[t], log_ends[k + 1]
        count = _meet(X, columns, rows, T + k, seen, met)
        if learns:
            for k_met in range(count):
                j = met[k_met]
                w = j * stride
                along = but_one[j] * row_dot(W, w, alpha, w, classes)
                row_keep(log, place * stride, W, w, classes, number(1))
                row_keep(alpha, w, alpha, w, classes, number(lacking[j]))
                along += gamma * log_factor[place] * row_dot(W, w, alpha, w, classes)
                ridge_along[j] -= along
                place += 1
        elif not one:
            for k_met in range(count):
                w = met[k_met] * stride
                row_keep(alpha, w, alpha, w, classes, number(lacking[met[k_met]]))
        scores(X, rows, alpha, sizes, S)
        gain = -gamma * scales[t]
        if one:
            _scale(S, s, rows.size * stride)
            before, s = s, _shrink_all(alpha, s, 1 - gamma * ridge[0])
            if s == 1:
                column_squares *= (before * (1 - gamma * ridge[0])) ** 2
        change(kept[k], S, rows, y, theta, number(gain / s), sizes, found)
        add_along(h, rows, number(gain), found)
        if not one:
            for j in range(d):
                factor = 1 - gamma * ridge[j]
                but_one[j] = factor * but_one[j] + gamma * lacking[j]
                lacking[j] *= factor
                column_squares[j] *= factor * factor
            _shrink(alpha, met, count, ridge, gamma, classes, stride)
        add_up(X, rows, S, sizes, alpha)
        for k_met in range(count):
            j = met[k_met]
            column_squares[j] = row_dot(alpha, j * stride, alpha, j * stride, classes)
            lacking[j], but_one[j] = 1, 0
        squares[k] = s * s * _sum(column_squares)
    for j in range(d):
        w = j * stride
        if learns:
            ridge_along[j] -= but_one[j] * since[j] * row_dot(W, w, alpha, w, classes)
        row_keep(alpha, w, alpha, w, classes, number(s * lacking[j]))


@njit(nogil=True, cache=True, fastmath={"reassoc"})
def _sum(x):  # type: ignore[no-untyped-def]
    total = 0.0
    for j in range(x.size):
        total += x[j]
    return total
