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
    Softplus,
    Tanh,
)
from tinybilevel.testing import relative_error

RNG = np.random.default_rng(0)
X = RNG.standard_normal((6, 2, 7, 6))
Y = np.array([0, 1, 2, 0, 2, 1])
TARGETS = RNG.standard_normal((6, 3))


def network():
    """Return a network with every kind of layer that has parameters, and kinks."""
    return Network(
        {
            "one": [Conv2d(3, 3, padding=1, bias=False), BatchNorm(), ReLU(), MaxPool(2)],
            "two": [Conv2d(4, 3, stride=2, padding=1), BatchNorm(), Tanh()],
            "head": [Flatten(), Dense(5), Softplus(), Dense(3)],
        },
        input_shape=(2, 7, 6),
    )


def point(g, seed=1):
    rng = np.random.default_rng(seed)
    n_lam = 0 if g.given is None else g.given.size
    return 0.5 * rng.standard_normal(g.own.size), 0.5 * rng.standard_normal(n_lam)


CHOICES = {"all": None, "last": ("head",), "middle": ("two",), "two of three": ("one", "head")}


@pytest.mark.parametrize("adapt", CHOICES.values(), ids=CHOICES)
@pytest.mark.parametrize("loss", ["cross_entropy", "squared"])
def test_derivatives(adapt, loss):
    y = Y if loss == "cross_entropy" else TARGETS
    g = tb.NetworkLoss(network(), X, y, loss=loss, adapt=adapt)
    w, lam = point(g)
    tb.testing.assert_objective_derivatives(g, w, lam, tol=1e-12)
    tb.testing.assert_upper_gradients(g, w, lam)


def test_what_is_adapted_is_a_matter_of_names():
    net = network()
    whole = tb.NetworkLoss(net, X, Y)
    part = tb.NetworkLoss(net, X, Y, adapt=("two",))
    full = net.init(seed=2)
    at = net.blocks["two"]
    w, lam = full[at], np.delete(full, at)
    assert part.value(w, lam) == whole.value(full, np.zeros(0))
    grad = whole.grad(full, np.zeros(0))
    np.testing.assert_array_equal(part.grad(w, lam), grad[at])
    np.testing.assert_array_equal(part.grad_lam(w, lam), np.delete(grad, at))
    v = RNG.standard_normal(w.size)
    wide = np.zeros_like(full)
    wide[at] = v
    H, _ = whole.grad_vjp(full, np.zeros(0), wide)
    own, mixed = part.grad_vjp(w, lam, v)
    np.testing.assert_array_equal(own, H[at])
    np.testing.assert_array_equal(mixed, np.delete(H, at))


def test_mean_and_sum():
    g, total = (tb.NetworkLoss(network(), X, Y, reduction=r) for r in ("mean", "sum"))
    w, lam = point(g)
    assert total.value(w, lam) == pytest.approx(6 * g.value(w, lam), rel=1e-14)
    assert relative_error(total.grad(w, lam), 6 * g.grad(w, lam)) <= 1e-14


def test_a_batch_is_an_unbiased_estimate():
    net = Network([Dense(4), Tanh(), Dense(3)], (5,))
    X = RNG.standard_normal((6, 5))
    for reduction in ("mean", "sum"):
        g = tb.NetworkLoss(net, X, Y, reduction=reduction)
        w, lam = point(g)
        parts = [g.restrict(np.array([i, (i + 1) % 6])).grad(w, lam) for i in range(6)]
        assert relative_error(np.mean(parts, axis=0), g.grad(w, lam)) <= 1e-14


def test_it_runs_under_every_method():
    net = Network([Dense(4), Softplus(), Dense(3)], (5,))
    X = RNG.standard_normal((6, 5))
    g = tb.NetworkLoss(net, X, Y, adapt=("dense2",))
    f = tb.NetworkLoss(net, X[::-1].copy(), Y, adapt=("dense2",))
    w, lam = point(g)
    problem = tb.BilevelProblem(tb.GradientDescent(g, 0.1, w), upper=f, T=5)
    exact = tb.testing.dense_hypergradient(problem, lam)
    for method in (tb.RMD(), tb.FMD(), tb.RMD(storage=tb.Binomial(2))):
        assert relative_error(method(problem, lam).grad, exact) <= 1e-12


def test_features_once_are_the_plain_recursion():
    net = network()
    names = list(net.blocks)
    front = Network({name: net_layers(name) for name in names[:1]}, (2, 7, 6))
    back = Network({name: net_layers(name) for name in names[1:]}, front.output_shape)
    phi = FeatureMap(front, [X, X[:2]])
    lam = front.init(seed=1)
    tb.testing.assert_map_adjoints(phi, lam)
    first = phi(lam)[phi.slices[0]]
    tb.testing.assert_objective_derivatives(FeatureLoss(back, Y), back.init(seed=2), first)
    tb.testing.assert_upper_gradients(FeatureLoss(back, Y), back.init(seed=2), first)
    whole = tb.NetworkLoss(net, X, Y)
    value = FeatureLoss(back, Y).value(back.init(seed=2), first)
    joined = np.concatenate([lam, back.init(seed=2)])
    assert value == pytest.approx(whole.value(joined, np.zeros(0)), rel=1e-14)


def net_layers(name):
    layers = {
        "one": [Conv2d(3, 3, padding=1, bias=False), BatchNorm(), ReLU(), MaxPool(2)],
        "two": [Conv2d(4, 3, stride=2, padding=1), BatchNorm(), Tanh()],
        "head": [Flatten(), Dense(5), Softplus(), Dense(3)],
    }
    return layers[name]


NET = Network([Dense(3)], (4,))
ROWS = RNG.standard_normal((6, 4))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: tb.NetworkLoss(NET, ROWS, Y, loss="hinge"),
            ValueError,
            "loss must be one of cross",
        ),
        (
            lambda: tb.NetworkLoss(NET, ROWS, Y, reduction="max"),
            ValueError,
            "reduction must be one",
        ),
        (
            lambda: tb.NetworkLoss(NET, ROWS, Y, adapt="dense1"),
            TypeError,
            "adapt must be a sequence",
        ),
        (
            lambda: tb.NetworkLoss(NET, ROWS, Y, adapt=("x",)),
            ValueError,
            r"adapt names \['x'\]; the",
        ),
        (lambda: tb.NetworkLoss(NET, ROWS, Y[:-1]), ValueError, r"y must be 6 integers, got shape"),
        (lambda: tb.NetworkLoss(NET, ROWS, Y + 1), ValueError, "y must lie in 0 … 2, got 1 … 3"),
        (
            lambda: tb.NetworkLoss(NET, ROWS, Y, adapt=()),
            ValueError,
            r"adapt names no block, so that w is empty; the blocks with .* \['dense1'\]",
        ),
        (lambda: tb.NetworkLoss(NET, ROWS, Y, adapt=1), TypeError, "sequence of names, got 1"),
        (
            lambda: tb.NetworkLoss(NET, ROWS, np.full((6, 3), np.nan), loss="squared"),
            ValueError,
            "y must be finite, got 18 NaN or inf",
        ),
        (
            lambda: tb.NetworkLoss(Network([Dense(1)], (4,)), ROWS, np.ones(6), loss="squared"),
            ValueError,
            r"y must be floats of shape \(6, 1\), got shape \(6,\): y\[:, None\] has it",
        ),
        (lambda: tb.NetworkLoss(NET, ROWS[:0], Y[:0]), ValueError, r"n ≥ 1, got \(0, 4\)"),
        (lambda: tb.NetworkLoss([Dense(3)], ROWS, Y), TypeError, r"network must be a Network, got"),
        (lambda: FeatureLoss(None, Y), TypeError, "network must be a Network, got None"),
        (lambda: FeatureLoss(NET, 3), ValueError, "y must have an entry for each example, got 3"),
        (lambda: FeatureMap(NET, []), ValueError, "sets must hold at least one set of examples"),
        (
            lambda: FeatureMap(NET, [ROWS, ROWS[:, 1:]]),
            ValueError,
            r"sets\[1\] must have shape \(n, 4\), n ≥ 1, got \(6, 3\)",
        ),
        (
            lambda: tb.NetworkLoss(NET, ROWS, Y, loss="squared"),
            ValueError,
            r"floats of shape \(6, 3\)",
        ),
        (
            lambda: tb.NetworkLoss(NET, ROWS[:, 1:], Y),
            ValueError,
            r"X must have shape \(n, 4\), n ≥ 1, got \(6, 3\)",
        ),
        (
            lambda: tb.NetworkLoss(Network([Conv2d(2, 3)], (1, 4, 4)), X[:, :1, :4, :4], Y),
            ValueError,
            "must return a vector for each example",
        ),
    ],
)
def test_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("loss", ["cross_entropy", "squared"])
def test_data_that_are_changed_later_change_nothing(loss):
    X, y = ROWS.copy(), (Y.copy() if loss == "cross_entropy" else np.ones((6, 3)))
    g = tb.NetworkLoss(NET, X, y, loss=loss)
    w = NET.init(seed=1)
    before = g.value(w, np.zeros(0))
    X[:], y[:] = 2, 0
    assert g.value(w, np.zeros(0)) == before


def test_features_of_data_that_are_changed_later_are_the_same():
    X = ROWS.copy()
    phi = FeatureMap(NET, [X])
    before = phi(NET.init(seed=1))
    X[:] = 2
    np.testing.assert_array_equal(phi(NET.init(seed=1)), before)


def test_a_bound_map_remembers_the_last_numbers_and_promotes():
    net = Network([Dense(3), Tanh()], (4,))
    phi = FeatureMap(net, [ROWS, ROWS[:2]])
    bound, lam = phi.bound(), net.init(seed=1)
    h = RNG.standard_normal(24)
    for _ in range(2):
        np.testing.assert_array_equal(bound(lam), phi(lam))
        np.testing.assert_array_equal(bound.vjp(lam, h), phi.vjp(lam, h))
        np.testing.assert_array_equal(bound.jvp(lam, lam), phi.jvp(lam, lam))
        lam += 0.1  # in place, in the same memory
    assert phi.vjp(lam.astype(np.float32), h).dtype == np.float64


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_what_one_sweep_gives_is_what_each_product_does(reduction):
    g = tb.NetworkLoss(network(), X, Y, reduction=reduction, adapt=("one", "head"))
    w, lam = point(g)
    v = RNG.standard_normal(w.size)
    value, grad, grad_lam = g.value_with_grads(w, lam)
    assert value == g.value(w, lam)
    np.testing.assert_array_equal(grad, g.grad(w, lam))
    np.testing.assert_array_equal(grad_lam, g.grad_lam(w, lam))
    grad, hessian, mixed = g.grad_with_vjp(w, lam, v)
    np.testing.assert_array_equal(grad, g.grad(w, lam))
    for part, expected in zip((hessian, mixed), g.grad_vjp(w, lam, v), strict=True):
        np.testing.assert_array_equal(part, expected)


def test_names_of_blocks_are_read_once():
    net = Network([Dense(3), Tanh(), Dense(3)], (4,))
    g = tb.NetworkLoss(net, ROWS, Y, adapt=(name for name in ["dense2"]))
    assert list(g.own) == ["dense2.weight", "dense2.bias"]


def test_a_batch_has_examples_that_there_are():
    for rows in ([-1], [6]):
        with pytest.raises(IndexError, match=r"index must lie in 0 … 5, got"):
            tb.NetworkLoss(NET, ROWS, Y).restrict(rows)
