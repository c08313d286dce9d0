"""Heavy ball and Nesterov: gradient descent with a velocity in the state."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinybilevel.backend import Array
from tinybilevel.transitions.coefficient import as_coefficient
from tinybilevel.transitions.gradient_descent import GradientTransition

__all__ = ["HeavyBall", "Nesterov"]


class HeavyBall(GradientTransition):
    """v_{t+1} = μ v_t − γ ∇g(y_t), w_{t+1} = w_t + v_{t+1}, with y_t = w_t (Polyak 1964).

    The state is (w, v). With (a, b) the cotangents of (w_{t+1}, v_{t+1}), c = a + b and u = H γc at
    y_t: A α = (a − u, μc − ν u) and B α = −M γc − (∂γ/∂λ)ᵀ(∇g ∘ c) + (∂μ/∂λ)ᵀ(v ∘ (c − σ u)),
    where y_t = w_t + ν v_t, ν = σμ, and σ = 0 here, 1 for `Nesterov`.

    Parameters
    ----------
    objective, step_size, initial
        See `GradientTransition`; `initial` is w_0, the velocity starts at 0.
    momentum : float, sequence of float, callable, slice or Learned
        μ; at least 0.
    batches : sequence of ndarray of int, optional
        See `GradientTransition`.
    """

    n_buffers = 1
    _lookahead = 0.0  # σ

    def __init__(
        self,
        objective: Any,
        step_size: Any,
        initial: Any,
        *,
        momentum: Any = 0.9,
        batches: Any = None,
    ) -> None:
        super().__init__(objective, step_size, initial, batches=batches)
        self.momentum = as_coefficient("momentum", momentum)

    def step(self, t: int, w: Array, lam: Array, out: Array | None = None) -> Array:
        x, v = _halves(w)
        mu = self.momentum(t, lam)
        y = x + self._lookahead * mu * v
        v_next = mu * v - self.step_size(t, lam) * self.at(t).grad(y, lam)
        return np.concatenate([x + v_next, v_next], out=out)

    def vjp(
        self, t: int, w: Array, lam: Array, alpha: Array, out: tuple[Array, Array] | None = None
    ) -> tuple[Array, Array]:
        x, v = _halves(w)
        a, b = _halves(alpha)
        g, gamma, mu = self.at(t), self.step_size(t, lam), self.momentum(t, lam)
        y, c = x + self._lookahead * mu * v, a + b
        u, mixed = g.grad_vjp(y, lam, gamma * c)
        B_alpha = -mixed
        if self.step_size.learned:
            B_alpha = self.step_size.pull(-g.grad(y, lam) * c, B_alpha)
        if self.momentum.learned:
            B_alpha = self.momentum.pull(v * (c - self._lookahead * u), B_alpha)
        return np.concatenate([a - u, mu * (c - self._lookahead * u)]), B_alpha

    def jvp(self, t: int, w: Array, lam: Array, dw: Array, dlam: Array) -> Array:
        x, v = _halves(w)
        dx, dv = _halves(dw)
        g, gamma, mu = self.at(t), self.step_size(t, lam), self.momentum(t, lam)
        dmu_v = mu * dv + self.momentum.push(dlam) * v
        y, dy = x + self._lookahead * mu * v, dx + self._lookahead * dmu_v
        dv_next = dmu_v - gamma * g.grad_jvp(y, lam, dy, dlam)
        if self.step_size.learned:
            dv_next -= self.step_size.push(dlam) * g.grad(y, lam)
        return np.concatenate([dx + dv_next, dv_next])


class Nesterov(HeavyBall):
    """Heavy ball with the gradient taken at y_t = w_t + μ v_t (Nesterov 1983)."""

    _lookahead = 1.0


def _halves(state: Array) -> tuple[Array, Array]:
    M = state.size // 2
    return state[:M], state[M:]
