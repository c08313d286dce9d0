"""Networks and the one-shot problem against JAX's autodiff, in float64."""

import numpy as np
import pytest

import tinybilevel as tb
from tinybilevel.problems.one_shot import OneShot, four_blocks
from tinybilevel.testing import relative_error

jax = pytest.importorskip("jax", reason="the oracle JAX is not installed")
pytestmark = pytest.mark.oracle
RNG = np.random.default_rng(0)
T = 50


@pytest.fixture(autouse=True)
def x64():
    with jax.enable_x64(True):
        yield


def convolve(x, kernel):
    dims = ("NCHW", "OIHW", "NCHW")
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), [(1, 1)] * 2, dimension_numbers=dims)


def block(tensors, name, x):
    """Return one of `four_blocks`."""
    import jax.numpy as jnp

    y = convolve(x, tensors[f"{name}.conv2d.weight"])
    mean, var = y.mean((0, 2, 3), keepdims=True), y.var((0, 2, 3), keepdims=True)
    scale, shift = (tensors[f"{name}.batchnorm.{k}"][:, None, None] for k in ("scale", "shift"))
    y = jnp.maximum(scale * (y - mean) / jnp.sqrt(var + 1e-5) + shift, 0)
    n, c, h, w = y.shape
    y = y[:, :, : h // 2 * 2, : w // 2 * 2].reshape(n, c, h // 2, 2, w // 2, 2)
    # Windows in order, so that ties go to the first: argmax and not max, which shares.
    y = y.transpose(0, 1, 2, 4, 3, 5).reshape(n, c, h // 2, w // 2, 4)
    first = jnp.argmax(y, axis=-1, keepdims=True)
    return jnp.take_along_axis(y, first, axis=-1)[..., 0]


def scores(tensors, x):
    for k in range(1, 5):
        x = block(tensors, f"block{k}", x)
    return x.reshape(len(x), -1) @ tensors["head.dense.weight"].T + tensors["head.dense.bias"]


def cross_entropy(s, y):
    import jax.numpy as jnp

    return -jnp.take_along_axis(jax.nn.log_softmax(s), y[:, None], axis=1)[:, 0]


def unpack(network, w):
    return {n: w[network.layout[n]].reshape(network.shapes[n]) for n in network.layout}


def family(**options):
    return OneShot(four_blocks(3, filters=3, input_shape=(1, 16, 16)), input_shape=(1, 16, 16), T=T,
                   **options)  # fmt: skip


@pytest.fixture(scope="module")
def task():
    X, X_query = RNG.random((3, 1, 16, 16)), RNG.random((6, 1, 16, 16))
    return X, np.arange(3), X_query, np.array([0, 1, 2, 2, 1, 0])


@pytest.fixture(scope="module")
def lam():
    f = family()
    lam = f.start(0, rho=1.5, gamma={"block3": 0.02, "block4": 0.03, "head": 0.01}, dtype=float)
    lam += 0.05 * RNG.standard_normal(lam.size)
    return lam


def test_products_of_a_network(task):
    import jax.numpy as jnp

    X, y, *_ = task
    network = family().network
    g = tb.NetworkLoss(network, X, y, adapt=("block2", "head"))
    whole = network.init(seed=1) + 0.1 * RNG.standard_normal(network.size)
    mine = np.concatenate([np.arange(network.size)[network.blocks[b]] for b in ("block2", "head")])
    rest = np.delete(np.arange(network.size), mine)
    v = RNG.standard_normal(mine.size)

    def value(w, given):
        full = jnp.zeros(network.size).at[mine].set(w).at[rest].set(given)
        return cross_entropy(scores(unpack(network, full), X), y).mean()

    def along(w, given):
        return jnp.vdot(jax.grad(value)(w, given), v)

    w, given = whole[mine], whole[rest]
    expected, (grad, grad_lam) = jax.jit(jax.value_and_grad(value, (0, 1)))(w, given)
    assert g.value(w, given) == pytest.approx(float(expected), rel=1e-12)
    assert relative_error(g.grad(w, given), grad) <= 1e-10
    assert relative_error(g.grad_lam(w, given), grad_lam) <= 1e-10
    hessian, mixed = jax.jit(jax.grad(along, (0, 1)))(w, given)
    found = g.grad_vjp(w, given, v)
    assert relative_error(found[0], hessian) <= 1e-10
    assert relative_error(found[1], mixed) <= 1e-10


@pytest.fixture(scope="module")
def oracle(task, lam):
    """Return a function K → (value, h_{T−K}) by JAX; K = T + 1 is the exact gradient."""
    import jax.numpy as jnp

    f = family()
    X, y, X_query, y_query = task
    sizes = np.array(f.sizes)

    def run(K):
        def value(lam):
            parts = {n: lam[f.layout[n]] for n in f.layout}
            front, c = parts["front"], parts["c"]
            rho, gamma = (jnp.repeat(jnp.exp(parts[n]), sizes) for n in ("log_rho", "log_gamma"))

            def lower(w):
                full = jnp.concatenate([front, w])
                loss = cross_entropy(scores(unpack(f.network, full), X), y).sum()
                return loss + (rho * (w - c) ** 2).sum()

            def step(w, t):
                w = w - gamma * jax.grad(lower)(w)
                return jnp.where(t == T - K - 1, jax.lax.stop_gradient(w), w), None

            start = jax.lax.stop_gradient(c) if K == T else c
            w, _ = jax.lax.scan(step, start, jnp.arange(T))
            full = jnp.concatenate([front, w])
            return cross_entropy(scores(unpack(f.network, full), X_query), y_query).mean()

        with jax.enable_x64(True):
            value, grad = jax.jit(jax.value_and_grad(value))(jnp.asarray(lam))
        return float(value), np.asarray(grad)

    return run


@pytest.mark.parametrize("K", [pytest.param(K, marks=pytest.mark.slow) for K in (1, 10, T, T + 1)])
def test_hypergradients_of_the_one_shot_problem(task, lam, oracle, K):
    value, grad = oracle(K)
    method = tb.KRMD(K=K) if K <= T else tb.RMD()
    for once, change in ((True, tb.compile), (True, None), (False, None)):
        f = family(features_once=once)
        problem = f.problem(*task)
        r = method(change(problem) if change else problem, lam)
        assert r.value == pytest.approx(value, rel=1e-10)
        for name in f.layout:
            assert relative_error(r.grad[f.layout[name]], grad[f.layout[name]]) <= 1e-10, name
