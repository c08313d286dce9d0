import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinybilevel.testing import checks, dot_error, relative_error, taylor_slope


@settings(deadline=None, derandomize=True, max_examples=30)
@given(m=st.integers(1, 8), n=st.integers(1, 8), seed=st.integers(0, 99))
def test_dot_error_tells_a_transpose_from_all_else(m, n, seed):
    rng = np.random.default_rng(seed)
    J, x, y = rng.standard_normal((m, n)), rng.standard_normal(n), rng.standard_normal(m)
    assert dot_error(J @ x, y, x, J.T @ y) < 1e-14
    wrong = J.T @ y + 1e-6 * x  # always seen: ⟨x, x⟩ > 0
    assert dot_error(J @ x, y, x, wrong) > 1e-9


def test_dot_error_of_zero_sign_and_nan():
    one, none = np.ones(2), np.zeros(2)
    assert dot_error(none, one, one, none) == 0
    assert dot_error(one, one, one, -one) == pytest.approx(2)
    assert dot_error(none, one, one, one) == pytest.approx(1)
    for bad in (np.array([np.nan, 0]), np.array([np.inf, 0])):
        for pair in ((bad, none), (none, bad), (one, bad), (bad, one)):
            assert not dot_error(pair[0], one, one, pair[1]) <= 1e-12


def test_relative_error_of_zero_shape_and_nan():
    one, none = np.ones(2), np.zeros(2)
    assert relative_error(none, none) == 0
    assert relative_error(one, none) == 1
    assert relative_error(one, np.ones(1)) == np.inf
    for bad in (np.array([np.nan, 0]), np.array([np.inf, 0])):
        for pair in ((bad, none), (none, bad), (one, bad)):
            assert not relative_error(*pair) <= 1e-12


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_slopes_of_a_known_function(scale, shift):
    def f(h):
        return scale * np.exp(shift + h)

    slope, size = f(0), 2 * f(0)
    assert abs(taylor_slope(lambda h: f(h) - f(0), size) - 1) < 0.1
    assert abs(taylor_slope(lambda h: f(h) - f(0) - 1.01 * h * slope, size) - 1) < 0.1
    assert abs(taylor_slope(lambda h: f(h) - f(0) - h * slope, size) - 2) < 0.1
    assert abs(taylor_slope(lambda h: f(h) - f(0) - h * slope * (1 + h / 2), size) - 3) < 0.1
    assert taylor_slope(lambda h: 0 * h, size) == np.inf
    assert taylor_slope(lambda h: 1e-17 * size, size) == np.inf


def test_slope_where_the_function_leaves_its_domain():
    def log(h):
        return np.log(0.1 - h) - np.log(0.1) + 10 * h

    assert abs(taylor_slope(log, 1.0) - 2) < 0.1  # NaN at the large steps only
    assert np.isnan(taylor_slope(lambda h: np.nan, 1.0))
    assert np.isnan(taylor_slope(lambda h: np.inf, 1.0))


def test_directions_are_dense_and_scaled_to_what_they_move():
    rng = np.random.default_rng(0)
    assert checks.direction(rng, np.zeros(5)).all()
    assert 50 < np.std(checks.direction(rng, np.full(1000, 100.0))) < 150
    assert 0.9 < np.std(checks.direction(rng, np.full(1000, 1e-3))) < 1.1
    assert checks.direction(rng, np.zeros(0)).shape == (0,)
