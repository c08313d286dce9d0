"""Heavy ball and Nesterov: gradient descent with a velocity in the state."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array
from tinybilevel.transitions.coefficient import as_coefficient
from tinybilevel.transitions.gradient_descent import GradientTransition

__all__ = ["HeavyBall", "Nesterov"]


class HeavyBall(GradientTransition):
    """v_{t+1} = μ v_t − γ ∇g(y_t), w_{t+1} = w_t + v_{t+1}, with y_t = w_t (Polyak 1964).

    The state is (w, v). With (a, b) the cotangents of (w_{t+1}, v_{t+1}), c = a + b and u = H γc at
    y_t: A α = (a − u, μ(c − σu)) and B α = −M γc − (∂γ/∂λ)ᵀ(∇g ∘ c) + (∂μ/∂λ)ᵀ(v ∘ (c − σu)),
    where y_t = w_t + σμ v_t, and σ = 0 here, 1 for `Nesterov`.

    Parameters
    ----------
    objective, step_size, initial
        See `GradientTransition`; `initial` is w_0, the velocity starts at 0.
    momentum : float, sequence of float, callable, slice or Learned
        μ; at least 0.
    batches : sequence of ndarray (size,) of int, or callable, optional
        See `GradientTransition`.

    Examples
    --------
    >>> import numpy as np
    >>> import tinybilevel as tb
    >>> ball = tb.HeavyBall(tb.Quadratic([1.0, 0.5]), 0.1, initial=[2.0, 2.0], momentum=0.9)
    >>> state = ball.initial(np.ones(2))  # w, then the velocity
    >>> ball.step(0, state, np.ones(2)).shape, ball.readout(state)
    ((4,), array([2., 2.]))
    """

    n_buffers = 1

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

    def step(self, t: int, w: Array, lam: Array) -> Array:
        w, v = _halves(w)
        gamma, mu = self.step_size(t, lam), self.momentum(t, lam)
        y = self._ahead(w, mu * v)
        v_next = mu * v - gamma * self.at(t).grad(y, lam)
        return np.concatenate([w + v_next, v_next])

    def vjp(self, t: int, w: Array, lam: Array, alpha: Array) -> tuple[Array, Array]:
        (w, v), (a, b) = _halves(w), _halves(alpha)
        g, gamma, mu = self.at(t), self.step_size(t, lam), self.momentum(t, lam)
        y = self._ahead(w, mu * v)
        c = a + b
        u, mixed = g.grad_vjp(y, lam, gamma * c)
        rest = self._ahead(c, -u)
        B_alpha = -mixed
        if self.step_size.learned:
            B_alpha = B_alpha - self.step_size.pull(g.grad(y, lam) * c, lam)
        if self.momentum.learned:
            B_alpha = B_alpha + self.momentum.pull(v * rest, lam)
        return np.concatenate([a - u, mu * rest]), B_alpha

    def jvp(self, t: int, w: Array, lam: Array, dw: Array, dlam: Array) -> Array:
        (w, v), (dw, dv) = _halves(w), _halves(dw)
        g, gamma, mu = self.at(t), self.step_size(t, lam), self.momentum(t, lam)
        y = self._ahead(w, mu * v)
        dmu_v = mu * dv + self.momentum.push(dlam) * v
        dv_next = dmu_v - gamma * g.grad_jvp(y, lam, self._ahead(dw, dmu_v), dlam)
        if self.step_size.learned:
            dv_next = dv_next - self.step_size.push(dlam) * g.grad(y, lam)
        return np.concatenate([dw + dv_next, dv_next])

    def largest_step(self, t: int, lam: Array, beta: float) -> float | None:
        # Where −1 is a root of r² − (1 + μ − γβ (1 + ν)) r + μ − νγβ, with ν = σμ.
        mu = float(np.max(self.momentum(t, lam)))
        return 2 * (1 + mu) / (1 + 2 * self._ahead(0.0, mu)) / beta if beta > 0 else np.inf

    def _ahead(self, x: Any, move: Any) -> Any:
        """Return x + σ move."""
        return x


class Nesterov(HeavyBall):
    """Heavy ball with the gradient taken at y_t = w_t + μ v_t (Nesterov 1983).

    Examples
    --------
    >>> import numpy as np
    >>> import tinybilevel as tb
    >>> g, lam = tb.Quadratic([1.0, 0.01]), np.ones(2)
    >>> for kind in (tb.HeavyBall, tb.Nesterov):
    ...     ball = kind(g, 0.9, initial=[2.0, 2.0], momentum=0.9)
    ...     problem = tb.BilevelProblem(ball, upper=g, T=50, lam0=lam)
    ...     print(kind.__name__, tb.RMD()(problem).w.round(3))
    HeavyBall [1.045 0.924]
    Nesterov [1.    0.933]
    """

    def _ahead(self, x: Any, move: Any) -> Any:
        return x + move


def _halves(state: Array) -> tuple[Array, Array]:
    M = state.size // 2
    return state[:M], state[M:]
