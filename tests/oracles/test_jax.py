"""The main job against JAX's autodiff, in float64, on real digits."""

import numpy as np
import pytest

import tinybilevel as tb
from tinybilevel.testing import relative_error

jax = pytest.importorskip("jax", reason="the oracle JAX is not installed")
pytest.importorskip("sklearn")
pytestmark = pytest.mark.oracle
T = 30


@pytest.fixture(scope="module")
def data():
    split = tb.data.digits().split(n_train=300, n_val=200, seed=0, dtype=np.float64)
    y, _ = tb.data.corrupt_labels(split.y_train, 0.5, seed=0)
    return split.X_train, y, split.X_val, split.y_val


@pytest.mark.parametrize("K", [0, 1, 7, T])
def test_truncated_hypergradient_of_hypercleaning(data, K):
    import jax.numpy as jnp

    X, y, X_val, y_val = data
    problem = tb.problems.hypercleaning(*data, T=T)
    lam = np.random.default_rng(0).standard_normal(len(X))
    r = tb.KRMD(K=K)(problem, lam)

    with jax.enable_x64(True):
        X, X_val = (jnp.asarray(tb.problems.append_bias(x)) for x in (X, X_val))

        def losses(W, X, y):
            return -jnp.take_along_axis(jax.nn.log_softmax(X @ W.T), y[:, None], axis=1)[:, 0]

        def lower(W, lam):
            weighted = jax.nn.sigmoid(lam) @ losses(W, X, y)
            return (weighted + 1e-3 * (W**2).sum()) / len(X)

        def upper(lam):
            W = jnp.zeros((10, X.shape[1]))
            for t in range(T):
                W = W - jax.grad(lower)(W, lam)
                if t == T - K - 1:
                    W = jax.lax.stop_gradient(W)
            return losses(W, X_val, y_val).mean()

        value, grad = jax.value_and_grad(upper)(jnp.asarray(lam))
        value, grad = float(value), np.asarray(grad)
    assert r.value == pytest.approx(value, rel=1e-10)
    assert relative_error(r.grad, grad) <= 1e-10
