"""Logistic regression with a strength per feature in JAX, jitted: autodiff through Nesterov."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.cases import Case
from benchmarks.logistic import MOMENTUM, STEP_SIZE, data

jax.config.update("jax_enable_x64", True)


def build(case: Case, style: str) -> Callable[[], np.ndarray]:
    """Return a call that computes h_{T−K}; `style` is ``scan`` or ``adjoint``."""
    X, y, lam = (jnp.asarray(a) for a in data(case))
    sign, T, K = 2 * y.astype(X.dtype) - 1, case.T, case.K

    def loss(w: Any, X: Any, sign: Any) -> Any:
        return jnp.mean(jax.nn.softplus(-sign * (X @ w)))

    def run(state: Any, lam: Any, X: Any, sign: Any, steps: int) -> Any:
        def lower(w: Any) -> Any:
            return loss(w, X, sign) + jnp.sum(jnp.exp(lam) * w[:-1] ** 2)

        def step(state: Any, _: Any) -> Any:
            w, v = state
            v = MOMENTUM * v - STEP_SIZE * jax.grad(lower)(w + MOMENTUM * v)
            return (w + v, v), None

        return jax.lax.scan(step, state, length=steps)[0]

    def unrolled(lam: Any, X: Any, sign: Any) -> Any:
        start = jnp.zeros((2, X.shape[1]), X.dtype)
        before = run((start[0], start[1]), jax.lax.stop_gradient(lam), X, sign, T - K)
        return loss(run(jax.lax.stop_gradient(before), lam, X, sign, K)[0], X, sign)

    def adjoint(lam: Any, X: Any, sign: Any) -> Any:
        rho, n = jnp.pad(2 * jnp.exp(lam), (0, 1)), X.shape[0]

        def forward(state: Any, _: Any) -> Any:
            w, v = state
            at = w + MOMENTUM * v
            share = jax.nn.sigmoid(-sign * (X @ at))
            v = MOMENTUM * v - STEP_SIZE * ((-sign * share) @ X / n + rho * at)
            return (w + v, v), (at, share * (1 - share))

        def backward(carry: Any, kept: Any) -> Any:
            (a, b, h), (at, curvature) = carry, kept
            u = STEP_SIZE * (a + b)
            Hu = (curvature * (X @ u)) @ X / n + rho * u
            return (a - Hu, MOMENTUM * (a + b - Hu), h - 2 * at * u), None

        state = jnp.zeros(X.shape[1], X.dtype), jnp.zeros(X.shape[1], X.dtype)
        state = jax.lax.fori_loop(0, T - K, lambda _, s: forward(s, None)[0], state)
        (w, _), kept = jax.lax.scan(forward, state, length=K)
        start = jax.grad(loss)(w, X, sign), jnp.zeros_like(w), jnp.zeros_like(w)
        h = jax.lax.scan(backward, start, kept, reverse=True)[0][2]
        return jnp.exp(lam) * h[:-1]

    function = jax.jit(adjoint if style == "adjoint" else jax.grad(unrolled))
    return lambda: np.asarray(function(lam, X, sign))
