"""A convolution of images."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from tinybilevel.arrays.backend import Array
from tinybilevel.arrays.checks import as_count
from tinybilevel.layers.base import Params, Shape
from tinybilevel.layers.bilinear import Bilinear

__all__ = ["Conv2d"]


class Conv2d(Bilinear):
    """Cross-correlation of images with kernels, as everywhere called a convolution.

    y[n, o, i, j] = b[o] + Σ_{c,k,l} W[o, c, k, l] x[n, c, s i + k − a, s j + l − a], with zeros
    outside of x, stride s and padding a. unfold(x) has the patch under the kernel as a row for each
    (n, i, j); fold adds the rows back to where they came from.

    Parameters
    ----------
    channels : int
        Channels of y.
    kernel_size : int
        Height and width of the kernels.
    stride, padding : int
        s, at least 1, and a, at least 0.
    bias : bool
        Whether there is a b.

    Examples
    --------
    >>> import numpy as np
    >>> import tinybilevel as tb
    >>> x = np.arange(9.0).reshape(1, 1, 3, 3)
    >>> edge = np.array([[[[-1.0, 1.0], [-1.0, 1.0]]]])  # (channels of y, of x, 2, 2)
    >>> layer = tb.layers.Conv2d(1, kernel_size=2, bias=False)
    >>> layer.output_shape((1, 3, 3)), layer.forward((edge,), x)[0]
    ((1, 2, 2), array([[[[2., 2.],
             [2., 2.]]]]))
    """

    def __init__(
        self, channels: int, kernel_size: int, stride: int = 1, padding: int = 0, bias: bool = True
    ) -> None:
        self.channels = as_count("channels", channels, minimum=1)
        self.kernel_size = as_count("kernel_size", kernel_size, minimum=1)
        self.stride = as_count("stride", stride, minimum=1)
        self.padding = as_count("padding", padding)
        self.bias = bool(bias)

    def shapes(self, input_shape: Shape) -> dict[str, Shape]:
        k = self.kernel_size
        shapes: dict[str, Shape] = {"weight": (self.channels, input_shape[0], k, k)}
        return shapes | {"bias": (self.channels,)} if self.bias else shapes

    def output_shape(self, input_shape: Shape) -> Shape:
        if len(input_shape) != 3:
            raise ValueError(
                f"Conv2d takes images (channels, height, width), got examples of {input_shape}"
            )
        height, width = (self._places(size) for size in input_shape[1:])
        if min(height, width) < 1:
            raise ValueError(
                f"Conv2d has a kernel of {self.kernel_size} that does not fit into {input_shape} "
                f"with padding {self.padding}"
            )
        return self.channels, height, width

    def init(self, rng: np.random.Generator, input_shape: Shape) -> Params:
        """Draw N(0, 2/(inputs of a kernel)) (He et al. 2015); biases are 0."""
        shape = self.shapes(input_shape)["weight"]
        W = rng.standard_normal(shape) * (2 / np.prod(shape[1:])) ** 0.5
        return (W, np.zeros(self.channels)) if self.bias else (W,)

    def unfold(self, x: Array) -> Array:
        k, s, a = self.kernel_size, self.stride, self.padding
        x = np.pad(x, ((0, 0), (0, 0), (a, a), (a, a)))
        windows = sliding_window_view(x, (k, k), axis=(2, 3))[:, :, ::s, ::s]
        return windows.transpose(0, 2, 3, 1, 4, 5).reshape(-1, x.shape[1] * k * k)

    def fold(self, U: Array, shape: Shape) -> Array:
        k, s, a = self.kernel_size, self.stride, self.padding
        n, c, height, width = shape
        rows, columns = self._places(height), self._places(width)
        patches = U.reshape(n, rows, columns, c, k, k)
        x = np.zeros_like(U, shape=(n, c, height + 2 * a, width + 2 * a))
        for i in range(k):
            for j in range(k):
                under = x[:, :, i : i + s * rows : s, j : j + s * columns : s]
                under += patches[..., i, j].transpose(0, 3, 1, 2)
        return x[:, :, a : a + height, a : a + width]

    def pack(self, Y: Array, shape: Shape) -> Array:
        rows, columns = self._places(shape[2]), self._places(shape[3])
        return Y.reshape(shape[0], rows, columns, -1).transpose(0, 3, 1, 2)

    def rows(self, y: Array) -> Array:
        return y.transpose(0, 2, 3, 1).reshape(-1, y.shape[1])

    def _places(self, size: int) -> int:
        """Return how many kernels fit along an axis."""
        return (size + 2 * self.padding - self.kernel_size) // self.stride + 1
