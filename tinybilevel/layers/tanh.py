"""The hyperbolic tangent."""

from __future__ import annotations

import numpy as np

from tinybilevel.arrays.backend import Array
from tinybilevel.layers.smooth import Smooth

__all__ = ["Tanh"]


class Tanh(Smooth):
    """y = tanh x."""

    def slopes(self, x: Array) -> tuple[Array, Array, Array]:
        y = np.tanh(x)
        return y, 1 - y**2, -2 * y * (1 - y**2)
