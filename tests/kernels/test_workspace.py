"""Working memory belongs to a call: what is made there is bounded, and results share nothing."""

import tracemalloc
from functools import partial

import numpy as np
import pytest

import tinybilevel as tb
from tinybilevel.arrays.backend import Movable, bound
from tinybilevel.kernels import workspace
from tinybilevel.kernels.workspace import FRESH, Workspace


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


@pytest.mark.parametrize(
    "make",
    [
        softmax,
        partial(softmax, dtype=np.float32),
        partial(softmax, backend="numba"),
        partial(softmax, remember=2),
        partial(softmax, backend="numba", remember=2),
    ],
)
def test_products_over_many_examples_allocate_nothing_after_the_first(make):
    problem = make()
    ((_, loss), _), lam = problem.transition.objective.terms, problem.lam0
    loss, w = bound(loss), problem.transition.initial(lam)
    v = w + 1
    for call in (lambda: loss.grad(w, lam), lambda: loss.grad_vjp(w, lam, v)):
        call()
        call()  # memory for what is remembered comes up once more
        tracemalloc.start()
        call()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < w.itemsize * lam.size + 16384  # the weights, frames and headers


@pytest.mark.parametrize(
    ("make", "vectors"),
    [
        (quadratic, 12),
        (partial(learned, tb.GradientDescent), 11),
        (partial(plain, tb.HeavyBall), 17),
        (partial(plain, tb.Nesterov), 18),
        (partial(learned, tb.HeavyBall, momentum=slice(1, 2)), 17),
        (partial(learned, tb.Nesterov, momentum=slice(1, 2)), 18),
        (partial(plain, tb.AdamTransition), 29),
        (partial(learned, tb.AdamTransition), 29),
        (partial(plain, tb.ProximalGradient, l1=0.1), 14),
        (partial(learned, tb.ProximalGradient, l1=slice(1, 2)), 14),
    ],
)
def test_a_call_holds_its_states_and_few_vectors(make, vectors):
    problem = make()
    state, unit = 1 + problem.transition.n_buffers, 8 * 20_000
    for K in (1, 4):
        tb.KRMD(K=K)(problem)
        tracemalloc.start()
        tb.KRMD(K=K)(problem)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < (K * state + vectors + 0.1) * unit


def test_a_call_does_not_touch_what_another_returned():
    problem = softmax(n=50, d=4, T=5)
    first = tb.KRMD(K=3)(problem)
    kept = first.grad.copy(), first.w.copy()
    tb.KRMD(K=3)(problem, 2 * problem.lam0)
    np.testing.assert_array_equal(first.grad, kept[0])
    np.testing.assert_array_equal(first.w, kept[1])


def test_an_unbound_objective_returns_new_arrays():
    problem = softmax(n=50, d=4, T=5)
    ((_, g), _), lam = problem.transition.objective.terms, problem.lam0
    w = problem.transition.initial(lam)
    assert not np.shares_memory(g.grad(w, lam), g.grad(w, lam))
    of_a_call = bound(g)
    assert np.shares_memory(of_a_call.grad(w, lam), of_a_call.grad(w, lam))


def test_what_is_bound_is_found_in_all_that_holds_it():
    class Kept(Movable):
        def bound(self):
            return "bound"

    holder = Movable()
    holder.parts, holder.number = ((1.0, Kept()), [Kept()]), 3
    other = bound(holder)
    assert other.parts == ((1.0, "bound"), ["bound"])
    assert other.number == 3
    assert isinstance(holder.parts[1][0], Kept)
    assert bound("x") == "x"


def test_each_product_has_its_own_result():
    """A learned step size takes ∇g after the products of ∇g, whose results must still hold."""
    for problem in (softmax(n=50, d=4, T=5), quadratic(M=20)):
        lam = problem.lam0
        g, w = bound(problem.transition.objective), problem.transition.initial(lam) + 0.1
        products = g.grad_vjp(w, lam, w)
        kept = [a.copy() for a in products]
        g.grad(w, 2 * lam)
        g.grad_jvp(w, 2 * lam, w, lam)
        g.grad_lam(w, 2 * lam)
        g.value(2 * w, lam)
        for now, before in zip(products, kept, strict=True):
            np.testing.assert_array_equal(now, before)


def test_what_nobody_holds_is_used_again():
    model = np.empty(0)
    work = Workspace(reuse=True)
    a = work("a", (7, 1234), model)
    address = a.ctypes.data
    assert work("b", (7, 1234), model) is not a, "two names are two arrays"
    assert Workspace(reuse=True)("a", (7, 1234), model) is not a, "it is in use"
    view = a[2:3]
    del work, a
    held = Workspace(reuse=True)
    taken = [held(name, (7, 1234), model) for name in "xyz"]
    assert address not in [each.ctypes.data for each in taken], "a view of it is in use"
    del view
    assert held("w", (7, 1234), model).ctypes.data == address


def test_what_is_kept_for_calls_to_come_is_bounded(monkeypatch):
    monkeypatch.setattr(workspace, "_made", {})
    monkeypatch.setattr(workspace, "MOST", 10_000)
    for size in range(1, 300):
        Workspace(reuse=True)("a", (size,), np.empty(0))
        kept = sum(each.nbytes for arrays in workspace._made.values() for each in arrays)
        assert kept <= 10_000
    Workspace(reuse=True)("a", (5000,), np.empty(0))
    assert not any(workspace._made.values()), "too large to be kept"
