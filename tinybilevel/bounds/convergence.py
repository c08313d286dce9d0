"""Theorems 3.3 and 3.5: where following h_{T−K} leads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array
from tinybilevel.arrays.checks import as_count
from tinybilevel.bounds.assumptions import at
from tinybilevel.bounds.readable import Readable
from tinybilevel.methods.base import Method
from tinybilevel.methods.unrolled import KRMD, RMD
from tinybilevel.outer.minimize import Progress, minimize
from tinybilevel.outer.optimizers import SGD
from tinybilevel.problem import BilevelProblem
from tinybilevel.problems.counterexample import Coupled
from tinybilevel.transitions import GradientDescent

__all__ = ["AverageGradient", "WrongLimit", "first_update", "theorem_3_3", "theorem_3_5"]


@dataclass(frozen=True, repr=False)
class AverageGradient(Readable):
    """Both sides of Theorem 3.3 after 1 … R iterations.

    Attributes
    ----------
    average : ndarray (R,)
        Σ η_τ ‖∇F(λ_τ)‖² / Σ η_τ, the left-hand side.
    bound : ndarray (R,)
        ε G + (F(λ_1) − min F + L (G² + ε²) Σ η_τ²) / Σ η_τ, the right-hand side with its constants.
    rate : ndarray (R,)
        ε + (ε² + 1)/√R, as printed, without constants or logarithm.
    epsilon : float
        ε = max_τ ‖h_{T−K} − d_λ f‖ along the run.
    G, L : float
        max_τ ‖∇F(λ_τ)‖, and the least L with F(λ_{τ+1}) ≤ F(λ_τ) + ∇Fᵀδ + L‖δ‖²/2 along the run.
    lam : ndarray (R + 1, N)
        λ_1 … λ_{R+1}.
    grad_norms : ndarray (R + 1,)
        ‖∇F‖ at each.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> run = tb.bounds.theorem_3_3(tb.problems.toy(), K=5, iterations=50)
    >>> run.average.shape, run.lam.shape, f"{run.average[-1]:.1f} <= {run.bound[-1]:.1f}"
    ((50,), (51, 2), '40.3 <= 496.8')
    """

    average: Array
    bound: Array
    rate: Array
    epsilon: float
    G: float
    L: float
    lam: Array
    grad_norms: Array


def first_update(problem: BilevelProblem, method: Method, lam: Any = None) -> SGD:
    """Return η_0/√τ with η_0 such that the first update has a norm of 0.6, as in Section 4.1.

    Parameters
    ----------
    problem : BilevelProblem
        Any.
    method : Method
        Whose hypergradient is followed.
    lam : array_like (N,), optional
        λ_1; by default the problem's `lam0`.

    Returns
    -------
    SGD

    Raises
    ------
    ValueError
        If the first hypergradient is 0.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> tb.bounds.first_update(tb.problems.toy(), tb.RMD())
    SGD(lr=0.0384..., decay=0.5)
    """
    first = float(np.linalg.norm(method(problem, lam).grad))
    if first == 0:
        raise ValueError(
            f"the first hypergradient of {method} is 0, there is no rate to tune: give lr"
        )
    return SGD(0.6 / first)


def theorem_3_3(
    problem: BilevelProblem,
    lam: Any = None,
    K: int = 1,
    *,
    iterations: int = 1000,
    lr: float | None = None,
) -> AverageGradient:
    """Run λ_{τ+1} = λ_τ − η_0/√τ h_{T−K}, and compute both sides of Theorem 3.3 along it.

    The exact gradient is computed beside each K-step one.

    Parameters
    ----------
    problem : BilevelProblem
        Deterministic: F = f.
    lam : array_like (N,), optional
        λ_1; by default the problem's `lam0`.
    K : int
        Depth, 0 … T.
    iterations : int
        R, at least 1.
    lr : float, optional
        η_0; by default the first update has a norm of 0.6.

    Returns
    -------
    AverageGradient

    Raises
    ------
    TypeError, ValueError
        If an argument is wrong, or the first hypergradient is 0 and no `lr` is given.
    DivergenceError
        If the run diverges.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> run = tb.bounds.theorem_3_3(tb.problems.toy(biased=True), K=20, iterations=100)
    >>> bool((run.average <= run.bound).all())
    True
    """
    lam, K = at(problem, lam, K)
    R = as_count("iterations", iterations, minimum=1)
    method = KRMD(K=K)
    points, values, grads, biases = [], [], [], []

    def record(x: Array, h: Array | None) -> None:
        r = RMD()(problem, x)
        points.append(x)
        values.append(r.value)
        grads.append(r.grad)
        if h is not None:
            biases.append(float(np.linalg.norm(h - r.grad)))

    def watch(step: Progress) -> None:
        record(step.lam, step.hypergradient.grad)

    optimizer = first_update(problem, method, lam) if lr is None else SGD(lr)
    last = minimize(problem, lam, method, optimizer=optimizer, iterations=R, callback=watch)
    record(last.lam, None)
    norms = np.linalg.norm(grads, axis=1)
    eta = optimizer.lr / np.sqrt(np.arange(1, R + 1))
    total, squares = np.cumsum(eta), np.cumsum(eta**2)
    epsilon, G, L = max(biases), float(norms.max()), _smoothness(points, values, grads)
    gap = values[0] - min(values)
    return AverageGradient(
        average=np.cumsum(eta * norms[:-1] ** 2) / total,
        bound=epsilon * G + (gap + L * (G**2 + epsilon**2) * squares) / total,
        rate=epsilon + (epsilon**2 + 1) / np.sqrt(np.arange(1, R + 1)),
        epsilon=epsilon,
        G=G,
        L=L,
        lam=np.array(points),
        grad_norms=norms,
    )


def _smoothness(points: list[Array], values: list[float], grads: list[Array]) -> float:
    x, F, g = np.array(points), np.array(values), np.array(grads)
    moves = np.diff(x, axis=0)
    squares = (moves**2).sum(axis=1)
    # Of the shortest moves F shows nothing but rounding.
    seen = squares > 1e-8 * squares.max()
    rise = np.diff(F) - (g[:-1] * moves).sum(axis=1)
    return float(np.max(2 * rise[seen] / squares[seen], initial=0.0))


@dataclass(frozen=True)
class WrongLimit:
    """Where K-RMD stops on the counterexample of Theorem 3.5.

    Attributes
    ----------
    lam : float
        λ_K, the limit of the K-RMD iterates, in closed form.
    grad : float
        d_λ f there, in closed form: not 0 for K < T.
    measured_h, measured_grad : float
        h_{T−K} and d_λ f there, as the methods compute them.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> problem = tb.problems.counterexample()
    >>> for K in (1, 10, problem.T):
    ...     limit = tb.bounds.theorem_3_5(problem, K)
    ...     print(f"K = {K}: h is 0 at λ = {limit.lam:.3f}, where d_λ f = {limit.grad:.3f}")
    K = 1: h is 0 at λ = 0.909, where d_λ f = 0.818
    K = 10: h is 0 at λ = 0.606, where d_λ f = 0.211
    K = 100: h is 0 at λ = 0.500, where d_λ f = 0.000
    """

    lam: float
    grad: float
    measured_h: float
    measured_grad: float


def theorem_3_5(problem: BilevelProblem, K: int) -> WrongLimit:
    """Compute where Theorem 3.5's `problems.counterexample` makes K-RMD stop, and d_λ f there.

    With r = (1 − γ)^K and q = (1 − γ)^T: λ_K = ρb / (ρ + (1 − r)(1 − q)), and there
    d_λ f = (r − q)(1 − q) λ_K.

    Parameters
    ----------
    problem : BilevelProblem
        From `tinybilevel.problems.counterexample`.
    K : int
        Depth, 0 … T.

    Returns
    -------
    WrongLimit

    Raises
    ------
    TypeError
        If `problem` is another one.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> end = tb.bounds.theorem_3_5(tb.problems.counterexample(), K=1)
    >>> round(end.lam, 4), round(end.grad, 4), round(end.measured_h, 12)
    (0.9091, 0.8181, 0.0)
    """
    f, descent = problem.upper, problem.transition
    if not isinstance(f, Coupled) or not isinstance(descent, GradientDescent):
        raise TypeError(f"problem must be problems.counterexample(…), got {problem!r}")
    gamma = float(descent.step_size(0, np.zeros(1)))
    _, K = at(problem, None, K)
    r, q = (1 - gamma) ** K, (1 - gamma) ** problem.T
    limit = f.coupling * f.target / (f.coupling + (1 - r) * (1 - q))
    here = np.array([limit])
    return WrongLimit(
        lam=limit,
        grad=(r - q) * (1 - q) * limit,
        measured_h=float(KRMD(K=K)(problem, here).grad[0]),
        measured_grad=float(RMD()(problem, here).grad[0]),
    )
