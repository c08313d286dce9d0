"""Working memory belongs to a call: its inner loop allocates nothing, its results share nothing."""

import copy
import tracemalloc
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

import tinybilevel as tb
from tinybilevel.arrays.workspace import FRESH, Workspace


def test_an_array_is_kept_while_shape_and_dtype_stay():
    work, single, double = Workspace(), np.ones(1, dtype=np.float32), np.ones(1)
    a = work("a", (3,), single)
    assert work("a", (3,), single) is a
    assert work("b", (3,), single) is not a
    assert work("a", (3,), single, double).dtype == np.float64
    assert work("a", (4,), double).shape == (4,)
    assert FRESH("a", (3,), single) is not FRESH("a", (3,), single)


def softmax(n=5000, d=500, T=4, dtype=np.float64, backend="numpy", remember=0):
    if backend == "numba":
        pytest.importorskip("numba")
    rng = np.random.default_rng(0)
    X, y = rng.random((n, d)).astype(dtype), rng.integers(0, 10, n)
    loss = tb.SoftmaxRegression(X, y, 10, backend=backend, remember=remember)
    g = loss + 0.01 * tb.L2Penalty(1.0)
    f = tb.SoftmaxRegression(X[::2], y[::2], 10, weighted=False)
    descent = tb.GradientDescent(g, 0.01, np.zeros(10 * d, dtype=dtype))
    lam0 = rng.standard_normal(n).astype(dtype)
    return tb.BilevelProblem(descent, f, T=T, hyper_map=tb.Sigmoid(), lam0=lam0)


def quadratic(M=20_000, T=10):
    rng = np.random.default_rng(0)
    g = tb.Quadratic(rng.random(M), C=rng.standard_normal((M, 2)), d=rng.standard_normal(M))
    f = tb.Quadratic(np.ones(M), C=np.zeros((M, 2)))
    descent = tb.GradientDescent(g + tb.L2Penalty(0.1), 0.1, np.zeros(M))
    return tb.BilevelProblem(descent, f, T=T, lam0=np.ones(2))


def learned(make, M=20_000, T=5, **options):
    """Return a problem whose step size, and what else a transition takes, come from λ."""
    g = tb.Quadratic(np.linspace(0.1, 1, M), C=np.ones((M, 3)))
    transition = make(g, slice(0, 1), np.ones(M), **options)
    return tb.BilevelProblem(
        transition, quadratic(M).upper.on(slice(0, 2)), T, lam0=np.full(3, 0.1)
    )


def plain(make, M=20_000, T=5, **options):
    g = tb.Quadratic(np.linspace(0.1, 1, M), C=np.ones((M, 2)))
    transition = make(g, 0.1, np.ones(M), **options)
    return tb.BilevelProblem(transition, quadratic(M).upper, T, lam0=np.ones(2))


class Traced:
    """A transition that notes the most that is allocated within each step and product."""

    def _trace(self, call):
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        result = call()
        self.peaks.append(tracemalloc.get_traced_memory()[1] - before)
        return result

    def step(self, t, w, lam, out=None):
        return self._trace(lambda: super(Traced, self).step(t, w, lam, out))

    def vjp(self, t, w, lam, alpha, out=None):
        return self._trace(lambda: super(Traced, self).vjp(t, w, lam, alpha, out))


@pytest.mark.parametrize(
    "make",
    [
        softmax,
        partial(softmax, dtype=np.float32),
        partial(softmax, backend="numba"),
        partial(softmax, remember=2),
        partial(softmax, backend="numba", remember=2),
        quadratic,
        partial(learned, tb.GradientDescent),
        partial(plain, tb.HeavyBall),
        partial(plain, tb.Nesterov),
        partial(learned, tb.HeavyBall, momentum=slice(1, 2)),
        partial(learned, tb.Nesterov, momentum=slice(1, 2)),
        partial(plain, tb.AdamTransition),
        partial(learned, tb.AdamTransition),
        partial(plain, tb.ProximalGradient, l1=0.1),
        partial(learned, tb.ProximalGradient, l1=slice(1, 2)),
    ],
)
def test_the_inner_loop_allocates_nothing_after_its_first_pass(make):
    problem = make()
    base = problem.transition
    traced = copy.copy(base)
    traced.__class__ = type("Traced", (Traced, type(base)), {})
    traced.peaks = []
    problem = replace(problem, transition=traced)
    tracemalloc.start()
    try:
        tb.RMD()(problem)
    finally:
        tracemalloc.stop()
    first, *steps = traced.peaks[: problem.T]
    product, *products = traced.peaks[problem.T :]
    assert min(first, product) > 4 * problem.lam0.size  # the tracing sees arrays
    assert len(steps) == len(products) == problem.T - 1
    assert max(*steps, *products) < 16384  # frames and headers, no array


def test_a_call_does_not_touch_what_another_returned():
    problem = softmax(n=50, d=4, T=5)
    first = tb.KRMD(K=3)(problem)
    kept = first.grad.copy(), first.w.copy()
    tb.KRMD(K=3)(problem, 2 * problem.lam0)
    np.testing.assert_array_equal(first.grad, kept[0])
    np.testing.assert_array_equal(first.w, kept[1])


def test_an_unbound_objective_returns_new_arrays():
    problem = softmax(n=50, d=4, T=5)
    g, w = problem.transition.objective, problem.transition.initial(problem.lam0)
    assert g.grad(w, problem.lam0) is not g.grad(w, problem.lam0)
    bound = g.bound()
    assert bound.grad(w, problem.lam0) is bound.grad(w, problem.lam0)


def test_each_product_has_its_own_result():
    """A learned step size takes ∇g after the products of ∇g, whose results must still hold."""
    for problem in (softmax(n=50, d=4, T=5), quadratic(M=20)):
        lam = problem.lam0
        g, w = problem.transition.objective.bound(), problem.transition.initial(lam) + 0.1
        products = g.grad_vjp(w, lam, w)
        kept = [a.copy() for a in products]
        g.grad(w, 2 * lam)
        g.grad_jvp(w, 2 * lam, w, lam)
        g.grad_lam(w, 2 * lam)
        g.value(2 * w, lam)
        for now, before in zip(products, kept, strict=True):
            np.testing.assert_array_equal(now, before)
