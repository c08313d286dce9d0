"""JAX: one jitted function of λ."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.cases import Case, numbers

jax.config.update("jax_enable_x64", True)

Function = Callable[[Any, Any], Any]


def losses(case: Case) -> tuple[Function, Function, Any, Any, float]:
    """Return g(w, λ), f(w), w_0, λ and γ."""
    n = numbers(case)
    data = {name: jnp.asarray(a) for name, a in n.data.items()}
    w0, lam = jnp.asarray(n.w0), jnp.asarray(n.lam)
    if case.kind != "hypercleaning":
        G = data["curvature"]

        def quadratic(w: Any, lam: Any) -> Any:
            r = w - lam
            return 0.5 * jnp.dot(r, G * r if G.ndim == 1 else G @ r)

        def rippled(w: Any, lam: Any) -> Any:
            return jnp.sum(w**2 + 10 * jnp.sin(w) ** 2)

        def squares(w: Any, lam: Any) -> Any:
            return 0.5 * jnp.sum(w**2)

        return quadratic, rippled if case.kind == "toy" else squares, w0, lam, n.step_size

    def cross_entropy(w: Any, X: Any, y: Any) -> Any:
        scores = X @ w.reshape(10, -1).T
        own = jnp.take_along_axis(scores, y[:, None], axis=1)[:, 0]
        return jax.nn.logsumexp(scores, axis=1) - own

    def lower(w: Any, lam: Any) -> Any:
        weighted = jnp.sum(jax.nn.sigmoid(lam) * cross_entropy(w, data["X"], data["y"]))
        return (weighted + 1e-3 * jnp.sum(w**2)) / case.rows

    def upper(w: Any, lam: Any) -> Any:
        return jnp.mean(cross_entropy(w, data["X_val"], data["y_val"]))

    return lower, upper, w0, lam, n.step_size


def build(case: Case, style: str) -> Callable[[], np.ndarray]:
    """Return a call; `style` is ``scan``, ``checkpoint``, ``adjoint`` or ``jaxopt``."""
    g, f, w0, lam, gamma = losses(case)
    grad = jax.grad(g)
    T, K = case.T, case.K

    def step(w: Any, lam: Any) -> Any:
        return w - gamma * grad(w, lam)

    def run(w: Any, lam: Any, steps: int, one: Function) -> Any:
        return jax.lax.scan(lambda w, _: (one(w, lam), None), w, None, length=steps)[0]

    def unrolled(lam: Any) -> Any:
        w = jax.lax.stop_gradient(run(w0, lam, T - K, step))
        return f(run(w, lam, K, jax.checkpoint(step) if style == "checkpoint" else step), lam)

    def adjoint(lam: Any) -> Any:
        def keep(w: Any, _: Any) -> Any:
            return step(w, lam), w

        def back(carry: Any, w: Any) -> Any:
            alpha, h = carry
            _, products = jax.vjp(grad, w, lam)
            hessian, mixed = products(gamma * alpha)
            return (alpha - hessian, h - mixed), None

        w, states = jax.lax.scan(keep, run(w0, lam, T - K, step), None, length=K)
        start = (jax.grad(f)(w, lam), jnp.zeros_like(lam))
        return jax.lax.scan(back, start, states, reverse=True)[0][1]

    def by_jaxopt(lam: Any) -> Any:
        import jaxopt

        solver = jaxopt.GradientDescent(
            g,
            stepsize=gamma,
            maxiter=K,
            tol=0,
            acceleration=False,
            implicit_diff=False,
            unroll=True,
        )
        w = jax.lax.stop_gradient(run(w0, lam, T - K, step))
        return f(solver.run(w, lam).params, lam)

    if style == "adjoint":
        function = jax.jit(adjoint)
    else:
        function = jax.jit(jax.grad(by_jaxopt if style == "jaxopt" else unrolled))
    return lambda: np.asarray(function(lam))
