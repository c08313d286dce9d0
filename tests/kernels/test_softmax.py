"""The compiled products of softmax regression equal the plain ones, at every size and layout."""

import copy
import os
import pickle
import subprocess
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scipy.sparse import csr_array

import tinybilevel as tb

pytest.importorskip("numba")

from tinybilevel.kernels import softmax as module
from tinybilevel.kernels.softmax import Softmax
from tinybilevel.kernels.tiles import ROWS, lanes

TOL = {np.float64: 2e-14, np.float32: 4e-6}


def case(n, d, C, dtype=np.float64, *, density=1.0, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, d)) * (rng.random((n, d)) < density)
    y, weights = rng.integers(0, C, n), rng.random(n)
    W, V = rng.standard_normal((2, C, d))
    return (X.astype(dtype), y, *(a.astype(dtype) for a in (weights, W, V)))


def products(kernel, W, V, weights):
    hessian, mixed = kernel.grad_vjp(W, V, weights)
    losses, grad = kernel.losses(W).copy(), kernel.grad(W, weights).copy()
    for one, other in zip(kernel.losses_and_grad(W, weights), (losses, grad), strict=True):
        np.testing.assert_array_equal(one, other)
    return {
        "losses": losses,
        "grad": grad,
        "hessian": hessian,
        "mixed": mixed,
    }


def from_kept(kernel, W, V, weights):
    """Return the products by a softmax that the gradient has kept; W is not looked at again."""
    kept = kernel.room()
    kernel.grad(W, weights, kept)
    hessian, mixed = kernel.grad_vjp(W * np.nan, V, weights, kept)
    return {"hessian": hessian, "mixed": mixed}


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


def assert_equal(found, expected, tol):
    for name, value in expected.items():
        # mixed and losses are differences of scores, by whose size their rounding goes.
        scale = max(np.abs(value).max(), 1.0)
        assert found[name].shape == value.shape, name
        assert found[name].dtype == value.dtype, name
        assert np.abs(found[name] - value).max() <= tol * scale, name


#: Rows of X whole, or across the vectors; the nonzeros of X, by groups of columns or one by one.
LAYOUTS = {
    "dense": (False, 1.0),
    "across": (False, 1.0),
    "groups": (True, 1.0),
    "singles": (True, 0.15),
}


OPTIONS = [{"across": False}, {"across": True}, {"sparse": True}]


def check(n, d, C, dtype=np.float64, *, layout):
    sparse, density = LAYOUTS[layout]
    X, y, weights, W, V = case(n, d, C, dtype, density=density)
    kernel = Softmax(X, y, C, sparse=sparse, across=layout == "across")
    found, expected = products(kernel, W, V, weights), plain(X, y, C, W, V, weights)
    tol = TOL[dtype] * max(d, 10) ** 0.5
    assert_equal(found, expected, tol)
    kept = from_kept(kernel, W, V, weights)
    assert_equal(kept, {name: expected[name] for name in kept}, tol)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("C", [1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 16, 17, 33])
def test_any_number_of_classes(C, layout):
    check(13, 7, C, layout=layout)


L = lanes(8)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "d", [1, 2, L - 1, L, L + 1, 2 * L, 4 * L - 1, 4 * L, 4 * L + 1, 5 * L, 8 * L + 3]
)
def test_any_number_of_features(d, layout):
    check(9, d, 3, layout=layout)


@pytest.mark.parametrize("vectors", [15, 16, 17, 95, 96, 97, 165])
def test_rows_that_are_taken_in_parts(vectors):
    for d in (vectors * L - 1, vectors * L):
        check(9, d, 7, layout="dense")


def test_a_long_w():
    check(300, 1040, 101, layout="dense")
    assert Softmax(np.ones((300, 1040)), np.zeros(300, int), 101).chunks == 3


def test_rows_do_not_lie_a_large_power_of_two_apart():
    for vectors, apart in ((15, 15), (16, 17), (17, 17), (128, 129)):
        kernel = Softmax(np.ones((4, vectors * L)), np.zeros(4, int), 7, across=False)
        assert kernel.padded.shape == (4, apart * L)
        assert not kernel.padded[:, vectors * L :].any()


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "n", [1, 2, ROWS - 1, ROWS, ROWS + 1, 8 * ROWS - 1, 8 * ROWS, 8 * ROWS + 1, 9 * ROWS, 67, 257]
)
def test_any_number_of_examples(n, layout):
    check(n, 5, 3, layout=layout)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("extra", [-1, 0, 1])
def test_around_the_boundary_of_a_block(extra, layout, monkeypatch):
    monkeypatch.setattr(module, "_BLOCK", 8 * 8 * L)  # 8 rows of one vector
    monkeypatch.setattr(module, "_SPARSE_ROWS", 8)
    check(8 * 8 * 3 + extra, L, 6, layout=layout)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_real_sizes_in_both_precisions(dtype, layout):
    check(700, 785, 10, dtype, layout=layout)


def test_zeros_are_skipped_where_that_pays():
    X, y, *_ = case(100, 50, 10, density=0.1)
    for given, skipped in ((X, True), (np.ones_like(X), False), (csr_array(X * 0 + 1), True)):
        assert (Softmax(given, y, 10).X[-1].size > 0) == skipped


def test_examples_lie_across_the_vectors_where_classes_are_few_or_rows_short():
    y = np.arange(10) % 2
    for d, C, across in ((785, 4, True), (785, 5, False), (270, 10, True), (280, 10, False)):
        kernel = Softmax(np.ones((10, d), np.float32), y, C)
        assert (kernel.sizes[-1] > 0) == across, (d, C)


def test_small_data_have_one_thread(monkeypatch):
    monkeypatch.setattr(module, "cores", lambda: 8)
    for n, d, C, threads in (
        (100, 100, 2, 1), (8000, 120, 2, 1), (8192, 128, 2, 2), (2048, 128, 3, 1),
        (4096, 128, 3, 3), (40_000, 128, 2, 8),
    ):  # fmt: skip
        assert Softmax(np.ones((n, d), np.float32), np.arange(n) % C, C).threads == threads
        assert Softmax(np.ones((n, d)), np.arange(n) % 2, 2, threads=3).threads == 3


def test_adjacent_nonzeros_are_taken_together_where_there_are_many():
    rng = np.random.default_rng(0)
    runs = np.repeat(rng.random((64, 20)) < 0.3, 4, axis=1)[:, 2:]
    y = rng.integers(0, 10, 64)
    for X, together in ((runs * 1.0, True), ((rng.random((64, 78)) < 0.2) * 1.0, False)):
        data, index, *_ = Softmax(X, y, 10).X
        assert (data.size == 4 * index.size) == together
        assert (data.size == index.size) != together


def test_a_run_of_nonzeros_is_cut_into_fours_from_where_it_begins():
    X, y, weights, W, V = case(4, 12, 3)
    # The third begins where the second would go on.
    runs = [slice(3, 8), slice(0, 12), slice(11, 12), slice(9, 12)]
    for row, run in zip(X, runs, strict=True):
        row[: run.start] = row[run.stop :] = 0
    kernel = Softmax(X, y, 3, sparse=True)
    assert kernel.X[1].size == 2 + 3 + 1 + 1
    assert_equal(products(kernel, W, V, weights), plain(X, y, 3, W, V, weights), 1e-13)


@pytest.mark.parametrize(("density", "chunks"), [(0.002, 1), (0.009, 2), (0.026, 3), (0.5, 8)])
def test_few_nonzeros_in_many_columns_come_in_few_chunks_of_long_blocks(
    density, chunks, monkeypatch
):
    # A second thread repays from half of the second density on.
    monkeypatch.setattr(module, "ALONE", 1500 * 400 * 3 // 2 * 0.005)
    X, y, weights, W, V = case(1500, 400, 3, density=density)
    kernel = Softmax(csr_array(X), y, 3)
    assert kernel.chunks == chunks
    tol = TOL[np.float64] * 20
    assert_equal(products(kernel, W, V, weights), plain(X, y, 3, W, V, weights), tol)


def test_sparse_matrices_with_empty_rows_explicit_zeros_and_duplicates():
    X, y, weights, W, V = case(40, 30, 4, density=0.3)
    X[::3] = 0
    X[:, 5] = 0
    rows, columns = X.nonzero()
    values = X[rows, columns]
    twice = csr_array(
        (np.r_[values / 2, values / 2, 0.0], (np.r_[rows, rows, 1], np.r_[columns, columns, 5])),
        shape=X.shape,
    )
    found = products(Softmax(twice, y, 4), W, V, weights)
    assert_equal(found, plain(X, y, 4, W, V, weights), 1e-13)


@pytest.mark.parametrize("zero", [slice(0, 100), slice(200, 300), slice(0, 400)])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_blocks_of_zeros(zero, layout):
    sparse, density = LAYOUTS[layout]
    X, y, weights, W, V = case(400, 6, 3, density=density)
    X[zero] = 0
    found = products(Softmax(X, y, 3, sparse=sparse, across=layout == "across"), W, V, weights)
    assert_equal(found, plain(X, y, 3, W, V, weights), 1e-13)


@pytest.mark.parametrize("options", OPTIONS)
def test_layouts_and_read_only_arrays(options):
    X, y, weights, W, V = case(30, 20, 5, density=0.5)
    expected = plain(X, y, 5, W, V, weights)
    for change in (np.asfortranarray, lambda a: np.repeat(a, 2, axis=-1)[..., ::2]):
        arrays = [change(a) for a in (X, W, V)]
        for a in arrays:
            a.flags.writeable = False
        kernel = Softmax(arrays[0], change(y), 5, sparse=options)
        assert_equal(products(kernel, *arrays[1:], weights), expected, 1e-13)


@pytest.mark.parametrize("options", OPTIONS)
def test_one_weight_for_all_and_weights_of_zero(options):
    X, y, weights, W, V = case(30, 20, 5, density=0.5)
    kernel = Softmax(X, y, 5, sparse=options)
    for given in (np.full(1, 0.3), np.zeros(30), np.where(weights < 0.5, 0, -weights)):
        assert_equal(products(kernel, W, V, given), plain(X, y, 5, W, V, given), 1e-13)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("options", OPTIONS)
def test_huge_scores_do_not_overflow(dtype, options):
    X, y, weights, W, V = case(20, 6, 3, dtype)
    W *= 1e4
    found = products(Softmax(X, y, 3, sparse=options), W, V, weights)
    expected = plain(X, y, 3, W, V, weights)
    for name, value in expected.items():
        assert np.isfinite(value).all()
        np.testing.assert_allclose(
            found[name], value, rtol=1e-4, atol=1e-4 * np.abs(value).max(), err_msg=name
        )


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_seen(bad, options):
    X, y, weights, W, V = case(20, 6, 3)
    W[1, 2] = bad
    found = products(Softmax(X, y, 3, sparse=options), W, V, weights)
    for name in ("losses", "grad", "hessian", "mixed"):
        assert not np.isfinite(found[name]).all(), name


@pytest.mark.parametrize("options", OPTIONS)
def test_the_same_bits_for_any_number_of_threads(options):
    X, y, weights, W, V = case(500, 40, 10, np.float32)
    one = products(Softmax(X, y, 10, **options, threads=1), W, V, weights)
    for threads in (1, 2, 3, 12):
        again = products(Softmax(X, y, 10, **options, threads=threads), W, V, weights)
        for name, value in one.items():
            np.testing.assert_array_equal(again[name], value)


def test_many_python_threads_at_once():
    X, y, weights, W, V = case(300, 40, 10)
    kernel = Softmax(X, y, 10, threads=2)
    expected = products(kernel, W, V, weights)

    def run(_):
        return products(kernel.bound(), W, V, weights)

    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(run, range(40)):
            for name, value in expected.items():
                np.testing.assert_array_equal(found[name], value)


def test_a_pickle_and_a_copy():
    X, y, weights, W, V = case(30, 20, 5)
    kernel = Softmax(X, y, 5)
    expected = products(kernel, W, V, weights)
    for other in (pickle.loads(pickle.dumps(kernel)), copy.deepcopy(kernel.bound())):
        assert_equal(products(other, W, V, weights), expected, 0)
        for array in (other.X[0], *(other._buffers or ())):
            assert array.ctypes.data % 64 == 0


FORK = """
import os, threading
import numpy as np
from tinybilevel.kernels.softmax import Softmax

rng = np.random.default_rng(0)
X, y, W = rng.random((300, 40)), rng.integers(0, 10, 300), rng.random((10, 40))
kernel = Softmax(X, y, 10, threads=2)
before = kernel.losses(W)
child = os.fork()
if child == 0:
    same = (kernel.losses(W) == before).all()
    os._exit(0 if same and threading.active_count() == 2 else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_starts_threads_of_its_own():
    # In a process of its own: libraries that other tests load warn of forks.
    subprocess.run([sys.executable, "-W", "ignore", "-c", FORK], check=True, timeout=60)


def test_bound_to_a_call_it_allocates_nothing():
    X, y, weights, W, V = case(3000, 400, 10, np.float32)
    kernel = Softmax(X, y, 10).bound()
    kernel.grad(W, weights)
    kernel.grad_vjp(W, V, weights)
    tracemalloc.start()
    try:
        kernel.grad(W, weights)
        kernel.grad_vjp(W, V, weights)
        assert tracemalloc.get_traced_memory()[1] < 8192
    finally:
        tracemalloc.stop()
