"""Task interaction against JAX's autodiff, in float64, in the form that the paper prints."""

import numpy as np
import pytest

import tinybilevel as tb
from tinybilevel.testing import relative_error

jax = pytest.importorskip("jax", reason="the oracle JAX is not installed")
pytestmark = pytest.mark.oracle
T, N, D = 12, 40, 15


@pytest.mark.parametrize("K", [1, 5, T])
@pytest.mark.parametrize("V", [2, 10, 100])
def test_hypergradients(V, K):
    import jax.numpy as jnp

    rng = np.random.default_rng(V)
    X, X_val = rng.standard_normal((N, D)), rng.standard_normal((N, D))
    y, y_val = rng.integers(0, V, N), rng.integers(0, V, N)
    lam = 0.01 * rng.random(V * (V - 1) // 2 + 1)
    problem = tb.problems.task_interaction(X, y, X_val, y_val, T=T, n_classes=V)
    r = tb.KRMD(K=K)(problem, lam)

    with jax.enable_x64(True):
        upper = np.triu_indices(V, 1)
        X, X_val = (jnp.asarray(tb.problems.append_bias(x)) for x in (X, X_val))

        def cross_entropy(W, X, y):
            picked = jnp.take_along_axis(jax.nn.log_softmax(X @ W.T), y[:, None], axis=1)
            return -picked.mean()

        def lower(W, lam):
            C = jnp.zeros((V, V)).at[upper].set(lam[:-1])
            C, w = C + C.T, W[:, :-1]
            squares = ((w[:, None] - w[None]) ** 2).sum(axis=-1)
            return cross_entropy(W, X, y) + (C * squares).sum() + lam[-1] * (w**2).sum()

        def step(t, W, lam):
            W = W - 0.1 * jax.grad(lower)(W, lam)
            return jnp.where(t == T - K - 1, jax.lax.stop_gradient(W), W)

        def value(lam):
            W = jnp.zeros((V, D + 1))
            W, _ = jax.lax.scan(lambda W, t: (step(t, W, lam), None), W, jnp.arange(T))
            return cross_entropy(W, X_val, y_val)

        value, grad = jax.jit(jax.value_and_grad(value))(jnp.asarray(lam))
        value, grad = float(value), np.asarray(grad)
    assert r.value == pytest.approx(value, rel=1e-12)
    assert relative_error(r.grad[:-1], grad[:-1]) <= 1e-10
    assert relative_error(r.grad[-1], grad[-1]) <= 1e-10
