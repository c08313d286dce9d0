"""Implicit differentiation: conjugate gradients on eq. (11), and the Neumann series of eq. (12)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from tinybilevel.arrays.backend import Array, as_count, on_device
from tinybilevel.engine.dynamics import Dynamics
from tinybilevel.engine.reverse import backward
from tinybilevel.engine.storage import Ring
from tinybilevel.errors import ConvergenceWarning
from tinybilevel.methods.base import Hypergradient, Method, lacks
from tinybilevel.problem import BilevelProblem

__all__ = ["ImplicitCG", "Neumann", "Series"]


class SeriesSum(NamedTuple):
    """h with the series added to it, and how the sum was reached."""

    h: Array
    K: int
    norms: Any = ()
    residual: float = 0.0
    converged: bool = True


class Series(Method):
    """B_∞ Σ_k A_∞ᵏ α, linearised at one state: a method at w_T, and the tail of a `KRMD`."""

    def _evaluate(self, dynamics: Dynamics) -> Hypergradient:
        w, _ = Ring().run(dynamics, 0)
        value, alpha, h = dynamics.upper(w)
        h, K, norms, residual, converged = self.add(dynamics, dynamics.T, w, alpha, h)
        return Hypergradient.at(
            dynamics, w, value, h, K, norms, residual=residual, converged=converged
        )

    def add(self, dynamics: Dynamics, t: int, w: Array, alpha: Array, h: Array) -> SeriesSum:
        """Add the series of α = α_t to h = h_t, linearised at w = w_t."""
        raise TypeError(f"{type(self).__name__} must define add")


@dataclass(frozen=True)
class Neumann(Series):
    """∇_λ f + B_∞ Σ_{k<K} A_∞ᵏ ∇_w f, eq. (12) cut after K terms, both linearised at w_T.

    It is the backward recursion fed with w_T at every step. Where w_T is a stationary point, it
    equals `KRMD` from a run that has long converged.

    Parameters
    ----------
    K : int
        Terms of the series, at least 0.
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
        repeated = ((last, w) for _ in range(self.K))
        _, h, norms = backward(dynamics, repeated, alpha, h, self.K)
        return SeriesSum(h, self.K, norms)

    def _predict(self, T: int, M: int, N: int) -> tuple[int, int, int]:
        return T, self.K, 2


@dataclass(frozen=True)
class ImplicitCG(Series):
    """∇_λ f − ∇²_λw g (∇²_ww g)⁻¹ ∇_w f at w_T, eq. (11), by SciPy's conjugate gradients.

    Needs a transition that minimises an `Objective` g; right where w_T is a strict minimum of it.
    Its predicted cost is the most it can take: CG may stop earlier.

    Parameters
    ----------
    K : int, optional
        Most iterations. The default is 10 M, SciPy's.
    tol : float
        Relative residual ‖H q − ∇_w f‖ / ‖∇_w f‖ to stop at. 0 with `K` given runs K iterations,
        fewer only where the residual underflows, and asks for no more.

    Warns
    -----
    ConvergenceWarning
        If `tol` > 0 is not reached, or the Hessian is seen not to be positive definite. The
        result then says ``converged=False`` and holds the residual that was reached.
    """

    K: int | None = None
    tol: float = 1e-10

    def __post_init__(self) -> None:
        if self.K is not None:
            object.__setattr__(self, "K", as_count("K", self.K, minimum=1))
        if not 0 <= self.tol < 1:
            raise ValueError(f"tol must lie in [0, 1), got {self.tol}")
        if self.K is None and self.tol == 0:
            raise ValueError("give K, tol > 0 or both: CG would have nothing to stop at")

    def require(self, problem: BilevelProblem) -> None:
        super().require(problem)
        move = problem.transition
        if move.objective is None or not move.stationary_at_minimum:
            raise TypeError(
                "ImplicitCG needs a transition that comes to rest at a minimum of its objective; "
                f"{type(move).__name__} does not"
            )
        if missing := move.objective.lacking("grad_vjp"):
            raise lacks(self, "lower level", missing)

    def add(self, dynamics: Dynamics, t: int, w: Array, alpha: Array, h: Array) -> SeriesSum:
        # Not the one bound to the call: CG keeps what a product returns.
        g: Any = dynamics.problem.transition.objective
        theta = dynamics.theta
        if on_device(w):
            raise TypeError('ImplicitCG runs SciPy, on the host: take problem.to("numpy")')
        from scipy.sparse.linalg import LinearOperator, cg

        dynamics.check(w, alpha)
        # A velocity's share of α drops out of the series: derived in docs/guides/truncation.md.
        w, b = dynamics.transition.readout(w), dynamics.transition.readout(alpha)
        scale = float(np.linalg.norm(b))
        iterations, curvature = 0, np.inf

        def hessian(v: Array) -> Array:
            nonlocal curvature
            dynamics.products += 1
            Hv, _ = g.grad_vjp(w, theta, v)
            curvature = min(curvature, float(v @ Hv))
            return Hv

        def count(_: Array) -> None:
            nonlocal iterations
            iterations += 1

        eps = np.finfo(b.dtype)
        operator = LinearOperator((w.size, w.size), matvec=hessian, dtype=b.dtype)
        # atol stops a residual whose square underflows: CG would divide by it.
        atol = float(eps.tiny) ** 0.5
        with np.errstate(divide="ignore"):  # a singular H is reported below
            q, _ = cg(operator, b, rtol=self.tol, atol=atol, maxiter=self.K, callback=count)
        dynamics.products += 1
        Hq, mixed = g.grad_vjp(w, theta, q)
        residual = float(np.linalg.norm(Hq - b)) / scale if scale else 0.0
        # CG's own residual drifts from the true one by rounding; a factor of 10 is let pass.
        missed = self.tol > 0 and residual > 10 * max(self.tol, float(eps.eps))
        indefinite = scale > 0 and curvature <= 0
        if missed or indefinite:
            warnings.warn(
                f"ImplicitCG stopped after {iterations} iterations at a relative residual of "
                f"{residual:.1e}: "
                + (
                    "H is not positive definite"
                    if indefinite
                    else f"tol = {self.tol:.1e} is not met"
                ),
                ConvergenceWarning,
                stacklevel=4,
            )
        converged = not (missed or indefinite)
        return SeriesSum(h - mixed, iterations, residual=residual, converged=converged)

    def _predict(self, T: int, M: int, N: int) -> tuple[int, int, int]:
        return T, (10 * M if self.K is None else self.K) + 1, 2
