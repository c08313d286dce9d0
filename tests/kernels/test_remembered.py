import cases
import numpy as np
import pytest

import tinybilevel as tb
from tinybilevel.kernels.remembered import Remembered


def remembered(size, M):
    return Remembered([(np.empty(M), np.empty(1)) for _ in range(size)])


def test_newest_first_each_once_and_no_more_than_there_is_room_for():
    results, ws = remembered(3, 4), [np.full(4, float(k)) for k in range(5)]
    for _ in range(2):  # the second time from another slot
        for k, w in enumerate(ws):
            results.add(w)[...] = k
        for k in (4, 3, 2):
            assert results.pop(ws[k]) == k
        assert results.pop(ws[1]) is None
        assert results.pop(ws[4]) is None


def test_what_is_newer_is_forgotten_and_w_may_change_afterwards():
    results, w = remembered(8, 2), np.zeros(2)
    for k in range(4):
        w[...] = k
        results.add(w)[...] = k
    assert results.pop(np.ones(2)) == 1
    assert results.pop(np.full(2, 2.0)) is None
    assert results.pop(np.zeros(2)) is None  # forgotten in search of 2
    results.add(w)[...] = 7
    assert results.pop(w) == 7
    for _ in range(9):
        results.add(w)
    results.add(w + 1)
    assert [results.pop(w) is None for _ in range(8)] == [False] * 7 + [True]


def test_nan_is_never_found():
    results = remembered(1, 1)
    results.add(np.array([np.nan]))
    assert results.pop(np.array([np.nan])) is None


def problem(make, remember, backend="numpy", dtype=np.float64, **options):
    X, y = cases.normal(0, 40, 6, dtype=dtype), np.random.default_rng(0).integers(0, 3, 40)
    g = tb.SoftmaxRegression(X, y, 3, backend=backend, remember=remember) + tb.L2Penalty(0.01)
    f = tb.SoftmaxRegression(X[::-1], y, 3, weighted=False)
    w0 = cases.normal(1, g.terms[0][1].size, dtype=dtype)
    return tb.BilevelProblem(make(g, 0.3, w0, **options), f, T=12, hyper_map=tb.Sigmoid())


@pytest.fixture
def spied(monkeypatch):
    """Note whether each product took up a softmax that was kept."""
    taken, pop = [], Remembered.pop

    def noted(self, w):
        found = pop(self, w)
        taken.append(found is not None)
        return found

    monkeypatch.setattr(Remembered, "pop", noted)
    return taken


METHODS = {
    "KRMD": tb.KRMD(K=7),
    "RMD": tb.RMD(),
    "checkpoint": tb.KRMD(K=9, storage=tb.Checkpoint()),
    "binomial": tb.RMD(tb.Binomial(2)),
    "tail": tb.KRMD(K=4, tail=tb.Neumann(5)),
    "cg": tb.ImplicitCG(),
}


@pytest.mark.filterwarnings("ignore:.*takes w_T for a minimum")
@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("remember", [1, 5, 12, 99])
def test_a_hypergradient_is_the_same(method, remember, backend, spied):
    if backend == "numba":
        pytest.importorskip("numba")
    method, lam = METHODS[method], cases.normal(2, 40)
    expected = method(problem(tb.GradientDescent, 0, backend), lam)
    assert not spied
    found = method(problem(tb.GradientDescent, remember, backend), lam)
    assert tb.testing.relative_error(found.grad, expected.grad) < 1e-13
    np.testing.assert_array_equal(found.w, expected.w)
    if method == tb.KRMD(K=7):
        assert spied == [k < remember for k in range(7)]


@pytest.mark.parametrize("make", [tb.HeavyBall, tb.Nesterov, tb.AdamTransition])
def test_other_transitions(make, spied):
    lam, method = cases.normal(2, 40), tb.RMD()
    expected = method(problem(make, 0), lam).grad
    assert tb.testing.relative_error(method(problem(make, 12), lam).grad, expected) < 1e-13
    assert len(spied) == 12
    assert any(spied)


def test_minibatches_and_a_mix_of_dtypes_do_without(spied):
    batches, method = tb.minibatches(40, 10, 12, seed=0), tb.KRMD(K=12)
    lam = cases.normal(2, 40)
    for options in (dict(batches=batches), dict(dtype=np.float32)):
        found = [method(problem(tb.GradientDescent, r, **options), lam).grad for r in (0, 12)]
        np.testing.assert_array_equal(*found)
    assert not spied
    X, y = cases.normal(0, 40, 6), np.arange(40) % 3
    g, plain = (tb.SoftmaxRegression(X, y, backend="numpy", remember=r).bound() for r in (3, 0))
    w, alpha = cases.normal(1, 2, 18)
    half = w.astype(np.float32)
    for at, lam in ((half, np.ones(40)), (w, np.ones(40, np.float32))):
        g.grad(at, lam)
        for one, other in zip(
            g.grad_vjp(at, lam, alpha), plain.grad_vjp(at, lam, alpha), strict=True
        ):
            np.testing.assert_array_equal(one, other)
    assert not spied


@pytest.mark.parametrize("remember", [-1, 1.5, None])
def test_refused(remember):
    with pytest.raises((TypeError, ValueError), match="remember must be"):
        tb.SoftmaxRegression(np.eye(2), [0, 1], remember=remember)
