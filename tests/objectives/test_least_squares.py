import cases
import numpy as np
import pytest

import tinybilevel as tb

X, Y, THETA = cases.normal(0, 8, 3), cases.normal(1, 8), np.abs(cases.normal(2, 8))


def test_against_dense_formulas():
    g, w, v = tb.LeastSquares(X, Y), cases.normal(3, 3), cases.normal(4, 3)
    D, r = np.diag(THETA), X @ w - Y
    assert g.value(w, THETA) == pytest.approx(0.5 * r @ D @ r / 8, rel=1e-13)
    np.testing.assert_allclose(g.grad(w, THETA), X.T @ D @ r / 8, rtol=1e-12)
    hessian, mixed = g.grad_vjp(w, THETA, v)
    np.testing.assert_allclose(hessian, X.T @ D @ X @ v / 8, rtol=1e-12)
    np.testing.assert_allclose(mixed, r * (X @ v) / 8, rtol=1e-12)
    np.testing.assert_allclose(g.grad_lam(w, THETA), r**2 / 16, rtol=1e-12)


def test_the_gradient_vanishes_at_the_solution_of_numpy():
    root = np.sqrt(THETA)
    best = np.linalg.lstsq(root[:, None] * X, root * Y)[0]
    g = tb.LeastSquares(X, Y)
    np.testing.assert_allclose(g.grad(best, THETA), 0, atol=1e-15)
    np.testing.assert_allclose(g.predict(best, X), X @ best, rtol=1e-15)


def test_whole_targets_are_numbers():
    g = tb.LeastSquares(np.eye(2), [1, 3], weighted=False)
    np.testing.assert_array_equal(g.grad(np.zeros(2), np.zeros(0)), [-0.5, -1.5])


def test_targets_that_are_changed_later_change_nothing():
    y = np.array(Y)
    g, w = tb.LeastSquares(X, y), np.zeros(3)
    before = g.grad(w, THETA)
    y[:] = 0
    np.testing.assert_array_equal(g.grad(w, THETA), before)


@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        (Y[:-1], ValueError, r"y must have shape \(8,\), got \(7,\)"),
        (Y[:, None], ValueError, r"y must have shape \(8,\), got \(8, 1\)"),
        (Y * np.nan, ValueError, "y must be finite, got 8 NaN or inf"),
        (list("abcdefgh"), TypeError, "y must be float32 or float64, got dtype <U1"),
    ],
)
def test_refused(y, error, message):
    with pytest.raises(error, match=message):
        tb.LeastSquares(X, y)
