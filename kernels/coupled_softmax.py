"""T steps of gradient descent on softmax regression whose rows are coupled, and K back, compiled.

g = s Σ_i ℓ_i(W, b) + ½⟨W, P W⟩ with a symmetric P, (V, V), from W = 0 and b = 0; the scores of
example i are W x_i + z_i b. Every gradient is a sum of the x_i, so that W_t = A_tᵀ X, and with the
Gram matrix 𝒢 = X Xᵀ, (n, n), made once, the scores are 𝒢 A + z bᵀ: one product where X itself
takes two. With M = I − γP and the residuals R = softmax − onehot, a step is

    A ← A M − γs R,    b ← b − γs Rᵀz.

Back, α_k = N_k α_0 + B_kᵀ X with N_k = Mᵏ, and only its scores S = X α_kᵀ and its bias a are
needed: with D = −γs dP, the change of the softmax along S + z aᵀ (the softmax itself is kept),

    S ← S M + 𝒢 D,    B ← B M + D,    a ← a + Dᵀz,    Σ_t α_{t+1} W_tᵀ = Σ_t SᵀA_t.

‖α_k‖² = tr(N α_0 α_0ᵀ N) + ⟨B, S + U⟩ + ‖a‖², where U = X α_0ᵀ N, is a difference of large
numbers once α has become small: before that, α_0 is put where α_k is.

Matrices lie as one row of V numbers for each example, padded to whole vectors. All is done by the
calling thread, the products with X at both ends as well: BLAS would wake its threads for them, and
wait for those while others have the cores.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit

from tinybilevel.kernels.softmax import aligned
from tinybilevel.kernels.tiles import (
    ROWS,
    TALL,
    add_tile,
    dot_tile,
    lanes,
    row_change,
    row_dot,
    row_exp,
    row_keep,
    row_max,
    row_residual,
    splat_tile,
)

__all__ = ["CoupledSoftmax"]

Array = np.ndarray[Any, np.dtype[Any]]

_CLASSES = 5
#: How small ‖α_k‖² / ‖α_0‖² may become.
_SMALL = 1e-2

_times = splat_tile(TALL)
_dot, _dot_one = dot_tile(ROWS, _CLASSES), dot_tile(ROWS, 1)
_add, _add_one = add_tile(1, _CLASSES), add_tile(1, 1)


class CoupledSoftmax:
    """The forward and the backward pass, with the upper level between them left to the caller.

    Parameters
    ----------
    X : ndarray (n, d)
        The columns that P acts on, float32 or float64.
    z : ndarray (n,)
        The column that it does not, such as ones for a bias.
    y : ndarray (n,) of int
        Classes.
    n_classes : int
        V.
    step_size, scale : float
        γ and s.
    T : int
        Horizon.
    """

    def __init__(
        self, X: Array, z: Array, y: Array, n_classes: int, step_size: float, scale: float, T: int
    ) -> None:
        self.dtype, self.T, self.step_size = X.dtype, T, step_size
        self._step = X.dtype.type(step_size * scale)
        vector, (n, self.d) = lanes(X.dtype.itemsize), X.shape
        tall, stride = _whole(n, TALL), _whole(n_classes, vector)
        self.sizes = n, n_classes, tall, stride, vector
        self.X = aligned((tall, _whole(self.d, vector)), X.dtype)
        self.X[:n, : self.d] = X
        gram = aligned((tall, _whole(n, vector)), X.dtype)
        gram[:n, :n] = X @ X.T
        self._data = gram.reshape(-1), z.copy(), y.astype(np.int64), self.sizes

    def forward(self, P: Array, K: int) -> tuple[Array, Run]:
        """Return (W_T, b_T), (V, d + 1), and what `backward` needs."""
        _, V, tall, stride, _ = self.sizes
        M, dtype = aligned((V, stride), self.dtype), self.dtype
        M[:, :V] = np.eye(V, dtype=dtype) - self.step_size * P
        ring, kept = (aligned((k, tall * stride), dtype) for k in (max(K, 1) + 1, K))
        b, change = aligned((2, stride), dtype)
        room = self._by_class()
        _descend(*self._data, M.reshape(-1), self._step, self.T, ring, kept, b, change, room)
        W = np.concatenate([self._combine(ring[0]), b[:V, None]], axis=1)
        return W, Run(M, ring, kept)

    def backward(self, run: Run, alpha: Array) -> tuple[Array, Array]:
        """Return Σ_t α_{t+1} W_tᵀ, (V, V), over the last K steps, and ‖α_{T−1}‖² … ‖α_{T−K}‖².

        `alpha` is α_T, (V, d + 1); the products leave out its last column.
        """
        _, V, tall, stride, _ = self.sizes
        K, dtype, rows = len(run.kept), self.dtype, tall + _whole(V, TALL)
        # S; over one another B and N; and U and α_0 α_0ᵀ N.
        stacks = aligned((2, 3, rows, stride), dtype)
        total, D, a = (
            aligned(shape, dtype) for shape in ((V, stride), (tall * stride,), (2, stride))
        )
        squares, k = np.zeros(K, dtype), 0
        a[0, :V], alpha = alpha[:, -1], alpha[:, :-1]
        while k < K:
            start = stacks[k % 2]
            start[:] = 0
            start[0, :tall] = start[2, :tall] = self._scores(alpha)
            start[1, tall : tall + V, :V] = np.eye(V)
            start[2, tall : tall + V, :V] = alpha @ alpha.T
            least = dtype.type(_SMALL * ((alpha * alpha).sum() + a[0] @ a[0]))
            flat = stacks.reshape(2, 3, -1), a, D, total.reshape(-1), squares, self._by_class()
            M, step = run.M.reshape(-1), self._step
            k = _ascend(k, least, *self._data, M, step, run.ring, run.kept, *flat)
            if k < K:
                _, left, _ = stacks[k % 2]
                N, B = left[tall : tall + V, :V], left[:tall].reshape(-1)
                alpha = N @ alpha + self._combine(B)
        return total[:, :V], squares

    def _combine(self, A: Array) -> Array:
        """Return AᵀX, (V, d)."""
        n, V, _, stride, vector = self.sizes
        W = aligned((V, self.X.shape[1]), self.dtype)
        _add_up(A, stride, V, n, self.X.reshape(-1), self.X.shape[1], vector, W.reshape(-1))
        return W[:, : self.d]

    def _scores(self, W: Array) -> Array:
        """Return X Wᵀ, in whole rows of vectors."""
        _, V, tall, stride, _ = self.sizes
        S, padded = aligned((tall, stride), self.dtype), aligned((V, self.X.shape[1]), self.dtype)
        padded[:, : self.d] = W
        _dots(self.X.reshape(-1), padded.reshape(-1), self.sizes, S.reshape(-1))
        return S

    def _by_class(self) -> Array:
        """Return memory for a row of n numbers for each class."""
        n, V, _, _, vector = self.sizes
        return aligned((V * _whole(n, vector),), self.dtype)


@dataclass(frozen=True)
class Run:
    """The memory of one hypergradient: A_{T−t} lies in ring[t % len(ring)], its softmax in kept."""

    M: Array
    ring: Array
    kept: Array

    @property
    def held(self) -> int:
        """Bytes of the states."""
        return self.ring.nbytes + self.kept.nbytes


def _whole(n: int, k: int) -> int:
    """Return the next multiple of k."""
    return -(-n // k) * k


@njit(nogil=True, cache=True)
def _dots(A, B, sizes, out):  # type: ignore[no-untyped-def]
    """out_ic = A_i · B_c, for rows of A and B of the same length."""
    _, V, tall, stride, vector = sizes
    ld, several = B.size // V, V - V % _CLASSES
    for i in range(0, tall, ROWS):
        for c in range(0, several, _CLASSES):
            _dot(A, i * ld, ld, B, c * ld, ld, ld // vector, out, i * stride + c, stride)
        for c in range(several, V):
            _dot_one(A, i * ld, ld, B, c * ld, ld, ld // vector, out, i * stride + c, stride)


@njit(nogil=True, cache=True)
def _times_gram(G, S, sizes, by_class, out):  # type: ignore[no-untyped-def]
    """out = 𝒢 S. Dot products, since few classes would leave most of a vector of them empty."""
    n, V, _, stride, _ = sizes
    ld = by_class.size // V
    for i in range(n):
        for c in range(V):
            by_class[c * ld + i] = S[i * stride + c]
    _dots(G, by_class, sizes, out)


@njit(nogil=True, cache=True)
def _add_times(A, M, sizes, rows, out):  # type: ignore[no-untyped-def]
    """out += A M."""
    _, V, _, stride, vector = sizes
    for c in range(0, stride, vector):
        for i in range(0, rows * stride, TALL * stride):
            _times(A, i, stride, V, M, c, stride, out, i + c, stride)


@njit(nogil=True, cache=True)
def _add_up(R, ldr, classes, n, X, ld, vector, out):  # type: ignore[no-untyped-def]
    """out_c += Σ_i R[i·ldr + c] X_i, for rows of X and out; i over n."""
    several = classes - classes % _CLASSES
    for j in range(0, ld, vector):
        for c in range(0, several, _CLASSES):
            _add(R, c, ldr, n, X, j, ld, out, c * ld + j, ld, 1)
        for c in range(several, classes):
            _add_one(R, c, ldr, n, X, j, ld, out, c * ld + j, ld, 1)


@njit(nogil=True, cache=True)
def _descend(G, z, y, sizes, M, step, T, ring, kept, b, change, by_class):  # type: ignore[no-untyped-def]
    n, V, tall, stride, vector = sizes
    for t in range(T):
        A, out = ring[(T - t) % len(ring)], ring[(T - t - 1) % len(ring)]
        P = kept[T - 1 - t] if T - 1 - t < len(kept) else b[:0]
        _times_gram(G, A, sizes, by_class, out)
        for i in range(n):
            for c in range(stride):
                out[i * stride + c] += z[i] * b[c]
        for i in range(n):
            row = i * stride
            total = row_exp(out, row, V, row_max(out, row, V))
            if P.size:
                row_keep(out, row, P, row, V, 1 / total)
            row_residual(out, row, V, -step / total, y[i], -step)
        change[:] = 0
        _add_up(z, 1, 1, n, out, stride, vector, change)
        _add_times(A, M, sizes, tall, out)
        for c in range(stride):
            b[c] += change[c]


@njit(nogil=True, cache=True)
def _ascend(  # type: ignore[no-untyped-def]
    k, least, G, z, y, sizes, M, step, ring, kept, stacks, a, D, total, squares, by_class
):
    """Go back from step k; return the step that is reached, K or that with ‖α‖² < least."""
    n, V, tall, stride, vector = sizes
    rows = stacks.shape[2] // stride
    bias, change = a[0], a[1]
    while k < len(kept):
        A, P, old, new = ring[k + 1], kept[k], stacks[k % 2], stacks[(k + 1) % 2]
        S = old[0]
        for i in range(n):
            row = i * stride
            for c in range(stride):
                D[row + c] = S[row + c] + z[i] * bias[c]
            row_change(D, row, P, row, D, row, V, -step, row_dot(P, row, D, row, V))
        _add_up(S, stride, V, n, A, stride, vector, total)
        new[:] = 0
        for j in range(D.size):
            new[1, j] = D[j]
        _times_gram(G, D, sizes, by_class, new[0])
        _add_times(S, M, sizes, tall, new[0])
        _add_times(old[1], M, sizes, rows, new[1])
        _add_times(old[2], M, sizes, rows, new[2])
        change[:] = 0
        _add_up(z, 1, 1, n, D, stride, vector, change)
        square = bias[0] * 0
        for c in range(stride):
            bias[c] += change[c]
            square += bias[c] * bias[c]
        for i in range(rows):
            row = i * stride
            square += row_dot(new[1], row, new[0], row, V) + row_dot(new[1], row, new[2], row, V)
        squares[k] = square
        k += 1
        if square < least:
            break
    return k
