"""Checkers for the paper's statements, on a problem of one's own."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinybilevel.bounds import TruncationBound, first_update, lemma_3_2, proposition_3_1
from tinybilevel.methods.base import Method
from tinybilevel.methods.unrolled import RMD
from tinybilevel.outer.minimize import minimize
from tinybilevel.outer.optimizers import Optimizer
from tinybilevel.problem import BilevelProblem
from tinybilevel.testing.checks import require

__all__ = [
    "assert_converges_to_stationary_point",
    "assert_descent_direction",
    "assert_truncation_bound",
]


def assert_truncation_bound(
    problem: BilevelProblem,
    lam: Any = None,
    K: int = 1,
    *,
    alpha: float | None = None,
    beta: float | None = None,
    rtol: float = 1e-9,
) -> TruncationBound:
    """Check Proposition 3.1: ‖h_{T−K} − d_λ f‖ is at most eq. (9), and eq. (10) where it applies.

    Parameters
    ----------
    problem : BilevelProblem
        By gradient descent on one objective with one step size.
    lam : array_like (N,), optional
        Where; by default the problem's `lam0`.
    K : int
        Depth, 0 … T.
    alpha, beta : float, optional
        Known constants, in place of those measured along the trajectory: checks them too.
    rtol : float
        What is let pass as rounding: of the bound and, in units of 1e-6, of ‖∇_ŵ f‖ M_B.

    Returns
    -------
    TruncationBound
        Both sides.

    Raises
    ------
    AssertionError
        If an assumption of both bounds is gone, naming it, or the error is above a bound.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> b = tb.testing.assert_truncation_bound(tb.problems.toy(), K=10)
    >>> b.error <= b.eq_10
    True
    """
    b = proposition_3_1(problem, lam, K, alpha=alpha, beta=beta)
    gone = "; ".join(map(str, b.missing))
    require(b.bound is not None, f"Proposition 3.1 promises nothing for K = {K}: {gone}")
    for name, bound in (("(9)", b.eq_9), ("(10)", b.eq_10), ("a posteriori", b.a_posteriori)):
        if bound is not None:
            allowed = bound * (1 + rtol) + 1e-6 * rtol * b.grad_norm * b.M_B
            require(
                b.error <= allowed,
                f"‖h_(T−K) − d_λ f‖ = {b.error:.6g} is above the bound {name} = {bound:.6g} for "
                f"K = {K}",
            )
    return b


def assert_descent_direction(
    problem: BilevelProblem, lam: Any = None, K: int = 1, *, c: float = 0.0
) -> float:
    """Check Lemma 3.2: h_{T−K}ᵀ d_λ f > c ‖d_λ f‖².

    Parameters
    ----------
    problem : BilevelProblem
        Any.
    lam : array_like (N,) or (R, N), optional
        One point or many; by default the problem's `lam0`.
    K : int
        Depth, 0 … T.
    c : float
        How much descent is asked for.

    Returns
    -------
    float
        The smallest ratio h_{T−K}ᵀ d_λ f / ‖d_λ f‖² over the points.

    Raises
    ------
    AssertionError
        If it is not above `c` at a point, or d_λ f = 0 at one: no direction descends there.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> round(tb.testing.assert_descent_direction(tb.problems.toy(), K=1), 4)
    0.0754
    """
    ratios = lemma_3_2(problem, lam, K).by_grad
    # A NaN fails as well.
    bad = np.flatnonzero(~(ratios > c))
    if len(bad):
        require(
            False,
            f"h_(T−K) with K = {K} is no direction of descent at point {bad[0]} of {len(ratios)}: "
            f"h_(T−K)ᵀ d_λ f / ‖d_λ f‖² = {ratios[bad[0]]:.6g}, must be above {c:g}",
        )
    return float(ratios.min())


def assert_converges_to_stationary_point(
    problem: BilevelProblem,
    method: Method,
    lam: Any = None,
    *,
    optimizer: Optimizer | None = None,
    iterations: int = 1000,
    tol: float = 1e-8,
) -> float:
    """Check the conclusion of Theorem 3.4: following `method` makes the exact ‖d_λ f‖ vanish.

    Parameters
    ----------
    problem : BilevelProblem
        Any.
    method : Method
        Whose hypergradients are followed.
    lam : array_like (N,), optional
        λ_1; by default the problem's `lam0`.
    optimizer : Optimizer, optional
        By default η_0/√τ with a first update of norm 0.6.
    iterations : int
        Updates.
    tol : float
        Largest exact ‖d_λ f‖ at the end.

    Returns
    -------
    float
        The exact ‖d_λ f‖ at the end.

    Raises
    ------
    AssertionError
        If it is above `tol`.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> method = tb.KRMD(K=1)
    >>> tb.testing.assert_converges_to_stationary_point(tb.problems.toy(), method) < 1e-8
    True
    """
    optimizer = first_update(problem, method, lam) if optimizer is None else optimizer
    r = minimize(problem, lam, method, optimizer=optimizer, iterations=iterations)
    norm = float(np.linalg.norm(RMD()(problem, r.lam).grad))
    require(
        norm <= tol,
        f"after {r.iterations} updates by {method} the exact ‖d_λ f‖ is {norm:.3g}, above "
        f"tol = {tol:g}",
    )
    return norm
