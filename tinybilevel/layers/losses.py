"""Losses of a network's scores, with the adjoint and its tangent."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array
from tinybilevel.arrays.checks import as_float, frozen
from tinybilevel.arrays.labels import as_labels

__all__ = ["CrossEntropy", "Loss", "SquaredError"]


class Loss:
    """Σ_i ℓ(s_i, y_i) over examples, for scores s (n, outputs).

    ============================  ==============  ==========================
    ``value(s, y)``               float           Σ_i ℓ(s_i, y_i)
    ``adjoint(s, y)``             (n, outputs)    its gradient by s
    ``adjoint_tangent(s, y, ds)`` (n, outputs)    how that moves along ds
    ============================  ==============  ==========================
    """

    def check(self, y: Array, n: int, outputs: int) -> Array:
        """Return the targets of n examples, or say what is wrong with them."""
        raise TypeError(f"{type(self).__name__} must define check")

    def value(self, s: Array, y: Array) -> float:
        raise TypeError(f"{type(self).__name__} must define value")

    def adjoint(self, s: Array, y: Array) -> Array:
        raise TypeError(f"{type(self).__name__} must define adjoint")

    def adjoint_tangent(self, s: Array, y: Array, ds: Array) -> Array:
        raise TypeError(f"{type(self).__name__} must define adjoint_tangent")


class CrossEntropy(Loss):
    """ℓ = log Σ_c exp(s_c) − s_y: the softmax cross-entropy. Its gradient is P − onehot(y)."""

    def check(self, y: Any, n: int, outputs: int) -> Array:
        return as_labels("y", y, n, outputs)

    def value(self, s: Array, y: Array) -> float:
        top = s.max(axis=1)
        total = np.log(np.exp(s - top[:, None]).sum(axis=1))
        return float((total + top - s[np.arange(len(y)), y]).sum())

    def adjoint(self, s: Array, y: Array) -> Array:
        R = _softmax(s)
        R[np.arange(len(y)), y] -= 1
        return R

    def adjoint_tangent(self, s: Array, y: Array, ds: Array) -> Array:
        P = _softmax(s)
        return P * (ds - (P * ds).sum(axis=1, keepdims=True))


class SquaredError(Loss):
    """ℓ = ½ ‖s − y‖², y (n, outputs)."""

    def check(self, y: Any, n: int, outputs: int) -> Array:
        y = as_float("y", y)
        if y.shape != (n, outputs):
            hint = ": y[:, None] has it" if outputs == 1 and y.shape == (n,) else ""
            raise ValueError(
                f"y must be floats of shape ({n}, {outputs}), got shape {y.shape}{hint}"
            )
        return frozen("y", y)

    def value(self, s: Array, y: Array) -> float:
        return float(((s - y) ** 2).sum() / 2)

    def adjoint(self, s: Array, y: Array) -> Array:
        return s - y

    def adjoint_tangent(self, s: Array, y: Array, ds: Array) -> Array:
        return ds


def _softmax(s: Array) -> Array:
    P = np.exp(s - s.max(axis=1, keepdims=True))
    P /= P.sum(axis=1, keepdims=True)
    return P
