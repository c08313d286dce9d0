import numpy as np
import pytest

import tinybilevel as tb
from tinybilevel.testing import relative_error

RNG = np.random.default_rng(0)
V, D = 4, 3


@pytest.fixture
def point():
    return RNG.standard_normal((V, D)), RNG.random((V, V))


def printed(W, C):
    """Return Σ_{i,j} C_ij ‖w_i − w_j‖² over ordered pairs, term by term."""
    pairs = ((i, j) for i in range(len(W)) for j in range(len(W)))
    return sum(C[i, j] * ((W[i] - W[j]) ** 2).sum() for i, j in pairs)


def test_it_sums_over_ordered_pairs(point):
    W, C = point
    value = tb.PairwisePenalty(V, D).value(W.ravel(), C.ravel())
    assert value == pytest.approx(printed(W, C), rel=1e-13)


def test_a_symmetric_matrix_gives_four_times_its_laplacian(point):
    W, C = point
    C = C + C.T
    expected = 4 * (np.diag(C.sum(axis=1)) - C) @ W
    found = tb.PairwisePenalty(V, D).grad(W.ravel(), C.ravel())
    assert relative_error(found, expected.ravel()) <= 1e-14


def test_the_diagonal_has_no_effect(point):
    W, C = point
    g = tb.PairwisePenalty(V, D)
    other = (C + np.diag(RNG.random(V))).ravel()
    assert g.value(W.ravel(), other) == pytest.approx(g.value(W.ravel(), C.ravel()), rel=1e-13)
    mixed = g.grad_vjp(W.ravel(), other, RNG.standard_normal(V * D))[1]
    np.testing.assert_allclose(np.diag(mixed.reshape(V, V)), 0, atol=1e-14)


def test_free_columns_are_left_alone(point):
    W, C = point
    free, whole = tb.PairwisePenalty(V, D, n_free=1), tb.PairwisePenalty(V, D - 1)
    part = W[:, :-1].ravel()
    assert free.value(W.ravel(), C.ravel()) == whole.value(part, C.ravel())
    grad = free.grad(W.ravel(), C.ravel()).reshape(V, D)
    np.testing.assert_array_equal(grad[:, :-1].ravel(), whole.grad(part, C.ravel()))
    np.testing.assert_array_equal(grad[:, -1], 0)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: tb.PairwisePenalty(0, 3), ValueError, "n_vectors must be at least 1, got 0"),
        (lambda: tb.PairwisePenalty(2, 3, n_free=4), ValueError, "n_free must be at most n_feat"),
        (
            lambda: tb.PairwisePenalty(2, 3).grad(np.ones(5), np.ones(4)),
            ValueError,
            r"w must have shape \(6,\) = 2 × 3, got \(5,\)",
        ),
        (
            lambda: tb.PairwisePenalty(2, 3).grad(np.ones(6), np.ones(1)),
            ValueError,
            r"lam must hold C, 2 × 2 = 4 numbers, got \(1,\)",
        ),
    ],
)
def test_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
