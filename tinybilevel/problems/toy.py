"""The two-dimensional problem of the paper's Section 4.1."""

from __future__ import annotations

import numpy as np

from tinybilevel.arrays.backend import Array
from tinybilevel.objectives import Objective, Quadratic
from tinybilevel.problem import BilevelProblem
from tinybilevel.transitions import GradientDescent

__all__ = ["Rippled", "toy"]


class Rippled(Objective):
    """f(w) = ‖w‖² + 10‖sin w‖², plus c‖λ − (1, 0)‖² for the biased f̃."""

    def __init__(self, coupling: float) -> None:
        self.coupling, self._target = coupling, np.array([1.0, 0.0])

    def value(self, w: Array, lam: Array) -> float:
        direct = lam - self._target
        return float(w @ w + 10 * (np.sin(w) ** 2).sum() + self.coupling * direct @ direct)

    def grad(self, w: Array, lam: Array) -> Array:
        return 2 * w + 10 * np.sin(2 * w)

    def grad_lam(self, w: Array, lam: Array) -> Array:
        return 2 * self.coupling * (lam - self._target)


def toy(*, biased: bool = False, T: int = 100, step_size: float = 0.1) -> BilevelProblem:
    """Return the paper's toy problem: a quadratic lower level under a rippled upper level.

    min_λ f(ŵ*) with f(w) = ‖w‖² + 10‖sin w‖² and g(w, λ) = ½ (w − λ)ᵀ diag(1, ½) (w − λ), by
    gradient descent from w_0 = (2, 2); λ_1 = (1, 1).

    Parameters
    ----------
    biased : bool
        True: f̃ = f + 5‖λ − (1, 0)‖², which breaks assumption 3 of Theorem 3.4.
    T : int
        Steps of gradient descent.
    step_size : float
        γ.

    Returns
    -------
    BilevelProblem
        M = N = 2, float64.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> tb.RMD()(tb.problems.toy()).w.round(4)
    array([1.    , 1.0059])
    """
    lower = Quadratic(np.array([1.0, 0.5]))
    return BilevelProblem(
        GradientDescent(lower, step_size, initial=np.array([2.0, 2.0])),
        upper=Rippled(5.0 if biased else 0.0),
        T=T,
        lam0=np.array([1.0, 1.0]),
    )
