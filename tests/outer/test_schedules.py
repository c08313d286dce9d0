"""Rates that change with the update."""

import pickle

import numpy as np
import pytest

import tinybilevel as tb


def halving(tau):
    return 0.5**tau


def test_a_cosine_goes_from_its_start_to_0_and_stays_there():
    cosine = tb.Cosine(0.3, updates=4)
    quarter = (1 + np.sqrt(0.5)) / 2
    expected = [0.3, 0.3 * quarter, 0.15, 0.3 * (1 - quarter), 0, 0]
    np.testing.assert_allclose([cosine(tau) for tau in range(1, 7)], expected, atol=1e-16)
    assert pickle.loads(pickle.dumps(cosine)) == cosine


def test_sgd_and_adam_take_any_function_of_the_update():
    lam, grad = np.zeros(2), np.array([1.0, -2.0])
    np.testing.assert_allclose(tb.SGD(halving).update(3, lam, grad, {})[0], -grad / 8, rtol=1e-15)
    for tau in (1, 4):
        optimizer, fixed = tb.Adam(halving), tb.Adam(0.5**tau)
        moved, state = optimizer.update(tau, lam, grad, optimizer.init(lam))
        expected, s = fixed.update(tau, lam, grad, fixed.init(lam))
        np.testing.assert_array_equal(moved, expected)
        np.testing.assert_array_equal(state["m"], s["m"])


def test_a_rate_keeps_float32():
    lam = np.ones(2, np.float32)
    for optimizer in (tb.Adam(tb.Cosine(0.1, 5)), tb.SGD(tb.Cosine(0.1, 5))):
        assert optimizer.update(2, lam, lam, optimizer.init(lam))[0].dtype == np.float32


@pytest.mark.parametrize(
    ("returned", "error", "message"),
    [
        (np.nan, ValueError, r"lr\(1\) must be at least 0 and finite, got nan"),
        (-0.1, ValueError, r"lr\(1\) must be at least 0 and finite, got -0.1"),
        (None, TypeError, r"lr\(1\) must be a number, got None"),
    ],
)
def test_what_a_function_returns_is_looked_at(returned, error, message):
    with pytest.raises(error, match=message):
        tb.minimize(tb.problems.toy(), optimizer=tb.Adam(lambda tau: returned), iterations=1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: tb.Cosine(0, 5), "start must be greater than 0"),
        (lambda: tb.Cosine(0.1, 0), "updates must be at least 1"),
        (lambda: tb.SGD(halving, decay=1), "decay goes with a number lr, and lr is a function"),
    ],
)
def test_wrong_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
