"""What pooling layers share."""

from __future__ import annotations

import numpy as np

from tinybilevel.arrays.backend import Array
from tinybilevel.arrays.checks import as_count
from tinybilevel.layers.base import Selection, Shape

__all__ = ["Pool"]


class Pool(Selection):
    """Windows of size × size side by side; what is left over at the right and below is dropped.

    Parameters
    ----------
    size : int
        Height, width and stride of a window.
    """

    def __init__(self, size: int) -> None:
        self.size = as_count("size", size, minimum=1)

    def output_shape(self, input_shape: Shape) -> Shape:
        name = type(self).__name__
        if len(input_shape) != 3:
            raise ValueError(
                f"{name} takes images (channels, height, width), got examples of {input_shape}"
            )
        channels, height, width = input_shape
        if min(height, width) < self.size:
            raise ValueError(f"{name} of {self.size} does not fit into {input_shape}")
        return channels, height // self.size, width // self.size

    def windows(self, x: Array) -> Array:
        """Return x as (n, channels, rows, columns, size²)."""
        k = self.size
        n, c = x.shape[:2]
        rows, columns = x.shape[2] // k, x.shape[3] // k
        x = x[:, :, : k * rows, : k * columns].reshape(n, c, rows, k, columns, k)
        return x.transpose(0, 1, 2, 4, 3, 5).reshape(n, c, rows, columns, k * k)

    def unwindow(self, windows: Array, shape: Shape) -> Array:
        """Return the adjoint of `windows`: zeros where numbers were dropped."""
        k = self.size
        n, c, rows, columns, _ = windows.shape
        x = np.zeros_like(windows, shape=shape)
        blocks = windows.reshape(n, c, rows, columns, k, k).transpose(0, 1, 2, 4, 3, 5)
        x[:, :, : k * rows, : k * columns] = blocks.reshape(n, c, k * rows, k * columns)
        return x
