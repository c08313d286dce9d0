"""A dense layer."""

from __future__ import annotations

import numpy as np

from tinybilevel.arrays.backend import Array
from tinybilevel.arrays.checks import as_count
from tinybilevel.layers.base import Params, Shape
from tinybilevel.layers.bilinear import Bilinear

__all__ = ["Dense"]


class Dense(Bilinear):
    """y = x Wᵀ + b for x (n, inputs); W is (outputs, inputs), b (outputs,).

    Parameters
    ----------
    outputs : int
        Numbers in one example of y.
    bias : bool
        Whether there is a b.

    Examples
    --------
    >>> import numpy as np
    >>> import tinybilevel as tb
    >>> tb.layers.Dense(2, bias=False).forward((np.eye(2, 3),), np.array([[1.0, 2.0, 3.0]]))[0]
    array([[1., 2.]])
    """

    def __init__(self, outputs: int, bias: bool = True) -> None:
        self.outputs = as_count("outputs", outputs, minimum=1)
        self.bias = bool(bias)

    def shapes(self, input_shape: Shape) -> dict[str, Shape]:
        shapes: dict[str, Shape] = {"weight": (self.outputs, *input_shape)}
        return shapes | {"bias": (self.outputs,)} if self.bias else shapes

    def output_shape(self, input_shape: Shape) -> Shape:
        if len(input_shape) != 1:
            raise ValueError(f"Dense takes vectors, got examples of shape {input_shape}: Flatten()")
        return (self.outputs,)

    def init(self, rng: np.random.Generator, input_shape: Shape) -> Params:
        """Draw N(0, 1/inputs); biases are 0."""
        W = rng.standard_normal((self.outputs, *input_shape)) / input_shape[0] ** 0.5
        return (W, np.zeros(self.outputs)) if self.bias else (W,)

    def unfold(self, x: Array) -> Array:
        return x

    def fold(self, U: Array, shape: Shape) -> Array:
        return U

    def pack(self, Y: Array, shape: Shape) -> Array:
        return Y

    def rows(self, y: Array) -> Array:
        return y
