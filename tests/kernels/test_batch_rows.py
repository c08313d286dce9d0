"""Scores and sums over rows that are read where they lie are those of a copy of the rows."""

import numpy as np
import pytest
from scipy.sparse import csr_array

from tinybilevel.testing import relative_error

pytest.importorskip("numba")

from tinybilevel.kernels.batch_rows import Rows, add_up, scores


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("count", "d", "C"),
    [(1, 1, 1), (3, 7, 2), (4, 16, 4), (5, 17, 5), (8, 65, 6), (9, 130, 10), (2, 31, 17)],
)
def test_rows_are_read_where_they_lie(count, d, C, dtype, sparse):
    rng = np.random.default_rng(0)
    X = (rng.standard_normal((20, d)) * (rng.random((20, d)) < 0.5)).astype(dtype)
    X[3] = 0
    index = rng.integers(0, 20, count)
    index[-1] = 3 if count > 2 else index[-1]
    rows = Rows(csr_array(X) if sparse else X, C)
    W = rng.standard_normal((C, d)).astype(dtype)
    flat = rows.spread(W.reshape(1, -1))[0]
    assert relative_error(rows.gather(flat[None])[0], W.ravel()) == 0
    S = np.full((count, rows.stride), np.nan, dtype)
    scores(rows.data, index, flat, rows.sizes, S.reshape(-1))
    tol = 1e-6 if dtype == np.float32 else 1e-14
    assert np.abs(S[:, :C] - X[index] @ W.T).max() < 10 * tol * (1 + np.abs(X[index] @ W.T).max())

    R = np.zeros((count, rows.stride), dtype)
    R[:, :C] = rng.standard_normal((count, C))
    G = rows.spread(W.reshape(1, -1))[0]
    add_up(rows.data, index, R.reshape(-1), rows.sizes, G)
    expected = W + R[:, :C].T @ X[index]
    assert relative_error(rows.matrix(G), expected) < 10 * tol


def test_padded_rows_are_shared_and_sparse_ones_may_name_a_column_twice():
    X = np.arange(6.0).reshape(2, 3)
    padded = np.zeros((2, 8))
    padded[:, :3] = X
    assert np.shares_memory(Rows(X, 2, padded).data[0], padded)

    twice = csr_array((np.ones(3), [1, 1, 0], [0, 2, 3]), shape=(2, 2))
    rows, S = Rows(twice, 1), np.zeros(16)
    scores(rows.data, np.arange(2), rows.spread(np.array([[10.0, 1.0]]))[0], rows.sizes, S)
    assert S[:: rows.stride][:2].tolist() == [2, 10]
