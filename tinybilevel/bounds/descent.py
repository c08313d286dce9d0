"""Lemma 3.2 and Theorem 3.4: when −h_{T−K} is a direction of descent for the exact objective."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array
from tinybilevel.bounds.assumptions import Assumption, at, measured, theorem_3_4_assumptions
from tinybilevel.bounds.readable import Readable
from tinybilevel.measure.constants import Constants
from tinybilevel.methods.unrolled import KRMD, RMD
from tinybilevel.problem import BilevelProblem

__all__ = ["Descent", "lemma_3_2", "theorem_3_4"]


@dataclass(frozen=True, repr=False)
class Descent(Readable):
    """h_{T−K}ᵀ d_λ f against two squares, at each of R points.

    Attributes
    ----------
    by_grad_w : ndarray (R,)
        h_{T−K}ᵀ d_λ f / ‖∇_ŵ f‖², Lemma 3.2's ratio. NaN where ∇_ŵ f = 0.
    by_grad : ndarray (R,)
        h_{T−K}ᵀ d_λ f / ‖d_λ f‖², Figure 2's ratio. NaN where d_λ f = 0.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> problem = tb.problems.toy()
    >>> for K in (1, 20, 100):
    ...     found = tb.bounds.lemma_3_2(problem, [[1.0, 1.0], [0.5, -0.5]], K=K)
    ...     print(K, found.by_grad.round(2))
    1 [0.08 0.08]
    20 [0.76 0.77]
    100 [1. 1.]
    """

    by_grad_w: Array
    by_grad: Array

    @property
    def c(self) -> float:
        """The largest c with h_{T−K}ᵀ d_λ f ≥ c ‖∇_ŵ f‖² at all the points; infinity for none."""
        return float(np.min(self.by_grad_w[~np.isnan(self.by_grad_w)], initial=np.inf))


def lemma_3_2(problem: BilevelProblem, lam: Any = None, K: int = 1) -> Descent:
    """Compute the ratios of Lemma 3.2 at one λ, or along a trajectory.

    The lemma: where g is globally strongly convex, ∇_λ f = 0 and every B_t has full column rank,
    there is c > 0 with h_{T−K}ᵀ d_λ f ≥ c ‖∇_ŵ f‖² for K ≥ 1, T large and γ small enough.

    Parameters
    ----------
    problem : BilevelProblem
        Any.
    lam : array_like (N,) or (R, N), optional
        One point or many; by default the problem's `lam0`.
    K : int
        Depth, 0 … T.

    Returns
    -------
    Descent

    Raises
    ------
    TypeError, ValueError
        If an argument is wrong.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> ratios = tb.bounds.lemma_3_2(tb.problems.toy(), [[1.0, 1.0], [0.5, -0.5]], K=1)
    >>> round(ratios.c, 4)
    0.0749
    """
    points = problem.check(None)[None] if lam is None else np.atleast_2d(np.asarray(lam))
    by_grad_w, by_grad = [], []
    for point in points:
        x, K = at(problem, point, K)
        exact, r = RMD()(problem, x), KRMD(K=K)(problem, x)
        inner = float(r.grad @ exact.grad)
        by_grad_w.append(_ratio(inner, float(r.alpha_norms[0]) ** 2))
        by_grad.append(_ratio(inner, float(exact.grad @ exact.grad)))
    return Descent(np.array(by_grad_w), np.array(by_grad))


def _ratio(a: float, b: float) -> float:
    return a / b if b else np.nan


def theorem_3_4(
    problem: BilevelProblem,
    lam: Any = None,
    K: int = 1,
    *,
    constants: Constants | None = None,
    confidence: float | None = None,
) -> tuple[Assumption, ...]:
    """Measure the four assumptions that Theorem 3.4 adds to those of Proposition 3.1.

    Under them, for K ≥ 1, T large and γ small enough, following h_{T−K} leads to an exact
    stationary point: lim ‖∇F(λ_τ)‖ = 0. The third is printed without a minus sign; what the proof
    needs is ∇_λ fᵀ(d_λ f + h_{T−K} − ∇_λ f) ≥ Ω(‖∇_λ f‖²).

    Parameters
    ----------
    problem, lam, K, constants, confidence
        See `proposition_3_1`.

    Returns
    -------
    tuple of four Assumption
        In the paper's order.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> for assumption in tb.bounds.theorem_3_4(tb.problems.toy(biased=True)):
    ...     print(assumption)
    1. ∇²_ww g is continuous around w_T: holds, sampled (changes by 0.0e+00 of itself within 1e-06)
    2. B_t has full column rank around w_T: holds (rank 2 of 2, σ_min = 0.05)
    3. ∇_λ fᵀ(d_λ f + h_{T−K} − ∇_λ f) ≥ c ‖∇_λ f‖², c > 0: holds (c = 2.15422)
    4. deterministic: holds, sampled (two runs agree bit for bit)
    """
    lam, K = at(problem, lam, K)
    c = measured(problem, lam, constants, confidence)
    return theorem_3_4_assumptions(problem, lam, K, c)
