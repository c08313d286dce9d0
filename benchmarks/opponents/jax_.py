"""JAX, jitted: autodiff through a scan, and an adjoint by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.cases import Case, numbers

jax.config.update("jax_enable_x64", True)


class Problem(NamedTuple):
    """g(w, λ) and f(w) for autodiff; by hand, θ(λ) and its slope, ∇g(w, θ) and the products."""

    lower: Callable[..., Any]
    upper: Callable[..., Any]
    theta: Callable[..., Any]
    slope: Callable[..., Any]
    grad: Callable[..., Any]
    products: Callable[..., Any]


def problem(case: Case, data: dict[str, Any]) -> Problem:
    """Write a case down; called under jit, so that data are its arguments."""
    return (_hypercleaning if case.kind == "hypercleaning" else _quadratic)(case, data)


def _quadratic(case: Case, data: dict[str, Any]) -> Problem:
    G = data["curvature"]

    def curve(v: Any) -> Any:
        return G * v if G.ndim == 1 else G @ v

    def upper(w: Any) -> Any:
        return jnp.sum(w**2 + 10 * jnp.sin(w) ** 2) if case.kind == "toy" else 0.5 * jnp.sum(w**2)

    return Problem(
        lower=lambda w, lam: 0.5 * jnp.vdot(w - lam, curve(w - lam)),
        upper=upper,
        theta=lambda lam: lam,
        slope=lambda lam: 1.0,
        grad=lambda w, theta: curve(w - theta),
        products=lambda w, theta, alpha: (curve(alpha), -curve(alpha)),
    )


def _hypercleaning(case: Case, data: dict[str, Any]) -> Problem:
    X, n = data["X"], case.rows

    def losses(w: Any, X: Any, y: Any) -> Any:
        scores = X @ w.reshape(10, -1).T
        own = jnp.take_along_axis(scores, y[:, None], axis=1)[:, 0]
        return jax.nn.logsumexp(scores, axis=1) - own

    def lower(w: Any, lam: Any) -> Any:
        each = losses(w, X, data["y"])
        return (jnp.sum(jax.nn.sigmoid(lam) * each) + 1e-3 * jnp.sum(w**2)) / n

    def softmax(scores: Any) -> tuple[Any, Any]:
        P = jax.nn.softmax(scores, axis=1)
        return P, P - jax.nn.one_hot(data["y"], 10, dtype=P.dtype)

    def grad(w: Any, theta: Any) -> Any:
        _, R = softmax(X @ w.reshape(10, -1).T)
        return (((theta[:, None] * R).T @ X).ravel() + 2e-3 * w) / n

    def products(w: Any, theta: Any, alpha: Any) -> tuple[Any, Any]:
        both = X @ jnp.concatenate([w, alpha]).reshape(20, -1).T
        (P, R), dS = softmax(both[:, :10]), both[:, 10:]
        dP = P * (dS - jnp.sum(P * dS, axis=1, keepdims=True))
        hessian = ((theta[:, None] * dP).T @ X).ravel() + 2e-3 * alpha
        return hessian / n, jnp.sum(R * dS, axis=1) / n

    return Problem(
        lower,
        upper=lambda w: jnp.mean(losses(w, data["X_val"], data["y_val"])),
        theta=jax.nn.sigmoid,
        slope=lambda lam: jax.nn.sigmoid(lam) * (1 - jax.nn.sigmoid(lam)),
        grad=grad,
        products=products,
    )


def build(case: Case, style: str) -> Callable[[], np.ndarray]:
    """Return a call; `style` is ``scan``, ``checkpoint``, ``adjoint`` or ``jaxopt``."""
    n, T, K = numbers(case), case.T, case.K
    gamma, w0, lam = n.step_size, jnp.asarray(n.w0), jnp.asarray(n.lam)

    def descend(p: Problem, w: Any, lam: Any, steps: int, wrap: Any = lambda step: step) -> Any:
        @wrap
        def step(w: Any, _: Any) -> Any:
            return w - gamma * jax.grad(p.lower)(w, lam), None

        return jax.lax.scan(step, w, length=steps)[0]

    def unrolled(lam: Any, data: dict[str, Any]) -> Any:
        p = problem(case, data)
        fixed = jax.lax.stop_gradient(lam)
        w = jax.lax.stop_gradient(descend(p, w0, fixed, T - K))
        if style == "jaxopt":
            return p.upper(by_jaxopt(p, w, lam))
        wrap = jax.checkpoint if style == "checkpoint" else lambda step: step
        return p.upper(descend(p, w, lam, K, wrap))

    def by_jaxopt(p: Problem, w: Any, lam: Any) -> Any:
        import jaxopt

        fixed: dict[str, Any] = dict(maxiter=K, tol=0, acceleration=False, implicit_diff=False)
        solver = jaxopt.GradientDescent(p.lower, stepsize=gamma, unroll=True, **fixed)
        return solver.run(w, lam).params

    def adjoint(lam: Any, data: dict[str, Any]) -> Any:
        p = problem(case, data)
        theta = p.theta(lam)

        def forward(w: Any, _: Any) -> Any:
            return w - gamma * p.grad(w, theta), w

        def backward(carry: Any, w: Any) -> Any:
            alpha, h = carry
            hessian, mixed = p.products(w, theta, alpha)
            return (alpha - gamma * hessian, h - gamma * mixed), None

        w = jax.lax.fori_loop(0, T - K, lambda _, w: forward(w, None)[0], w0)
        w, states = jax.lax.scan(forward, w, length=K)
        start = jax.grad(p.upper)(w), jnp.zeros_like(theta)
        return p.slope(lam) * jax.lax.scan(backward, start, states, reverse=True)[0][1]

    function = adjoint if style == "adjoint" else jax.grad(unrolled)
    function = jax.jit(jax.vmap(function, (0, None)) if case.many else function)
    data = {name: jnp.asarray(a) for name, a in n.data.items()}
    return lambda: np.asarray(function(lam, data))
