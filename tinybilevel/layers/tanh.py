"""The hyperbolic tangent."""

from __future__ import annotations

import numpy as np

from tinybilevel.arrays.backend import Array
from tinybilevel.layers.smooth import Smooth

__all__ = ["Tanh"]


class Tanh(Smooth):
    """y = tanh x.

    Examples
    --------
    >>> import numpy as np
    >>> import tinybilevel as tb
    >>> y, kept = tb.layers.Tanh().forward((), np.array([[0.0, 1.0]]))
    >>> y.round(3), tb.layers.Tanh().adjoint((), kept, np.ones((1, 2)))[1].round(3)  # 1 − y²
    (array([[0.   , 0.762]]), array([[1.  , 0.42]]))
    """

    def slopes(self, x: Array) -> tuple[Array, Array, Array]:
        y = np.tanh(x)
        return y, 1 - y**2, -2 * y * (1 - y**2)
