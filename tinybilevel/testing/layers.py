"""A checker for layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array
from tinybilevel.layers.base import Layer
from tinybilevel.testing.checks import direction, dot_error, require, taylor_slope

__all__ = ["assert_layer_derivatives"]


def assert_layer_derivatives(
    layer: Layer, input_shape: Sequence[int], *, n: int = 3, seed: int = 0, tol: float = 1e-12
) -> dict[str, float]:
    """Check a layer's four products to second order, in float64, at random parameters and inputs.

    Parameters
    ----------
    layer : Layer
        What to check.
    input_shape : tuple of int
        Shape of one example.
    n : int
        Examples.
    seed : int
        Seed of the point and of the directions.
    tol : float
        Largest relative error of the dot tests.

    Returns
    -------
    dict of str to float
        ``adjoint``: `tangent` against `adjoint`; ``symmetry``: of the second derivative of gy·y, by
        `adjoint_tangent`; ``linearity``: what dgy adds to `adjoint_tangent`, against `adjoint`:
        relative errors. ``forward_slope``: `forward` against `tangent` (2); ``adjoint_slope``:
        `adjoint` against `adjoint_tangent` (2), infinite where they are linear.

    Raises
    ------
    AssertionError
        If an error is above `tol`, a slope below 1.9, or a shape is not what the layer says.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> found = tb.testing.assert_layer_derivatives(tb.layers.Tanh(), (4,))
    >>> found["adjoint"] < 1e-12, round(found["adjoint_slope"], 1)
    (True, 2.0)
    """
    if not isinstance(layer, Layer):
        raise TypeError(f"layer must be a Layer such as Dense(10), got {layer!r}")
    rng, name = np.random.default_rng(seed), type(layer).__name__
    shape = tuple(input_shape)
    sizes = list(layer.shapes(shape).values())
    drawn = [part.shape for part in layer.init(rng, shape)]
    require(drawn == sizes, f"{name}: init draws shapes {drawn}, shapes says {sizes}")

    def parts(z: Array) -> tuple[tuple[Array, ...], Array]:
        """Return parameters and x out of one vector."""
        at = np.cumsum([0, *(int(np.prod(size)) for size in sizes)])
        p = tuple(
            z[a : a + np.prod(s, dtype=int)].reshape(s) for a, s in zip(at, sizes, strict=False)
        )
        return p, z[at[-1] :].reshape(n, *shape)

    def joined(product: str, found: Any) -> Array:
        """Return one vector of what a product returned, cotangents of p and of x."""
        pair = isinstance(found, tuple) and len(found) == 2 and isinstance(found[0], tuple)
        shapes = [np.shape(part) for part in (*found[0], found[1])] if pair else type(found)
        require(
            shapes == [*sizes, (n, *shape)],
            f"{name}: {product} must return (gp, gx), gp a tuple of shapes {sizes} and gx of "
            f"shape {(n, *shape)}; got {shapes}",
        )
        return np.concatenate([*(part.ravel() for part in found[0]), found[1].ravel()])

    def adjoint(*args: Any) -> Array:
        return joined("adjoint", layer.adjoint(*args))

    def adjoint_tangent(*args: Any) -> Array:
        return joined("adjoint_tangent", layer.adjoint_tangent(*args))

    total = sum(int(np.prod(size)) for size in sizes) + n * int(np.prod(shape))
    # No two numbers are close, and none is close to 0: the steps below cross no kink.
    z = rng.permutation(np.linspace(-2, 2, total + total % 2))[:total]
    dz, du = 1e-3 * direction(rng, z), direction(rng, z)
    (p, x), (dp, dx), (up, ux) = parts(z), parts(dz), parts(du)
    y, kept = layer.forward(p, x)
    expected = (n, *layer.output_shape(shape))
    require(y.shape == expected, f"{name}: forward returns {y.shape}, output_shape says {expected}")
    gy, dgy = direction(rng, y), direction(rng, y)
    dy, dkept = layer.tangent(p, kept, dp, dx)
    _, ukept = layer.tangent(p, kept, up, ux)
    g = adjoint(p, kept, gy)
    still = np.zeros_like(gy)
    along_d = adjoint_tangent(p, kept, dp, dkept, gy, still)
    along_u = adjoint_tangent(p, kept, up, ukept, gy, still)
    both = adjoint_tangent(p, kept, dp, dkept, gy, dgy)
    moved = adjoint(p, kept, dgy)
    errors = {
        "adjoint": dot_error(dy.ravel(), gy.ravel(), dz, g),
        "symmetry": dot_error(along_d, du, dz, along_u),
        "linearity": float(np.abs(both - along_d - moved).max() / max(1, np.abs(both).max())),
    }
    bad = {key: error for key, error in errors.items() if not error <= tol}
    require(not bad, f"{name}: products disagree by {bad}, tolerance {tol}")

    def remainder(h: float) -> Array:
        return layer.forward(*parts(z + h * dz))[0] - y - h * dy

    def adjoint_remainder(h: float) -> Array:
        q, xi = parts(z + h * dz)
        return adjoint(q, layer.forward(q, xi)[1], gy) - g - h * along_d

    norm = np.linalg.norm
    slopes = {
        "forward_slope": taylor_slope(remainder, float(norm(y) + norm(dy))),
        "adjoint_slope": taylor_slope(adjoint_remainder, float(norm(g) + norm(along_d))),
    }
    bad = {key: round(slope, 3) for key, slope in slopes.items() if not slope >= 1.9}
    require(not bad, f"{name}: Taylor slopes {bad}, expected 2")
    return errors | slopes
