"""JAX, jitted: autodiff through a scan, and an adjoint by hand."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.cases import Case, numbers

jax.config.update("jax_enable_x64", True)


class Problem(NamedTuple):
    """g(w, λ) and f(w) for autodiff; by hand, θ(λ) and its vjp, ∇g(w, θ) and the products."""

    lower: Callable[..., Any]
    upper: Callable[..., Any]
    theta: Callable[..., Any]
    pull: Callable[..., Any]
    grad: Callable[..., Any]
    products: Callable[..., Any]


def problem(case: Case, data: dict[str, Any]) -> Problem:
    """Write a case down; called under jit, so that data are its arguments."""
    kinds = {"tasks": _tasks, **dict.fromkeys(("hypercleaning", "grid", "csr"), _hypercleaning)}
    return kinds.get(case.kind, _quadratic)(case, data)


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
        pull=lambda lam, h: h,
        grad=lambda w, theta: curve(w - theta),
        products=lambda w, theta, alpha: (curve(alpha), -curve(alpha)),
    )


def _hypercleaning(case: Case, data: dict[str, Any]) -> Problem:
    X, n, C = data["X"], case.rows, case.classes

    def product(X: Any, w: Any) -> Any:
        W = w.reshape(C, -1).T
        return jnp.einsum("nk,nkc->nc", X[0], W[X[1]]) if isinstance(X, tuple) else X @ W

    def losses(w: Any, X: Any, y: Any) -> Any:
        scores = product(X, w)
        own = jnp.take_along_axis(scores, y[:, None], axis=1)[:, 0]
        return jax.nn.logsumexp(scores, axis=1) - own

    def lower(w: Any, lam: Any) -> Any:
        each = losses(w, X, data["y"])
        return (jnp.sum(jax.nn.sigmoid(lam) * each) + 1e-3 * jnp.sum(w**2)) / n

    def softmax(scores: Any) -> tuple[Any, Any]:
        P = jax.nn.softmax(scores, axis=1)
        return P, P - jax.nn.one_hot(data["y"], C, dtype=P.dtype)

    def grad(w: Any, theta: Any) -> Any:
        _, R = softmax(X @ w.reshape(C, -1).T)
        return (((theta[:, None] * R).T @ X).ravel() + 2e-3 * w) / n

    def products(w: Any, theta: Any, alpha: Any) -> tuple[Any, Any]:
        both = X @ jnp.concatenate([w, alpha]).reshape(2 * C, -1).T
        (P, R), dS = softmax(both[:, :C]), both[:, C:]
        dP = P * (dS - jnp.sum(P * dS, axis=1, keepdims=True))
        hessian = ((theta[:, None] * dP).T @ X).ravel() + 2e-3 * alpha
        return hessian / n, jnp.sum(R * dS, axis=1) / n

    return Problem(
        lower,
        upper=lambda w: jnp.mean(losses(w, data["X_val"], data["y_val"])),
        theta=jax.nn.sigmoid,
        pull=lambda lam, h: jax.nn.sigmoid(lam) * (1 - jax.nn.sigmoid(lam)) * h,
        grad=grad,
        products=products,
    )


def _tasks(case: Case, data: dict[str, Any]) -> Problem:
    """The penalty in Laplacian form; the bias is the last column of W, which it leaves alone."""
    n, V = case.rows, case.classes
    X, X_val = (jnp.pad(data[k], ((0, 0), (0, 1)), constant_values=1) for k in ("X", "X_val"))
    Y, penalized = (
        jax.nn.one_hot(data["y"], V, dtype=X.dtype),
        jnp.arange(X.shape[1]) < case.features,
    )

    def matrix(w: Any) -> Any:
        return w.reshape(V, -1)

    def losses(w: Any, X: Any, y: Any) -> Any:
        scores = X @ matrix(w).T
        own = jnp.take_along_axis(scores, y[:, None], axis=1)[:, 0]
        return jnp.mean(jax.nn.logsumexp(scores, axis=1) - own)

    def theta(lam: Any) -> Any:
        """P of ½⟨W, P W⟩ = 2⟨W, L(C) W⟩ + ρ‖W‖²."""
        C = jnp.zeros((V, V), lam.dtype).at[jnp.triu_indices(V, 1)].set(lam[:-1])
        C = C + C.T
        return 4 * (jnp.diag(C.sum(axis=1)) - C) + 2 * lam[-1] * jnp.eye(V, dtype=lam.dtype)

    def lower(w: Any, lam: Any) -> Any:
        W = matrix(w) * penalized
        return losses(w, X, data["y"]) + 0.5 * jnp.vdot(W, theta(lam) @ W)

    def grad(w: Any, P: Any) -> Any:
        R = jax.nn.softmax(X @ matrix(w).T, axis=1) - Y
        return (R.T @ X / n + P @ (matrix(w) * penalized)).ravel()

    def products(w: Any, P: Any, alpha: Any) -> tuple[Any, Any]:
        both = X @ jnp.concatenate([w, alpha]).reshape(2 * V, -1).T
        S, dS = jax.nn.softmax(both[:, :V], axis=1), both[:, V:]
        dP = S * (dS - jnp.sum(S * dS, axis=1, keepdims=True))
        A = matrix(alpha) * penalized
        return (dP.T @ X / n + P @ A).ravel(), matrix(w) @ A.T

    return Problem(
        lower,
        upper=lambda w: losses(w, X_val, data["y_val"]),
        theta=theta,
        pull=lambda lam, h: jax.vjp(theta, lam)[1](h)[0],
        grad=grad,
        products=products,
    )


def pairwise(case: Case, data: dict[str, Any]) -> Problem:
    """The same with all differences written out."""
    p, V = problem(case, data), case.classes

    def lower(w: Any, lam: Any) -> Any:
        W, C = w.reshape(V, -1)[:, :-1], jnp.zeros((V, V), lam.dtype)
        C = C.at[jnp.triu_indices(V, 1)].set(lam[:-1])
        apart = jnp.sum((W[:, None] - W) ** 2, axis=2)
        return p.lower(w, lam.at[:-1].set(0)) + jnp.vdot(C + C.T, apart)

    return p._replace(lower=lower)


def by_examples(case: Case, lam: Any, data: dict[str, Any]) -> Any:
    """Return the hypergradient of tasks as our own loop finds it: W = A X, and X Xᵀ made once."""
    p, n, V, T, K = problem(case, data), case.rows, case.classes, case.T, case.K
    X, Y = data["X"], jax.nn.one_hot(data["y"], V, dtype=data["X"].dtype)
    gram, gamma = data["gram"], numbers(case).step_size
    M = jnp.eye(V, dtype=X.dtype) - gamma * p.theta(lam)

    def forward(state: Any, _: Any) -> Any:
        A, b = state
        S = jax.nn.softmax(gram @ A + b, axis=1)
        change = -gamma / n * (S - Y)
        return (A @ M + change, b + change.sum(axis=0)), (A, S)

    def backward(carry: Any, state: Any) -> Any:
        (scores, a, h), (A, S) = carry, state
        dS = scores + a
        D = -gamma / n * S * (dS - jnp.sum(S * dS, axis=1, keepdims=True))
        h = h + A.T @ scores
        return (scores @ M + gram @ D, a + D.sum(axis=0), h), None

    state = jnp.zeros_like(Y), jnp.zeros(V, X.dtype)
    state = jax.lax.fori_loop(0, T - K, lambda _, s: forward(s, None)[0], state)
    (A, b), states = jax.lax.scan(forward, state, length=K)
    w = jnp.concatenate([A.T @ X, b[:, None]], axis=1).ravel()
    alpha = jax.grad(p.upper)(w).reshape(V, -1)
    start = X @ alpha[:, :-1].T, alpha[:, -1], jnp.zeros((V, V), X.dtype)
    h = jax.lax.scan(backward, start, states, reverse=True)[0][2]
    return p.pull(lam, -gamma * h)


def build(case: Case, style: str) -> Callable[[], np.ndarray]:
    """Return a call.

    `style` is ``scan``, ``checkpoint``, ``adjoint`` or ``jaxopt``; for tasks ``pairwise`` and
    ``examples`` as well.
    """
    n, T, K = numbers(case), case.T, case.K
    gamma, w0, lam = n.step_size, jnp.asarray(n.w0), jnp.asarray(n.lam)

    def descend(p: Problem, w: Any, lam: Any, steps: int, wrap: Any = lambda step: step) -> Any:
        @wrap
        def step(w: Any, _: Any) -> Any:
            return w - gamma * jax.grad(p.lower)(w, lam), None

        return jax.lax.scan(step, w, length=steps)[0]

    def unrolled(lam: Any, data: dict[str, Any]) -> Any:
        p = pairwise(case, data) if style == "pairwise" else problem(case, data)
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
        return p.pull(lam, jax.lax.scan(backward, start, states, reverse=True)[0][1])

    function = adjoint if style == "adjoint" else jax.grad(unrolled)
    if style == "examples":
        function = partial(by_examples, case)
    function = jax.jit(jax.vmap(function, (0, None)) if case.many else function)
    data = {name: _there(a) for name, a in n.data.items()}
    if style == "examples":
        data["gram"] = data["X"] @ data["X"].T
    return lambda: np.asarray(function(lam, data))


def _there(X: Any) -> Any:
    """Return an array as JAX's; a sparse one of equal rows as their values and columns.

    To gather W at the columns takes 0.8 of the time of JAX's BCOO, and 0.2 of that of a dense X.
    """
    if not hasattr(X, "indptr"):
        return jnp.asarray(X)
    shape = X.shape[0], -1
    return jnp.asarray(X.data.reshape(shape)), jnp.asarray(X.indices.reshape(shape))
