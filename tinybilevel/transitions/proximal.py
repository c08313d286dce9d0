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
    batches : sequence of ndarray (size,) of int, or callable, optional
        See `GradientTransition`.

    Examples
    --------
    >>> import numpy as np
    >>> import tinybilevel as tb
    >>> lasso = tb.ProximalGradient(tb.Quadratic([1.0, 1.0]), 0.5, [4.0, 1.1], l1=0.5)
    >>> lasso.step(0, np.array([4.0, 1.1]), np.ones(2))
    array([2.25, 0.8 ])
    """

    stationary_at_minimum = False  # of g; it minimises g + τ‖w‖₁

    def __init__(
        self, objective: Any, step_size: Any, initial: Any, *, l1: Any, batches: Any = None
    ) -> None:
        super().__init__(objective, step_size, initial, batches=batches)
        self.l1 = as_coefficient("l1", l1)

    def step(self, t: int, w: Array, lam: Array) -> Array:
        gamma, tau = self.step_size(t, lam), self.l1(t, lam)
        z = w - gamma * self.at(t).grad(w, lam)
        return np.copysign(np.maximum(np.abs(z) - gamma * tau, 0), z)

    def vjp(self, t: int, w: Array, lam: Array, alpha: Array) -> tuple[Array, Array]:
        g, gamma, tau = self.at(t), self.step_size(t, lam), self.l1(t, lam)
        grad = g.grad(w, lam)
        z = w - gamma * grad
        c = self._active(z, gamma * tau) * alpha
        hessian, mixed = g.grad_vjp(w, lam, gamma * c)
        B_alpha = -mixed
        if self.step_size.learned:
            B_alpha = B_alpha - self.step_size.pull((grad + tau * np.sign(z)) * c, lam)
        if self.l1.learned:
            B_alpha = B_alpha - self.l1.pull(gamma * np.sign(z) * c, lam)
        return c - hessian, B_alpha

    def jvp(self, t: int, w: Array, lam: Array, dw: Array, dlam: Array) -> Array:
        g, gamma, tau = self.at(t), self.step_size(t, lam), self.l1(t, lam)
        grad = g.grad(w, lam)
        z = w - gamma * grad
        dz = dw - gamma * g.grad_jvp(w, lam, dw, dlam)
        if self.step_size.learned:
            dz = dz - self.step_size.push(dlam) * (grad + tau * np.sign(z))
        dz = dz - gamma * self.l1.push(dlam) * np.sign(z)
        return self._active(z, gamma * tau) * dz

    def largest_step(self, t: int, lam: Array, beta: float) -> float | None:
        return 2 / beta if beta > 0 else np.inf  # the soft threshold never expands

    def _active(self, z: Array, kappa: Any) -> Array:
        """Return d, where soft(z, κ) moves with z; a threshold of 0 is the identity."""
        return (np.abs(z) > kappa) | (kappa == 0)
