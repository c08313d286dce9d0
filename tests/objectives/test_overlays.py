"""One door to the overlays, and each of them held to the definition, at the boundaries as well."""

import sys
from functools import partial

import cases
import numpy as np
import pytest
from scipy.sparse import csr_array

import tinybilevel as tb
from tinybilevel.kernels import blocked_softmax
from tinybilevel.objectives import overlays
from tinybilevel.objectives.softmax import Softmax

#: Rows, features, classes: one of each, and about the ends of blocks, tiles and teams.
SIZES = [
    (1, 1, 1),
    (1, 5, 3),
    (9, 1, 3),
    (9, 5, 1),
    (9, 2, 2),
    *((16 * k + extra, 4, 3) for k in (1, 2, 8) for extra in (-1, 0, 1)),
    (33, 17, 11),
    (70, 3, 20),
]


@pytest.fixture
def small_blocks(monkeypatch):
    """Have blocks of 16 rows for d = 4 and C = 3, pieces of 8, strips of 2, for two teams."""
    monkeypatch.setattr(blocked_softmax, "_LARGE", 0)
    monkeypatch.setattr(blocked_softmax, "_BLOCK", 16 * 12)
    monkeypatch.setattr(blocked_softmax, "_PIECE", 8 * 12)
    monkeypatch.setattr(blocked_softmax, "_SUM", 5 * 12)
    monkeypatch.setattr(blocked_softmax, "_SHORTEST", 1)
    monkeypatch.setattr(blocked_softmax, "_STRIP", 2)
    monkeypatch.setattr(blocked_softmax, "_team_count", lambda work: 2)


def everything(g, w, lam, v, dlam):
    calls = {
        "losses": lambda: g.losses(w),
        "value": lambda: np.array(g.value(w, lam)),
        "grad": lambda: g.grad(w, lam),
        "grad_lam": lambda: g.grad_lam(w, lam),
        "hessian": lambda: g.grad_vjp(w, lam, v)[0],
        "mixed": lambda: g.grad_vjp(w, lam, v)[1],
        "jvp": lambda: g.grad_jvp(w, lam, v, dlam),
    }
    return {name: call().copy() for name, call in calls.items()}


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
@pytest.mark.parametrize("weighted", [True, False], ids=["weighted", "unweighted"])
@pytest.mark.parametrize("rows", ["all", "some", "bound", "remembered"])
@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_an_overlay_is_the_definition(size, backend, rows, weighted, sparse, dtype):
    if backend == "numba":
        pytest.importorskip("numba")
    n, d, C = size
    rng = np.random.default_rng(n)
    X = (rng.standard_normal((n, d)) * (rng.random((n, d)) < 0.5)).astype(dtype)
    y, index = rng.integers(0, C, n), rng.integers(0, n, n // 2 + 1)
    w, v = rng.standard_normal((2, C * d)).astype(dtype)
    lam, dlam = rng.standard_normal((2, n)).astype(dtype)
    make = partial(tb.SoftmaxRegression, csr_array(X) if sparse else X, y, C, weighted=weighted)
    plain, fast = make(backend="plain"), make(backend=backend, remember=2 * (rows == "remembered"))
    assert type(plain.body) is Softmax
    assert type(fast.body) is not Softmax
    if rows == "some":
        plain, fast = plain.restrict(index), fast.restrict(index)
    elif rows != "all":
        fast = fast.bound()
    found, expected = everything(fast, w, lam, v, dlam), everything(plain, w, lam, v, dlam)
    for name, value in expected.items():
        assert found[name].shape == value.shape, name
        assert found[name].dtype == value.dtype, name
        scale, eps = max(np.abs(value).max(), 1.0), np.finfo(dtype).eps
        # In float32 and float64 the same number of roundings, of the size of the scores.
        assert np.abs(found[name] - value).max() <= 60 * eps * scale * d**0.5, name


def test_the_definition_leaves_its_results_to_the_caller():
    g = cases.softmax(backend="plain")
    bound, (w, v), lam = g.bound(), cases.normal(1, 2, 6), cases.normal(2, 5)
    first = bound.grad_vjp(w, lam, v)
    kept = [a.copy() for a in first]
    bound.grad_vjp(v, lam, w)
    for now, before in zip(first, kept, strict=True):
        np.testing.assert_array_equal(now, before)


def body(backend, X=None, **options):
    X = np.eye(3) if X is None else X
    return tb.SoftmaxRegression(X, [0, 1, 2], backend=backend, **options).body


def test_each_backend_is_what_it_says(monkeypatch):
    pytest.importorskip("numba")
    from tinybilevel.kernels import softmax as compiled

    for X in (np.eye(3), csr_array(np.eye(3))):
        assert type(body("plain", X)) is Softmax
        assert type(body("numpy", X)) is type(body("auto", X)) is blocked_softmax.Softmax
        assert type(body("numba", X)) is compiled.Softmax
        assert type(body("numba", X).plain) is blocked_softmax.Softmax


def test_auto_takes_the_kernel_for_large_data_alone(monkeypatch):
    pytest.importorskip("numba")
    from tinybilevel.kernels.softmax import Softmax as Compiled

    monkeypatch.setattr(overlays, "_LARGE", 27)
    assert type(body("auto")) is Compiled
    assert type(body("numpy")) is blocked_softmax.Softmax
    monkeypatch.setattr(overlays, "_LARGE", 28)
    assert type(body("auto")) is blocked_softmax.Softmax
    monkeypatch.setattr(overlays, "_LARGE", 9)  # the numbers of a sparse one count
    assert type(body("auto", csr_array(np.eye(3)))) is Compiled
    monkeypatch.setattr(overlays, "_LARGE", 10)
    assert type(body("auto", csr_array(np.eye(3)))) is blocked_softmax.Softmax
    monkeypatch.setattr(overlays, "_LARGE", 0)
    monkeypatch.setattr(overlays, "find_spec", lambda name: None)
    assert type(body("auto")) is blocked_softmax.Softmax


def test_rows_of_a_plain_one_stay_plain():
    for backend, kind in (("plain", Softmax), ("numpy", blocked_softmax.Softmax)):
        g = tb.SoftmaxRegression(np.eye(3), [0, 1, 2], backend=backend)
        assert type(g.restrict([0, 1]).body) is kind
    pytest.importorskip("numba")
    g = tb.SoftmaxRegression(np.eye(3), [0, 1, 2], backend="numba")
    assert type(g.restrict([0, 1]).body) is blocked_softmax.Softmax


def test_a_backend_there_is_not():
    with pytest.raises(ValueError, match=r'must be "auto", "plain", "numpy" or .*got \'cuda\''):
        body("cuda")


def test_numba_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "tinybilevel.kernels.softmax", None)
    with pytest.raises(ImportError, match="needs Numba: pip install numba"):
        body("numba")
