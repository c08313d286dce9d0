"""The assumptions of Section 3, each measured at one λ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array
from tinybilevel.arrays.checks import as_count
from tinybilevel.measure.constants import Constants, measure
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
        None where it was not measured, or what was measured leaves it open.
    measured : str
        The number behind it.
    status : str
        What the verdict is worth: "certified" (see `Constants.words`), "estimated", "sampled" (at a
        few points or runs: a failure seen is one, none seen is no proof), "given" or "open".

    Examples
    --------
    >>> import tinybilevel as tb
    >>> b = tb.bounds.proposition_3_1(tb.problems.toy(step_size=1.5), K=20)
    >>> for assumption in b.assumptions:
    ...     print(assumption)
    w_{t+1} = w_t − γ ∇_w g: holds (γ = 1.5)
    γ ≤ 1/β: fails (γβ = 1.5, β = 1)
    α > 0 on w_{T−K−1} … w_T: holds (α = 0.5)
    α > 0 on w_0 … w_T: holds (α = 0.5)
    """

    name: str
    holds: bool | None
    measured: str
    status: str = "certified"

    def __post_init__(self) -> None:
        if self.holds is None:
            object.__setattr__(self, "status", "open")

    def __str__(self) -> str:
        verdict = {True: "holds", False: "fails", None: "not shown"}[self.holds]
        if self.status in ("estimated", "sampled"):
            verdict += f", {self.status}"
        return f"{self.name}: {verdict} ({self.measured})"


def at(problem: BilevelProblem, lam: Any, K: int) -> tuple[Array, int]:
    """Return λ in float64 and K, checked: the theory is measured in double precision."""
    K = as_count("K", K)
    if K > problem.T:
        raise ValueError(f"K must be at most the horizon T = {problem.T}, got {K}")
    return problem.check(lam).astype(np.float64), K


def measured(
    problem: BilevelProblem, lam: Array, constants: Constants | None, confidence: float | None
) -> Constants:
    """Return the caller's constants, or measure them."""
    if constants is None:
        return measure(problem, lam, confidence=confidence)
    if confidence is not None:
        raise ValueError("give confidence to measure where its constants are given, not here too")
    constants.check(problem, lam)
    return constants


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
    window = slice(max(T - K - 1, 0), None)
    return (
        Assumption("w_{t+1} = w_t − γ ∇_w g", True, f"γ = {c.gamma:.6g}"),
        _small_steps(c, given),
        _positive("α > 0 on w_{T−K−1} … w_T", c, window, given),
        _positive("α > 0 on w_0 … w_T", c, slice(None), given),
    )


def _small_steps(c: Constants, given: tuple[str, ...]) -> Assumption:
    assert c.gamma is not None
    at_most, at_least = float(c.beta.max()), float(c.unrounded("beta").max())
    # Rounding of an eigenvalue must not break γ = 1/β; nor may the residual of an estimate.
    shown = at_most if c.bounds("beta") else at_least
    holds: bool | None = c.gamma * shown <= 1 + 1e-9
    if not holds and c.gamma * at_least <= 1:
        holds = None
    beta = f"β = {shown:.6g}"
    if c.bounds("beta") and at_most - at_least > 1e-6 * at_least:
        beta = f"β = {at_least:.6g} … {at_most:.6g}"
    measured = f"γβ = {c.gamma * shown:.6g}, {beta}{' (given)' if 'beta' in given else ''}"
    return Assumption("γ ≤ 1/β", holds, measured, _status(c, "beta", given))


def _positive(name: str, c: Constants, where: slice, given: tuple[str, ...]) -> Assumption:
    at_least, at_most = float(c.alpha[where].min()), float(c.unrounded("alpha")[where].min())
    rounding = c.shape[1] * np.finfo(np.float64).eps * float(c.beta.max())
    holds: bool | None = bool(at_least > rounding)
    if not holds and at_most > rounding and c.bounds("alpha"):
        holds = None
    alpha = f"α = {at_least:.6g}"
    if at_most - at_least > 1e-6 * abs(at_most):
        alpha = f"α = {at_least:.3g} … {at_most:.3g}"
    return Assumption(
        name, holds, alpha + (" (given)" if "alpha" in given else ""), _status(c, "alpha", given)
    )


def _status(c: Constants, name: str, given: tuple[str, ...]) -> str:
    if name in given:
        return "given"
    return "certified" if c.bounds(name) else "estimated"


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
        f"changes by {max(jumps):.1e} of itself within {_NEAR:g}",
        "sampled",
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
    at_most = float(c.unrounded("B_smallest")[around].min())
    holds = True if smallest > 0 else None
    return Assumption(
        name, holds, f"σ_min = {smallest:.3g} … {at_most:.3g}", _status(c, "B_smallest", ())
    )


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
        "4. deterministic",
        same,
        f"two runs {'agree bit for bit' if same else 'differ'}",
        "sampled" if same else "certified",
    )


def known(c: Constants, alpha: float | None, beta: float | None) -> Constants:
    """Return the constants with those that the caller knows to hold globally put in."""
    values = {name: x for name, x in (("alpha", alpha), ("beta", beta)) if x is not None}
    for name, value in values.items():
        if not np.isfinite(value):
            raise ValueError(f"{name} must be finite, got {value}")
    return c.given(**values)
