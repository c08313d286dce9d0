import numpy as np
import pytest

import tinybilevel as tb

EXTREME = np.array([-1000.0, -40.0, -1e-300, 0.0, 1e-300, 40.0, 1000.0])


def test_formulas():
    lam = np.linspace(-5, 5, 11)
    np.testing.assert_allclose(tb.Sigmoid()(lam), 1 / (1 + np.exp(-lam)), rtol=1e-14)
    np.testing.assert_allclose(tb.Softplus()(lam), np.log(1 + np.exp(lam)), rtol=1e-13)
    np.testing.assert_array_equal(tb.Exp()(lam), np.exp(lam))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_extreme_values_give_neither_warnings_nor_nan(dtype):
    lam = EXTREME.astype(dtype)
    one = np.ones_like(lam)
    theta, slope = tb.Sigmoid()(lam), tb.Sigmoid().vjp(lam, one)
    np.testing.assert_array_equal(theta[[0, 3, -1]], [0, 0.5, 1])
    np.testing.assert_array_equal(slope[[0, 3, -1]], [0, 0.25, 0])
    np.testing.assert_array_equal(slope, slope[::-1])
    theta, slope = tb.Softplus()(lam), tb.Softplus().vjp(lam, one)
    np.testing.assert_array_equal(theta[[0, -1]], [0, 1000])
    np.testing.assert_array_equal(slope[[0, -1]], [0, 1])
    assert (tb.Exp()(lam[:-1]) >= 0).all()


def test_exp_says_when_it_overflows():
    with pytest.warns(RuntimeWarning, match="overflow"):
        tb.Exp()(np.array([1000.0]))


def test_sigmoid_and_softplus_keep_relative_precision_in_the_tail():
    lam = np.array([-700.0, -100.0])
    np.testing.assert_allclose(tb.Sigmoid()(lam), np.exp(lam), rtol=1e-14)
    np.testing.assert_allclose(tb.Softplus()(lam), np.exp(lam), rtol=1e-14)


def test_an_overflow_is_traced_to_its_entry():
    lam = np.array([0.0, 800.0, 900.0])
    assert tb.Exp().blame(lam) == "Exp makes inf of 800, entry 1"
