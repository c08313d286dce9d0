"""Batch normalization."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array
from tinybilevel.arrays.checks import as_number
from tinybilevel.layers.base import Layer, Params, Shape

__all__ = ["BatchNorm"]


class BatchNorm(Layer):
    """y = a x̂ + b with x̂ = (x − μ)/σ, by channel over the batch (Ioffe and Szegedy 2015).

    μ and σ² − ε are the mean and the variance (biased, divided by their number) of a channel over
    all examples of the batch and all positions of an image. They are functions of x and are
    differentiated; no running averages are kept. With ⟨·⟩ the mean over a channel:

    σ̇ = ⟨x̂ ẋ⟩, dx̂ = (ẋ − ⟨ẋ⟩ − x̂ σ̇)/σ; and with u = a gy, q = ⟨x̂ u⟩, r = u − ⟨u⟩ − x̂ q: gx = r/σ, of
    which the tangent is (ṙ − gx σ̇)/σ.

    Parameters
    ----------
    eps : float
        ε, greater than 0.

    Examples
    --------
    >>> import numpy as np
    >>> import tinybilevel as tb
    >>> x = np.array([[1.0, 10.0], [3.0, 30.0]])  # two examples of two channels
    >>> layer = tb.layers.BatchNorm()
    >>> layer.forward(layer.init(np.random.default_rng(0), (2,)), x)[0].round(3)
    array([[-1., -1.],
           [ 1.,  1.]])
    """

    def __init__(self, eps: float = 1e-5) -> None:
        self.eps = as_number("eps", eps)
        if not self.eps > 0:
            raise ValueError(f"eps must be greater than 0, got {eps}")

    def shapes(self, input_shape: Shape) -> dict[str, Shape]:
        return {"scale": input_shape[:1], "shift": input_shape[:1]}

    def init(self, rng: np.random.Generator, input_shape: Shape) -> Params:
        """Return scale 1 and shift 0."""
        return np.ones(input_shape[0]), np.zeros(input_shape[0])

    def forward(self, p: Params, x: Array) -> tuple[Array, Any]:
        (a, b), centered = self._by_channel(p, x), x - _mean(x)
        sigma = np.sqrt(_mean(centered**2) + self.eps)
        x_hat = centered / sigma
        return a * x_hat + b, (x_hat, sigma)

    def forward_with(self, p: Params, x: Array, batch: Array) -> Array:
        """Return y for x with μ and σ of `batch`."""
        (a, b), mu = self._by_channel(p, x), _mean(batch)
        sigma = np.sqrt(_mean((batch - mu) ** 2) + self.eps)
        return a * ((x - mu) / sigma) + b

    def tangent(self, p: Params, kept: Any, dp: Params, dx: Array) -> tuple[Array, Any]:
        x_hat, sigma = kept
        (a, _), (da, db) = self._by_channel(p, dx), self._by_channel(dp, dx)
        dsigma = _mean(x_hat * dx)
        dx_hat = (dx - _mean(dx) - x_hat * dsigma) / sigma
        return da * x_hat + a * dx_hat + db, (dx_hat, dsigma)

    def adjoint(self, p: Params, kept: Any, gy: Array) -> tuple[Params, Array]:
        (x_hat, sigma), (a, _) = kept, self._by_channel(p, gy)
        u = a * gy
        gx = (u - _mean(u) - x_hat * _mean(x_hat * u)) / sigma
        return (_sum(gy * x_hat), _sum(gy)), gx

    def adjoint_tangent(
        self, p: Params, kept: Any, dp: Params, dkept: Any, gy: Array, dgy: Array
    ) -> tuple[Params, Array]:
        (x_hat, sigma), (dx_hat, dsigma) = kept, dkept
        (a, _), (da, _) = self._by_channel(p, gy), self._by_channel(dp, gy)
        u, du = a * gy, da * gy + a * dgy
        q, dq = _mean(x_hat * u), _mean(dx_hat * u + x_hat * du)
        gx = (u - _mean(u) - x_hat * q) / sigma
        dr = du - _mean(du) - dx_hat * q - x_hat * dq
        return (_sum(dgy * x_hat + gy * dx_hat), _sum(dgy)), (dr - gx * dsigma) / sigma

    def _by_channel(self, p: Params, x: Array) -> Params:
        """Return scale and shift in the shape that broadcasts over channels."""
        return tuple(part.reshape(-1, *[1] * (x.ndim - 2)) for part in p)


def _but_channels(x: Array) -> tuple[int, ...]:
    return (0, *range(2, x.ndim))


def _mean(x: Array) -> Array:
    return x.mean(axis=_but_channels(x), keepdims=True)


def _sum(x: Array) -> Array:
    return x.sum(axis=_but_channels(x))
