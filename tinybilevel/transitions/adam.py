"""Adam as the lower-level algorithm."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array, promote
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

    def step(self, t: int, w: Array, lam: Array, out: Array | None = None) -> Array:
        out = np.empty_like(w, dtype=promote(w, lam)) if out is None else out
        (x, m, s), (x_next, m_next, s_next) = _thirds(w), _thirds(out)
        grad = self.at(t).grad(x, lam)
        self._moments(t, m, s, grad, out=(m_next, s_next, x_next))
        D = np.add(x_next, self.eps, out=x_next)  # √ŝ + ε
        np.divide(m_next, D, out=x_next)
        x_next *= self.step_size(t, lam)
        x_next /= self._rest(self.beta1, t)
        np.subtract(x, x_next, out=x_next)
        return out

    def _moments(self, t: int, m: Array, s: Array, grad: Array, out: tuple[Array, ...]) -> None:
        """Write m', s' and √ŝ."""
        m_next, s_next, root = out
        np.multiply(m, self.beta1, out=m_next)
        m_next += np.multiply(grad, 1 - self.beta1, out=root)
        np.multiply(s, self.beta2, out=s_next)
        s_next += np.multiply(np.multiply(grad, grad, out=root), 1 - self.beta2, out=root)
        np.sqrt(np.divide(s_next, self._rest(self.beta2, t), out=root), out=root)

    def vjp(
        self, t: int, w: Array, lam: Array, alpha: Array, out: tuple[Array, Array] | None = None
    ) -> tuple[Array, Array]:
        A_alpha, B_alpha = out or (np.empty_like(alpha, dtype=promote(alpha, w, lam)), None)
        (x, m, s), (a, b, c), (v, b_last, c_last) = _thirds(w), _thirds(alpha), _thirds(A_alpha)
        g, gamma = self.at(t), self.step_size(t, lam)
        grad = g.grad(x, lam)
        m_hat, s_next, root, term = (self._vector(n, v) for n in ("m", "s", "root", "term"))
        self._moments(t, m, s, grad, out=(m_hat, s_next, root))
        m_hat /= self._rest(self.beta1, t)
        D = np.add(root, self.eps, out=s_next)
        droot = self._droot(t, root)
        # The move is −γ m̂/D: what of a goes to m', and through √ŝ to s'.
        step = np.multiply(a, gamma, out=self._vector("step", v))
        step /= D
        np.subtract(b, np.divide(step, self._rest(self.beta1, t), out=term), out=b_last)
        step *= m_hat
        step /= D
        step *= droot
        np.add(c, step, out=c_last)
        # Both moments follow ∇g: u = (1−β₁) b' + 2 (1−β₂) ∇g ∘ c'.
        u = np.multiply(grad, c_last, out=step)
        u *= 2 * (1 - self.beta2)
        u += np.multiply(b_last, 1 - self.beta1, out=term)
        hessian, mixed = g.grad_vjp(x, lam, u)
        B_alpha = np.positive(mixed, out=B_alpha)
        if self.step_size.learned:
            np.multiply(a, m_hat, out=term)
            term /= D
            B_alpha = self.step_size.pull(np.negative(term, out=term), B_alpha)
        np.add(a, hessian, out=v)
        b_last *= self.beta1
        c_last *= self.beta2
        return A_alpha, B_alpha

    def jvp(self, t: int, w: Array, lam: Array, dw: Array, dlam: Array) -> Array:
        dx, dm, ds = _thirds(dw)
        g, gamma = self.at(t), self.step_size(t, lam)
        x, m, s = _thirds(w)
        grad = g.grad(x, lam)
        m_hat, _, root = moments = tuple(np.empty_like(m, dtype=promote(w, lam)) for _ in range(3))
        self._moments(t, m, s, grad, out=moments)
        m_hat /= self._rest(self.beta1, t)
        D = root + self.eps
        dgrad = g.grad_jvp(x, lam, dx, dlam)
        dm = self.beta1 * dm + (1 - self.beta1) * dgrad
        ds = self.beta2 * ds + 2 * (1 - self.beta2) * grad * dgrad
        moved = dx - gamma * dm / (D * self._rest(self.beta1, t))
        moved += gamma * m_hat / D**2 * self._droot(t, root) * ds
        if self.step_size.learned:
            moved -= self.step_size.push(dlam) * m_hat / D
        return np.concatenate([moved, dm, ds])

    def _droot(self, t: int, root: Array) -> Array:
        """∂√ŝ/∂s' = 1/(2 √ŝ (1−β₂^{t+1})), and 0 where ŝ = 0; written over √ŝ."""
        positive = np.sign(root, out=self._vector("positive", root))
        root *= 2 * self._rest(self.beta2, t)
        root += np.subtract(1, positive, out=self._vector("zero", root))
        return np.divide(positive, root, out=root)

    def _rest(self, beta: float, t: int) -> float:
        return 1 - beta ** (self._steps_before + t + 1)


def _thirds(state: Array) -> tuple[Array, Array, Array]:
    M = state.size // 3
    return state[:M], state[M : 2 * M], state[2 * M :]
