"""Images as vectors."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array
from tinybilevel.layers.base import Selection, Shape

__all__ = ["Flatten"]


class Flatten(Selection):
    """Each example as one vector.

    Examples
    --------
    >>> import numpy as np
    >>> import tinybilevel as tb
    >>> tb.layers.Flatten().forward((), np.zeros((5, 3, 8, 8)))[0].shape
    (5, 192)
    """

    def output_shape(self, input_shape: Shape) -> Shape:
        return (int(np.prod(input_shape)),)

    def apply(self, chosen: Any, x: Array) -> Array:
        return x.reshape(len(x), -1)

    def transpose(self, chosen: Any, g: Array) -> Array:
        return g.reshape(chosen)
