"""Compiled softmax problems of many seeds or folds in one batch: each as if it were alone."""

from dataclasses import replace

import numpy as np
import pytest

import tinybilevel as tb

pytest.importorskip("numba")


def seeds(horizons=(12, 12, 12), dtype=np.float64):
    """Return hypercleaning problems on the same examples with other labels, and a λ for each."""
    rng, n = np.random.default_rng(0), 800
    X = rng.standard_normal((n, 4)).astype(dtype)
    X.flags.writeable = False
    val = rng.standard_normal((30, 4)).astype(dtype), rng.integers(0, 3, 30)
    problems = [
        tb.problems.hypercleaning(X, rng.integers(0, 3, n), *val, T=T, step_size=0.5)
        for T in horizons
    ]
    return problems, rng.standard_normal((len(problems), n)).astype(dtype)


def assert_each(method, problems, lams):
    values, grads = method.batch(problems, lams)
    assert grads.dtype == lams.dtype
    for problem, lam, value, grad in zip(problems, lams, values, grads, strict=True):
        r = method(problem, lam)
        assert value == r.value
        np.testing.assert_array_equal(grad, r.grad)


@pytest.mark.parametrize("helpers", [0, 1, 5])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_many_problems_have_a_row_each(helpers, dtype, monkeypatch):
    monkeypatch.setattr("tinybilevel.kernels.threads.helpers", lambda most: min(helpers, most - 1))
    plain, lams = seeds(dtype=dtype)
    fast = [tb.compile(p) for p in plain]
    with monkeypatch.context() as patch:
        patch.setattr(tb.KRMD, "run_many", None)  # nobody falls back
        _, grads = tb.KRMD(K=5).batch(fast, lams)
    assert_each(tb.KRMD(K=5), fast, lams)
    for problem, lam, grad in zip(plain, lams, grads, strict=True):
        error = tb.testing.relative_error(grad, tb.KRMD(K=5)(problem, lam).grad)
        assert error < (1e-12 if dtype == np.float64 else 1e-5)


def test_folds_have_examples_and_algorithms_of_their_own(monkeypatch):
    plain, lams = seeds()
    rng = np.random.default_rng(1)
    X, y = rng.standard_normal((800, 6)), rng.integers(0, 5, 800)
    ball = tb.HeavyBall(tb.SoftmaxRegression(X, y, 5), 0.1, np.zeros(30), momentum=0.5)
    upper = tb.SoftmaxRegression(X[:9], y[:9], 5, weighted=False)
    other = tb.BilevelProblem(ball, upper, T=12, hyper_map=tb.Softplus())
    fast = [tb.compile(p) for p in (plain[0], other, plain[1])]
    with monkeypatch.context() as patch:
        patch.setattr(tb.KRMD, "run_many", None)
        tb.KRMD(K=5).batch(fast, lams)
    assert_each(tb.KRMD(K=5), fast, lams)


def test_problems_that_differ_in_T_or_are_plain_go_one_after_the_other():
    plain, lams = seeds((12, 12, 9))
    fast = [tb.compile(p) for p in plain]
    assert_each(tb.RMD(), fast, lams)
    assert_each(tb.RMD(), [fast[0], plain[1], fast[0]], lams)


def test_one_of_many_that_diverges_says_so():
    plain, lams = seeds()
    steep = plain[1].transition.objective + tb.L2Penalty(1e100)
    start = tb.GradientDescent(steep, 1e100, np.ones(15))
    fast = [tb.compile(p) for p in (plain[0], replace(plain[1], transition=start), plain[2])]
    with pytest.raises(tb.DivergenceError):
        tb.KRMD(K=5).batch(fast, lams)


def tasks(T=8):
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((20, 30)), np.arange(20) % 4
    return tb.problems.task_interaction(X, y, X[::-1], y[::-1], T=T, step_size=0.05, n_classes=4)


def batches():
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((60, 5)), rng.integers(0, 3, 60)
    g = tb.SoftmaxRegression(X, y, 3)
    drawn = tb.minibatches(60, size=10, T=8, seed=0)
    upper = tb.SoftmaxRegression(X[:9], y[:9], 3, weighted=False)
    descent = tb.GradientDescent(g, 0.5, np.zeros(15), batches=drawn)
    return tb.BilevelProblem(descent, upper, T=8, hyper_map=tb.Softplus(), lam0=np.ones(60))


@pytest.mark.parametrize("make", [tasks, batches])
@pytest.mark.parametrize("method", [tb.KRMD(K=3), tb.RMD()])
def test_loops_of_one_thread_run_side_by_side(make, method, monkeypatch):
    monkeypatch.setattr("tinybilevel.kernels.threads.helpers", lambda most: min(2, most - 1))
    fast = tb.compile(make())
    assert isinstance(fast, tb.CompiledProblem)
    lams = fast.lam0 * (1 + 0.1 * np.arange(5)[:, None])
    with monkeypatch.context() as patch:
        patch.setattr(type(method), "run_many", None)
        method.batch(fast, lams)
        method.batch([fast, tb.compile(make()), fast, fast, fast], lams)
    assert_each(method, [fast] * 5, lams)
    values, _ = method.batch(fast, lams)
    assert [method(fast, lam).value for lam in lams] == list(values)
