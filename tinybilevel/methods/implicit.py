"""Implicit differentiation by conjugate gradients on eq. (11)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array, on_device
from tinybilevel.arrays.checks import as_count
from tinybilevel.engine.dynamics import Dynamics
from tinybilevel.errors import ConvergenceWarning
from tinybilevel.methods.base import lacks
from tinybilevel.methods.series import Series, SeriesSum
from tinybilevel.methods.smoothness import Smoothness
from tinybilevel.problem import BilevelProblem

__all__ = ["ImplicitCG"]


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
    damping : float
        δ ≥ 0: solves (H + δI) q = ∇_w f instead. Where H is singular or indefinite, δ above the
        most negative eigenvalue gives a solution; where it is not, a bias of order δ.
    constants : Smoothness, optional
        With them the result's `bound` is how far its gradient may be from that of
        λ ↦ f(w*(λ), λ) at the minimum w* of g: by w_T not being it, by CG, by damping.

    Raises
    ------
    ValueError
        If `constants` claim more strong convexity than the curvature that CG meets at w_T.

    Warns
    -----
    ConvergenceWarning
        If `tol` > 0 is not reached; if H + δI is seen not to be positive definite, where CG stops
        and keeps what it has; or if ∇_w g(w_T) is not small, as (11) holds at a minimum only. The
        result then says ``converged=False`` and holds the residual that was reached.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> r = tb.ImplicitCG()(tb.problems.toy(T=400), [1.0, 1.0])
    >>> r.converged, r.K
    (True, 2)
    """

    K: int | None = None
    tol: float = 1e-10
    damping: float = field(default=0.0, kw_only=True)
    constants: Smoothness | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if self.K is not None:
            object.__setattr__(self, "K", as_count("K", self.K, minimum=1))
        for name in ("tol", "damping"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float | np.number):
                raise TypeError(f"{name} must be a number, got {value!r}")
        if not 0 <= self.tol < 1:
            raise ValueError(f"tol must lie in [0, 1), got {self.tol}")
        if self.K is None and self.tol == 0:
            raise ValueError("give K, tol > 0 or both: CG would have nothing to stop at")
        if not 0 <= self.damping < np.inf:
            raise ValueError(f"damping must be finite and at least 0, got {self.damping}")
        if not isinstance(self.constants, Smoothness | None):
            raise TypeError(f"constants must be a Smoothness(…), got {self.constants!r}")

    def __repr__(self) -> str:
        # Without the default, as in `KRMD`.
        extra = f", damping={self.damping!r}" if self.damping else ""
        extra += f", constants={self.constants!r}" if self.constants else ""
        return f"ImplicitCG(K={self.K!r}, tol={self.tol!r}{extra})"

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
        # A velocity's share of α drops out of the series: derived in docs/howto/truncation.md.
        w, b = dynamics.transition.readout(w), dynamics.transition.readout(alpha)
        scale = float(np.linalg.norm(b))
        q, iterations, indefinite = np.zeros_like(b), 0, False

        def damped(v: Array) -> tuple[Array, Array]:
            dynamics.products += 1
            Hv, mixed = g.grad_vjp(w, theta, v)
            return (Hv + self.damping * v if self.damping else Hv), mixed

        least = float("inf")

        def hessian(v: Array) -> Array:
            nonlocal least
            Hv, _ = damped(v)
            least = min(least, float(v @ Hv) / float(v @ v))
            if not v @ Hv > 0:
                raise NotPositiveDefinite
            return Hv

        def keep(x: Array) -> None:
            nonlocal q, iterations
            q, iterations = x, iterations + 1  # CG goes on in the same array

        eps = np.finfo(b.dtype)
        operator = LinearOperator((w.size, w.size), matvec=hessian, dtype=b.dtype)
        # atol stops a residual whose square underflows: CG would divide by it.
        atol = float(eps.tiny) ** 0.5
        try:
            cg(operator, b, rtol=self.tol, atol=atol, maxiter=self.K, callback=keep)
        except NotPositiveDefinite:
            indefinite = True
        Hq, mixed = damped(q)
        residual = float(np.linalg.norm(Hq - b)) / scale if scale else 0.0
        # CG's own residual drifts from the true one by rounding; a factor of 10 is let pass.
        missed = self.tol > 0 and residual > 10 * max(self.tol, float(eps.eps))
        if missed or indefinite:
            warnings.warn(
                f"ImplicitCG stopped after {iterations} iterations at a relative residual of "
                f"{residual:.1e}: "
                + (
                    "H is not positive definite; damping= makes it so"
                    if indefinite
                    else f"tol = {self.tol:.1e} is not met"
                ),
                ConvergenceWarning,
                stacklevel=6,
            )
        converged = not (missed or indefinite)
        bound = None
        if self.constants is not None:
            claim = self.constants.convexity(g, theta)
            if least - self.damping < claim * (1 - 1e-6):
                raise ValueError(
                    f"constants claim α = {claim:.6g}, but g has a curvature of "
                    f"{least - self.damping:.6g} at w_T"
                )
            off = Hq - self.damping * q - b  # of the system without damping
            phi = dynamics.problem.hyper_map
            bound = self.constants.error(g, phi, dynamics.lam, theta, w, q, off)
        return SeriesSum(h - mixed, iterations, (), residual, converged, bound)

    def _predict(self, T: int, M: int, N: int) -> tuple[int, int, int]:
        return T, (10 * M if self.K is None else self.K) + 1, 2


class NotPositiveDefinite(Exception):
    """CG has met a direction v with vᵀHv ≤ 0."""
