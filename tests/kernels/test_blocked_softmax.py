"""The sums over blocks and threads are those over all rows at once."""

import copy
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from itertools import product
from pathlib import Path

import cases
import numpy as np
import pytest
from scipy.sparse import csr_array

from tinybilevel.kernels import blocked_softmax
from tinybilevel.kernels.blocked_softmax import Softmax
from tinybilevel.kernels.threads import threads

C, D = 3, 4


@pytest.fixture(params=[1, 2, 3])
def blocked(request, monkeypatch):
    """Have data of any size go to so many teams, in blocks of at most 16 rows, 2 at a time."""
    monkeypatch.setattr(blocked_softmax, "_LARGE", 0)
    monkeypatch.setattr(blocked_softmax, "_BLOCK", 16 * C * D)
    monkeypatch.setattr(blocked_softmax, "_PIECE", 16 * C * 3)
    monkeypatch.setattr(blocked_softmax, "_SUM", 17 * C * 3)
    monkeypatch.setattr(blocked_softmax, "_EVEN", 5)
    monkeypatch.setattr(blocked_softmax, "_STRIP", 2)
    monkeypatch.setattr(blocked_softmax, "_team_count", lambda work: request.param)


def data(n, dtype=np.float64):
    X, y = cases.normal(0, n, D, dtype=dtype), np.random.default_rng(1).integers(0, C, n)
    W, V = cases.normal(2, 2, C, D, dtype=dtype)
    weights, dweights = cases.normal(3, 2, n, dtype=dtype)
    return X, y, W, V, weights, dweights


def results(sums, W, V, weights, dweights):
    """Return every product, copied from working memory that the next one may take."""
    kept = sums.room()
    calls = [
        lambda: [sums.losses(W)],
        lambda: [sums.grad(W, weights)],
        lambda: [sums.grad(W, weights[:1])],
        lambda: sums.grad_vjp(W, V, weights),
        lambda: [sums.grad_jvp(W, V, weights, dweights)],
        lambda: [sums.grad(W, weights, kept)],
        lambda: sums.grad_vjp(W * np.nan, V, weights, kept),
    ]
    return [result.copy() for call in calls for result in call()]


def assert_close(found, expected, rtol=1e-12):
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=rtol)
    for one, other in zip(found[3:5], found[7:], strict=True):  # with a softmax that was kept
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [5, 6, 7, 11, 16, 17, 31, 32, 33, 48, 64, 65, 96, 97, 128, 241, 333])
def test_any_number_of_rows(n, dtype, blocked):
    X, y, *rest = data(n, dtype)
    whole = Softmax(csr_array(X), y, C)  # a sparse X is taken at once
    assert len(whole._teams) == 1
    sums = Softmax(X, y, C)
    parts = [part for team in sums._teams for part in team]
    assert all(part.block for part in parts) == (n > 6)
    assert sorted(i for part in parts for i in range(n)[part.rows]) == list(range(n))
    tol = 1e-12 if dtype is np.float64 else 1e-4
    assert_close(results(sums, *rest), results(whole, *rest), tol)
    bound = sums.bound()
    for _ in range(2):  # the second time in memory that is not new
        assert_close(results(bound, *rest), results(whole, *rest), tol)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("n", "teams"), [(9, 1), (10, 2), (39, 2), (79, 4), (83, 8)])
def test_wide_rows_are_shared_as_they_are(n, teams, dtype, blocked, monkeypatch):
    monkeypatch.setattr(blocked_softmax, "_team_count", lambda work: 8)
    monkeypatch.setattr(blocked_softmax, "_SHORTEST", 17)
    monkeypatch.setattr(blocked_softmax, "_LONG", 10)
    monkeypatch.setattr(blocked_softmax, "blas_can_be_alone", lambda: True)
    monkeypatch.setattr(blocked_softmax, "blas_alone", nullcontext)
    X, y, *rest = data(n, dtype)
    sums, whole = Softmax(X, y, C), Softmax(csr_array(X), y, C)
    assert [len(team) for team in sums._teams] == [1] * teams
    tol = 1e-12 if dtype is np.float64 else 1e-4
    for body in (sums, sums.bound()):
        assert_close(results(body, *rest), results(whole, *rest), tol)
    monkeypatch.setattr(blocked_softmax, "blas_can_be_alone", lambda: False)
    assert len(Softmax(X, y, C)._teams) == 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [1, 2, 90, 91, 92, 93, 183, 700])
def test_two_classes_have_one_score(n, dtype):
    X, W, V = cases.normal(0, n, 101, dtype=dtype), *cases.normal(2, 2, 2, 101, dtype=dtype)
    y, weights = np.random.default_rng(1).integers(0, 2, n), cases.normal(3, 2, n, dtype=dtype)
    sums, whole = Softmax(X, y, 2), Softmax(csr_array(X), y, 2)
    assert [type(s._teams[0][0]).__name__ for s in (sums, whole)] == ["_TwoClasses", "_Part"]
    tol = 1e-12 if dtype is np.float64 else 1e-4
    for body in (sums, sums.bound(), sums.bound()):
        assert_close(results(body, W, V, *weights), results(whole, W, V, *weights), tol)
    for infinite in (np.inf, -np.inf):
        with np.errstate(invalid="ignore"):
            assert np.isnan(sums.grad(W * [[1], [infinite]], weights[0])).any()


def test_what_is_not_blocked(blocked, monkeypatch):
    X, y, *_ = data(64)
    helpers = blocked_softmax._team_count(64)
    assert len(Softmax(X, y, C)._teams) == helpers
    assert Softmax(X, y, C)._teams[0][0].block == 16
    assert Softmax(X[:16], y[:16], C)._teams[0][0].block == 16
    for other in (np.asfortranarray(X), np.repeat(X, 2, axis=1)[:, ::2], X[:5]):
        assert [part.block for part in Softmax(other, y[: len(other)], C)._teams[0]] == [0]
    for least, teams in ((64 * C * D + 1, 1), (64 * C * D, helpers)):
        monkeypatch.setattr(blocked_softmax, "_LARGE", least)
        assert len(Softmax(X, y, C)._teams) == teams
    for most, block in ((16 * C * D - 1, 0), (64 * C * D, 64), (64 * C * D - 1, 32)):
        monkeypatch.setattr(blocked_softmax, "_BLOCK", most)
        monkeypatch.setattr(blocked_softmax, "_SUM", 65 * C * 3)
        assert Softmax(X, y, C)._teams[0][0].block == block


@pytest.mark.parametrize("blocked", [2], indirect=True)
def test_the_shares_are_even_and_end_at_different_times(blocked):
    teams = Softmax(*data(64 * 16)[:2], C)._teams
    rows = [[part.labels.size for part in team] for team in teams]
    assert sum(rows[0]) == sum(rows[1])
    assert rows[0][0] < rows[1][0] == 2 * 16


def test_real_sizes_go_in_blocks_that_BLAS_does_in_place():
    for n, d, block in (
        (5000, 785, 100),
        (1000, 785, 100),
        (1000, 65, 1000),
        (300, 65, 300),
        (200, 65, 0),
    ):
        sums = Softmax(np.zeros((n, d), np.float32), np.zeros(n, int), 10)
        assert sums._teams[0][0].block == block
        assert len(sums._teams) == (2 if n == 5000 else 1)


@pytest.mark.parametrize("shape", [(10, 785), (785, 10), (2, 5000), (5000, 2), (200, 200)])
@pytest.mark.parametrize("n", [1, 17, 99, 321, 5001])
@pytest.mark.parametrize("most", [262_144, 1_000_000])
def test_no_product_is_large_enough_for_the_threads_of_BLAS(most, n, shape, monkeypatch):
    scores, sums_over_rows, matmul = [0], [0], np.matmul
    monkeypatch.setattr(blocked_softmax, "_SUM", most)

    def noted(a, b, out):
        seen = scores if b.strides[-1] > b.strides[-2] else sums_over_rows
        seen.append(a.shape[-2] * a.shape[-1] * b.shape[-1])
        return matmul(a, b, out=out)

    classes, d = shape
    sums = Softmax(np.zeros((n, d), np.float32), np.zeros(n, int), classes)
    monkeypatch.setattr(blocked_softmax.np, "matmul", noted)
    W = np.zeros(shape, np.float32)
    sums.grad_vjp(W, W, np.ones(1, np.float32))
    assert max(scores) <= 262_144
    assert max(sums_over_rows) <= most
    assert len(scores) > 1 or classes == 2


@pytest.mark.parametrize("shape", [(10, 785), (785, 10), (2, 785), (2, 7), (10, 4000), (100, 513)])
@pytest.mark.parametrize("most", [262_144, 1_000_000])
def test_no_piece_is_one_row_or_column_alone(most, shape, monkeypatch):
    monkeypatch.setattr(blocked_softmax, "_SUM", most)
    C, d = shape
    limits = [(C * d, 262_144)] + [(d, 9_215)] * (d <= 575)
    for n, (size, limit) in product(range(2, 300), limits):
        pieces = blocked_softmax._pieces_of_rows(n, size, limit)
        assert sum(at.stop - at.start for at, _ in pieces) == n
        assert all(1 < rows <= limit // size for _, rows in pieces)
    for block in range(16, min(800_000 // (C * d), most // (3 * min(shape)) - 1) + 2):
        pieces = blocked_softmax._pieces_of_W(block, C, d)
        lengths = [len(range(max(shape))[c if d < C else j]) for c, j in pieces]
        assert sum(lengths) == max(shape)
        assert all(1 < k <= most // (block * min(shape)) for k in lengths)


# A gradient, products, minibatches and the upper level, as a user without compiled code runs them.
CPU = """
import time
import numpy as np
import tinybilevel as tb

rng = np.random.default_rng(0)
X, y = rng.random((2121, 784)).astype(np.float32), rng.integers(0, 10, 2121)
whole = tb.problems.hypercleaning(X, y, X[:500], y[:500], T=3, step_size=0.01, backend="numpy")
digits = tb.problems.hypercleaning(X[:1500, :64], y[:1500], X[:1000, :64], y[:1000], T=20)
batches = tb.minibatches(2121, 100, 20, seed=0)
g = whole.transition.objective
drawn = tb.GradientDescent(g, 0.01, np.zeros(7850, np.float32), batches=batches)
drawn = tb.BilevelProblem(drawn, whole.upper, 20, hyper_map=tb.Sigmoid(), lam0=whole.lam0)
problems = whole, digits, drawn
for problem in problems:
    tb.KRMD(K=1)(problem)
costs = []
for _ in range(3):
    start = time.process_time()
    for problem in problems:
        tb.KRMD(K=2)(problem)
    costs.append(time.process_time() - start)
print(min(costs))
"""


@pytest.mark.skipif(threads() < 2, reason="BLAS has one thread on one core")
@pytest.mark.parametrize("kernels", ["Haswell", "SkylakeX"])
def test_CPU_time_does_not_grow_with_the_threads_of_BLAS(kernels):
    if kernels == "SkylakeX" and not cpu_has("avx512f"):
        pytest.skip("this CPU has no AVX-512, which those kernels need")
    if not cpu_has("avx2"):
        pytest.skip("this CPU has no AVX2, or does not say")
    cost = {}
    for count in ("1", ""):
        env = {**os.environ, "OPENBLAS_CORETYPE": kernels, "OPENBLAS_NUM_THREADS": count}
        command = [sys.executable, "-c", CPU]
        if not count:
            del env["OPENBLAS_NUM_THREADS"]
        run = subprocess.run(command, env=env, check=True, timeout=300, capture_output=True)
        cost[count] = float(run.stdout)
    assert cost[""] < 2.5 * cost["1"]


def cpu_has(flag):
    try:
        return flag in Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return False


def test_blocks_are_views_and_pickles_hold_X_once(blocked):
    X, y, *rest = data(200)
    sums = Softmax(X, y, C)
    assert all(np.shares_memory(part.X, X) for team in sums._teams for part in team)
    assert len(pickle.dumps((sums, X))) < X.nbytes + y.nbytes + 2000
    for other in (pickle.loads(pickle.dumps(sums)), copy.deepcopy(sums)):
        assert_close(results(other, *rest), results(sums, *rest), 0)


def test_from_many_threads_at_once(blocked):
    X, y, *rest = data(200)
    sums = Softmax(X, y, C)
    expected = results(sums, *rest)
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(lambda _: results(sums.bound(), *rest), range(50)):
            assert_close(found, expected, 0)


def test_numpy_keeps_its_buffer_and_what_it_warns_of(blocked):
    X, y, W, V, weights, dweights = data(200)
    before, size = np.getbufsize(), 4096
    np.setbufsize(size)
    with np.errstate(invalid="ignore", over="ignore"):
        found = results(Softmax(X, y, C), W * np.inf, V, weights, dweights)
    assert np.isnan(found[1]).all()
    with np.errstate(invalid="raise"), pytest.raises(FloatingPointError, match="invalid value"):
        Softmax(X, y, C).grad(W * np.inf, weights)
    Softmax(X, y, C).grad(W, weights)
    assert np.setbufsize(before) == size
