"""Softmax regression in NumPy, block by block of rows: an overlay of the definition.

For products of a tall matrix with few columns BLAS spends most of its time on a copy of X, and on
waking its threads. It leaves a small product to the calling thread, which also does without the
copy. So data are taken in blocks of some hundred rows here, each product with a block in pieces
that no BLAS starts threads for, and the blocks are shared among threads of our own. Scores
take all their pieces in one call, row by row as they lie in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from tinybilevel.kernels.remembered import Remembering
from tinybilevel.kernels.threads import (
    blas_alone,
    blas_can_be_alone,
    blas_kernels,
    in_parallel,
)
from tinybilevel.kernels.workspace import FRESH, Workspace

__all__ = ["Softmax"]

Array = np.ndarray[Any, np.dtype[Any]]

#: Multiply-adds of a product with X from which threads repay being woken.
_LARGE = 10_000_000
#: Teams, at most.
_MOST = 32
#: Multiply-adds of a product with a block.
_BLOCK = 800_000
#: The same of a piece. Beyond this OpenBLAS wakes its threads, or beyond twice as much where it has
#: a second look; ours and its own at once take a hundred times as long.
_PIECE = 262_144
#: The same where its kernels for AVX-512 take sums over examples in place; scores only at times.
_SUM = 1_000_000 if blas_kernels() in ("SkylakeX", "Cooperlake", "SapphireRapids") else _PIECE
#: The same of a matrix and a vector.
_PIECE_OF_VECTOR = 9_215
#: Rows or columns of a piece are a multiple of this where they can be: vectors without a rest.
_EVEN = 16
#: Rows that a block must have to be worth it.
_SHORTEST = 16
#: Rows of a team's products where they are left to BLAS as they are, at least; half as many rather
#: than one team, with BLAS's own threads: they look out for more work for a tenth of a second, on
#: the cores that the teams of larger data want.
_LONG = 1000
#: Blocks are taken in strips of so many at most: what is made of them stays in cache.
_STRIP = 32
#: Numbers that NumPy allocates to convert what it goes through, which is nothing here.
_BUFFER = 512
_ALL = slice(None)


class Softmax:
    """Σ_i over the rows of X of what ℓ_i(W) = log Σ_c exp(W x_i)_c − (W x_i)_{y_i} gives.

    With the names of `tinybilevel.objectives.softmax`, whose definition it stands in for.

    Parameters
    ----------
    X : ndarray or scipy.sparse array (n, d)
        Examples.
    y : ndarray (n,) of int
        Classes.
    n_classes : int
        C.
    """

    def __init__(self, X: Any, y: Array, n_classes: int) -> None:
        self.X, self.y, self.n_classes = X, y, n_classes
        self.shape, self.dtype = X.shape, X.dtype
        self._teams = _teams(X, y, n_classes)
        self._work = FRESH

    def __reduce__(self) -> Any:
        # The parts are views of X, which a pickle would copy.
        return Softmax, (self.X, self.y, self.n_classes)

    def bound(self, remember: int = 0) -> Any:
        """Return the same sums with working memory of their own, for one thread's use.

        With `remember`, its products take up so many softmaxes of its latest gradients.
        """
        other = object.__new__(Softmax)
        other.__dict__.update(self.__dict__, _work=Workspace())
        other._teams = []
        for team in self._teams:
            spaces = {part.X.shape: Workspace() for part in team}
            other._teams.append([replace(part, work=spaces[part.X.shape]) for part in team])
        return Remembering(other, remember) if remember else other

    def room(self) -> Array:
        """Return memory for the softmax of all examples, which `grad` can keep for `grad_vjp`."""
        return np.empty((self.n_classes, len(self.y)), self.dtype)

    def losses(self, W: Array) -> Array:
        """Return ℓ_i(W), (n,)."""
        out = self._work("losses", self.y.shape, W, _entries(self.X))

        def losses(part: _Part) -> None:
            S = part.scores(W)
            S -= part.over_classes(S.max, S, "top")
            own = part.own(S)
            total = part.over_classes(np.exp(S, out=S).sum, S, "total")
            np.subtract(np.log(total, out=total), own, out=out[part.rows])

        self._each(losses)
        return out

    def grad(self, W: Array, weights: Array, keep: Array | None = None) -> Array:
        """Return Σ_i weights_i ∇ℓ_i(W), (C, d); `weights` is (n,), or (1,) for all."""

        def grad(part: _Part, out: Array) -> None:
            P = part.softmax(part.scores(W))
            if keep is not None:
                keep[:, part.rows] = P
            part.times_X(part.residual(P), weights, out)

        return self._sum(grad, self._out("grad", W, weights))

    def grad_vjp(
        self, W: Array, V: Array, weights: Array, kept: Array | None = None
    ) -> tuple[Array, Array]:
        """Return Σ_i weights_i ∇²ℓ_i(W) V, (C, d), and each ∇ℓ_i(W)·V, (n,).

        With the softmax at W in `kept`, W itself is not looked at.
        """
        along = self._work("along", self.y.shape, W, V, _entries(self.X))
        WV = self._both(W, V)

        def grad_vjp(part: _Part, out: Array) -> None:
            if kept is None:
                S, dS = part.both(WV)
                P = part.softmax(S)
            else:
                P, dS = kept[:, part.rows], part.scores(WV[len(W) :])
            dP, mean, own = part.change(P, dS)
            np.subtract(mean, own, out=along[part.rows])
            part.times_X(dP, weights, out)

        return self._sum(grad_vjp, self._out("hessian", W, V, weights)), along

    def grad_jvp(self, W: Array, dW: Array, weights: Array, dweights: Array) -> Array:
        """Return Σ_i (weights_i ∇²ℓ_i(W) dW + dweights_i ∇ℓ_i(W)), (C, d)."""
        WV = self._both(W, dW)

        def grad_jvp(part: _Part, out: Array) -> None:
            S, dS = part.both(WV)
            P = part.softmax(S)
            dP, _, _ = part.change(P, dS)
            dR = dP * part.of(weights) + part.residual(P) * part.of(dweights)
            part.times_X(dR, None, out)

        return self._sum(grad_jvp, self._out("jvp", W, dW, weights, dweights))

    def _both(self, W: Array, V: Array) -> Array:
        """Return W above V, (2 C, d)."""
        return np.concatenate([W, V], out=self._work("both", (2 * len(W), W.shape[1]), W, V))

    def _out(self, name: str, *operands: Array) -> Array:
        return self._work(name, operands[0].shape, *operands, _entries(self.X))

    def _each(self, do: Callable[[_Part], None]) -> None:
        """Do something with each part, on a thread for each team."""

        def work(team: list[_Part]) -> None:
            size = np.setbufsize(_BUFFER)
            try:
                for part in team:
                    do(part)
            finally:
                np.setbufsize(size)

        whole = len(self._teams) > 1 and not self._teams[0][0].block
        with blas_alone() if whole else nullcontext():
            in_parallel([partial(work, team) for team in self._teams])

    def _sum(self, write: Callable[[_Part, Array], None], out: Array) -> Array:
        """Write the sum over parts of what `write` writes for each."""
        count = sum(len(team) for team in self._teams)
        if count == 1:
            self._each(lambda part: write(part, out))
            return out
        sums = self._work("sums", (count, *out.shape), out)
        self._each(lambda part: write(part, sums[part.number]))
        return np.add.reduce(sums, axis=0, out=out)


@dataclass(frozen=True)
class _Part:
    """Rows of X, n of them, whose products with X are taken `block` rows at a time."""

    number: int
    X: Any
    rows: slice
    labels: Array  # where entry (y_i, i) of a (C, n) array lies in memory, (n,)
    n_classes: int
    block: int  # 0: all at once
    pieces: list[tuple[slice, int]]  # where, and how many rows each: those of a score
    pieces_of_both: list[tuple[slice, int]]  # those of two at once
    # Where blocks lie, how many rows each, and the pieces of a sum over one.
    blocks: list[tuple[slice, int, list[tuple[slice, slice]]]]
    work: Workspace = FRESH

    def of(self, per_example: Array) -> Array:
        """Return the entries of these rows, a view; one for all examples comes back as it is."""
        return per_example if per_example.size == 1 else per_example[self.rows]

    def scores(self, W: Array) -> Array:
        """Return W Xᵀ, (C, n), or (2 C, n) of two above each other."""
        S = self._room(W)[: len(W)]
        if hasattr(self.X, "tocsr"):
            S[...] = W @ self.X.T  # SciPy's sparse products have no `out`
        elif not self.block:
            np.matmul(W, self.X.T, out=S)
        else:
            for at, rows in self.pieces if len(W) == self.n_classes else self.pieces_of_both:
                X = self.X[at].reshape(-1, rows, self.X.shape[1])
                np.matmul(W, X.swapaxes(1, 2), out=_by_block(S[:, at], rows))
        return S

    def both(self, WV: Array) -> tuple[Array, Array]:
        """Return W Xᵀ and V Xᵀ, (C, n) each, by one product, which goes through X once."""
        S = self.scores(WV)
        return S[: self.n_classes], S[self.n_classes :]

    def softmax(self, P: Array) -> Array:
        """Turn scores into P."""
        P -= self.over_classes(P.max, P, "top")
        np.exp(P, out=P)
        P /= self.over_classes(P.sum, P, "total")
        return P

    def change(self, P: Array, dS: Array) -> tuple[Array, Array, Array]:
        """Return dP = P ∘ (dS − mean), mean = Σ_c P ∘ dS, and dS at the labels."""
        own = self.own(dS)
        dP = np.multiply(P, dS, out=self._like_scores("dP", P, dS))
        mean = self.over_classes(dP.sum, dP, "mean")
        dS -= mean
        return np.multiply(P, dS, out=dP), mean, own

    def own(self, S: Array) -> Array:
        """Return the entries (y_i, i)."""
        own = self.work("own", self.labels.shape, S)
        # NumPy takes a copy of `own` unless it is told what to do out of range, where none is.
        return S.take(self.labels, out=own, mode="clip")

    def residual(self, P: Array) -> Array:
        """Turn P into R = P − onehot(y)."""
        own = self.own(P)
        own -= 1
        # Indices into P.ravel(), which NumPy writes without a copy.
        np.put(P, self.labels, own)
        return P

    def over_classes(self, reduce: Any, S: Array, name: str) -> Array:
        """Return S.max or S.sum over the classes of each example."""
        return reduce(axis=0, out=self.work(name, self.labels.shape, S))

    def times_X(self, R: Array, weights: Array | None, out: Array) -> None:
        """Write (R ∘ weights) X, (C, d)."""
        if weights is not None:
            weights = self.of(weights)
            R = np.multiply(R, weights, out=self._like_scores("weighted", R, weights))
        if hasattr(self.X, "tocsr"):
            out[...] = (self.X.T @ R.T).T
        elif not self.block:
            np.matmul(R, self.X, out=out)
        else:
            count = sum((at.stop - at.start) // rows for at, rows, _ in self.blocks)
            products, left = self.work("products", (count, *out.shape), out), 0
            for at, rows, pieces in self.blocks:
                X, by_block = self.X[at].reshape(-1, rows, out.shape[1]), _by_block(R[:, at], rows)
                these, left = products[left : left + len(X)], left + len(X)
                for c, j in pieces:
                    np.matmul(by_block[:, c], X[..., j], out=these[:, c, j])
            np.add.reduce(products, axis=0, out=out)

    def _room(self, W: Array) -> Array:
        """Return where scores go, of two at most."""
        return self.work("scores", (2 * self.n_classes, self.labels.size), W, _entries(self.X))

    def _like_scores(self, name: str, *operands: Array) -> Array:
        return self.work(name, (self.n_classes, self.labels.size), *operands, _entries(self.X))


class _TwoClasses(_Part):
    """The same with one score, of which BLAS makes three times as short work as of two columns.

    Only differences of scores count, so that those of class 0 may be 0; and what the classes have
    of an example adds up to 0.
    """

    def both(self, WV: Array) -> tuple[Array, Array]:
        return self.scores(WV[:2]), self.scores(WV[2:], self._room(WV)[2:])

    def scores(self, W: Array, S: Array | None = None) -> Array:
        S = self._room(W)[:2] if S is None else S
        w = W[1] - W[0]
        w += 0 * w  # NaN where it is infinite, as the softmax of an infinite score is
        S[0] = 0
        for at, rows in self.pieces:
            X = self.X[at].reshape(-1, rows, w.size)
            np.matmul(X, w, out=S[1, at].reshape(-1, rows))
        return S

    def times_X(self, R: Array, weights: Array | None, out: Array) -> None:
        own = R[1] if weights is None else R[1] * self.of(weights)
        out[1] = 0
        for at, rows in self.pieces:
            X = self.X[at].reshape(-1, rows, out.shape[1])
            products = self.work(f"products of {rows}", (len(X), 1, out.shape[1]), out)
            np.matmul(own[at].reshape(-1, 1, rows), X, out=products)
            out[1] += products.sum(axis=(0, 1))
        np.negative(out[1], out=out[0])


def _teams(X: Any, y: Array, n_classes: int) -> list[list[_Part]]:
    """Return the parts of X that each thread takes."""
    n, d = X.shape
    # Three rows or columns of W at least make a piece, so that none needs to be alone.
    most = min(_BLOCK // (n_classes * d), _SUM // (3 * min(n_classes, d)))
    work = n * n_classes * d
    if not _plain(X) or 2 * work <= _PIECE:  # both scores at once
        return [[_part(0, X, y, n_classes, slice(0, n), 0)]]
    if most < _SHORTEST or 6 * n_classes * d > _PIECE:  # three rows of both scores are a piece
        most = max(n // _LONG, min(2 * n // _LONG, 2))
        shares = min(_team_count(work), most) if blas_can_be_alone() else 1
        shares = 2 ** (max(shares, 1).bit_length() - 1)
        rows = _shares(n, shares)
        return [[_part(k, X, y, n_classes, r, 0)] for k, r in enumerate(rows)]
    if n <= most:
        return [[_part(0, X, y, n_classes, slice(0, n), n)]]
    block = -(-n // -(-n // most))  # of nearly equal blocks, what is left is short
    shares = min(_team_count(work) if work >= _LARGE else 1, n // block)
    teams, number = [], 0
    for k, share in enumerate(_shares(n, shares)):
        cuts, blocks = [0], max((share.stop - share.start) // block, 1)
        while cuts[-1] < blocks:
            # The first ends at another time for each: not all want the interpreter at once.
            step = min(_STRIP, blocks)
            step = step if len(cuts) > 1 else -(-step * (k + 1) // shares)
            cuts.append(min(cuts[-1] + step, blocks))
        ends = [*(share.start + cut * block for cut in cuts[:-1]), share.stop]
        rows = [slice(a, b) for a, b in pairwise(ends)]
        teams.append([_part(number + i, X, y, n_classes, r, block) for i, r in enumerate(rows)])
        number += len(rows)
    return teams


def _shares(n: int, count: int) -> list[slice]:
    """Cut n rows into so many shares, as equal as can be."""
    return [slice(n * k // count, n * (k + 1) // count) for k in range(count)]


def _team_count(work: int) -> int:
    """Return how many teams share a large product, whatever threads there are: sums go by team."""
    return min(max(2 ** ((work // _LARGE).bit_length() - 1), 2), _MOST)


def _part(number: int, X: Any, y: Array, n_classes: int, rows: slice, block: int) -> _Part:
    whole = rows.stop - rows.start == len(y)
    X, y = (X, y) if whole else (X[rows], y[rows])
    (n, d), C = X.shape, n_classes
    labels = y * n + np.arange(n)
    if C == 2 and _plain(X) and _PIECE_OF_VECTOR // d > _SHORTEST:
        pieces = _pieces_of_rows(n, d, _PIECE_OF_VECTOR)
        return _TwoClasses(number, X, rows, labels, C, block, pieces, [], [])
    if not block:
        return _Part(number, X, rows, labels, C, 0, [], [], [])
    pieces, of_both = (_pieces_of_rows(n, k * d, _PIECE) for k in (C, 2 * C))
    blocks = [(at, k, _pieces_of_W(k, C, d)) for at, k in _equal(n, block)]
    return _Part(number, X, rows, labels, C, block, pieces, of_both, blocks)


def _plain(X: Any) -> bool:
    """Return whether rows of X lie one after another."""
    return not hasattr(X, "tocsr") and X.flags.c_contiguous


def _pieces_of_rows(n: int, size: int, most: int) -> list[tuple[slice, int]]:
    """Cut n rows into pieces of equal length, and a shorter one."""
    rows = most // size
    return _equal(n, rows // _EVEN * _EVEN or rows)


def _equal(n: int, rows: int) -> list[tuple[slice, int]]:
    """Cut n rows into pieces of so many, and what is left."""
    cuts = [0, n - n % rows, n]
    if 0 < cuts[1] == n - 1:  # one row alone is BLAS's to thread again, two are not
        cuts = [0, cuts[1] - rows, n - 2, n]
    return [(slice(a, b), min(rows, b - a)) for a, b in pairwise(cuts) if a < b]


def _pieces_of_W(block: int, C: int, d: int) -> list[tuple[slice, slice]]:
    """Cut the longer side of W: what is one row or column wide is BLAS's to thread again."""
    length, most = max(C, d), _SUM // (block * min(C, d))
    count = -(-length // most)
    cuts = [length * k // count for k in range(count + 1)]
    even = [min(-(-cut // _EVEN) * _EVEN, length) for cut in cuts]
    if all(1 < b - a <= most for a, b in pairwise(even)):
        cuts = even
    pieces = [slice(a, b) for a, b in pairwise(cuts)]
    return [(_ALL, piece) if d >= C else (piece, _ALL) for piece in pieces]


def _by_block(S: Array, block: int) -> Array:
    """View a (C, n) array as (blocks, C, block)."""
    return S.reshape(len(S), -1, block).swapaxes(0, 1)


def _entries(X: Any) -> Array:
    """Return an array of the dtype of X."""
    return X.data if hasattr(X, "tocsr") else X
