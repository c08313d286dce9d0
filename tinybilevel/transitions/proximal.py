"""Proximal gradient for an L1 penalty: a gradient step, then a soft threshold."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array
from tinybilevel.transitions.coefficient import as_coefficient
from tinybilevel.transitions.gradient_descent import GradientTransition

__all__ = ["ProximalGradient"]


class ProximalGradient(GradientTransition):
    """w_{t+1} = soft(w_t − γ∇g(w_t, λ), γτ), soft(z, κ) = sign(z) max(abs(z) − κ, 0).

    It minimises g + τ‖w‖₁. With D = diag(abs(z) > κ) and c = D α: A α = c − H γc, and
    B α = −M γc − (∂γ/∂λ)ᵀ((∇g + τ sign z) ∘ c) − (∂τ/∂λ)ᵀ(γ sign z ∘ c). The threshold has no
    derivative at abs(z) = κ > 0; 0 is taken there.

    Parameters
    ----------
    objective, step_size, initial
        See `GradientTransition`.
    l1 : float, sequence of float, callable, slice or Learned
        τ, the strength of the L1 penalty; at least 0.
    batches : sequence of ndarray of int, optional
        See `GradientTransition`.
    """

    stationary_at_minimum = False  # of g; it minimises g + τ‖w‖₁

    def __init__(
        self, objective: Any, step_size: Any, initial: Any, *, l1: Any, batches: Any = None
    ) -> None:
        super().__init__(objective, step_size, initial, batches=batches)
        self.l1 = as_coefficient("l1", l1)

    def step(self, t: int, w: Array, lam: Array, out: Array | None = None) -> Array:
        gamma = self.step_size(t, lam)
        z = np.multiply(self.at(t).grad(w, lam), gamma, out=out)
        z = np.subtract(w, z, out=z)
        size = np.abs(z, out=self._vector("size", z))
        size -= gamma * self.l1(t, lam)
        return np.copysign(np.maximum(size, 0, out=size), z, out=z)

    def vjp(
        self, t: int, w: Array, lam: Array, alpha: Array, out: tuple[Array, Array] | None = None
    ) -> tuple[Array, Array]:
        A_alpha, B_alpha = out or (None, None)
        g, gamma, tau = self.at(t), self.step_size(t, lam), self.l1(t, lam)
        grad = g.grad(w, lam)
        z = np.multiply(grad, gamma, out=self._vector("z", w, grad))
        z = np.subtract(w, z, out=z)
        c = np.multiply(alpha, self._active(z, gamma * tau), out=A_alpha)
        scaled = self._vector("scaled", c, z)
        hessian, mixed = g.grad_vjp(w, lam, np.multiply(c, gamma, out=scaled))
        B_alpha = np.negative(mixed, out=B_alpha)
        sign = np.sign(z, out=z)
        if self.step_size.learned:
            pull = np.multiply(sign, tau, out=scaled)
            pull += grad
            pull *= c
            B_alpha = self.step_size.pull(np.negative(pull, out=pull), B_alpha)
        if self.l1.learned:
            pull = np.multiply(sign, c, out=scaled)
            pull *= gamma
            B_alpha = self.l1.pull(np.negative(pull, out=pull), B_alpha)
        return np.subtract(c, hessian, out=A_alpha), B_alpha

    def largest_step(self, t: int, lam: Array, beta: float) -> float | None:
        return 2 / beta if beta > 0 else np.inf  # the soft threshold never expands

    def jvp(self, t: int, w: Array, lam: Array, dw: Array, dlam: Array) -> Array:
        g, gamma, tau = self.at(t), self.step_size(t, lam), self.l1(t, lam)
        grad = g.grad(w, lam)
        z = w - gamma * grad
        dz = dw - gamma * g.grad_jvp(w, lam, dw, dlam)
        if self.step_size.learned:
            dz -= self.step_size.push(dlam) * (grad + tau * np.sign(z))
        dz -= gamma * self.l1.push(dlam) * np.sign(z)
        return dz * self._active(z, gamma * tau)

    def _active(self, z: Array, kappa: Any) -> Array:
        """Return where soft(z, κ) moves with z, 1 or 0; a threshold of 0 is the identity."""
        beyond = np.abs(z, out=self._vector("active", z))
        beyond -= kappa
        np.sign(np.maximum(beyond, 0, out=beyond), out=beyond)
        return np.maximum(beyond, kappa == 0, out=beyond)
