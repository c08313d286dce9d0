import pickle

import cases
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinybilevel as tb

NAMES = list(cases.maps())
EXTREME = np.array([-1000.0, -40.0, -1e-300, 0.0, 1e-300, 40.0, 1000.0])


@pytest.mark.parametrize("name", NAMES)
def test_adjoints_pickle_and_strides(name):
    phi, _, lam = cases.maps()[name]
    tb.testing.assert_map_adjoints(phi, lam, tol=1e-12)
    theta = phi(lam)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(phi))(lam), theta)
    np.testing.assert_allclose(phi(np.repeat(lam, 2)[::2]), theta, rtol=1e-14)


@pytest.mark.parametrize(
    "phi", [tb.Identity(), tb.Sigmoid(), tb.Exp(), tb.Softplus(), tb.Affine(2)]
)
@settings(deadline=None, derandomize=True, max_examples=10)
@given(n=st.integers(0, 8), seed=st.integers(0, 99))
def test_any_size_and_dtype(phi, n, seed):
    for dtype in (np.float32, np.float64):
        lam = cases.normal(seed, n, dtype=dtype)
        for result in (phi(lam), phi.vjp(lam, lam), phi.jvp(lam, lam)):
            assert result.dtype == dtype
            assert result.shape == (n,)
    tb.testing.assert_map_adjoints(phi, cases.normal(seed, n), seed=seed)


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


def test_compose_applies_in_the_order_given():
    phi = tb.Compose(tb.Affine(2.0), tb.Exp(), tb.Affine(1.0, 3.0))
    np.testing.assert_allclose(phi(np.array([0.5])), np.exp(1.0) + 3, rtol=1e-15)


m = tb.Affine


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: m([True]), TypeError, "A must be float32 or float64, got dtype bool"),
        (lambda: m(np.ones((2, 2, 2))), ValueError, "A must be a number, a vector or a matrix"),
        (lambda: m([1.0, np.inf]), ValueError, "A must be finite"),
        (lambda: m(1.0, [[1.0]]), ValueError, "b must have 1 dimension"),
        (lambda: m(np.ones((2, 3)), np.ones(3)), ValueError, r"b must have shape \(2,\), got \(3,"),
        (lambda: m(np.ones(3), np.ones(2)), ValueError, r"b must have shape \(3,\), got \(2,\)"),
        (lambda: m(np.ones(3))(np.ones(1)), ValueError, r"lam must have shape \(3,\), got \(1,\)"),
        (lambda: m(np.ones(1))(np.ones(3)), ValueError, r"lam must have shape \(1,\), got \(3,\)"),
        (lambda: m(np.ones((2, 3)))(np.ones(2)), ValueError, r"lam must have shape \(3,\)"),
        (lambda: m(2.0, np.ones(3))(np.ones(1)), ValueError, r"b must have shape \(1,\), got \(3,"),
        (lambda: tb.Compose(), ValueError, "Compose needs at least one map"),
        (lambda: tb.Compose(np.exp), TypeError, "Compose takes a HyperMap such as Exp"),
        (lambda: tb.Compose(tb.Exp), TypeError, "Compose takes a HyperMap such as Exp"),
    ],
)
def test_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("method", ["__call__", "vjp", "jvp"])
def test_a_subclass_that_does_not_define_a_method_says_so(method):
    arguments = [np.ones(1)] * (1 if method == "__call__" else 2)
    with pytest.raises(TypeError, match="HyperMap must define __call__, vjp and jvp"):
        getattr(tb.HyperMap(), method)(*arguments)
