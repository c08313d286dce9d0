"""What a layer is: a map of arrays with derivatives to second order."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array

__all__ = ["Layer", "Selection"]

Shape = tuple[int, ...]
Params = tuple[Array, ...]


class Layer:
    """y = φ(p, x) for a batch of examples x and parameters p, with hand-written derivatives.

    Conventions:

    The first axis of ``x`` and ``y`` counts examples; images are (n, channels, height, width).
    ``p`` is a tuple of arrays, ``dp`` a tuple of the same shapes. ``gy`` is the cotangent of y: a
    loss's gradient by y. A dot over a name in the derivations is a ``d`` here.

    ====================================================  ==========  =============================
    ``forward(p, x)``                                     y, kept     and what the others need of it
    ``tangent(p, kept, dp, dx)``                          dy, dkept   how y and `kept` move
    ``adjoint(p, kept, gy)``                              gp, gx      ∂(gy·y)/∂p and ∂(gy·y)/∂x
    ``adjoint_tangent(p, kept, dp, dkept, gy, dgy)``      dgp, dgx    how those two move
    ====================================================  ==========  =============================

    The four together make Pearlmutter's R-operator: forward with tangents, then backward with the
    tangents of the adjoint, is the product of a loss's Hessian with (dp, dx).

    Examples
    --------
    >>> import numpy as np
    >>> import tinybilevel as tb
    >>> class Square(tb.layers.Layer):
    ...     def forward(self, p, x):
    ...         return x**2, x
    ...
    ...     def tangent(self, p, kept, dp, dx):
    ...         return 2 * kept * dx, dx
    ...
    ...     def adjoint(self, p, kept, gy):
    ...         return (), 2 * kept * gy
    ...
    ...     def adjoint_tangent(self, p, kept, dp, dkept, gy, dgy):
    ...         return (), 2 * (dkept * gy + kept * dgy)
    >>> errors = tb.testing.assert_layer_derivatives(Square(), (4,))
    >>> Square().forward((), np.array([[1.0, 3.0]]))[0]
    array([[1., 9.]])
    """

    def shapes(self, input_shape: Shape) -> dict[str, Shape]:
        """Return the shape of each parameter tensor, by name, for one example's shape."""
        return {}

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return the shape of one example of y.

        Raises
        ------
        ValueError
            If the layer cannot take examples of `input_shape`.
        """
        return input_shape

    def init(self, rng: np.random.Generator, input_shape: Shape) -> Params:
        """Draw starting values of the parameters, float64."""
        return ()

    def forward(self, p: Params, x: Array) -> tuple[Array, Any]:
        """Return y = φ(p, x), and what the other three need of it."""
        raise TypeError(f"{type(self).__name__} must define forward")

    def forward_with(self, p: Params, x: Array, batch: Array) -> Array:
        """Return y for x with what the layer takes from a batch taken from another one."""
        return self.forward(p, x)[0]

    def tangent(self, p: Params, kept: Any, dp: Params, dx: Array) -> tuple[Array, Any]:
        """Return dy along (dp, dx), and what `adjoint_tangent` needs of it."""
        raise TypeError(f"{type(self).__name__} must define tangent")

    def adjoint(self, p: Params, kept: Any, gy: Array) -> tuple[Params, Array]:
        """Return the cotangents of p and x."""
        raise TypeError(f"{type(self).__name__} must define adjoint")

    def adjoint_tangent(
        self, p: Params, kept: Any, dp: Params, dkept: Any, gy: Array, dgy: Array
    ) -> tuple[Params, Array]:
        """Return how the cotangents of p and x move along (dp, dx) and dgy."""
        raise TypeError(f"{type(self).__name__} must define adjoint_tangent")

    def gradients(
        self, p: Params, kept: Any, gy: Array, inputs: bool
    ) -> tuple[Params, Array | None]:
        """Return `adjoint`; where nobody asks for `inputs`, the cotangent of x may be None."""
        return self.adjoint(p, kept, gy)

    def products(
        self, p: Params, kept: Any, dp: Params, dkept: Any, gy: Array, dgy: Array, inputs: bool
    ) -> tuple[tuple[Params, Array | None], tuple[Params, Array]]:
        """Return what `gradients` does, and `adjoint_tangent`."""
        moved = self.adjoint_tangent(p, kept, dp, dkept, gy, dgy)
        return self.gradients(p, kept, gy, inputs), moved

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={value!r}" for name, value in vars(self).items())
        return f"{type(self).__name__}({given})"


class Selection(Layer):
    """y = Π x, where Π is linear, and may have been chosen by x: pooling, flattening, ReLU.

    Where the choice does not change, Π is constant, and three of the four products are one.
    """

    def forward(self, p: Params, x: Array) -> tuple[Array, Any]:
        chosen = self.choose(x)
        return self.apply(chosen, x), chosen

    def tangent(self, p: Params, kept: Any, dp: Params, dx: Array) -> tuple[Array, Any]:
        return self.apply(kept, dx), None

    def adjoint(self, p: Params, kept: Any, gy: Array) -> tuple[Params, Array]:
        return (), self.transpose(kept, gy)

    def adjoint_tangent(
        self, p: Params, kept: Any, dp: Params, dkept: Any, gy: Array, dgy: Array
    ) -> tuple[Params, Array]:
        return (), self.transpose(kept, dgy)

    def choose(self, x: Array) -> Any:
        """Return what says which Π it is."""
        return x.shape

    def apply(self, chosen: Any, x: Array) -> Array:
        """Return Π x."""
        raise TypeError(f"{type(self).__name__} must define apply")

    def transpose(self, chosen: Any, g: Array) -> Array:
        """Return Πᵀ g."""
        raise TypeError(f"{type(self).__name__} must define transpose")
