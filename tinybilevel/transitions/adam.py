"""Adam as the lower-level algorithm."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array
from tinybilevel.transitions.coefficient import is_number
from tinybilevel.transitions.gradient_descent import GradientTransition

__all__ = ["AdamTransition"]


class AdamTransition(GradientTransition):
    """Adam (Kingma and Ba 2015, Algorithm 1) with its two moments in the state.

    m' = β₁m + (1−β₁)∇g, s' = β₂s + (1−β₂)∇g², w' = w − γ m̂/(√ŝ + ε), where m̂ = m'/(1−β₁^{t+1}) and
    ŝ = s'/(1−β₂^{t+1}); the state is (w, m, s).

    Where ŝ = 0 (β₂ > 0), the whole gradient history is 0, and so is m̂: √ŝ has no derivative
    there, but its factor m̂ vanishes to the same order, so that its part of the product is 0. The
    adjoint says so instead of computing 0/0.

    Parameters
    ----------
    objective, step_size, initial
        See `GradientTransition`; `initial` is w_0, both moments start at 0.
    beta1, beta2 : float
        Decay of the moments, in [0, 1).
    eps : float
        ε, greater than 0.
    batches : sequence of ndarray (size,) of int, or callable, optional
        See `GradientTransition`.

    Examples
    --------
    >>> import numpy as np
    >>> import tinybilevel as tb
    >>> adam = tb.AdamTransition(tb.Quadratic([1.0, 0.5]), 0.1, initial=[2.0, 2.0])
    >>> state = adam.initial(np.ones(2))  # w, then both moments
    >>> adam.step(0, state, np.ones(2)).round(4)
    array([1.9e+00, 1.9e+00, 1.0e-01, 5.0e-02, 1.0e-03, 3.0e-04])
    """

    n_buffers = 2

    def __init__(
        self,
        objective: Any,
        step_size: Any,
        initial: Any,
        *,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        batches: Any = None,
    ) -> None:
        super().__init__(objective, step_size, initial, batches=batches)
        for name, beta in (("beta1", beta1), ("beta2", beta2)):
            if not is_number(beta) or not 0 <= beta < 1:
                raise ValueError(f"{name} must lie in [0, 1), got {beta!r}")
        if not is_number(eps) or not eps > 0:
            raise ValueError(f"eps must be greater than 0, got {eps!r}")
        self.beta1, self.beta2, self.eps = float(beta1), float(beta2), float(eps)

    def step(self, t: int, w: Array, lam: Array) -> Array:
        (w, m, s), gamma = _thirds(w), self.step_size(t, lam)
        m, s = self._moments(m, s, self.at(t).grad(w, lam))
        D = np.sqrt(s / self._rest(self.beta2, t)) + self.eps
        return np.concatenate([w - gamma * (m / D) / self._rest(self.beta1, t), m, s])

    def vjp(self, t: int, w: Array, lam: Array, alpha: Array) -> tuple[Array, Array]:
        (w, m, s), (a, b, c) = _thirds(w), _thirds(alpha)
        g, gamma, c1 = self.at(t), self.step_size(t, lam), self._rest(self.beta1, t)
        grad = g.grad(w, lam)
        m_hat, D, rho = self._parts(t, m, s, grad)
        b = b - gamma * a / D / c1
        c = c + gamma * a / D * m_hat / D * rho
        hessian, B_alpha = g.grad_vjp(
            w, lam, (1 - self.beta1) * b + 2 * (1 - self.beta2) * (grad * c)
        )
        if self.step_size.learned:
            B_alpha = B_alpha - self.step_size.pull(a * m_hat / D, lam)
        return np.concatenate([a + hessian, self.beta1 * b, self.beta2 * c]), B_alpha

    def jvp(self, t: int, w: Array, lam: Array, dw: Array, dlam: Array) -> Array:
        (w, m, s), (dw, dm, ds) = _thirds(w), _thirds(dw)
        g, gamma, c1 = self.at(t), self.step_size(t, lam), self._rest(self.beta1, t)
        grad, dgrad = g.grad(w, lam), g.grad_jvp(w, lam, dw, dlam)
        m_hat, D, rho = self._parts(t, m, s, grad)
        dm = self.beta1 * dm + (1 - self.beta1) * dgrad
        ds = self.beta2 * ds + 2 * (1 - self.beta2) * grad * dgrad
        moved = dw - gamma * dm / (D * c1) + gamma * m_hat / D**2 * rho * ds
        if self.step_size.learned:
            moved = moved - self.step_size.push(dlam) * m_hat / D
        return np.concatenate([moved, dm, ds])

    def _shown(self) -> dict[str, Any]:
        return super()._shown() | {n: getattr(self, n) for n in ("beta1", "beta2", "eps")}

    def _moments(self, m: Array, s: Array, grad: Array) -> tuple[Array, Array]:
        """Return m' and s'."""
        m = self.beta1 * m + (1 - self.beta1) * grad
        return m, self.beta2 * s + (1 - self.beta2) * (grad * grad)

    def _parts(self, t: int, m: Array, s: Array, grad: Array) -> tuple[Array, Array, Array]:
        """Return m̂, D = √ŝ + ε and ρ = ∂√ŝ/∂s' = 1/(2 (1−β₂^{t+1}) √ŝ), which is 0 where ŝ = 0."""
        m, s = self._moments(m, s, grad)
        c1, c2 = self._rest(self.beta1, t), self._rest(self.beta2, t)
        root = np.sqrt(s / c2)
        return m / c1, root + self.eps, np.sign(root) / (2 * c2 * root + (root == 0))

    def _rest(self, beta: float, t: int) -> float:
        return 1 - beta ** (self._steps_before + t + 1)


def _thirds(state: Array) -> tuple[Array, Array, Array]:
    M = state.size // 3
    return state[:M], state[M : 2 * M], state[2 * M :]
