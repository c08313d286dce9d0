"""The rectifier."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array
from tinybilevel.layers.base import Selection

__all__ = ["ReLU"]


class ReLU(Selection):
    """y = max(x, 0). At x = 0 the derivative is taken to be 0.

    Examples
    --------
    >>> import numpy as np
    >>> import tinybilevel as tb
    >>> y, kept = tb.layers.ReLU().forward((), np.array([[-2.0, 0.0, 3.0]]))
    >>> y, tb.layers.ReLU().adjoint((), kept, np.ones((1, 3)))[1]
    (array([[0., 0., 3.]]), array([[0., 0., 1.]]))
    """

    def choose(self, x: Array) -> Any:
        return x > 0

    def apply(self, chosen: Any, x: Array) -> Array:
        return np.where(chosen, x, 0)

    def transpose(self, chosen: Any, g: Array) -> Array:
        return np.where(chosen, g, 0)
