"""Adam as the lower-level algorithm."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinybilevel.backend import Array
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
    batches : sequence of ndarray of int, optional
        See `GradientTransition`.
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
            if not 0 <= beta < 1:
                raise ValueError(f"{name} must lie in [0, 1), got {beta}")
        if not eps > 0:
            raise ValueError(f"eps must be greater than 0, got {eps}")
        self.beta1, self.beta2, self.eps = float(beta1), float(beta2), float(eps)

    def _moments(self, t: int, w: Array, grad: Array) -> tuple[Array, ...]:
        """Return x, m', s', m̂ and √ŝ."""
        x, m, s = _thirds(w)
        m = self.beta1 * m + (1 - self.beta1) * grad
        s = self.beta2 * s + (1 - self.beta2) * grad**2
        return x, m, s, m / (1 - self.beta1 ** (t + 1)), np.sqrt(s / (1 - self.beta2 ** (t + 1)))

    def step(self, t: int, w: Array, lam: Array, out: Array | None = None) -> Array:
        x, m, s, m_hat, root = self._moments(t, w, self.at(t).grad(_thirds(w)[0], lam))
        moved = x - self.step_size(t, lam) * m_hat / (root + self.eps)
        return np.concatenate([moved, m, s], out=out)

    def vjp(
        self, t: int, w: Array, lam: Array, alpha: Array, out: tuple[Array, Array] | None = None
    ) -> tuple[Array, Array]:
        a, b, c = _thirds(alpha)
        g, gamma = self.at(t), self.step_size(t, lam)
        grad = g.grad(_thirds(w)[0], lam)
        x, _, _, m_hat, root = self._moments(t, w, grad)
        D = root + self.eps
        b = b - gamma * a / (D * (1 - self.beta1 ** (t + 1)))
        c = c + gamma * a * m_hat / D**2 * self._droot(t, root)
        hessian, mixed = g.grad_vjp(x, lam, (1 - self.beta1) * b + 2 * (1 - self.beta2) * grad * c)
        if self.step_size.learned:
            mixed = self.step_size.pull(-a * m_hat / D, mixed)
        return np.concatenate([a + hessian, self.beta1 * b, self.beta2 * c]), mixed

    def jvp(self, t: int, w: Array, lam: Array, dw: Array, dlam: Array) -> Array:
        dx, dm, ds = _thirds(dw)
        g, gamma = self.at(t), self.step_size(t, lam)
        grad = g.grad(_thirds(w)[0], lam)
        x, _, _, m_hat, root = self._moments(t, w, grad)
        D = root + self.eps
        dgrad = g.grad_jvp(x, lam, dx, dlam)
        dm = self.beta1 * dm + (1 - self.beta1) * dgrad
        ds = self.beta2 * ds + 2 * (1 - self.beta2) * grad * dgrad
        moved = dx - gamma * dm / (D * (1 - self.beta1 ** (t + 1)))
        moved += gamma * m_hat / D**2 * self._droot(t, root) * ds
        if self.step_size.learned:
            moved -= self.step_size.push(dlam) * m_hat / D
        return np.concatenate([moved, dm, ds])

    def _droot(self, t: int, root: Array) -> Array:
        """∂√ŝ/∂s' = 1/(2 √ŝ (1−β₂^{t+1})), and 0 where ŝ = 0."""
        twice = 2 * (1 - self.beta2 ** (t + 1)) * root
        return np.divide(1, twice, out=np.zeros_like(root), where=root > 0)


def _thirds(state: Array) -> tuple[Array, Array, Array]:
    M = state.size // 3
    return state[:M], state[M : 2 * M], state[2 * M :]
