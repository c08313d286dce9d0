import numpy as np
import pytest

import tinybilevel as tb


def test_sgd_is_the_papers_rate():
    lam, state = np.array([1.0, -2.0]), {}
    for tau in (1, 2, 3):
        grad = np.array([0.5, 1.0]) * tau
        expected = lam - 0.3 / np.sqrt(tau) * grad
        lam, state = tb.SGD(0.3).update(tau, lam, grad, state)
        np.testing.assert_allclose(lam, expected, rtol=1e-15)
    np.testing.assert_array_equal(
        tb.SGD(0.3, decay=0).update(9, lam, grad, {})[0], lam - 0.3 * grad
    )


def test_adam_is_the_papers_algorithm():
    rng = np.random.default_rng(0)
    lam, optimizer = rng.standard_normal(3), tb.Adam(0.1, beta1=0.8, beta2=0.9, eps=1e-3)
    state, grads = optimizer.init(lam), rng.standard_normal((4, 3))
    for tau in range(1, 5):
        # The moments as sums over the history, not as the recurrence that is tested.
        ages = np.arange(tau)[::-1, None]
        m = (0.2 * 0.8**ages * grads[:tau]).sum(axis=0) / (1 - 0.8**tau)
        s = (0.1 * 0.9**ages * grads[:tau] ** 2).sum(axis=0) / (1 - 0.9**tau)
        expected = lam - 0.1 * m / (np.sqrt(s) + 1e-3)
        lam, state = optimizer.update(tau, lam, grads[tau - 1], state)
        np.testing.assert_allclose(lam, expected, rtol=1e-12)


def test_adam_stays_put_and_finite_without_a_gradient():
    lam = np.zeros(2, np.float32)
    moved, state = tb.Adam(0.1).update(1, lam, lam, tb.Adam(0.1).init(lam))
    np.testing.assert_array_equal(moved, 0)
    assert moved.dtype == state["m"].dtype == np.float32


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: tb.SGD(0), "lr must be greater than 0"),
        (lambda: tb.SGD(np.nan), "lr must be greater than 0"),
        (lambda: tb.SGD(1, decay=-1), "decay must be at least 0 and finite, got -1"),
        (lambda: tb.SGD(1, decay=np.inf), "decay must be at least 0 and finite, got inf"),
        (lambda: tb.Adam(-0.1), "lr must be greater than 0"),
        (lambda: tb.Adam(beta1=1), r"beta1 must lie in \[0, 1\), got 1"),
        (lambda: tb.Adam(eps=0), "eps must be greater than 0"),
    ],
)
def test_wrong_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: tb.SGD("0.1"), "lr"),
        (lambda: tb.SGD(np.ones(2)), "lr"),
        (lambda: tb.SGD(True), "lr"),
        (lambda: tb.SGD(0.1, decay=None), "decay"),
        (lambda: tb.Adam(beta1="0.9"), "beta1"),
        (lambda: tb.Adam(eps=None), "eps"),
    ],
)
def test_what_is_no_number_is_named(make, name):
    with pytest.raises(TypeError, match=f"{name} must be a number, got "):
        make()
