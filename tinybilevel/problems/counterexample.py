"""Theorem 3.5: a problem on which no truncation depth K < T leads to a stationary point."""

from __future__ import annotations

import numpy as np

from tinybilevel.arrays.backend import Array
from tinybilevel.objectives import Objective, Quadratic
from tinybilevel.problem import BilevelProblem
from tinybilevel.transitions import GradientDescent

__all__ = ["Coupled", "counterexample"]


class Coupled(Objective):
    """f(w, λ) = ½w² + ½ρ(λ − b)²."""

    def __init__(self, coupling: float, target: float) -> None:
        self.coupling, self.target = float(coupling), float(target)

    def value(self, w: Array, lam: Array) -> float:
        direct = lam - self.target
        return 0.5 * float(w @ w + self.coupling * (direct @ direct))

    def grad(self, w: Array, lam: Array) -> Array:
        return 1.0 * w

    def grad_lam(self, w: Array, lam: Array) -> Array:
        return self.coupling * (lam - self.target)


def counterexample(
    *, T: int = 100, step_size: float = 0.1, coupling: float = 1.0, target: float = 1.0
) -> BilevelProblem:
    """Return the counterexample of Theorem 3.5: one hyperparameter that interferes.

    min_λ ½ŵ² + ½ρ(λ − b)² with g(w, λ) = ½(w − λ)², by gradient descent from w_0 = 0. g is smooth
    and strongly convex, B_t = γ has full column rank and nothing is random, but ∇_λ f pulls λ away
    from where ŵ wants it: all assumptions of Theorem 3.4 hold but the third.
    `tinybilevel.bounds.theorem_3_5` gives its limits and their exact gradients in closed form.

    Parameters
    ----------
    T : int
        Steps of gradient descent.
    step_size : float
        γ; at most 1 = 1/β for the assumptions to hold.
    coupling, target : float
        ρ > 0 and b ≠ 0.

    Returns
    -------
    BilevelProblem
        M = N = 1, float64, λ_1 = b.

    Raises
    ------
    ValueError
        If `coupling` is not above 0, or `target` is 0: both minima then coincide.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> problem = tb.problems.counterexample()
    >>> run = tb.minimize(problem, method=tb.KRMD(K=1), optimizer=tb.SGD(0.5), iterations=1000)
    >>> run.lam.round(4), tb.RMD()(problem, run.lam).grad.round(4)
    (array([0.9091]), array([0.8182]))
    """
    if not coupling > 0:
        raise ValueError(f"coupling must be greater than 0, got {coupling}")
    if target == 0:
        raise ValueError("target must not be 0, or both levels are best at λ = 0")
    return BilevelProblem(
        GradientDescent(Quadratic(np.ones(1)), step_size, initial=np.zeros(1)),
        upper=Coupled(coupling, target),
        T=T,
        lam0=np.array([float(target)]),
    )
