import cases
import numpy as np
import pytest

import tinybilevel as tb

X, Y, THETA = cases.normal(0, 8, 3), np.array([0, 1, 1, 0, 1, 0, 0, 1]), np.abs(cases.normal(2, 8))
W, V = cases.normal(3, 3), cases.normal(4, 3)


def test_against_dense_formulas():
    g = tb.LogisticRegression(X, Y)
    p = 1 / (1 + np.exp(-X @ W))
    losses = -np.log(np.where(Y == 1, p, 1 - p))
    assert g.value(W, THETA) == pytest.approx(THETA @ losses / 8, rel=1e-13)
    np.testing.assert_allclose(g.grad(W, THETA), X.T @ (THETA * (p - Y)) / 8, rtol=1e-12)
    hessian, mixed = g.grad_vjp(W, THETA, V)
    np.testing.assert_allclose(hessian, X.T @ (THETA * p * (1 - p) * (X @ V)) / 8, rtol=1e-12)
    np.testing.assert_allclose(mixed, (p - Y) * (X @ V) / 8, rtol=1e-12)
    np.testing.assert_allclose(g.grad_lam(W, THETA), losses / 8, rtol=1e-12)


def test_it_is_softmax_regression_of_two_classes():
    """With W = (0, w) the scores of the two classes differ by x·w."""
    two = tb.SoftmaxRegression(X, Y, 2)
    both, along = np.concatenate([np.zeros(3), W]), np.concatenate([np.zeros(3), V])
    g = tb.LogisticRegression(X, Y)
    assert g.value(W, THETA) == pytest.approx(two.value(both, THETA), rel=1e-13)
    np.testing.assert_allclose(g.grad(W, THETA), two.grad(both, THETA)[3:], rtol=1e-12)
    for a, b in zip(g.grad_vjp(W, THETA, V), two.grad_vjp(both, THETA, along), strict=True):
        np.testing.assert_allclose(a, b[-a.size :], rtol=1e-12)
    np.testing.assert_array_equal(g.predict(W, X), two.predict(both, X))


@pytest.mark.parametrize(
    "y", [2 * Y - 1, Y.astype(float), Y == 1, Y.astype(np.uint8), list(2.0 * Y - 1)]
)
def test_labels_of_either_kind_mean_the_same(y):
    g, other = tb.LogisticRegression(X, Y), tb.LogisticRegression(X, y)
    cases.assert_same(cases.objective_calls(g, W, THETA), cases.objective_calls(other, W, THETA))
    low = 0 if min(y) >= 0 else -1
    assert set(other.predict(W, X)) == {low, 1}


@pytest.mark.parametrize(("y", "low"), [(0, 0), (-1, -1), (1, 0)])
def test_one_class_alone(y, low):
    g = tb.LogisticRegression(X, np.full(8, y))
    assert g.lower_label == low
    assert np.all(g.y == (1 if y == 1 else -1))


@pytest.mark.parametrize("backend", ["plain", "numba"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nothing_overflows_and_small_numbers_stay_exact(dtype, backend):
    if backend == "numba":
        pytest.importorskip("numba")
    g = tb.LogisticRegression(np.eye(3, dtype=dtype), [0, 1, 1], scale=1.0, backend=backend)
    one = np.ones(3, dtype)
    far = np.array([1e4, 1e4, -1e4], dtype)
    np.testing.assert_array_equal(g.losses(far), [1e4, 0, 1e4])
    np.testing.assert_array_equal(g.grad(far, one), [1, 0, -1])
    assert np.all(g.grad_vjp(far, one, one)[0] == 0)
    near = np.array([-60, 60, 60], dtype)
    tiny = np.exp(-60.0)
    np.testing.assert_allclose(g.losses(near), tiny, rtol=1e-6)
    np.testing.assert_allclose(g.grad(near, one), [tiny, -tiny, -tiny], rtol=1e-6)
    np.testing.assert_allclose(g.grad_vjp(near, one, one)[0], tiny, rtol=1e-6)


@pytest.mark.parametrize(
    ("y", "error", "message"),
    [
        (
            [0, 1, 2, 0, 1, 2, 0, 1],
            ValueError,
            r"or −1 and 1, got \[0.0, 1.0, 2.0\]; Soft",
        ),
        (np.arange(8), ValueError, r"got \[0.0, 1.0, 2.0, 3.0, 4.0\] …; SoftmaxRegression takes"),
        ([-1, 0, 1, 0, 0, 0, 0, 0], ValueError, r"got \[-1.0, 0.0, 1.0\]"),
        (Y + 1, ValueError, r"got \[1.0, 2.0\]"),
        (Y * np.nan, ValueError, r"got \[nan"),
        (
            list("aabbaabb"),
            TypeError,
            "y must hold the labels 0 and 1, .* got dtype <U1: for",
        ),
        (Y[:-1], ValueError, r"y must have shape \(8,\), got \(7,\)"),
        (Y[:, None], ValueError, r"y must have shape \(8,\), got \(8, 1\)"),
    ],
)
def test_refused(y, error, message):
    with pytest.raises(error, match=message):
        tb.LogisticRegression(X, y)


def test_labels_that_are_changed_later_change_nothing():
    y = np.array(2.0 * Y - 1)
    g = tb.LogisticRegression(X, y)
    before = g.grad(W, THETA)
    y[:] = 1
    np.testing.assert_array_equal(g.grad(W, THETA), before)
