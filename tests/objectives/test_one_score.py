"""The kernels for one score per example are the definitions, and taken only where they are."""

import sys
from functools import partial

import numpy as np
import pytest
from scipy.sparse import csr_array

import tinybilevel as tb
from tinybilevel.objectives import overlays

pytest.importorskip("numba")

from tinybilevel.kernels import softmax
from tinybilevel.kernels.one_score import OneScore
from tinybilevel.kernels.tiles import lanes

KINDS = [tb.LogisticRegression, tb.LeastSquares]
L = lanes(8)


def case(kind, n, d, dtype=np.float64, far=1.0):
    rng = np.random.default_rng(n)
    X = rng.standard_normal((n, d)).astype(dtype)
    y = rng.integers(0, 2, n) if kind is tb.LogisticRegression else X @ np.ones(d, dtype)
    (w, v), lam = (far * rng.standard_normal((2, d))).astype(dtype), rng.standard_normal(n)
    return partial(kind, X, y), w, lam.astype(dtype), v


def assert_the_definition(make, w, lam, v, **options):
    plain, fast = make(backend="plain", **options), make(backend="numba", **options)
    assert plain.body is None
    assert type(fast.body) is OneScore
    calls = {
        "losses": lambda g: g.losses(w),
        "value": lambda g: np.array(g.value(w, lam)),
        "grad": lambda g: g.grad(w, lam),
        "grad_lam": lambda g: g.grad_lam(w, lam),
        "hessian": lambda g: g.grad_vjp(w, lam, v)[0],
        "mixed": lambda g: g.grad_vjp(w, lam, v)[1],
        "jvp": lambda g: g.grad_jvp(w, lam, v, lam),
        "value in one pass": lambda g: np.array(g.value_with_grads(w, lam)[0]),
        "grad in one pass": lambda g: g.value_with_grads(w, lam)[1],
        "grad_lam in one pass": lambda g: g.value_with_grads(w, lam)[2],
    }
    for name, call in calls.items():
        found, expected = call(fast), call(plain)
        assert found.shape == expected.shape, name
        assert found.dtype == expected.dtype, name
        # An exponential multiplies what its score is rounded by with the score.
        scale, eps = np.abs(expected).max() * max(np.abs(w).max(), 1), np.finfo(w.dtype).eps
        assert np.abs(found - expected).max() <= 60 * eps * scale * w.size**0.5, name


@pytest.mark.parametrize("weighted", [True, False], ids=["weighted", "unweighted"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n", [1, 2, 9, 8 * L - 1, 8 * L, 8 * L + 1, 700])
def test_any_number_of_examples(n, kind, dtype, weighted):
    make, *rest = case(kind, n, 5, dtype)
    assert_the_definition(make, *rest, weighted=weighted, scale=0.7)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("d", [1, 2, 3, 4, 5, L, 4 * L + 1, 300])
def test_any_number_of_features(d, kind):
    assert_the_definition(*case(kind, 70, d))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("nearest", [0, 40_000])
# With half a block at the end, whole blocks, and more than the second cache holds.
@pytest.mark.parametrize("n", [2954, 3000, 8000])
def test_many_blocks_of_a_chunk_of_either_width(n, nearest, kind, monkeypatch):
    monkeypatch.setattr(softmax, "NEAREST", nearest)
    monkeypatch.setattr(softmax, "ALONE", 1)
    make, *rest = case(kind, n, 7)
    body = make(backend="numba").body
    assert body.chunks > 1
    assert body.sizes[5] == (8 if nearest else 4) * L
    assert_the_definition(make, *rest)


@pytest.mark.parametrize("far", [30.0, 1e4])
@pytest.mark.parametrize("kind", KINDS)
def test_extreme_scores(kind, far):
    assert_the_definition(*case(kind, 200, 3, far=far))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_tiny_losses_keep_their_digits(dtype):
    make, w, *_ = case(tb.LogisticRegression, 300, 3, dtype)
    g, eps, tiny = make(backend="numba"), np.finfo(dtype).eps, np.finfo(dtype).tiny
    for far in (0.0, 1.0, 20.0, 30.0):
        m = (g.y * (g.X @ (far * w))).astype(float)
        exact = np.maximum(-m, 0) + np.log1p(np.exp(-np.abs(m)))
        found = g.losses((far * w).astype(dtype))
        np.testing.assert_allclose(found, exact, rtol=300 * eps, atol=tiny)


@pytest.mark.parametrize("kind", KINDS)
def test_a_problem_with_them_has_the_same_hypergradient(kind):
    make, w, _, _ = case(kind, 40, 3)
    found = []
    for backend in ("plain", "numba"):
        descent = tb.GradientDescent(make(backend=backend), 0.1, initial=w)
        upper = make(backend=backend, weighted=False)
        problem = tb.BilevelProblem(descent, upper, T=7, hyper_map=tb.Sigmoid())
        found.append(tb.KRMD(K=5)(problem, np.linspace(-1, 1, 40)).grad)
    np.testing.assert_allclose(*found, rtol=1e-11, atol=1e-16)


def test_they_are_not_taken_for_what_they_do_not_know():
    make, w, lam, v = case(tb.LogisticRegression, 20, 3)
    X, y = make().X, make().y

    class Tilted(tb.LogisticRegression):
        def slope(self, z):
            return super().slope(z) + 1

    class Narrow(tb.LeastSquares):
        pass

    wide = X.astype(np.float32)
    for g in (
        Tilted(X, y, backend="numba"),
        Narrow(X, y, backend="numba"),
        tb.LogisticRegression(csr_array(X), y, backend="numba"),
        tb.LeastSquares(wide, y, backend="numba"),
        make(backend="numba").restrict([0, 3]),
        make(backend="numpy"),
    ):
        assert g.body is None, g
    fast, plain = tb.LogisticRegression(wide, y, backend="numba"), tb.LogisticRegression(wide, y)
    for a, b in zip(fast.grad_vjp(w, lam, v), plain.grad_vjp(w, lam, v), strict=True):
        np.testing.assert_array_equal(a, b)  # in float64
    with pytest.raises(ValueError, match=r"w must have shape \(3,\)"):
        make(backend="numba").grad(w[:2], lam)
    with pytest.raises(ValueError, match="lam must hold 20 example weights"):
        make(backend="numba").grad(w, lam[:2])


def test_auto_takes_them_for_large_data_alone(monkeypatch):
    make, *_ = case(tb.LeastSquares, 20, 3)
    for large, installed, taken in ((60, True, True), (61, True, False), (60, False, False)):
        monkeypatch.setattr(overlays, "_LARGE", large)
        monkeypatch.setattr(overlays, "find_spec", lambda name, yes=installed: yes or None)
        assert (make().body is not None) == taken


def test_a_change_of_dtype_makes_them_anew():
    make, w, lam, _ = case(tb.LogisticRegression, 20, 3)
    small = make(backend="numba").astype(np.float32)
    assert small.body.dtype == np.float32
    assert small.grad(w.astype(np.float32), lam.astype(np.float32)).dtype == np.float32


def test_a_backend_that_is_not_there(monkeypatch):
    make, *_ = case(tb.LeastSquares, 20, 3)
    with pytest.raises(ValueError, match=r'must be "auto", "plain", "numpy" or .*got \'cuda\''):
        make(backend="cuda")
    monkeypatch.setitem(sys.modules, "tinybilevel.kernels.one_score", None)
    with pytest.raises(ImportError, match="needs Numba: pip install numba"):
        make(backend="numba")
