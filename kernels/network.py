"""A convolution and what follows it as one compiled layer: an overlay of the definitions.

A convolution is a matrix product of patches with kernels (`tinybilevel.layers.Bilinear`), and
compiled loops make the patches. Batch norm, rectifier and max-pooling are passes
over what comes out: of x̂ only what a window has chosen is kept, the rest is computed again from
the convolution where it is read. Images have channels last inside, of which a caller sees a view
in the order of the definitions.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from math import prod
from typing import Any, NamedTuple

import numpy as np

from tinybilevel.kernels.images import (
    fold,
    from_columns,
    norm_adjoint,
    norm_both,
    norm_forward,
    norm_tangent,
    to_columns,
    unfold,
)
from tinybilevel.kernels.product import multiply
from tinybilevel.kernels.workspace import FRESH, Workspace

__all__ = ["Convolution"]

Array = np.ndarray[Any, np.dtype[Any]]
Params = tuple[Array, ...]
Shape = tuple[int, int, int]
#: Bytes of patches that are kept for the other products; of more, a part is made at a time.
_KEPT, _PART = 1_000_000, 256_000


class _Kept(NamedTuple):
    """What the products need of `forward`; rows of a matrix are positions of images."""

    X: Array
    shape: Shape  # n, height, width of x
    places: Shape  # and of what the convolution returns
    U: Array | None  # patches of all images, where these are few
    V: Array  # kernels, a column for each output
    Y: Array  # what the convolution returns
    norm: tuple[Array, ...]  # scale; mean, 1/σ; x̂ of what the windows chose, and which


class _Moved(NamedTuple):
    """What `adjoint_tangent` needs of `tangent`."""

    dX: Array | None  # None where x stays
    dU: Array | None
    dV: Array
    dY: Array
    norm: tuple[Array, ...]  # how scale, ⟨Y⟩, σ and the chosen x̂ move


class Convolution:
    """Conv2d, and BatchNorm, ReLU and MaxPool where they follow, with the methods of a `Layer`.

    Everything is computed in the dtype of x and the parameters.

    Parameters
    ----------
    window : (int, int, int)
        Kernel size, stride and padding.
    bias : bool
        Whether the convolution has one.
    eps : float, optional
        Of the batch norm; None is none, and then nothing follows.
    rectify : bool
        Whether a ReLU follows.
    pool : int
        Size of the max-pooling; 1 is none.
    first : bool
        Whether x is mostly what it was at the last call, so that its patches are looked up.
    """

    def __init__(
        self,
        window: Shape,
        bias: bool,
        *,
        eps: float | None = None,
        rectify: bool = False,
        pool: int = 1,
        first: bool = False,
    ) -> None:
        self.window, self.bias, self.eps = window, bias, eps
        self.rectify, self.pool, self.first = rectify, pool, first
        self._work = FRESH
        self._seen: tuple[Array, Array] | None = None  # X, and its patches

    def bound(self) -> Convolution:
        """Return the same with working memory of its own, for one thread's use."""
        other = copy.copy(self)
        other._work, other._seen = Workspace(reuse=True), None
        return other

    def forward(self, p: Params, x: Array) -> tuple[Array, _Kept]:
        dtype = np.result_type(x, *p)
        (n, _, *sides), X = x.shape, _rows(x, dtype)
        k, s, a = self.window
        shape = (n, *sides)
        places = (n, *((side + 2 * a - k) // s + 1 for side in sides))
        V = self._columns("V", p[0], dtype)
        Y = self._work("Y", (prod(places), len(p[0])), V)
        U = self._patches(X, shape, places)
        for rows, part in self._parts(X, U, shape, places):
            multiply(part, False, V, Y[rows], False)
        if self.bias:
            Y += p[1]
        if self.eps is None:
            return _images(Y, places), _Kept(X, shape, places, U, V, Y, ())
        scale, shift = (np.array(part, dtype) for part in p[-2:])
        mean, inverse = self._work("mean", (2, *scale.shape), Y)
        windows = (n, places[1] // self.pool, places[2] // self.pool)
        z, x_hat = self._work("z", (2, prod(windows), len(scale)), Y)
        chosen = self._work("chosen", z.shape, _BYTE)
        norm_forward(
            Y, places, self.pool, self.rectify, scale, shift, self.eps, mean, inverse, z, x_hat,
            chosen,
        )  # fmt: skip
        norm = (scale, mean, inverse, x_hat, chosen)
        return _images(z, windows), _Kept(X, shape, places, U, V, Y, norm)

    def tangent(self, p: Params, kept: _Kept, dp: Params, dx: Array) -> tuple[Array, _Moved]:
        X, shape, places, U, V, Y, norm = kept
        dV, dU = self._columns("dV", dp[0], Y.dtype), None
        dX = _rows(dx, Y.dtype) if dx.any() else None
        dY = self._work("dY", Y.shape, Y)
        for rows, part in self._parts(X, U, shape, places):
            multiply(part, False, dV, dY[rows], False)
        if dX is not None:
            if U is not None:
                dU = self._work("dU", U.shape, Y)
                unfold(dX, shape, *self.window, dU)
            for rows, part in self._parts(dX, dU, shape, places):
                multiply(part, False, V, dY[rows], True)
        if self.bias:
            dY += dp[1]
        if self.eps is None:
            return _images(dY, places), _Moved(dX, dU, dV, dY, ())
        scale, mean, inverse, x_hat, chosen = norm
        dscale, dshift = (np.array(part, Y.dtype) for part in dp[-2:])
        dmean, dsigma = self._work("dmean", (2, *scale.shape), Y)
        dz, dx_hat = self._work("dz", (2, *x_hat.shape), Y)
        norm_tangent(
            Y, dY, places, self.pool, scale, dscale, dshift, mean, inverse, x_hat, chosen, dmean,
            dsigma, dz, dx_hat,
        )  # fmt: skip
        windows = (places[0], places[1] // self.pool, places[2] // self.pool)
        return _images(dz, windows), _Moved(dX, dU, dV, dY, (dscale, dmean, dsigma, dx_hat))

    def adjoint(self, p: Params, kept: _Kept, gy: Array) -> tuple[Params, Array]:
        gp, gx = self.gradients(p, kept, gy, True)
        assert gx is not None
        return gp, gx

    def adjoint_tangent(
        self, p: Params, kept: _Kept, dp: Params, dkept: _Moved, gy: Array, dgy: Array
    ) -> tuple[Params, Array]:
        return self.products(p, kept, dp, dkept, gy, dgy, False)[1]

    def gradients(
        self, p: Params, kept: _Kept, gy: Array, inputs: bool
    ) -> tuple[Params, Array | None]:
        """Return `adjoint`, without the cotangent of x where nobody asks for `inputs`."""
        X, shape, places, U, V, Y, norm = kept
        G = _rows(gy, Y.dtype)
        after: Params = ()
        if self.eps is not None:
            after = tuple(self._work("gnorm", (2, Y.shape[1]), Y))
            out = self._work("G", Y.shape, Y)
            norm_adjoint(Y, places, self.pool, *norm, G, *after, out)
            G = out
        gV = self._work("gV", V.shape, Y)
        for k, (rows, part) in enumerate(self._parts(X, U, shape, places)):
            multiply(part, True, G[rows], gV, k > 0)
        gx = self._fold("gx", kept, (G, V)) if inputs else None
        return self._pack("gW", gV, G, after, p[0]), gx

    def products(
        self,
        p: Params,
        kept: _Kept,
        dp: Params,
        dkept: _Moved,
        gy: Array,
        dgy: Array,
        inputs: bool,
    ) -> tuple[tuple[Params, Array | None], tuple[Params, Array]]:
        """Return `adjoint`, without the cotangent of x where not asked for, and its tangent."""
        X, shape, places, U, V, Y, norm = kept
        dX, dU, dV, dY, dnorm = dkept
        after = self._work("gnorms", (4, Y.shape[1]), Y)
        both = self._work("G2", (2, *Y.shape), Y)
        g, dg = _rows(gy, Y.dtype), _rows(dgy, Y.dtype)
        if self.eps is None:
            both[0], both[1] = g, dg
        else:
            (scale, mean, inverse, x_hat, chosen), (dscale, dmean, dsigma, dx_hat) = norm, dnorm
            norm_both(
                Y, dY, places, self.pool, scale, dscale, mean, inverse, x_hat, chosen, dmean,
                dsigma, dx_hat, g, dg, *after, both,
            )  # fmt: skip
        (G, dG), (gV, dgV) = both, self._work("gV2", (2, *V.shape), Y)
        for k, (rows, part) in enumerate(self._parts(X, U, shape, places)):
            multiply(part, True, G[rows], gV, k > 0)
            multiply(part, True, dG[rows], dgV, k > 0)
        if dX is not None:
            for rows, part in self._parts(dX, dU, shape, places):
                multiply(part, True, G[rows], dgV, True)
        dgx = self._fold("dgx", kept, (dG, V), (G, dV))
        gx = self._fold("gx", kept, (G, V)) if inputs else None
        ends = ((), ()) if self.eps is None else (tuple(after[:2]), tuple(after[2:]))
        moved = self._pack("dgW", dgV, dG, ends[1], p[0])
        return (self._pack("gW", gV, G, ends[0], p[0]), gx), (moved, dgx)

    def _columns(self, name: str, W: Array, dtype: Any) -> Array:
        """Return kernels as a matrix, in the order of patches with channels last."""
        outputs, channels, k, _ = W.shape
        V = self._work(name, (k * k * channels, outputs), np.empty(0, dtype))
        to_columns(W.astype(dtype, copy=False).reshape(outputs, channels, -1), V)
        return V

    def _patches(self, X: Array, shape: Shape, places: Shape) -> Array | None:
        """Return the patches of all images, unless they are many."""
        k = self.window[0]
        size = prod(places), k * k * X.shape[1]
        if size[0] * size[1] * X.itemsize > _KEPT:
            return None
        seen, U = self._seen or (None, None)
        if seen is not None and seen.dtype == X.dtype and np.array_equal(seen, X):
            return U
        U = self._work("U", size, X)
        unfold(X, shape, *self.window, U)
        if self.first and self._work is not FRESH:
            self._seen = X.copy(), U
        return U

    def _parts(
        self, X: Array, U: Array | None, shape: Shape, places: Shape
    ) -> Iterator[tuple[slice, Array]]:
        """Yield rows of Y with their patches: all of them, or some images at a time."""
        if U is not None:
            yield slice(None), U
            return
        n, height, width = shape
        k, each = self.window[0], places[1] * places[2]
        row = k * k * X.shape[1]
        count = max(1, _PART // (each * row * X.itemsize))
        buffer = self._work("part", (count * each, row), X)
        for start in range(0, n, count):
            stop = min(start + count, n)
            part = buffer[: (stop - start) * each]
            seen = X[start * height * width : stop * height * width]
            unfold(seen, (stop - start, height, width), *self.window, part)
            yield slice(start * each, stop * each), part

    def _fold(self, name: str, kept: _Kept, *factors: tuple[Array, Array]) -> Array:
        """Return the images of which the patches are Σ G Vᵀ, from pairs (G, V)."""
        X, (n, height, width), places, *_ = kept
        each, row = places[1] * places[2], len(kept.V)
        gx, count = self._work(name, X.shape, X), max(1, _PART // (each * row * X.itemsize))
        buffer = self._work("gU", (min(count, n) * each, row), X)
        pairs = [(G, np.ascontiguousarray(V.T)) for G, V in factors]
        for start in range(0, n, count):
            stop = min(start + count, n)
            part = buffer[: (stop - start) * each]
            for k, (G, across) in enumerate(pairs):
                multiply(G[start * each : stop * each], False, across, part, k > 0)
            seen = gx[start * height * width : stop * height * width]
            fold(part, (stop - start, height, width), *self.window, seen)
        return _images(gx, kept.shape)

    def _pack(self, name: str, gV: Array, G: Array, after: Params, W: Array) -> Params:
        """Return the cotangents of the parameters."""
        outputs, channels, k, _ = W.shape
        gW = self._work(name, (outputs, channels, k * k), gV)
        from_columns(gV, gW)
        bias = (G.sum(axis=0),) if self.bias else ()
        return (gW.reshape(W.shape), *bias, *after)


_BYTE = np.empty(0, np.uint8)


def _rows(x: Array, dtype: Any) -> Array:
    """Return images (n, channels, height, width) as a row for each position."""
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1), dtype).reshape(-1, x.shape[1])


def _images(X: Array, shape: Shape) -> Array:
    """Return the adjoint of `_rows`."""
    return X.reshape(*shape, -1).transpose(0, 3, 1, 2)
