import numpy as np
import pytest

from tinybilevel.measure.spectra import DENSE, eigenvalue_ends, singular_ends


def symmetric(values, seed=0):
    Q, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((len(values), len(values))))
    return (Q * values) @ Q.T


@pytest.mark.parametrize("size", [1, 5, DENSE, DENSE + 1, 400])
@pytest.mark.parametrize(("low", "high"), [(0.01, 1.0), (-3.0, 2.0), (-5.0, -1.0), (0.5, 0.5)])
def test_eigenvalues_within_their_error(size, low, high):
    values = np.linspace(low, high, size) if size > 1 else np.array([low])
    H = symmetric(values)
    ends = eigenvalue_ends(lambda v: H @ v, size)
    for found, true in ((ends.low, values[0]), (ends.high, values[-1])):
        assert abs(found.value - true) <= found.error + 1e-12 * 5
        assert found.error <= 1e-5
        assert (found.error == 0) == (size <= DENSE) or low == high


@pytest.mark.parametrize("shape", [(3, 7), (7, 3), (4, 4), (120, 300), (300, 120), (150, 20)])
def test_singular_values_within_their_error(shape):
    A = np.random.default_rng(1).standard_normal(shape)
    ends = singular_ends(lambda v: A @ v, lambda u: A.T @ u, shape)
    true = np.linalg.svd(A, compute_uv=False)
    assert abs(ends.high.value - true[0]) <= ends.high.error + 1e-12 * true[0]
    assert abs(ends.low.value - true[-1]) <= ends.low.error + 1e-12 * true[0]
    assert ends.rank == (min(shape) if min(shape) <= DENSE else None)


def test_the_rank_of_a_small_operator():
    A = np.outer(np.arange(1.0, 5.0), np.ones(3)) + np.outer(np.ones(4), [1.0, 0.0, 0.0])
    assert singular_ends(lambda v: A @ v, lambda u: A.T @ u, A.shape).rank == 2
    assert singular_ends(lambda v: 0 * (A @ v), lambda u: A.T @ u, A.shape).rank == 0


@pytest.mark.parametrize("scale", [1e-150, 1e-20, 1e20, 1e150])
def test_a_rank_does_not_depend_on_units(scale):
    A = scale * np.outer(np.arange(1.0, 5.0), np.ones(3))
    assert singular_ends(lambda v: A @ v, lambda u: A.T @ u, A.shape).rank == 1


@pytest.mark.parametrize("size", [4, DENSE + 50])
def test_a_zero_operator(size):
    low, high, _ = eigenvalue_ends(np.zeros_like, size)
    assert (low.value, high.value) == (0, 0)
    low, high, _ = singular_ends(np.zeros_like, np.zeros_like, (size, size))
    assert (low.value, high.value) == (0, 0)
