"""The mean over an image."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array
from tinybilevel.layers.base import Selection, Shape

__all__ = ["SpatialMean"]


class SpatialMean(Selection):
    """The mean of each channel over its image, (n, channels).

    Examples
    --------
    >>> import numpy as np
    >>> import tinybilevel as tb
    >>> x = np.stack([np.zeros((4, 4)), np.eye(4)])[None]  # one image of two channels
    >>> tb.layers.SpatialMean().forward((), x)[0]
    array([[0.  , 0.25]])
    """

    def output_shape(self, input_shape: Shape) -> Shape:
        if len(input_shape) != 3:
            raise ValueError(
                f"SpatialMean takes images (channels, height, width), got examples of {input_shape}"
            )
        return input_shape[:1]

    def apply(self, chosen: Any, x: Array) -> Array:
        return x.mean(axis=(2, 3))

    def transpose(self, chosen: Any, g: Array) -> Array:
        height, width = chosen[2:]
        return np.broadcast_to((g / (height * width))[:, :, None, None], chosen).copy()
