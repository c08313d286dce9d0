"""A problem at one λ: its transition bound to θ, counted and watched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tinybilevel.backend import Array, promote
from tinybilevel.errors import DivergenceError
from tinybilevel.problem import BilevelProblem

__all__ = ["Cost", "Dynamics"]


@dataclass(frozen=True)
class Cost:
    """What one hypergradient takes: the row of the paper's Table 1, counted.

    Attributes
    ----------
    transitions : int
        Evaluations of Ξ.
    products : int
        Products with A and B (one vjp, jvp or Hessian pass each).
    bytes : int
        Bytes of the states, and in forward mode of Z, that are held at the peak.
    """

    transitions: int
    products: int
    bytes: int


class Dynamics:
    """A problem's transition at one θ; it counts what is run, so that a `Cost` can be reported."""

    def __init__(self, problem: BilevelProblem, lam: Array) -> None:
        self.problem, self.lam, self.T = problem, lam, problem.T
        self.theta = problem.hyper_map(lam)
        self.transition = problem.transition
        w0 = self.transition.initial(self.theta)
        self.dtype = promote(w0, self.theta, self.transition.dtype)
        self.w0 = w0.astype(self.dtype, copy=False)
        self.transitions = self.products = self.bytes = 0

    def step(self, t: int, w: Array, out: Array) -> Array:
        self.transitions += 1
        return self.transition.step(t, w, self.theta, out=out)

    def advance(self, w: Array, start: int, stop: int, work: Array) -> Array:
        """Return w_stop from w = w_start, by turns in the two rows of `work`."""
        for t in range(start, stop):
            w = self.step(t, w, out=work[t % 2])
        return w

    def vjp(self, t: int, w: Array, alpha: Array) -> tuple[Array, Array]:
        self.products += 1
        return self.transition.vjp(t, w, self.theta, alpha)

    def initial_vjp(self, alpha: Array) -> Array:
        self.products += 1
        return self.transition.initial_vjp(self.theta, alpha)

    def jvp(self, t: int, w: Array, dw: Array, dtheta: Array) -> Array:
        self.products += 1
        return self.transition.jvp(t, w, self.theta, dw, dtheta)

    def initial_jvp(self, dtheta: Array) -> Array:
        self.products += 1
        return self.transition.initial_jvp(self.theta, dtheta)

    def upper(self, w: Array) -> tuple[float, Array, Array]:
        """Return f, α_T = ∇_w f over the whole state, and h_T = ∇_θ f, at the readout of w_T."""
        x, f = self.transition.readout(w), self.problem.upper
        alpha = self.transition.readout_vjp(f.grad(x, self.theta))
        return float(f.value(x, self.theta)), alpha, f.grad_lam(x, self.theta)

    def empty(self, count: int) -> Array:
        """Allocate `count` rows of a state's size, and count their bytes."""
        rows = np.empty_like(self.w0, shape=(count, self.w0.size))
        self.bytes += rows.nbytes
        return rows

    def cost(self) -> Cost:
        return Cost(self.transitions, self.products, self.bytes)

    def check(self, w: Array, *results: Any) -> None:
        """Raise a DivergenceError if w_T or a result of the upper level is not finite."""
        if all(bool(np.isfinite(x).all()) for x in (w, *results)):
            return
        t, norm = self._first_divergence()
        where = "the upper level" if t is None else f"the state w_{t + 1} after step t={t}"
        error = DivergenceError(
            f"{where} is not finite (norm of the last finite state: {norm:.3g}); {self._cause(t)}",
            t=t,
            norm=norm,
        )
        error.lam = self.lam.copy()
        raise error

    def _first_divergence(self) -> tuple[int | None, float]:
        # Only a run that failed is paid for twice; the inner loop stays free of checks.
        w, norm = self.w0, float(np.linalg.norm(self.w0))
        for t in range(self.T):
            w = self.transition.step(t, w, self.theta)
            if not np.isfinite(w).all():
                return t, norm
            norm = float(np.linalg.norm(w.astype(np.float64)))
        return None, norm

    def _cause(self, t: int | None) -> str:
        step_size, g = getattr(self.transition, "step_size", None), self.transition.objective
        if step_size is None or g is None or not np.isfinite(self.w0).all():
            return "the lower-level iteration diverges or its derivatives overflow"
        gamma = float(np.max(step_size(t or 0, self.theta)))
        w = self.transition.readout(self.w0)
        v = np.ones_like(w) / np.sqrt(w.size)
        beta = 0.0
        for _ in range(20):  # power iteration on the Hessian at w_0
            v, _ = g.grad_vjp(w, self.theta, v)
            beta = float(np.linalg.norm(v))
            if not np.isfinite(beta) or beta == 0:
                break
            v = v / beta
        return (
            f"likely cause: step size γ = {gamma:.3g} against smoothness β ≈ {beta:.3g} at w_0 "
            f"(gradient descent is stable for γ < 2/β = {2 / beta if beta else np.inf:.3g})"
        )
