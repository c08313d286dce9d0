"""Proposition 3.1: the bias of K-step back-propagation decays exponentially in K."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinybilevel.bounds.assumptions import (
    Assumption,
    at,
    known,
    measured,
    proposition_3_1_assumptions,
)
from tinybilevel.bounds.readable import Readable
from tinybilevel.measure.constants import Constants
from tinybilevel.methods.unrolled import KRMD, RMD
from tinybilevel.problem import BilevelProblem

__all__ = ["TruncationBound", "equation_9", "equation_10", "proposition_3_1"]


def equation_9(
    K: int, T: int, *, gamma: float, alpha: float, grad_norm: float, M_B: float
) -> float:
    """Return 2^{T−K+1} (1 − γα)^K ‖∇_ŵ f‖ M_B, eq. (9).

    Bounds ‖h_{T−K} − d_λ f‖ where g is β-smooth, γ ≤ 1/β, and g is α-strongly convex around
    w_{T−K−1}, …, w_T; before them it need not be convex.

    Parameters
    ----------
    K, T : int
        Depth and horizon, 0 ≤ K ≤ T.
    gamma : float
        γ, the step size.
    alpha : float
        α, in units of 1/γ.
    grad_norm : float
        ‖∇_ŵ f‖, in units of f per unit of w.
    M_B : float
        max_{t = 0 … T−K} ‖B_t‖, in units of w per unit of λ.

    Returns
    -------
    float
        In units of f per unit of λ; infinity where it overflows.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> tb.bounds.equation_9(2, 3, gamma=0.5, alpha=1.0, grad_norm=1.0, M_B=2.0)
    2.0
    """
    with np.errstate(over="ignore"):
        return float(np.exp2(float(T - K + 1)) * _decay(K, gamma, alpha) * grad_norm * M_B)


def equation_10(K: int, *, gamma: float, alpha: float, grad_norm: float, M_B: float) -> float:
    """Return (1 − γα)^K / (γα) · ‖∇_ŵ f‖ M_B, eq. (10).

    Bounds ‖h_{T−K} − d_λ f‖ where g is β-smooth, γ ≤ 1/β, and g is globally α-strongly convex.

    Parameters
    ----------
    K, gamma, alpha, grad_norm, M_B
        See `equation_9`.

    Returns
    -------
    float
        In units of f per unit of λ.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> tb.bounds.equation_10(2, gamma=0.5, alpha=1.0, grad_norm=1.0, M_B=2.0)
    1.0
    """
    return _decay(K, gamma, alpha) / (gamma * alpha) * grad_norm * M_B


def _decay(K: int, gamma: float, alpha: float) -> float:
    # At γα = 1 rounding may leave a negative base.
    return max(1 - gamma * alpha, 0.0) ** K


@dataclass(frozen=True, repr=False)
class TruncationBound(Readable):
    """Both sides of Proposition 3.1.

    Attributes
    ----------
    K : int
        Depth.
    error : float
        ‖h_{T−K} − d_λ f‖, the left-hand side.
    eq_9, eq_10 : float or None
        The right-hand sides; None where one of its assumptions is gone.
    a_posteriori : float
        S_{T−K} ‖α_{T−K}‖ (`Constants.remainders`), which needs no assumption.
    grad_norm, M_B : float
        ‖∇_ŵ f‖ and max_{t = 0 … T−K} ‖B_t‖.
    assumptions : tuple of Assumption
        Those of the proposition, with what was measured.
    status : str
        What `eq_9` and `eq_10` are worth, in words: "certified, …" or "estimated, …".
    a_posteriori_status : str
        The same of `a_posteriori`.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> b = tb.bounds.proposition_3_1(tb.problems.toy(), K=50)
    >>> print(f"{b.error:.2f} <= {b.a_posteriori:.2f} <= {b.bound:.2f}", b.certified)
    0.79 <= 1.57 <= 2.41 True
    """

    K: int
    error: float
    eq_9: float | None
    eq_10: float | None
    a_posteriori: float
    grad_norm: float
    M_B: float
    assumptions: tuple[Assumption, ...]
    status: str
    a_posteriori_status: str

    @property
    def bound(self) -> float | None:
        """The smaller of the right-hand sides that apply; None if neither does."""
        return min((b for b in (self.eq_9, self.eq_10) if b is not None), default=None)

    @property
    def missing(self) -> tuple[Assumption, ...]:
        """The assumptions that do not hold, or were not measured."""
        return tuple(a for a in self.assumptions if not a.holds)

    @property
    def certified(self) -> bool:
        """Whether all of the bounds are, and none is an estimate."""
        return all(s.startswith("certified") for s in (self.status, self.a_posteriori_status))


def proposition_3_1(
    problem: BilevelProblem,
    lam: Any = None,
    K: int = 1,
    *,
    alpha: float | None = None,
    beta: float | None = None,
    constants: Constants | None = None,
    confidence: float | None = None,
) -> TruncationBound:
    """Compute both sides of Proposition 3.1, eq. (9) and (10).

    α and β are measured along w_0 … w_T, the only places where the proof uses them: a global
    statement about g is neither needed nor claimed.

    Parameters
    ----------
    problem : BilevelProblem
        Any; the bounds need gradient descent on one objective with one step size.
    lam : array_like (N,), optional
        Where; by default the problem's `lam0`.
    K : int
        Depth, 0 … T.
    alpha, beta : float, optional
        Known constants of strong convexity and smoothness, taken in place of the measured ones.
    constants : Constants, optional
        What `measure` returned for this problem and λ, to save doing so again.
    confidence : float, optional
        Of the constants, where a spectrum is too large to be exact; see `measure`. Without, the
        bounds are then estimates, and say so.

    Returns
    -------
    TruncationBound

    Raises
    ------
    TypeError, ValueError
        If an argument is wrong.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> b = tb.bounds.proposition_3_1(tb.problems.toy(), [1.0, 1.0], 20)
    >>> print(f"{b.error:.3f} <= {b.eq_10:.3f}")
    4.124 <= 11.228
    """
    lam, K = at(problem, lam, K)
    c = known(measured(problem, lam, constants, confidence), alpha, beta)
    exact, r = RMD()(problem, lam), KRMD(K=K)(problem, lam)
    start = problem.T - K
    M_B, grad_norm = float(c.B_norms[: start + 1].max()), float(r.alpha_norms[0])
    given = tuple(n for n, x in (("alpha", alpha), ("beta", beta)) if x is not None)
    assumptions = proposition_3_1_assumptions(c, problem.T, K, given=given)
    descends, small_steps, near, everywhere = (a.holds for a in assumptions)
    eq_9 = eq_10 = None
    if descends and small_steps:
        values = dict(gamma=c.gamma or 0.0, grad_norm=grad_norm, M_B=M_B)
        if near:
            around = float(c.alpha[max(start - 1, 0) :].min())
            eq_9 = equation_9(K, problem.T, alpha=around, **values)
        if everywhere:
            eq_10 = equation_10(K, alpha=float(c.alpha.min()), **values)
    return TruncationBound(
        K=K,
        error=float(np.linalg.norm(exact.grad - r.grad)),
        eq_9=eq_9,
        eq_10=eq_10,
        a_posteriori=_product(c.remainder(start), float(r.alpha_norms[-1])),
        grad_norm=grad_norm,
        M_B=M_B,
        assumptions=assumptions,
        status=c.words("alpha", "beta", "B_norms"),
        a_posteriori_status=c.remainder_words,
    )


def _product(factor: float, norm: float) -> float:
    return 0.0 if norm == 0 and math.isinf(factor) else factor * norm
