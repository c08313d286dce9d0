"""Ends of a spectrum: exact for small operators, by Lanczos with its own error for large ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from tinybilevel.arrays.backend import Array

__all__ = ["DENSE", "Ends", "Value", "eigenvalue_ends", "singular_ends"]

#: Up to this dimension an operator is written out: exact, and no slower than to iterate.
DENSE = 100

Product = Callable[[Array], Array]


class Value(NamedTuple):
    """A number with the error of the iteration that found it; 0 for an exact one.

    The error is a residual: the spectrum has a point within `error` of `value`.
    """

    value: float
    error: float = 0.0


class Ends(NamedTuple):
    """The two ends of a spectrum; and the rank, where all of the spectrum is known."""

    low: Value
    high: Value
    rank: int | None = None


def eigenvalue_ends(product: Product, size: int, *, seed: int = 0) -> Ends:
    """Return the smallest and the largest eigenvalue of a symmetric operator.

    Parameters
    ----------
    product : callable
        (size,) → (size,), float64.
    size : int
        Dimension.
    seed : int
        Of the start of the iteration, which finds the ends unless that is orthogonal to them.

    Returns
    -------
    Ends
    """
    if size <= DENSE:
        H = _columns(product, size)
        values = np.linalg.eigvalsh((H + H.T) / 2)
        return Ends(Value(float(values[0])), Value(float(values[-1])), int(_count(np.abs(values))))
    high = _largest(product, size, seed)
    shift = abs(high.value)
    # The far end of shift·I − H: for its relative tolerance a low end close to 0 is no trouble.
    below = _largest(lambda v: shift * v - product(v), size, seed, shift)
    return Ends(Value(shift - below.value, below.error), high)


def singular_ends(
    product: Product, adjoint: Product, shape: tuple[int, int], *, seed: int = 0
) -> Ends:
    """Return the smallest and the largest of the min(shape) singular values of an operator.

    Parameters
    ----------
    product, adjoint : callable
        (columns,) → (rows,), and back; float64. The one that starts from the shorter side is
        enough for a small operator.
    shape : (int, int)
        Rows and columns.
    seed : int
        See `eigenvalue_ends`.

    Returns
    -------
    Ends
        Of a large operator by way of its Gram matrix, so that below √ε of the largest nothing can
        be told from 0; the error says so.
    """
    rows, columns = shape
    if columns > rows:
        product, adjoint = adjoint, product
    size = min(shape)
    if size <= DENSE:
        values = np.linalg.svd(_columns(product, size), compute_uv=False)
        return Ends(Value(float(values[-1])), Value(float(values[0])), int(_count(values)))
    low, high, _ = eigenvalue_ends(lambda v: adjoint(product(v)), size, seed=seed)
    return Ends(_root(low), _root(high))


def _columns(product: Product, size: int) -> Array:
    return np.array([product(unit) for unit in np.eye(size)]).T


def _count(values: Array) -> int:
    """Return how many are above rounding."""
    return int((values > values.max() * values.size * np.finfo(np.float64).eps).sum())


def _largest(product: Product, size: int, seed: int, scale: float = 0.0) -> Value:
    from scipy.sparse.linalg import LinearOperator, eigsh

    start = np.random.default_rng(seed).standard_normal(size)
    stretch = float(np.linalg.norm(product(start)) / np.linalg.norm(start))
    if stretch <= size * np.finfo(np.float64).eps * scale:  # ARPACK refuses a zero operator
        return Value(0.0, stretch)
    operator = LinearOperator((size, size), matvec=product, dtype=np.float64)
    values, vectors = eigsh(operator, 1, which="LA", v0=start, tol=1e-8)
    v = vectors[:, 0]
    return Value(float(values[0]), float(np.linalg.norm(product(v) - values[0] * v)))


def _root(square: Value) -> Value:
    """Return σ from σ² ± e."""
    value, error = max(square.value, 0.0), square.error
    root = value**0.5
    return Value(root, max((value + error) ** 0.5 - root, root - max(value - error, 0.0) ** 0.5))
