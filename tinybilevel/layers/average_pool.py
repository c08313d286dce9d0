"""The mean of neighbours."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array
from tinybilevel.layers.pool import Pool

__all__ = ["AveragePool"]


class AveragePool(Pool):
    """The mean of each window.

    Examples
    --------
    >>> import numpy as np
    >>> import tinybilevel as tb
    >>> x = np.arange(16.0).reshape(1, 1, 4, 4)
    >>> tb.layers.AveragePool(2).forward((), x)[0]
    array([[[[ 2.5,  4.5],
             [10.5, 12.5]]]])
    """

    def apply(self, chosen: Any, x: Array) -> Array:
        return self.windows(x).mean(axis=-1)

    def transpose(self, chosen: Any, g: Array) -> Array:
        spread = np.repeat((g / self.size**2)[..., None], self.size**2, axis=-1)
        return self.unwindow(spread, chosen)
