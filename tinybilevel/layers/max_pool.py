"""The largest of neighbours."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array
from tinybilevel.layers.pool import Pool

__all__ = ["MaxPool"]


class MaxPool(Pool):
    """The largest number of each window; where several are, the first of them, row by row.

    After a `ReLU` most ties are between zeros, of which none carries a gradient further back.

    Examples
    --------
    >>> import numpy as np
    >>> import tinybilevel as tb
    >>> x = np.arange(16.0).reshape(1, 1, 4, 4)
    >>> y, kept = tb.layers.MaxPool(2).forward((), x)
    >>> y
    array([[[[ 5.,  7.],
             [13., 15.]]]])
    >>> tb.layers.MaxPool(2).adjoint((), kept, np.ones_like(y))[1]  # only the largest moves
    array([[[[0., 0., 0., 0.],
             [0., 1., 0., 1.],
             [0., 0., 0., 0.],
             [0., 1., 0., 1.]]]])
    """

    def choose(self, x: Array) -> Any:
        return self.windows(x).argmax(axis=-1)[..., None], x.shape

    def apply(self, chosen: Any, x: Array) -> Array:
        return np.take_along_axis(self.windows(x), chosen[0], axis=-1)[..., 0]

    def transpose(self, chosen: Any, g: Array) -> Array:
        index, shape = chosen
        windows = np.zeros_like(g, shape=(*g.shape, self.size**2))
        np.put_along_axis(windows, index, g[..., None], axis=-1)
        return self.unwindow(windows, shape)
