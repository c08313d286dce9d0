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


RNG = np.random.default_rng(0)
X_ROWS, W_ROWS, THETA = RNG.standard_normal((9, 4)), RNG.standard_normal(4), RNG.random(9)
ROWS = {
    "least_squares": (tb.LeastSquares(X_ROWS, X_ROWS[:, 0] ** 2), X_ROWS[:, 0] ** 2),
    "logistic": (tb.LogisticRegression(X_ROWS, X_ROWS[:, 0] > 0), 2.0 * (X_ROWS[:, 0] > 0) - 1),
}


@pytest.mark.parametrize("name", list(ROWS))
@pytest.mark.parametrize("size", [1.0, 30.0])
def test_losses_of_a_linear_score(name, size):
    """∇²g v is the gradient of ∇g·v, in JAX twice the backward pass of its own."""
    import jax.numpy as jnp

    (g, y), w, v = ROWS[name], size * W_ROWS, RNG.standard_normal(4)
    with jax.enable_x64(True):

        def value(w, theta):
            z = X_ROWS @ w
            losses = (z - y) ** 2 / 2 if name == "least_squares" else jnp.logaddexp(0, -y * z)
            return (theta * losses).mean()

        def along(w, theta):
            return jax.grad(value)(w, theta) @ v

        at = jnp.asarray(w), jnp.asarray(THETA)
        expected = [value(*at), *jax.grad(value, (0, 1))(*at), *jax.grad(along, (0, 1))(*at)]
        expected = [np.asarray(x) for x in expected]
    found = [g.value(w, THETA), g.grad(w, THETA), g.grad_lam(w, THETA), *g.grad_vjp(w, THETA, v)]
    for a, b in zip(found, expected, strict=True):
        assert relative_error(np.asarray(a), b) <= 1e-12
