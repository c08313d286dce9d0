"""One door to the compiled layers, and they are held to the definitions, at the boundaries too."""

import pickle
import sys

import numpy as np
import pytest

import tinybilevel as tb
from tinybilevel.layers import (
    BatchNorm,
    Conv2d,
    Dense,
    FeatureLoss,
    FeatureMap,
    Flatten,
    MaxPool,
    Network,
    ReLU,
    Tanh,
    overlays,
)
from tinybilevel.problems.one_shot import OneShot, four_blocks

pytest.importorskip("numba")
network_kernels = pytest.importorskip("tinybilevel.kernels.network")


class Halved(ReLU):
    """A user's own layer, which looks like one that is known."""

    def apply(self, chosen, x):
        return super().apply(chosen, x) / 2

    def transpose(self, chosen, g):
        return super().transpose(chosen, g) / 2


def block(channels, pool=2, **conv):
    after = [MaxPool(pool)] if pool > 1 else []
    return [
        Conv2d(channels, **{"kernel_size": 3, "padding": 1} | conv),
        BatchNorm(),
        ReLU(),
        *after,
    ]


NETWORKS = {
    "one-pixel": ([Conv2d(1, 1)], (1, 1, 1)),
    "convolution": ([Conv2d(3, 3)], (2, 5, 6)),
    "no-bias": ([Conv2d(3, 2, bias=False)], (2, 5, 4)),
    "stride-beyond-kernel": ([Conv2d(2, 2, stride=3), Tanh()], (3, 7, 6)),
    "kernel-in-padding": ([Conv2d(2, 4, padding=3, stride=2)], (1, 3, 2)),
    "batch-norm": ([Conv2d(3, 3, padding=1), BatchNorm(0.1)], (1, 4, 3)),
    "rectified": ([Conv2d(3, 3, padding=1), BatchNorm(), ReLU()], (1, 4, 3)),
    "rectified-alone": ([Conv2d(3, 3, padding=1), ReLU(), MaxPool(2)], (1, 4, 3)),
    "pool-3": (block(4, pool=3), (2, 8, 7)),
    "pool-of-all": (block(4, pool=5), (2, 5, 5)),
    "stride-2": ([*block(4, 1, stride=2), *block(5, 1, stride=2)], (2, 7, 5)),
    "odd": ([*block(17), *block(3)], (1, 7, 7)),
    "vector-of-channels": ([*block(16), *block(16)], (1, 6, 6)),
    "own-layer-between": ([*block(3), Halved(), Conv2d(2, 2), Halved()], (1, 7, 6)),
    "own-rectifier": ([Conv2d(3, 3), BatchNorm(), Halved(), MaxPool(2)], (1, 7, 6)),
    "four-blocks": ([*block(3), *block(3), *block(3), *block(3)], (1, 28, 28)),
}


@pytest.fixture(params=["kept", "by image", "by two images"])
def patches(request, monkeypatch):
    """Have all patches kept, or made for one image or for two at a time."""
    if request.param != "kept":
        monkeypatch.setattr(network_kernels, "_KEPT", 0)
    if request.param == "by image":
        monkeypatch.setattr(network_kernels, "_PART", 1)


def everything(network, w, X, dw, dX, gs):
    """Return copies of all products: what a bound network returns holds until the next call."""
    found = {}

    def keep(what, result):
        for name, part in result.items() if isinstance(result, dict) else [("X", result)]:
            found[f"{what} {name}"] = part.copy()

    p, dp = network.tensors(w), network.tensors(dw)
    y, kept = network.run(p, X)
    keep("forward", y)
    g, dg = (part.astype(y.dtype) for part in gs(y))
    for inputs in (True, False):
        cotangents, gx = network.backward(p, kept, g, inputs=inputs)
        keep(f"adjoint, inputs {inputs}", cotangents)
        if inputs:
            keep("adjoint", gx)
    for how, move in (("moving", dX), ("still", np.zeros_like(dX))):
        dy, dkept = network.tangents(p, kept, dp, move)
        keep(f"tangent, {how}", dy)
        plain, moved, dgx = network.backward_tangents(p, kept, dp, dkept, g, dg)
        for what, result in (("beside", plain), ("second", moved), ("second", dgx)):
            keep(f"{what}, {how}", result)
    return found


@pytest.mark.usefixtures("patches")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("call", ["at once", "bound"])
@pytest.mark.parametrize("name", NETWORKS)
def test_an_overlay_is_the_definition(name, call, dtype):
    layers, shape = NETWORKS[name]
    plain, fast = (Network(layers, shape, backend=b) for b in ("plain", "numba"))
    fast = fast.bound() if call == "bound" else fast
    assert len(fast._bodies) < len(layers) or type(fast._bodies[0][0]) is not Conv2d
    rng = np.random.default_rng(0)
    w, dw = rng.standard_normal((2, plain.size)).astype(dtype)
    X, dX = rng.standard_normal((2, 5, *shape)).astype(dtype)

    def gs(y):
        return np.random.default_rng(1).standard_normal((2, *y.shape))

    expected, found = (everything(net, w, X, dw, dX, gs) for net in (plain, fast))
    for part, value in expected.items():
        assert found[part].shape == value.shape, part
        assert found[part].dtype == value.dtype, part
        scale = max(np.abs(value).max(), 1.0)
        # A window's largest two may be one rounding apart in float32, but not with these numbers.
        most = 1e-12 if dtype == np.float64 else 2e-3
        assert np.abs(found[part] - value).max() <= most * scale, part


def test_ties_and_zeros_go_where_the_definitions_say():
    layers, shape = block(2), (1, 4, 4)
    plain, fast = (Network(layers, shape, backend=b) for b in ("plain", "numba"))
    rng = np.random.default_rng(0)
    w, dw = rng.standard_normal((2, plain.size))
    X, dX = np.ones((2, 1, 4, 4)), rng.standard_normal((2, 1, 4, 4))  # most windows have ties

    def gs(y):
        return np.random.default_rng(1).standard_normal((2, *y.shape))

    for shift in (0.0, 3.0, -30.0):  # at -30 nothing is above 0
        w[plain.layout["batchnorm1.shift"]] = shift
        expected, found = (everything(net, w, X, dw, dX, gs) for net in (plain, fast))
        for part, value in expected.items():
            np.testing.assert_allclose(found[part], value, rtol=1e-11, atol=1e-11, err_msg=part)


def test_patches_are_looked_up_by_the_numbers():
    net = Network(block(3), (1, 6, 6), backend="numba")
    bound, rng = net.bound(), np.random.default_rng(0)
    p, X = net.tensors(net.init(0)), rng.standard_normal((3, 1, 6, 6))
    for _ in range(2):
        np.testing.assert_array_equal(bound.run(p, X)[0], net.run(p, X)[0])
        X += 1.0 * (X > 0)  # in place, in the same memory
        np.testing.assert_array_equal(bound.run(p, X)[0], net.run(p, X)[0])


def test_results_outside_of_a_call_are_the_callers():
    net = Network(block(3), (1, 6, 6), backend="numba")
    w, X = net.init(0), np.random.default_rng(0).standard_normal((3, 1, 6, 6))
    first = net.forward(w, X)
    kept = first.copy()
    net.forward(w, X + X**2)
    np.testing.assert_array_equal(first, kept)


def one_shot(backend, **options):
    layers = four_blocks(3, filters=3, input_shape=(1, 16, 16))
    return OneShot(layers, input_shape=(1, 16, 16), T=6, backend=backend, **options)


@pytest.mark.parametrize(
    ("method", "once"),
    [(m, once) for m in (tb.KRMD(K=1), tb.KRMD(K=4), tb.RMD()) for once in (True, False)]
    + [(tb.FMD(), False)],  # with θ as large as features are, one case will do
    ids=str,
)
def test_hypergradients_of_the_one_shot_problem(method, once):
    rng = np.random.default_rng(0)
    X, X_query = rng.random((3, 1, 16, 16)), rng.random((6, 1, 16, 16))
    lam = one_shot("plain").start(0, dtype=float)
    lam += 0.05 * rng.standard_normal(lam.size)
    plain, fast = (
        method(one_shot(b, features_once=once).problem(X, [0, 1, 2], X_query, [0, 1, 2] * 2), lam)
        for b in ("plain", "numba")
    )
    assert fast.value == pytest.approx(plain.value, rel=1e-12)
    assert tb.testing.relative_error(fast.grad, plain.grad) <= 1e-11


def test_the_public_checks_hold_for_compiled_networks():
    layers = [*block(3), *block(2, 1), Flatten(), Dense(3)]
    net, rng = Network(layers, (1, 5, 6), backend="numba"), np.random.default_rng(0)
    X, y = rng.standard_normal((4, 1, 5, 6)), [0, 1, 2, 0]
    w = net.init(1) + 0.1 * rng.standard_normal(net.size)
    tb.testing.assert_objective_derivatives(tb.NetworkLoss(net, X, y), w, np.zeros(0))
    loss = FeatureLoss(net, y)
    tb.testing.assert_objective_derivatives(loss, w, X.ravel())
    tb.testing.assert_upper_gradients(loss, w, X.ravel())
    front = Network(block(3), (1, 5, 6), backend="numba")
    tb.testing.assert_map_adjoints(FeatureMap(front, [X, X[:2]]), front.init(1))


def test_one_sweep_gives_what_each_product_does():
    layers = [*block(3), Flatten(), Dense(3)]
    rng, y = np.random.default_rng(0), [0, 1, 2, 0]
    X = rng.standard_normal((4, 1, 5, 6))
    for backend in ("plain", "numba"):
        net = Network(layers, (1, 5, 6), backend=backend)
        w, v = rng.standard_normal((2, net.size))
        g = 2.0 * FeatureLoss(net, y).on(slice(1, 1 + X.size))
        lam = np.concatenate([[7.0], X.ravel()])
        value, *grads = g.value_with_grads(w, lam)
        assert value == g.value(w, lam)
        grad, *products = g.grad_with_vjp(w, lam, v)
        expected = [g.grad(w, lam), g.grad_lam(w, lam), g.grad(w, lam), *g.grad_vjp(w, lam, v)]
        for part, whole in zip([*grads, grad, *products], expected, strict=True):
            np.testing.assert_allclose(part, whole, rtol=1e-10, atol=1e-12)


def test_a_loss_of_ones_own_keeps_its_products():
    class Doubled(FeatureLoss):
        def grad(self, w, lam):
            return 2 * super().grad(w, lam)

    net = Network([Dense(3)], (4,))
    g, w, lam = Doubled(net, [0, 1]), net.init(0), np.ones(8)
    np.testing.assert_array_equal(g.value_with_grads(w, lam)[1], g.grad(w, lam))
    np.testing.assert_array_equal(g.grad_with_vjp(w, lam, w)[0], g.grad(w, lam))


def test_a_map_remembers_by_the_numbers():
    front = Network(block(3), (1, 5, 6), backend="numba")
    phi = FeatureMap(front, [np.random.default_rng(0).standard_normal((3, 1, 5, 6))])
    bound, lam = phi.bound(), front.init(1)
    for _ in range(2):
        features = bound(lam)
        np.testing.assert_array_equal(features, phi(lam))
        np.testing.assert_array_equal(bound.vjp(lam, features), phi.vjp(lam, features))
        np.testing.assert_array_equal(bound.vjp(2 * lam, features), phi.vjp(2 * lam, features))
        lam += 0.1  # in place


def compiled(**options):
    layers = [Conv2d(2, 3), BatchNorm(), ReLU(), MaxPool(2), Flatten(), Dense(2)]
    net = Network(layers, (1, 6, 6), **options)
    return [type(body).__name__ for body, _ in net._bodies]


def test_each_backend_is_what_it_says(monkeypatch):
    plain = ["Conv2d", "BatchNorm", "ReLU", "MaxPool", "Flatten", "Dense"]
    assert compiled(backend="plain") == compiled() == plain
    assert compiled(backend="numba") == ["Convolution", "Flatten", "Dense"]
    monkeypatch.setattr(overlays, "_LARGE", 2 * 16 * 9)
    assert compiled()[0] == "Convolution"
    monkeypatch.setattr(overlays, "_LARGE", 2 * 16 * 9 + 1)
    assert compiled() == plain
    monkeypatch.setattr(overlays, "_LARGE", 0)
    monkeypatch.setattr(overlays, "find_spec", lambda name: None)
    assert compiled() == plain


def test_a_network_without_convolutions_has_nothing_to_compile():
    assert type(Network([Dense(2)], (3,), backend="numba")._bodies[0][0]) is Dense


def test_a_large_window_is_left_to_the_definition():
    layers = [Conv2d(1, 1), BatchNorm(), ReLU(), MaxPool(16)]
    kinds = [type(b).__name__ for b, _ in Network(layers, (1, 16, 16), backend="numba")._bodies]
    assert kinds == ["Convolution", "MaxPool"]


def test_a_backend_there_is_not():
    with pytest.raises(ValueError, match=r'must be "auto", "plain" or "numba", got \'cuda\''):
        compiled(backend="cuda")


def test_numba_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "tinybilevel.kernels.network", None)
    with pytest.raises(ImportError, match="needs Numba: pip install numba"):
        compiled(backend="numba")


def test_a_compiled_network_travels():
    net = Network(block(3), (1, 6, 6), backend="numba")
    w, X = net.init(0), np.random.default_rng(0).standard_normal((3, 1, 6, 6))
    other = pickle.loads(pickle.dumps(net))
    np.testing.assert_array_equal(other.forward(w, X), net.forward(w, X))
