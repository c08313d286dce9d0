"""The CUDA kernels equal the plain bodies: in Numba's simulator, and with -m gpu on a device."""

import copy
import warnings
from dataclasses import replace
from importlib import import_module

import numpy as np
import pytest
from device import Stream

import tinybilevel as tb

pytest.importorskip("numba")

from tinybilevel.kernels import cuda as module
from tinybilevel.kernels.cuda import Softmax
from tinybilevel.objectives import softmax as definition

TOL = {np.float64: 1e-13, np.float32: 2e-5}


def case(n, d, C, dtype=np.float64, seed=0):
    rng = np.random.default_rng(seed)
    X, y, weights = rng.standard_normal((n, d)), rng.integers(0, C, n), rng.random(n)
    W, V = rng.standard_normal((2, C, d))
    return (X.astype(dtype), y, *(a.astype(dtype) for a in (weights, W, V)))


def products(place, X, y, C, W, V, weights):
    X, y, W, V, weights = (place.put(a) for a in (X, y, W, V, weights))
    kernel = Softmax(X, y, C)
    hessian, mixed = kernel.grad_vjp(W, V, weights)
    found = {
        "losses": kernel.losses(W),
        "grad": kernel.grad(W, weights),
        "hessian": hessian,
        "mixed": mixed,
    }
    return {name: place.get(value) for name, value in found.items()}


def plain(X, y, C, W, V, weights):
    g = tb.SoftmaxRegression(X, y, C, scale=1.0, backend="numpy")
    lam = np.broadcast_to(weights, y.shape).astype(W.dtype)
    hessian, mixed = g.grad_vjp(W.ravel(), lam, V.ravel())
    return {
        "losses": g.losses(W.ravel()),
        "grad": g.grad(W.ravel(), lam).reshape(W.shape),
        "hessian": hessian.reshape(W.shape),
        "mixed": mixed,
    }


def check(place, n, d, C, dtype=np.float64, weights=None):
    X, y, given, W, V = case(n, d, C, dtype)
    weights = given if weights is None else weights.astype(dtype)
    found = products(place, X, y, C, W, V, weights)
    for name, value in plain(X, y, C, W, V, weights).items():
        scale = max(np.abs(value).max(), 1.0)
        assert found[name].dtype == value.dtype, name
        assert np.abs(found[name] - value).max() <= TOL[dtype] * scale, name


def test_a_step_and_a_product_add_to_what_was_there(place):
    X, y, weights, W, V = case(9, 65, 2)  # w takes more than a block of threads
    known = plain(X, y, 2, W, V, weights)
    X, y, weights, there, v = (place.put(a) for a in (X, y, weights, W, V))
    out, h, squares = (place.put(a) for a in (np.full_like(W, np.nan), np.ones(9), np.zeros(2)))
    kernel = Softmax(X, y, 2)
    kernel.grad_step(there, weights, 0.7, -0.3, out, squares)
    expected = 0.7 * W - 0.3 * known["grad"]
    np.testing.assert_allclose(place.get(out), expected, rtol=1e-12, atol=1e-13)
    assert place.get(squares).sum() == pytest.approx((expected**2).sum(), rel=1e-12)
    kernel.vjp_step(there, v, weights, 0.7, -0.3, out, 0.5, -0.2, h, squares)
    expected = 0.7 * V - 0.3 * known["hessian"]
    np.testing.assert_allclose(place.get(out), expected, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(place.get(h), 0.5 - 0.2 * known["mixed"], rtol=1e-11, atol=1e-12)
    assert place.get(squares).sum() == pytest.approx((expected**2).sum(), rel=1e-12)


@pytest.mark.parametrize("C", [1, 2, 9, 10, 11, 21])
def test_any_number_of_classes(C, place):
    check(place, 5, 3, C)


@pytest.mark.parametrize("d", [1, 31, 32, 33, 255, 256, 257])
def test_any_number_of_features(d, place):
    check(place, 3, d, 2)


@pytest.mark.parametrize("n", [1, 7, 8, 9, 15, 16, 17, 33, 63, 64, 65])
def test_any_number_of_examples(n, place):
    check(place, n, 2, 2)


def test_more_slices_of_rows(place, monkeypatch):
    monkeypatch.setattr(module, "_SLICE", 4)
    monkeypatch.setattr(module, "_SLICES", 3)
    for n in (4, 5, 12, 13, 20):
        check(place, n, 3, 2)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_both_precisions(dtype, place):
    check(place, 19, 40, 10, dtype)


def test_one_weight_for_all_and_weights_of_zero(place):
    for weights in (np.full(1, 0.3), np.zeros(6), np.array([1.0, 0, -2, 0, 3, 0])):
        check(place, 6, 4, 3, weights=weights)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_seen(bad, place):
    X, y, weights, W, V = case(6, 4, 3)
    W[1, 2] = bad
    found = products(place, X, y, 3, W, V, weights)
    for name, value in found.items():
        assert not np.isfinite(value).all(), name


def test_huge_scores_do_not_overflow(place):
    X, y, weights, W, V = case(6, 4, 3, np.float32)
    found = products(place, X, y, 3, W * 1e4, V, weights)
    for name, value in plain(X, y, 3, W * 1e4, V, weights).items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-3, err_msg=name)


def test_the_objective_takes_them_where_it_is_told_to(place):
    X, y, weights, W, V = case(6, 4, 3)
    far = [place.put(a) for a in (W.ravel(), weights, V.ravel())]
    g = tb.SoftmaxRegression(X, y, 3, backend="numba").to("cupy")
    assert type(g.body) is Softmax
    assert type(tb.SoftmaxRegression(X, y, 3).to("cupy").body) is definition.Softmax  # too small
    expected = tb.SoftmaxRegression(X, y, 3, backend="numpy")
    assert g.value(*far[:2]) == pytest.approx(expected.value(W.ravel(), weights))
    results = g.grad(*far[:2]), *g.bound().grad_vjp(*far)
    w, lam, v = W.ravel(), weights, V.ravel()
    for found, known in zip(
        results, (expected.grad(w, lam), *expected.grad_vjp(w, lam, v)), strict=True
    ):
        np.testing.assert_allclose(place.get(found), known, rtol=1e-12, atol=1e-14)


def cleaning(T, n=9, dtype=np.float64):
    X, y, *_ = case(n + 5, 4, 3, dtype)
    problem = tb.problems.hypercleaning(
        X[:n], y[:n], X[n:], y[n:], T=T, n_classes=3, regularization=0.5
    )
    return problem.starting_at(np.linspace(-1, 1, 15, dtype=dtype))  # not from 0, as memory does


@pytest.mark.parametrize(("T", "K"), [(0, 0), (1, 0), (1, 1), (3, 0), (3, 1), (3, 2), (2, 2)])
def test_the_whole_loop(T, K, place):
    plain = cleaning(T)
    fast = tb.compile(plain.to("cupy"))
    lam = np.random.default_rng(1).standard_normal(9)
    for _ in range(1 if T > 2 else 2):  # the second time it is replayed
        found, expected = tb.KRMD(K=K)(fast, lam), tb.KRMD(K=K)(plain, lam)
        for name in ("grad", "w"):
            np.testing.assert_allclose(
                place.get(getattr(found, name)), getattr(expected, name), rtol=1e-11, atol=1e-14
            )
        np.testing.assert_allclose(found.alpha_norms, expected.alpha_norms, rtol=1e-11)
        assert found.value == pytest.approx(expected.value)
        assert found.cost == expected.cost
        lam = lam - 0.5


def test_the_loop_is_used_until_something_changes(place, monkeypatch):
    fast = tb.compile(cleaning(2).to("cupy"))
    calls = []
    run = module.Loop.run
    monkeypatch.setattr(
        module.Loop, "run", lambda self, K, **arrays: calls.append(K) or run(self, K, **arrays)
    )
    tb.KRMD(K=1)(fast)
    assert calls
    calls.clear()
    tb.KRMD(K=1, storage=tb.Checkpoint())(fast)
    tb.KRMD(K=1)(replace(fast, T=3))
    tb.KRMD(K=1)(fast, np.zeros(9, np.float32))
    tb.KRMD(K=1)(fast.to("numpy"))
    assert not calls


def test_float32_all_the_way(place):
    fast = tb.compile(cleaning(3, dtype=np.float32).to("cupy"))
    found = tb.RMD()(fast)
    assert found.grad.dtype == found.w.dtype == np.float32
    assert type(found.grad) is type(found.w) is place.array
    expected = tb.RMD()(cleaning(3, dtype=np.float32))
    np.testing.assert_allclose(place.get(found.grad), expected.grad, rtol=1e-4, atol=1e-8)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_divergence_is_explained(place):
    X, y, *_ = case(14, 4, 3)
    with pytest.warns(tb.StabilityWarning, match="does not settle"):
        problem = tb.problems.hypercleaning(
            X[:9], y[:9], X[9:], y[9:], T=4, n_classes=3, step_size=1e200, regularization=1e100
        )
    with pytest.raises(tb.DivergenceError, match="step size"):
        tb.RMD()(tb.compile(problem.to("cupy")))


def test_a_copy_records_anew(place):
    kernel = tb.compile(cleaning(1).to("cupy")).loop.kernel
    theta = place.put(np.full(9, 0.5))
    expected = [place.get(part) for part in kernel(theta, 1)]
    other = copy.copy(kernel)
    assert other is not kernel
    for found, known in zip(other(theta, 1), expected, strict=True):
        np.testing.assert_array_equal(place.get(found), known)


def test_results_outlast_the_next_run(place):
    kernel = tb.compile(cleaning(1).to("cupy")).loop.kernel
    found = kernel(place.put(np.full(9, 0.5)), 1)
    known = [place.get(part).copy() for part in found]
    kernel(place.put(np.full(9, 0.7)), 1)
    for part, before in zip(found, known, strict=True):
        np.testing.assert_array_equal(place.get(part), before)


@pytest.mark.parametrize("place", ["simulator"], indirect=True)
def test_a_run_waits_for_the_last_on_another_stream(place, monkeypatch):
    """The runs share their memory, and streams run beside each other."""
    kernel = tb.compile(cleaning(1).to("cupy")).loop.kernel
    theta = place.put(np.full(9, 0.5))
    kernel(theta, 1)
    done, other = kernel._done, Stream()
    monkeypatch.setattr(Stream, "current", other)
    kernel(theta, 1)
    assert other.waited_for == [done]


@pytest.mark.parametrize("color", ["{}", "\x1b[1m{}\x1b[0m"], ids=["plain", "bold"])
def test_a_small_grid_is_no_news(color):
    news = "Grid size 1 will likely result in GPU under-utilization due to low occupancy."

    class Kernel:
        def __getitem__(self, sizes):
            # Numba says it with its own class of warning, numba-cuda with another.
            warnings.warn(color.format(news), stacklevel=2)
            return sizes

    assert module._configured(Kernel(), (1,), 128, 0) == ((1,), 128, 0)


def test_what_cannot_be_compiled_is_named(place):
    problem = cleaning(2).to("cupy")
    loss = problem.transition.objective.terms[0][1]
    for lower in (
        loss + tb.L2Penalty(np.full(1, 0.5), groups=[0] * 12).to("cupy"),
        loss + loss,
        loss + tb.Quadratic(np.ones(12), np.zeros((12, 9))).to("cupy"),
    ):
        descent = tb.GradientDescent(lower, 0.1, problem.transition.fixed_start())
        with pytest.raises(TypeError, match="compile takes on a GPU a Quadratic, or"):
            tb.compile(replace(problem, transition=descent))
    with pytest.raises(TypeError, match="under an unweighted one"):
        tb.compile(replace(problem, upper=loss))


def test_what_is_large_is_left_to_the_devices_own_products(place, monkeypatch):
    plain = cleaning(2).to("cupy")
    compiling = import_module("tinybilevel.compiled.compile")
    monkeypatch.setattr(compiling, "_LARGEST_ON_DEVICE", 9 * 5 * 3)
    assert hasattr(tb.compile(plain), "loop")
    monkeypatch.setattr(compiling, "_LARGEST_ON_DEVICE", 9 * 5 * 3 - 1)
    assert tb.compile(plain) is plain
