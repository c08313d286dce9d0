"""What smooth functions of each number share."""

from __future__ import annotations

from typing import Any

from tinybilevel.arrays.backend import Array
from tinybilevel.layers.base import Layer, Params

__all__ = ["Smooth"]


class Smooth(Layer):
    """y = φ(x): ẏ = φ'ẋ, gx = φ'gy, of which the tangent is φ'ġy + φ''ẋ gy."""

    def slopes(self, x: Array) -> tuple[Array, Array, Array]:
        """Return φ(x), φ'(x) and φ''(x)."""
        raise TypeError(f"{type(self).__name__} must define slopes")

    def forward(self, p: Params, x: Array) -> tuple[Array, Any]:
        y, first, second = self.slopes(x)
        return y, (first, second)

    def tangent(self, p: Params, kept: Any, dp: Params, dx: Array) -> tuple[Array, Any]:
        first, second = kept
        return first * dx, second * dx

    def adjoint(self, p: Params, kept: Any, gy: Array) -> tuple[Params, Array]:
        return (), kept[0] * gy

    def adjoint_tangent(
        self, p: Params, kept: Any, dp: Params, dkept: Any, gy: Array, dgy: Array
    ) -> tuple[Params, Array]:
        return (), kept[0] * dgy + dkept * gy
