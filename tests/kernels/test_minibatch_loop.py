"""Batches in chunks, taken by several threads, give what one thread gives."""

import pickle

import numpy as np
import pytest
from scipy.sparse import csr_array

import tinybilevel as tb
from tinybilevel.testing import relative_error

pytest.importorskip("numba")

from tinybilevel.kernels.batch_rows import Rows
from tinybilevel.kernels.pool import pool

N, D, C, T = 400, 22, 5, 7


@pytest.fixture(autouse=True)
def every_batch_is_shared(monkeypatch):
    monkeypatch.setattr("tinybilevel.kernels.batch_rows.ALONE", 1)
    monkeypatch.setattr("tinybilevel.kernels.batch_rows.SHORTEST", 8)
    monkeypatch.setattr("tinybilevel.kernels.batch_rows._FEW", 0)  # no `TouchedColumns`
    monkeypatch.setattr("tinybilevel.kernels.minibatch_loop.helpers", lambda most: most - 1)


ALGORITHMS = {
    "descent": (tb.GradientDescent, {}),
    "Nesterov": (tb.Nesterov, {"momentum": 0.7}),
    "Adam": (tb.AdamTransition, {"eps": 1e-2}),
    "proximal": (tb.ProximalGradient, {"l1": 0.02}),
}


def problem(algorithm="descent", kind="softmax", sparse=False, learned=False, weighted=True, d=D):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((N, d)) * (rng.random((N, d)) < 0.4)
    X, y = csr_array(X) if sparse else X, rng.integers(0, C, N)
    if kind == "softmax":
        loss = tb.SoftmaxRegression(X, y, C, weighted=weighted)
    else:
        loss = tb.LogisticRegression(X, y % 2, weighted=weighted)
    g = 0.7 * loss.on(slice(0, N)) + tb.L2Penalty(0.1)
    if learned:
        g = g + tb.L2Penalty().on(slice(N, N + 1))
    # Examples that come twice, batches of few rows, and one of a single row.
    batches = [rng.integers(0, N, size) for size in (300, 64, 1, 9, 150, 299, 300)]
    made, given = ALGORITHMS[algorithm]
    descent = made(g, 0.2, rng.standard_normal(loss.size) / 9, batches=batches, **given)
    f = type(loss)(loss.X, loss.y, *([C] if kind == "softmax" else []), weighted=False)
    return tb.BilevelProblem(
        descent, f, T=T, hyper_map=tb.Sigmoid(), lam0=rng.standard_normal(N + 1)
    )


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("learned", [True, False])
@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("kind", ["softmax", "logistic"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_chunks_are_the_plain_code(algorithm, kind, sparse, learned, weighted):
    plain = problem(algorithm, kind, sparse, learned, weighted)
    fast = tb.compile(plain)
    assert fast.loop.kernel.chunks > 1
    for method in (tb.KRMD(K=0), tb.KRMD(K=1), tb.KRMD(K=3), tb.RMD()):
        a, b = method(fast), method(plain)
        for name in ("w", "grad", "alpha_norms"):
            assert relative_error(getattr(a, name), getattr(b, name)) < 1e-12, name
        assert a._restless == b._restless


@pytest.mark.parametrize("patience", [0, 20, None])
@pytest.mark.parametrize("threads", [1, 2, 3, 8])
@pytest.mark.parametrize(
    ("algorithm", "kind", "sparse", "learned"),
    [
        ("descent", "softmax", False, False),
        ("descent", "logistic", True, True),
        ("Nesterov", "softmax", True, True),
        ("Adam", "logistic", False, False),
    ],
)
def test_the_same_bits_for_any_number_of_threads_that_overtake_each_other(
    algorithm, kind, sparse, learned, threads, patience
):
    # Of 500 columns w is several pieces.
    one, other = (tb.compile(problem(algorithm, kind, sparse, learned, d=500)) for _ in range(2))
    one.loop.kernel.threads = 1
    expected = tb.KRMD(K=5)(one)
    kernel = other.loop.kernel
    assert kernel.pieces == (4 if kind == "softmax" else 1)
    kernel.threads = threads
    kernel.patience = kernel.patience if patience is None else patience
    for _ in range(5):
        found = tb.KRMD(K=5)(other)
        np.testing.assert_array_equal(found.grad, expected.grad)
        np.testing.assert_array_equal(found.alpha_norms, expected.alpha_norms)


def test_a_chunk_whose_thread_does_not_come_back_is_done_by_another(late):
    fast = tb.compile(problem())
    fast.loop.kernel.threads = 2
    expected = tb.KRMD(K=2)(fast)
    overtaken = late()
    found = tb.KRMD(K=2)(fast)
    assert overtaken == [True, True]
    np.testing.assert_array_equal(found.grad, expected.grad)


@pytest.mark.parametrize("algorithm", ["descent", "Nesterov"])
def test_no_step_that_is_looked_at_again_is_overwritten(algorithm):
    """Whoever is late with a chunk writes the softmax of its own step."""
    fast = tb.compile(problem(algorithm))
    loop, theta = fast.loop, fast.hyper_map(fast.lam0)
    for K in (0, 1, 4):
        _, run = loop.kernel.forward(
            loop.transition.initial(theta).reshape(-1, C * D), loop._numbers(theta), K
        )
        assert len(run.ring) == max(K, 1) + 1
        assert len(run.points) == (len(run.ring) if algorithm == "Nesterov" else 0)
        assert run.held == sum(x.nbytes for x in (run.ring, run.points, run.kept))


def test_a_batch_of_lams_takes_one_thread_each_and_a_single_one_all(monkeypatch):
    taken, share = [], pool.share
    monkeypatch.setattr(
        pool, "share", lambda helpers, *work: taken.append(helpers) or share(helpers, *work)
    )
    fast = tb.compile(problem())
    fast.loop.kernel.threads = 2
    lams = np.random.default_rng(1).standard_normal((3, N + 1))
    values, grads = tb.KRMD(K=3).batch(fast, lams)
    assert set(taken) == {0}
    taken.clear()
    one = tb.KRMD(K=3).batch(fast, lams[:1])
    assert set(taken) == {1}
    assert one[0][0] == values[0]
    np.testing.assert_array_equal(one[1][0], grads[0])


def test_a_pickle_shares_its_batches_too():
    fast = tb.compile(problem())
    copy = pickle.loads(pickle.dumps(fast))
    assert copy.loop.kernel.chunks == fast.loop.kernel.chunks
    np.testing.assert_array_equal(tb.RMD()(copy).grad, tb.RMD()(fast).grad)


def test_how_many_chunks_a_batch_has(monkeypatch):
    monkeypatch.setattr("tinybilevel.kernels.batch_rows.ALONE", 10_000)
    dense = Rows(np.ones((8, 64), np.float32), 3)
    assert [dense.chunks(size) for size in (8, 104)] == [(1, 1), (1, 1)]
    assert dense.chunks(105) == (8, 2)  # of 20,160 multiply-adds
    monkeypatch.setattr("tinybilevel.kernels.batch_rows.SHORTEST", 64)
    # Even numbers, two at least where two threads repay.
    assert [dense.chunks(size)[0] for size in (105, 200, 300, 9999)] == [2, 2, 4, 8]
    text = csr_array((np.ones(800), np.arange(800) % 50, np.arange(0, 801, 8)), (100, 50))
    sums = [Rows(text, 1, loss=1, targets=np.zeros(100)).chunks(size) for size in (20, 900, 9000)]
    assert sums == [(1, 1), (8, 11), (8, 115)]
    wide = csr_array((np.ones(800), np.arange(800) % 50, np.arange(0, 801, 8)), (100, 5000))
    sums = [Rows(wide, 1, loss=1, targets=np.zeros(100)).chunks(size)[0] for size in (900, 9000)]
    assert sums == [2, 4]  # each sum has 5000 columns
