"""The mean of neighbours."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array
from tinybilevel.layers.pool import Pool

__all__ = ["AveragePool"]


class AveragePool(Pool):
    """The mean of each window."""

    def apply(self, chosen: Any, x: Array) -> Array:
        return self.windows(x).mean(axis=-1)

    def transpose(self, chosen: Any, g: Array) -> Array:
        spread = np.repeat((g / self.size**2)[..., None], self.size**2, axis=-1)
        return self.unwindow(spread, chosen)
