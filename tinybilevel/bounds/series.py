"""Proposition 3.6 and the rates of Section 3.3: K-RMD as a series for the implicit gradient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array
from tinybilevel.arrays.checks import as_count
from tinybilevel.bounds.assumptions import Assumption, at, proposition_3_1_assumptions
from tinybilevel.bounds.readable import Readable
from tinybilevel.measure.constants import Constants, measure, step_size
from tinybilevel.methods.base import Method
from tinybilevel.methods.implicit import ImplicitCG
from tinybilevel.methods.series import Neumann
from tinybilevel.methods.unrolled import KRMD, RMD
from tinybilevel.problem import BilevelProblem

__all__ = ["Rates", "SeriesError", "proposition_3_6", "rates"]


@dataclass(frozen=True, repr=False)
class SeriesError(Readable):
    """Both sides of Proposition 3.6, applied to ∇_ŵ f, for each K.

    Attributes
    ----------
    K : ndarray (len(Ks),) of int
        Terms of the series.
    error : ndarray (len(Ks),)
        ‖B_∞ Σ_{k<K} A_∞ᵏ ∇f + ∇_{λ,w}g ∇_{w,w}⁻¹g ∇f‖ at w_T.
    bound : ndarray (len(Ks),)
        (1 − γα)^K / (γα) ‖B_∞‖ ‖∇f‖, eq. (10) at w_T; NaN where γ < 1/β or α > 0 fails there.
    stationarity : float
        ‖∇_w g(w_T)‖: the proposition is about its being 0.
    assumptions : tuple of Assumption
        Those of the proposition at w_T, with what was measured.
    status : str
        What `bound` is worth, in words: "certified, …" or "estimated, …".

    Examples
    --------
    >>> import tinybilevel as tb
    >>> s = tb.bounds.proposition_3_6(tb.problems.toy(T=400), Ks=[1, 20, 50])
    >>> for K, error, bound in zip(s.K, s.error, s.bound):
    ...     print(f"K = {K}: {error:.2f} <= {bound:.2f}")
    K = 1: 14.52 <= 29.81
    K = 20: 4.20 <= 11.25
    K = 50: 0.86 <= 2.41
    """

    K: Array
    error: Array
    bound: Array
    stationarity: float
    assumptions: tuple[Assumption, ...]
    status: str


def proposition_3_6(
    problem: BilevelProblem,
    lam: Any = None,
    Ks: Sequence[int] = range(51),
    *,
    confidence: float | None = None,
) -> SeriesError:
    """Compare partial sums of B_∞ Σ A_∞ᵏ ∇_ŵ f with the implicit product: Proposition 3.6.

    Both are linearised at w_T, which a large T brings to a stationary point.

    Parameters
    ----------
    problem : BilevelProblem
        By gradient descent on one objective with one step size.
    lam : array_like (N,), optional
        Where; by default the problem's `lam0`.
    Ks : sequence of int
        Numbers of terms.
    confidence : float, optional
        See `measure`.

    Returns
    -------
    SeriesError

    Raises
    ------
    TypeError, ValueError
        If an argument is wrong, or the transition is not gradient descent.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> series = tb.bounds.proposition_3_6(tb.problems.toy(T=400), Ks=[0, 50, 100])
    >>> bool((series.error <= series.bound).all()), f"{series.stationarity:.0e}"
    (True, '6e-10')
    """
    lam, _ = at(problem, lam, 0)
    terms = np.array([as_count("Ks", K) for K in Ks])
    gamma, c = _at_the_end(problem, lam, confidence)
    _, small, convex, _ = proposition_3_1_assumptions(c, 1, 0)
    alpha, B_norm = float(c.alpha[0]), float(c.B_norms[1])
    implicit, last = ImplicitCG(tol=1e-13)(problem, lam), KRMD(K=0)(problem, lam)
    applies = small.holds and convex.holds
    # At γα = 1 rounding may leave a negative base.
    base = max(1 - gamma * alpha, 0.0)
    decay = base**terms / (gamma * alpha) if applies else np.nan * terms
    g = problem.transition.objective
    assert g is not None, "gradient descent has one"
    return SeriesError(
        K=terms,
        error=np.array([_distance(Neumann(int(K)), problem, lam, implicit.grad) for K in terms]),
        bound=decay * B_norm * float(last.alpha_norms[0]),
        stationarity=float(np.linalg.norm(g.grad(last.w, problem.hyper_map(lam)))),
        assumptions=(small, replace(convex, name="α > 0 at w_T")),
        status=c.words("alpha", "beta", "B_norms"),
    )


def _at_the_end(
    problem: BilevelProblem, lam: Array, confidence: float | None = None
) -> tuple[float, Constants]:
    """Return γ, and the constants at w_T; the problem must be by gradient descent."""
    gamma = step_size(problem, problem.hyper_map(lam))
    if gamma is None:
        raise TypeError(
            "the statement is about gradient descent on one objective with one step size, got "
            f"{type(problem.transition).__name__}"
        )
    last = replace(problem.starting_at(KRMD(K=0)(problem, lam).w), T=1)
    c = measure(last, lam, confidence=confidence)
    return gamma, c


def _distance(method: Method, problem: BilevelProblem, lam: Array, reference: Array) -> float:
    return float(np.linalg.norm(method(problem, lam).grad - reference))


@dataclass(frozen=True, repr=False)
class Rates(Readable):
    """How fast K-RMD and K iterations of CG approach the hypergradient (Section 3.3).

    Attributes
    ----------
    K : ndarray (len(Ks),) of int
        Depths.
    krmd, cg : ndarray (len(Ks),)
        Errors: of `KRMD` against `RMD`, of `ImplicitCG` against itself run to the end.
    krmd_slope, cg_slope : float
        Fitted slopes of log error against K.
    krmd_theory, cg_theory : float
        log(1 − γα), which is log(1 − 1/κ) for γ = 1/β; log((√κ − 1)/(√κ + 1)).
    kappa : float
        κ = β/α at w_T.
    status : str
        What κ and the theory's slopes are worth: of a large problem they are estimates.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> r = tb.bounds.rates(tb.problems.toy(T=400))
    >>> print(f"κ = {r.kappa:.1f}; K-RMD {r.krmd_slope:.3f}, in theory {r.krmd_theory:.3f}")
    κ = 2.0; K-RMD -0.065, in theory -0.051
    """

    K: Array
    krmd: Array
    cg: Array
    krmd_slope: float
    cg_slope: float
    krmd_theory: float
    cg_theory: float
    kappa: float
    status: str


def rates(problem: BilevelProblem, lam: Any = None, Ks: Sequence[int] = range(1, 21)) -> Rates:
    """Fit the rates at which K-RMD and K steps of CG converge, against those of Section 3.3.

    Parameters
    ----------
    problem : BilevelProblem
        By gradient descent, run long enough to have converged (a large T).
    lam : array_like (N,), optional
        Where; by default the problem's `lam0`.
    Ks : sequence of int
        Depths to fit over, 1 … T, at least two; errors at rounding level are left out of the fit.

    Returns
    -------
    Rates
        A slope is NaN where fewer than two errors are above rounding.

    Raises
    ------
    TypeError, ValueError
        If an argument is wrong, or the transition is not gradient descent.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> fit = tb.bounds.rates(tb.problems.toy(T=400, step_size=1.0), Ks=range(5, 15))
    >>> round(fit.krmd_slope, 3), round(fit.krmd_theory, 3), round(fit.kappa, 3)
    (-0.693, -0.693, 2.0)
    """
    lam, _ = at(problem, lam, 0)
    depths = np.array([at(problem, lam, as_count("Ks", K, minimum=1))[1] for K in Ks])
    if len(depths) < 2:
        raise ValueError(f"Ks must hold at least two depths to fit a slope, got {len(depths)}")
    gamma, c = _at_the_end(problem, lam)
    # What the iteration found, without its error: a slope is no bound.
    alpha, beta = float(c.unrounded("alpha")[0]), float(c.unrounded("beta")[0])
    if alpha <= 0:
        raise ValueError(f"g must be strongly convex at w_T for a rate, got α = {alpha:.3g} there")
    exact, implicit = RMD()(problem, lam).grad, ImplicitCG(tol=1e-14)(problem, lam).grad
    krmd = np.array([_distance(KRMD(K=int(K)), problem, lam, exact) for K in depths])
    cg = np.array([_distance(ImplicitCG(int(K), tol=0), problem, lam, implicit) for K in depths])
    root = np.sqrt(beta / alpha)
    with np.errstate(divide="ignore"):  # γα = 1, κ = 1: one step is enough
        krmd_theory = float(np.log(max(1 - gamma * alpha, 0.0)))
        cg_theory = float(np.log(max((root - 1) / (root + 1), 0.0)))
    return Rates(
        K=depths,
        krmd=krmd,
        cg=cg,
        krmd_slope=_slope(depths, krmd, exact),
        cg_slope=_slope(depths, cg, implicit),
        krmd_theory=krmd_theory,
        cg_theory=cg_theory,
        kappa=beta / alpha,
        status=c.words("alpha", "beta"),
    )


def _slope(Ks: Array, errors: Array, scale: Array) -> float:
    seen = errors > 1e-11 * np.linalg.norm(scale)
    if seen.sum() < 2:
        return float("nan")
    return float(np.polyfit(Ks[seen], np.log(errors[seen]), 1)[0])
