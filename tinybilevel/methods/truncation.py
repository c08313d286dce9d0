"""Truncation by tolerance: how much of the hypergradient is still to come."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array
from tinybilevel.measure.constants import measure
from tinybilevel.problem import BilevelProblem

__all__ = ["Remainder", "Tolerance", "as_tolerance", "remainder"]

#: How likely a certificate from constants measured on a large problem may fail.
_DELTA = 1e-3


@dataclass(frozen=True)
class Tolerance:
    """Stop the backward pass of `KRMD` once what it has yet to add is certified to be small.

    What h_t leaves out is Σ_{s≤t} B_s A_{s+1} ⋯ A_t α_t. With ‖A_s‖ ≤ ρ and ‖B_s‖ ≤ B for all s,
    that is at most B (1 + ρ + … + ρ^t) ‖α_t‖. The backward pass sees ‖α_t‖; ρ and B it does not
    see, so that they are asked for: the certificate is worth what they are worth.

    Parameters
    ----------
    value : float
        Largest ‖h_{T−K} − d_λ f‖ to accept, absolute, greater than 0.
    rate : float
        ρ ≥ ‖A_t‖ for all t. For gradient descent with γ ≤ 1/β on an α-strongly convex g, it is
        1 − γα; without convexity, 2.
    B_norm : float
        Bound on ‖B_t‖ for t = 0 … T, spectral, by λ (with a `hyper_map`, not by θ).

    Raises
    ------
    ValueError
        If an argument is out of range.

    See Also
    --------
    tinybilevel.bounds.measure : Measures both constants at one λ.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> tol = tb.Tolerance(1e-3, rate=0.95, B_norm=0.1)
    >>> r = tb.KRMD(K=400, tol=tol)(tb.problems.toy(T=400))
    >>> r.K, r.converged, f"{r.bound:.1e}"
    (196, True, '9.5e-04')
    """

    value: float
    rate: float
    B_norm: float

    def __post_init__(self) -> None:
        as_tolerance("value", self.value)
        for name in ("rate", "B_norm"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float | np.number):
                raise TypeError(f"{name} must be a number, got {value!r}")
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be finite and at least 0, got {getattr(self, name)}")

    def factors(self, T: int) -> Array:
        """Return B (1 + ρ + … + ρ^t) for t = 0 … T, (T + 1,)."""
        return self.B_norm * np.array([geometric(self.rate, t + 1) for t in range(T + 1)])


@dataclass(frozen=True)
class Remainder:
    """Bounds ‖d_λ f − h_t‖ by S_t ‖α_t‖, and says when that is small enough."""

    tol: float
    factors: Array

    def __call__(self, t: int, alpha_norm: float) -> float:
        # Where nothing is left to propagate, an infinite factor does not matter.
        return float(self.factors[t]) * alpha_norm if alpha_norm else 0.0

    def enough(self, t: int, alpha_norm: float) -> bool:
        return self(t, alpha_norm) <= self.tol


def remainder(
    tol: float | Tolerance | None, problem: BilevelProblem, lam: Array
) -> Remainder | None:
    """Return the remainder that `KRMD` watches; for a number, from constants measured at λ.

    Of a large problem they are bounds that fail with probability at most `_DELTA`.
    """
    if tol is None:
        return None
    if isinstance(tol, Tolerance):
        return Remainder(tol.value, tol.factors(problem.T))
    return Remainder(tol, measure(problem, lam, confidence=1 - _DELTA).remainders)


def as_tolerance(name: str, value: Any) -> float:
    """Check a number above 0."""
    if isinstance(value, bool) or not isinstance(value, int | float | np.floating | np.integer):
        raise TypeError(f"{name} must be a number or a Tolerance, got {value!r}")
    if not 0 < value < math.inf:
        raise ValueError(f"{name} must be greater than 0 and finite, got {value}")
    return float(value)


def geometric(rate: float, terms: int) -> float:
    """Return 1 + ρ + … + ρ^(terms−1); infinity where that overflows."""
    if rate == 1:
        return float(terms)
    try:
        # expm1 keeps the digits of 1 − ρⁿ where ρ is all but 1.
        sum_minus = math.expm1(terms * math.log(rate)) if rate > 0 else float(-(terms > 0))
    except OverflowError:
        return math.inf
    return sum_minus / (rate - 1)
