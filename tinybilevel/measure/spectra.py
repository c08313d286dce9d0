"""Ends of a spectrum: exact for small operators; by Lanczos, with how far it may be off, else."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from tinybilevel.arrays.backend import Array

__all__ = [
    "DENSE",
    "Ends",
    "Value",
    "eigenvalue_ends",
    "kuczynski_wozniakowski",
    "share",
    "singular_ends",
]

#: Up to this dimension an operator is written out: exact, and no slower than to iterate.
DENSE = 100
#: Most steps of an iteration; fewer where as many vectors would take over half a gigabyte.
_STEPS = 160

Product = Callable[[Array], Array]


class Value(NamedTuple):
    """A number, and how far off it may be.

    An exact one has an error of 0, to rounding. Of an iteration with a `delta`, the true number
    lies within `error` except with probability `delta`; without, `error` is a residual: the
    spectrum has *a* point within it, which need not be its end.
    """

    value: float
    error: float = 0.0


class Ends(NamedTuple):
    """The two ends of a spectrum; and the rank, where all of the spectrum is known."""

    low: Value
    high: Value
    rank: int | None = None


def eigenvalue_ends(
    product: Product,
    size: int,
    *,
    seed: int = 0,
    delta: float | None = None,
    low: bool = True,
    high: bool = True,
    rtol: float | None = None,
) -> Ends:
    """Return the smallest and the largest eigenvalue of a symmetric operator.

    Parameters
    ----------
    product : callable
        (size,) → (size,), float64.
    size : int
        Dimension.
    seed : int
        Of the start of the iteration, uniform on the sphere.
    delta : float, optional
        Probability over the start with which one end, of its two, may lie beyond its error. By
        default the error is a residual.
    low, high : bool
        Which ends to iterate for. The other comes back as far as it got, with its error.
    rtol : float, optional
        Error to stop at: relative to each number with a `delta`, by default 1e-3; without, a
        residual relative to the larger end, by default 1e-7.

    Returns
    -------
    Ends
        An iteration that does not converge returns what it has, with its error.
    """
    if size <= DENSE:
        H = _columns(product, size)
        values = np.linalg.eigvalsh((H + H.T) / 2)
        return Ends(Value(float(values[0])), Value(float(values[-1])), int(_count(np.abs(values))))
    eta = None if delta is None else share(size, delta)
    rtol = rtol or (1e-7 if eta is None else 1e-3)
    steps = min(size, _STEPS, max(20, 2**26 // size))
    Q = np.empty((steps + 1, size))  # kept orthogonal: a start's share of an end must not be lost
    start = np.random.default_rng(seed).standard_normal(size)
    Q[0] = start / np.linalg.norm(start)
    diagonal, beside = [], []
    look = 8
    for k in range(1, steps + 1):
        v = np.array(product(Q[k - 1]), dtype=np.float64)
        size_of_v = float(np.linalg.norm(v))
        diagonal.append(float(Q[k - 1] @ v))
        for _ in range(2):
            v -= Q[:k].T @ (Q[:k] @ v)
        beside.append(float(np.linalg.norm(v)))
        done = k == steps or beside[-1] <= size * np.finfo(np.float64).eps * size_of_v
        if done or k >= look:
            ends = _ritz(diagonal, beside, eta)
            scale = max(abs(ends.low.value), abs(ends.high.value))
            if done or all(
                end.error <= rtol * (abs(end.value) if eta else scale)
                for wanted, end in ((low, ends.low), (high, ends.high))
                if wanted
            ):
                break
            look = math.ceil(1.25 * k)
        Q[k] = v / beside[-1]
    return ends


def _ritz(diagonal: list[float], beside: list[float], eta: float | None) -> Ends:
    """Return the ends of the spectrum of Lanczos' tridiagonal matrix, and how far off they are."""
    k = len(diagonal)
    values, vectors = np.linalg.eigh(
        np.diag(diagonal) + np.diag(beside[:-1], 1) + np.diag(beside[:-1], -1)
    )
    if eta is None:
        low, high = (beside[-1] * abs(float(vectors[-1, end])) for end in (0, -1))
    else:
        # A start with a share of at least η of an end keeps both bounds, whatever k is.
        spread = float(values[-1] - values[0])
        a_priori = kuczynski_wozniakowski(k, eta, spread)
        low = min(a_priori, _beyond(values[0] - values, beside, eta))
        high = min(a_priori, _beyond(values - values[-1], beside, eta))
    return Ends(Value(float(values[0]), low), Value(float(values[-1]), high))


def share(size: int, delta: float) -> float:
    """Return η with P(|b₁| < η) = δ for one coordinate b₁ of a uniform point on the sphere."""
    from scipy.special import betaincinv

    return float(betaincinv(0.5, (size - 1) / 2, delta)) ** 0.5


def kuczynski_wozniakowski(k: int, eta: float, spread: float) -> float:
    """Bound how far an end of the spectrum lies beyond the Ritz value of k steps of Lanczos.

    Kuczyński and Woźniakowski, SIAM J. Matrix Anal. Appl. 13 (1992), derived in
    docs/statements.md: with r = sinh²(arsinh(1/η) / (2k − 1)), it is r/(1 − r) times the spread of
    the Ritz values, infinity for r ≥ 1; for a start whose share of both ends is at least η.
    """
    r = math.sinh(math.asinh(1 / eta) / (2 * k - 1)) ** 2
    return spread * r / (1 - r) if r < 1 else math.inf


def _beyond(gaps: Array, beside: list[float], eta: float) -> float:
    """Return the x ≥ 0 at which |p_k| = 1/η, for the orthonormal polynomial p_k of Lanczos.

    `gaps` are minus the distances of the Ritz values from the outermost, which lies at x = 0.
    """
    if min(beside) == 0:
        return 0.0
    target = float(np.log(beside).sum()) - math.log(eta)
    low, high = 0.0, math.exp(target / len(gaps))  # as if all of them lay at the outermost
    for _ in range(60):
        middle = (low + high) / 2
        with np.errstate(divide="ignore"):
            low, high = (low, middle) if np.log(middle - gaps).sum() >= target else (middle, high)
    return high


def singular_ends(
    product: Product,
    adjoint: Product,
    shape: tuple[int, int],
    *,
    seed: int = 0,
    delta: float | None = None,
    low: bool = True,
    high: bool = True,
    rtol: float | None = None,
) -> Ends:
    """Return the smallest and the largest of the min(shape) singular values of an operator.

    Parameters
    ----------
    product, adjoint : callable
        (columns,) → (rows,), and back; float64. The one that starts from the shorter side is
        enough for a small operator.
    shape : (int, int)
        Rows and columns.
    seed, delta, low, high, rtol
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
    ends = eigenvalue_ends(
        lambda v: adjoint(product(v)),
        size,
        seed=seed,
        delta=delta,
        low=low,
        high=high,
        rtol=rtol,
    )
    return Ends(_root(ends.low), _root(ends.high))


def _columns(product: Product, size: int) -> Array:
    return np.array([product(unit) for unit in np.eye(size)]).T


def _count(values: Array) -> int:
    """Return how many are above rounding."""
    return int((values > values.max() * values.size * np.finfo(np.float64).eps).sum())


def _root(square: Value) -> Value:
    """Return σ from σ² ± e."""
    value, error = max(square.value, 0.0), square.error
    root = value**0.5
    return Value(root, max((value + error) ** 0.5 - root, root - max(value - error, 0.0) ** 0.5))
