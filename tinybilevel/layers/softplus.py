"""The smooth rectifier."""

from __future__ import annotations

import numpy as np

from tinybilevel.arrays.backend import Array
from tinybilevel.layers.smooth import Smooth

__all__ = ["Softplus"]


class Softplus(Smooth):
    """y = log(1 + exp x), a smooth max(x, 0).

    Examples
    --------
    >>> import numpy as np
    >>> import tinybilevel as tb
    >>> tb.layers.Softplus().forward((), np.array([[-3.0, 0.0, 30.0]]))[0].round(3)
    array([[ 0.049,  0.693, 30.   ]])
    """

    def slopes(self, x: Array) -> tuple[Array, Array, Array]:
        e = np.exp(-np.abs(x))
        sigmoid = np.where(x >= 0, 1, e) / (1 + e)
        return np.maximum(x, 0) + np.log1p(e), sigmoid, e / (1 + e) ** 2
