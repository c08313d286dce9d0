"""The rectifier."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array
from tinybilevel.layers.base import Selection

__all__ = ["ReLU"]


class ReLU(Selection):
    """y = max(x, 0). At x = 0 the derivative is taken to be 0."""

    def choose(self, x: Array) -> Any:
        return x > 0

    def apply(self, chosen: Any, x: Array) -> Array:
        return np.where(chosen, x, 0)

    def transpose(self, chosen: Any, g: Array) -> Array:
        return np.where(chosen, g, 0)
