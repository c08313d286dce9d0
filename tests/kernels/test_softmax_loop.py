"""The whole loop on large data gives what the plain code gives, step by step."""

import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import cases
import numpy as np
import pytest

import tinybilevel as tb
from tinybilevel.testing import relative_error

pytest.importorskip("numba")

from tinybilevel.kernels import softmax_loop
from tinybilevel.kernels.pool import pool


@pytest.fixture(autouse=True)
def nothing_is_kept_unasked(monkeypatch):
    monkeypatch.setattr(softmax_loop, "_FREE", 0)


def problem(n=150, d=40, C=10, dtype=np.float64, T=9, density=0.2, c=1.0, upper=None, **options):
    rng = np.random.default_rng(0)
    X = (rng.standard_normal((n, d)) * (rng.random((n, d)) < density)).astype(dtype)
    y = rng.integers(0, C, n)
    loss = tb.SoftmaxRegression(X, y, C, backend="numba", **options)
    g = c * loss + 0.5 * tb.L2Penalty(0.2) + tb.L2Penalty(0.03)
    descent = tb.GradientDescent(g, 0.3, rng.standard_normal(loss.size).astype(dtype))
    f = tb.SoftmaxRegression(X[::-1].copy(), y, C, weighted=False) if upper is None else upper
    lam0 = cases.normal(1, n, dtype=dtype)
    return tb.BilevelProblem(descent, f, T=T, hyper_map=tb.Sigmoid(), lam0=lam0)


def assert_same(plain, fast, method, tol=1e-12):
    a, b = method(fast), method(plain)
    for name in ("grad", "w", "alpha_norms"):
        assert getattr(a, name).dtype == getattr(b, name).dtype
        assert relative_error(getattr(a, name), getattr(b, name)) < tol, name
    assert a.value == pytest.approx(b.value, rel=tol)
    if isinstance(method, tb.KRMD):
        assert a.cost == b.cost == method.cost(fast)


@pytest.mark.parametrize("remember", [0, 1, 4, 99])
@pytest.mark.parametrize("density", [0.2, 1.0])
def test_the_loop_is_the_plain_one(density, remember):
    plain = problem(density=density, remember=remember, c=0.7)
    fast = tb.compile(plain)
    assert type(fast.loop).__name__ == "CleaningOnHost"
    for method in (*(tb.KRMD(K=K) for K in (0, 1, 2, 5, 9)), tb.RMD()):
        assert_same(plain, fast, method)


@pytest.mark.parametrize("T", [0, 1, 2, 3])
def test_short_horizons(T):
    plain = problem(T=T)
    for K in range(T + 1):
        assert_same(plain, tb.compile(plain), tb.KRMD(K=K))


@pytest.mark.parametrize(
    ("n", "d", "C"), [(1, 1, 1), (1, 1, 2), (2, 3, 2), (67, 5, 17), (257, 33, 3)]
)
def test_any_size(n, d, C):
    plain = problem(n, d, C, density=1.0)
    assert_same(plain, tb.compile(plain), tb.KRMD(K=4))


@pytest.mark.parametrize("hyper_map", [tb.Sigmoid(), tb.Identity()])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_batch_is_one_after_the_other(count, hyper_map):
    fast = tb.compile(replace(problem(), hyper_map=hyper_map))
    lams = cases.normal(3, count, 150)
    values, grads = tb.KRMD(K=4).batch(fast, lams)
    for lam, value, grad in zip(lams, values, grads, strict=True):
        one = tb.KRMD(K=4)(fast, lam)
        assert value == one.value
        np.testing.assert_array_equal(grad, one.grad)


def test_a_batch_takes_one_thread_each_and_the_upper_level_this_one(monkeypatch):
    def share(helpers, work, args):
        assert helpers == 0

    plain = problem()
    seen, f = set(), plain.upper.value_with_grads
    fast = tb.compile(plain)
    monkeypatch.setattr(pool, "share", share)
    both = lambda *a: seen.add(threading.get_ident()) or f(*a)  # noqa: E731
    monkeypatch.setattr(plain.upper, "value_with_grads", both)
    tb.KRMD(K=4).batch(fast, cases.normal(3, 5, 150))
    assert seen == {threading.get_ident()}


def test_a_batch_that_diverges_says_so():
    lams = np.zeros((3, 150))
    lams[1] = 1.7e308
    with pytest.raises(tb.DivergenceError):
        tb.KRMD(K=4).batch(tb.compile(replace(problem(), hyper_map=tb.Identity())), lams)


@pytest.mark.parametrize("density", [0.2, 1.0])
def test_a_backward_step_takes_the_memory_of_one_state(density):
    plain = problem(d=300, density=density)
    loop, theta = tb.compile(plain).loop, plain.hyper_map(plain.lam0)
    sizes = [loop.kernel.forward(*loop._inputs(theta), K)[1].ring.nbytes for K in (2, 3)]
    assert 3000 * 8 <= sizes[1] - sizes[0] < 1.02 * 3000 * 8


def test_float32():
    plain = problem(dtype=np.float32, T=20)
    fast = tb.compile(plain)
    assert_same(plain, fast, tb.KRMD(K=10), 2e-5)
    lam = plain.lam0.astype(np.float64)
    np.testing.assert_array_equal(tb.RMD()(fast, lam).grad, tb.RMD()(plain, lam).grad)


def test_an_upper_level_that_sees_lam():
    f = tb.Objective.from_functions(
        value=lambda w, lam: float((w**2).sum() + (lam**3).sum()),
        grad=lambda w, lam: 2 * w,
        grad_lam=lambda w, lam: 3 * lam**2,
    )
    plain = problem(upper=f)
    assert_same(plain, tb.compile(plain), tb.KRMD(K=5))


class Direct(tb.L2Penalty):
    """‖w‖² + λᵀa, whose gradient in λ is its own memory."""

    def __init__(self):
        super().__init__(1.0)
        self.direct = cases.normal(2, 150)

    def grad_lam(self, w, lam):
        return self.direct


def test_what_the_upper_level_returns_stays_its_own():
    fast = tb.compile(problem(upper=Direct()))
    first = tb.KRMD(K=5)(fast).grad
    np.testing.assert_array_equal(tb.KRMD(K=5)(fast).grad, first)


def test_a_kept_softmax_is_taken_up_and_not_computed_again():
    fast = tb.compile(problem(remember=3))
    kernel, theta = fast.loop.kernel, fast.hyper_map(fast.lam0)
    state, run = kernel.forward(*fast.loop._inputs(theta), 5)
    assert len(run.kept) == 3
    run.kept[2] = np.nan
    _, norms, _ = kernel.backward(run, state[0], np.zeros(150))
    np.testing.assert_array_equal(np.isnan(norms), [False, False, True, True, True])


def test_as_many_are_kept_unasked_as_take_little_memory(monkeypatch):
    plain = problem()
    for free, kept in ((8_000_000, 9), (3 * 150 * 16 * 8, 3), (100, 0)):
        monkeypatch.setattr(softmax_loop, "_FREE", free)
        fast = tb.compile(plain)
        inputs = fast.loop._inputs(fast.hyper_map(fast.lam0))
        assert len(fast.loop.kernel.forward(*inputs, 9)[1].kept) == kept
        assert_same(plain, fast, tb.RMD())


@pytest.mark.parametrize("remember", [0, 3])
@pytest.mark.parametrize("patience", [0, 20, None])
@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_the_same_bits_for_any_number_of_threads_that_overtake_each_other(
    threads, patience, remember
):
    one = tb.compile(problem(n=500, remember=remember))
    one.loop.kernel.lower.threads = 1
    expected = tb.KRMD(K=5)(one)
    other = tb.compile(problem(n=500, remember=remember))
    kernel = other.loop.kernel
    kernel.lower.__dict__.update(threads=threads, _as_free=False)
    kernel.patience = kernel.patience if patience is None else patience
    for _ in range(5):
        found = tb.KRMD(K=5)(other)
        np.testing.assert_array_equal(found.grad, expected.grad)
        np.testing.assert_array_equal(found.alpha_norms, expected.alpha_norms)


def test_a_chunk_whose_thread_does_not_come_back_is_done_by_another(late):
    fast = tb.compile(problem(n=500, T=3))
    fast.loop.kernel.lower.threads = 2
    expected = tb.KRMD(K=2)(fast)
    overtaken = late()
    found = tb.KRMD(K=2)(fast)
    assert overtaken == [True, True]
    np.testing.assert_array_equal(found.grad, expected.grad)
    np.testing.assert_array_equal(found.alpha_norms, expected.alpha_norms)


def test_from_many_python_threads_at_once_and_as_a_pickle():
    fast = tb.compile(problem())
    fast.loop.kernel.lower.__dict__.update(threads=3, _as_free=False)
    expected = tb.KRMD(K=5)(fast).grad
    with ThreadPoolExecutor(6) as callers:
        for found in callers.map(lambda _: tb.KRMD(K=5)(fast).grad, range(60)):
            np.testing.assert_array_equal(found, expected)
    copy = pickle.loads(pickle.dumps(fast))
    np.testing.assert_array_equal(tb.KRMD(K=5)(copy).grad, expected)


def test_what_is_not_right_is_explained():
    plain = problem()
    fast = tb.compile(replace(plain, lam0=None))
    with pytest.raises(ValueError, match="lam must hold 150 example weights, got shape"):
        tb.RMD()(fast, np.ones(149))
    with pytest.raises(ValueError, match="K must be at most the horizon"):
        tb.KRMD(K=10)(fast, plain.lam0)
    steep = tb.GradientDescent(plain.transition.objective, 1e200, plain.transition.fixed_start())
    with pytest.raises(tb.DivergenceError, match="step size"):
        tb.KRMD(K=3)(tb.compile(replace(plain, transition=steep)))
    overflows = replace(plain, transition=steep, upper=tb.L2Penalty(1.0), T=1)
    with pytest.raises(tb.DivergenceError, match="the upper level"):
        tb.KRMD(K=0)(tb.compile(overflows))
    wrong = tb.GradientDescent(plain.transition.objective, 0.1, np.zeros(7))
    with pytest.raises(ValueError, match="initial must have 400 entries, got 7"):
        tb.compile(replace(plain, transition=wrong))


def test_what_the_loop_does_not_know_stays_plain():
    plain = problem()
    large = tb.SoftmaxRegression(
        np.ones((2000, 1000), np.float32), np.zeros(2000, int), 10, backend="numba"
    )
    for kind in (tb.GradientDescent, tb.Nesterov):
        mixed = tb.BilevelProblem(kind(large, 0.1, np.zeros(10_000)), plain.upper, T=9)
        assert tb.compile(mixed) is mixed
