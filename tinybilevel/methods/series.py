"""The series that implicit differentiation sums, and its cut: the Neumann series of eq. (12)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from tinybilevel.arrays.backend import Array
from tinybilevel.arrays.checks import as_count
from tinybilevel.engine.dynamics import Dynamics
from tinybilevel.engine.reverse import backward
from tinybilevel.engine.storage import Ring
from tinybilevel.errors import ConvergenceWarning
from tinybilevel.methods.base import Method
from tinybilevel.methods.hypergradient import Hypergradient
from tinybilevel.transitions import GradientDescent

__all__ = ["Neumann", "Series", "SeriesSum"]

#: What is taken for a minimum: a gradient this small against that at w_0, or, where w_0 itself was
#: all but one, as after a warm start, this small in itself (SciPy's `gtol`).
RATIO, GTOL = 0.1, 1e-5


class SeriesSum(NamedTuple):
    """h with the series added to it, and how the sum was reached."""

    h: Array
    K: int
    norms: Any = ()
    residual: float = 0.0
    converged: bool = True
    bound: float | None = None


class Series(Method):
    """B_∞ Σ_k A_∞ᵏ α, linearised at one state: a method at w_T, and the tail of a `KRMD`."""

    def _evaluate(self, dynamics: Dynamics) -> Hypergradient:
        w, _ = Ring().run(dynamics, 0)
        value, alpha, h = dynamics.upper(w)
        h, K, norms, residual, converged, bound = self.add(dynamics, dynamics.T, w, alpha, h)
        r = Hypergradient.at(
            dynamics, w, value, h, K, norms, residual=residual, converged=converged, bound=bound
        )
        return self.at_minimum(r)

    def add(self, dynamics: Dynamics, t: int, w: Array, alpha: Array, h: Array) -> SeriesSum:
        """Add the series of α = α_t to h = h_t, linearised at w = w_t."""
        raise TypeError(f"{type(self).__name__} must define add")

    def at_minimum(self, r: Hypergradient) -> Hypergradient:
        """Return the result; with a warning and ``converged=False`` where w_T is no minimum."""
        norm, ratio = r.lower_grad_norm, r.lower_grad_ratio
        if norm is None or ratio is None or ratio <= RATIO or norm <= GTOL:
            return r
        warnings.warn(
            f"{type(self).__name__} takes w_T for a minimum of the lower level, but ‖∇g(w_T)‖ = "
            f"{norm:.2g} is {ratio:.2g} times what it was at w_0: take a larger T, or KRMD or RMD, "
            "which need no minimum",
            ConvergenceWarning,
            stacklevel=6,
        )
        return replace(r, converged=False)


@dataclass(frozen=True)
class Neumann(Series):
    """∇_λ f + B_∞ Σ_{k<K} A_∞ᵏ ∇_w f, eq. (12) cut after K terms, both linearised at w_T.

    It is the backward recursion fed with w_T at every step. Where w_T is a stationary point, it
    equals `KRMD` from a run that has long converged. Where its terms grow there is no limit: it
    then ends with the smallest term, and says so.

    Parameters
    ----------
    K : int
        Terms of the series, at least 0.

    Warns
    -----
    ConvergenceWarning
        If ‖α_k‖ = ‖A_∞ᵏ ∇_w f‖ grows, or ∇_w g(w_T) is not small. The result then says
        ``converged=False``.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> problem = tb.problems.toy(T=400)
    >>> exact = tb.RMD()(problem, [1.0, 1.0]).grad
    >>> tb.testing.relative_error(tb.Neumann(K=200)(problem, [1.0, 1.0]).grad, exact) < 1e-3
    True
    """

    K: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "K", as_count("K", self.K))

    @property
    def needs(self) -> tuple[str, ...]:  # type: ignore[override]
        """See `Method`."""
        return ("step", "vjp") if self.K > 0 else ("step",)

    def add(self, dynamics: Dynamics, t: int, w: Array, alpha: Array, h: Array) -> SeriesSum:
        last = max(t - 1, 0)  # the step that led to w_t
        slack = _growth(dynamics, last)
        smallest = np.inf

        def grows(_: int, norm: float) -> bool:
            nonlocal smallest
            smallest = min(smallest, norm)
            return norm > slack * smallest

        def terms(K: int, enough: Any = None) -> tuple[Array, Array, Array]:
            return backward(dynamics, ((last, w) for _ in range(K)), alpha, h, K, enough)

        _, total, norms = terms(self.K, grows)
        if not grows(0, float(norms[-1])):
            return SeriesSum(total, self.K, norms)
        best = int(norms.argmin())
        warnings.warn(
            f"Neumann stopped after {best} of {self.K} terms, where ‖α‖ began to grow: the series "
            "has no limit, as w_T is no strict minimum or the step size is beyond 2/β",
            ConvergenceWarning,
            stacklevel=6,
        )
        return SeriesSum(terms(best)[1], best, norms[: best + 1], converged=False)

    def at_minimum(self, r: Hypergradient) -> Hypergradient:
        return super().at_minimum(r) if self.K else r

    def _predict(self, T: int, M: int, N: int) -> tuple[int, int, int]:
        return T, self.K, 2


def _growth(dynamics: Dynamics, t: int) -> float:
    """Return how much ‖A_∞ᵏ α‖ may grow above its smallest value where the series converges.

    A = I − γH is symmetric, so that log ‖Aᵏ α‖ is convex in k: once it grows, it always will. A
    velocity makes A a matrix whose powers may grow for a while, by about 1/(1 − μ).
    """
    move = dynamics.transition
    symmetric = type(move) is GradientDescent and np.size(move.step_size(t, dynamics.theta)) == 1
    return 1 + float(np.finfo(dynamics.w0.dtype).eps) ** 0.5 if symmetric else 1e3
