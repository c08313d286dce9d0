"""Heavy ball and Nesterov: gradient descent with a velocity in the state."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array, promote
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
    _lookahead = False  # σ

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
        out = np.empty_like(w, dtype=promote(w, lam)) if out is None else out
        (x, v), (x_next, v_next) = _halves(w), _halves(out)
        mu = self.momentum(t, lam)
        grad = self.at(t).grad(self._point(x, v, mu), lam)
        np.multiply(v, mu, out=v_next)
        v_next -= np.multiply(grad, self.step_size(t, lam), out=x_next)
        np.add(x, v_next, out=x_next)
        return out

    def vjp(
        self, t: int, w: Array, lam: Array, alpha: Array, out: tuple[Array, Array] | None = None
    ) -> tuple[Array, Array]:
        A_alpha, B_alpha = out or (np.empty_like(alpha, dtype=promote(alpha, w, lam)), None)
        (x, v), (a, b), (a_last, b_last) = _halves(w), _halves(alpha), _halves(A_alpha)
        g, gamma, mu = self.at(t), self.step_size(t, lam), self.momentum(t, lam)
        y, c = self._point(x, v, mu), np.add(a, b, out=a_last)
        u, mixed = g.grad_vjp(y, lam, np.multiply(c, gamma, out=b_last))
        B_alpha = np.negative(mixed, out=B_alpha)
        pull = self._vector("pull", c)
        if self.step_size.learned:
            np.multiply(g.grad(y, lam), c, out=pull)
            B_alpha = self.step_size.pull(np.negative(pull, out=pull), B_alpha)
        if self._lookahead:
            c -= u  # c − σu from here on
        if self.momentum.learned:
            B_alpha = self.momentum.pull(np.multiply(v, c, out=pull), B_alpha)
        np.multiply(c, mu, out=b_last)
        np.subtract(a, u, out=a_last)
        return A_alpha, B_alpha

    def largest_step(self, t: int, lam: Array, beta: float) -> float | None:
        # Where −1 is a root of r² − (1 + μ − γβ (1 + ν)) r + μ − νγβ, with ν = σμ.
        mu = float(np.max(self.momentum(t, lam)))
        nu = mu if self._lookahead else 0.0
        return 2 * (1 + mu) / (1 + 2 * nu) / beta if beta > 0 else np.inf

    def jvp(self, t: int, w: Array, lam: Array, dw: Array, dlam: Array) -> Array:
        x, v = _halves(w)
        dx, dv = _halves(dw)
        g, gamma, mu = self.at(t), self.step_size(t, lam), self.momentum(t, lam)
        dmu_v = mu * dv + self.momentum.push(dlam) * v
        y, dy = self._point(x, v, mu), dx + dmu_v if self._lookahead else dx
        dv_next = dmu_v - gamma * g.grad_jvp(y, lam, dy, dlam)
        if self.step_size.learned:
            dv_next -= self.step_size.push(dlam) * g.grad(y, lam)
        return np.concatenate([dx + dv_next, dv_next])

    def _point(self, x: Array, v: Array, mu: Any) -> Array:
        """Return y = x + σμv."""
        if not self._lookahead:
            return x
        y = np.multiply(v, mu, out=self._vector("y", v, *_arrays(mu)))
        return np.add(x, y, out=y)


class Nesterov(HeavyBall):
    """Heavy ball with the gradient taken at y_t = w_t + μ v_t (Nesterov 1983)."""

    _lookahead = True


def _halves(state: Array) -> tuple[Array, Array]:
    M = state.size // 2
    return state[:M], state[M:]


def _arrays(coefficient: Any) -> tuple[Array, ...]:
    return () if isinstance(coefficient, float) else (coefficient,)
