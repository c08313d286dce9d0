"""What a dense layer and a convolution share."""

from __future__ import annotations

from typing import Any

from tinybilevel.arrays.backend import Array
from tinybilevel.layers.base import Layer, Params, Shape

__all__ = ["Bilinear"]


class Bilinear(Layer):
    """y = U Wᵀ + b, where U = unfold(x) is linear in x: a row for each output position.

    With Ẇ, ḃ and U̇ = unfold(ẋ): ẏ = U̇ Wᵀ + U Ẇᵀ + ḃ. A cotangent G of y gives Gᵀ U to W, the sum
    of G's rows to b and fold(G W) to x, where fold is the adjoint of unfold. These are bilinear
    too, so that their tangents are Ġᵀ U + Gᵀ U̇, the sum of Ġ's rows and fold(Ġ W + G Ẇ).
    """

    bias: bool

    def forward(self, p: Params, x: Array) -> tuple[Array, Any]:
        U, W = self.unfold(x), self.matrix(p[0])
        Y = U @ W.T + p[1] if self.bias else U @ W.T
        return self.pack(Y, x.shape), (U, x.shape)

    def tangent(self, p: Params, kept: Any, dp: Params, dx: Array) -> tuple[Array, Any]:
        (U, shape), W, dW = kept, self.matrix(p[0]), self.matrix(dp[0])
        dU = self.unfold(dx)
        dY = dU @ W.T + U @ dW.T
        return self.pack(dY + dp[1] if self.bias else dY, shape), dU

    def adjoint(self, p: Params, kept: Any, gy: Array) -> tuple[Params, Array]:
        (U, shape), W, G = kept, self.matrix(p[0]), self.rows(gy)
        return self._pair(p, G.T @ U, G), self.fold(G @ W, shape)

    def adjoint_tangent(
        self, p: Params, kept: Any, dp: Params, dkept: Any, gy: Array, dgy: Array
    ) -> tuple[Params, Array]:
        (U, shape), W, dW, dU = kept, self.matrix(p[0]), self.matrix(dp[0]), dkept
        G, dG = self.rows(gy), self.rows(dgy)
        return self._pair(p, dG.T @ U + G.T @ dU, dG), self.fold(dG @ W + G @ dW, shape)

    def _pair(self, p: Params, gW: Array, G: Array) -> Params:
        gW = gW.reshape(p[0].shape)
        return (gW, G.sum(axis=0)) if self.bias else (gW,)

    def matrix(self, W: Array) -> Array:
        """Return the weights with a row for each output."""
        return W.reshape(len(W), -1)

    def unfold(self, x: Array) -> Array:
        """Return U, (positions, numbers that an output sees)."""
        raise TypeError(f"{type(self).__name__} must define unfold")

    def fold(self, U: Array, shape: Shape) -> Array:
        """Return the adjoint of `unfold`, of the shape of x."""
        raise TypeError(f"{type(self).__name__} must define fold")

    def pack(self, Y: Array, shape: Shape) -> Array:
        """Return the rows of Y as examples of y."""
        raise TypeError(f"{type(self).__name__} must define pack")

    def rows(self, y: Array) -> Array:
        """Return the adjoint of `pack`."""
        raise TypeError(f"{type(self).__name__} must define rows")
