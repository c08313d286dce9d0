"""The assumptions of Section 3, each measured at one λ."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array, as_count
from tinybilevel.measure.constants import Constants
from tinybilevel.methods.unrolled import KRMD, RMD
from tinybilevel.problem import BilevelProblem

__all__ = ["Assumption", "at", "proposition_3_1_assumptions", "theorem_3_4_assumptions"]

#: Radius within which ∇²_ww g must not jump.
_NEAR = 1e-6


@dataclass(frozen=True)
class Assumption:
    """One assumption, with what was measured of it.

    Attributes
    ----------
    name : str
        In the paper's words.
    holds : bool or None
        None where it was not measured.
    measured : str
        The number behind it.
    """

    name: str
    holds: bool | None
    measured: str

    def __str__(self) -> str:
        verdict = {True: "holds", False: "GONE", None: "not measured"}[self.holds]
        return f"{self.name}: {verdict} ({self.measured})"


def at(problem: BilevelProblem, lam: Any, K: int) -> tuple[Array, int]:
    """Return λ in float64 and K, checked: the theory is measured in double precision."""
    K = as_count("K", K)
    if K > problem.T:
        raise ValueError(f"K must be at most the horizon T = {problem.T}, got {K}")
    return problem.check(lam).astype(np.float64), K


def proposition_3_1_assumptions(
    c: Constants, T: int, K: int, *, given: tuple[str, ...] = ()
) -> tuple[Assumption, ...]:
    """Return what eq. (9) and (10) ask for: the first three for (9), all but the third for (10).

    Of the constants in `given` it says that they were not measured.
    """
    if c.gamma is None:
        why = "the transition is not gradient descent on one g with one step size"
        names = ("γ ≤ 1/β", "α > 0 on w_{T−K−1} … w_T", "α > 0 on w_0 … w_T")
        unknown = [Assumption(name, None, "needs gradient descent") for name in names]
        return Assumption("w_{t+1} = w_t − γ ∇_w g", False, why), *unknown
    beta_given, alpha_given = (" (given)" if name in given else "" for name in ("beta", "alpha"))
    beta, near, everywhere = float(c.beta.max()), c.alpha[max(T - K - 1, 0) :].min(), c.alpha.min()
    return (
        Assumption("w_{t+1} = w_t − γ ∇_w g", True, f"γ = {c.gamma:.6g}"),
        # Rounding of an eigenvalue must not break γ = 1/β.
        Assumption(
            "γ ≤ 1/β",
            c.gamma * beta <= 1 + 1e-9,
            f"γβ = {c.gamma * beta:.6g}, β = {beta:.6g}{beta_given}",
        ),
        Assumption("α > 0 on w_{T−K−1} … w_T", _positive(near, c), f"α = {near:.6g}{alpha_given}"),
        Assumption(
            "α > 0 on w_0 … w_T", _positive(everywhere, c), f"α = {everywhere:.6g}{alpha_given}"
        ),
    )


def _positive(alpha: float, c: Constants) -> bool:
    rounding = c.shape[1] * np.finfo(np.float64).eps * float(c.beta.max())
    return bool(alpha > c.error + rounding)


def theorem_3_4_assumptions(
    problem: BilevelProblem, lam: Array, K: int, c: Constants, *, exact: bool = True
) -> tuple[Assumption, ...]:
    """Return the four further assumptions of Theorem 3.4; the third needs the exact gradient."""
    return (
        _twice_continuous(problem, lam),
        _full_rank(c, problem.T, K),
        _interference(problem, lam, K, exact),
        _deterministic(problem, lam),
    )


def _twice_continuous(problem: BilevelProblem, lam: Array) -> Assumption:
    name = "1. ∇²_ww g is continuous around w_T"
    transition, theta = problem.transition, problem.hyper_map(lam)
    if (g := transition.objective) is None:
        return Assumption(name, None, "the transition names no objective")
    w, rng = KRMD(K=0)(problem, lam).w, np.random.default_rng(0)
    jumps = []
    for _ in range(3):
        v, d = rng.standard_normal((2, w.size))
        d *= _NEAR * max(1.0, float(np.linalg.norm(w))) / np.linalg.norm(d)
        Hv = g.grad_vjp(w, theta, v)[0]
        change = max(np.linalg.norm(g.grad_vjp(w + s * d, theta, v)[0] - Hv) for s in (-1, 1))
        jumps.append(float(change / max(np.linalg.norm(Hv), np.finfo(np.float64).tiny)))
    # A continuous Hessian may be steep: √ of the radius is as far as it is let change.
    return Assumption(
        name,
        max(jumps) <= _NEAR**0.5,
        f"changes by {max(jumps):.1e} of itself within {_NEAR:g} of w_T",
    )


def _full_rank(c: Constants, T: int, K: int) -> Assumption:
    name = "2. B_t has full column rank around w_T"
    N, M = c.shape
    if N < M:
        return Assumption(name, False, f"rank at most N = {N} of M = {M}")
    around = slice(min(max(T - K, 1), T), None)
    smallest = float(c.B_smallest[around].min())
    if c.rank is not None:
        rank = int(c.rank[around].min())
        return Assumption(name, rank == M, f"rank {rank} of {M}, σ_min = {smallest:.3g}")
    return Assumption(name, smallest > c.error, f"σ_min = {smallest:.3g} ± {c.error:.1g}")


def _interference(problem: BilevelProblem, lam: Array, K: int, exact: bool) -> Assumption:
    name = "3. ∇_λ fᵀ(d_λ f + h_{T−K} − ∇_λ f) ≥ c ‖∇_λ f‖², c > 0"
    direct = KRMD(K=0)(problem, lam).grad
    size = float(direct @ direct)
    if size == 0:
        return Assumption(name, True, "∇_λ f = 0")
    if not exact:
        return Assumption(name, None, "needs the exact gradient")
    d, h = RMD()(problem, lam).grad, KRMD(K=K)(problem, lam).grad
    c = float(direct @ (d + h - direct)) / size
    return Assumption(name, c > 0, f"c = {c:.6g}")


def _deterministic(problem: BilevelProblem, lam: Array) -> Assumption:
    first, again = (KRMD(K=min(1, problem.T))(problem, lam) for _ in range(2))
    same = first.value == again.value and np.array_equal(first.grad, again.grad)
    return Assumption(
        "4. deterministic", same, f"two runs {'agree bit for bit' if same else 'differ'}"
    )


def known(c: Constants, alpha: float | None, beta: float | None) -> Constants:
    """Return the constants with those that the caller knows to hold globally put in."""
    for name, value in (("alpha", alpha), ("beta", beta)):
        if value is None:
            continue
        if not np.isfinite(value):
            raise ValueError(f"{name} must be finite, got {value}")
        c = replace(c, **{name: np.full_like(getattr(c, name), value)})
    return c
