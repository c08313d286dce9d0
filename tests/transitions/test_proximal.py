import cases
import numpy as np
import pytest

import tinybilevel as tb

G = tb.Quadratic([1.0, 1.0, 1.0])
LAM, W = np.array([2.0, 0.1, -2.0]), np.zeros(3)


def test_soft_threshold_by_hand():
    # z = γλ = (1, 0.05, −1), κ = γτ = 0.25
    descent = tb.ProximalGradient(G, 0.5, W, l1=0.5)
    np.testing.assert_allclose(descent.step(0, W, LAM), [0.75, 0, -0.75], rtol=1e-15)
    A, B = descent.vjp(0, W, LAM, np.ones(3))
    np.testing.assert_allclose(A, [0.5, 0, 0.5], rtol=1e-15)
    np.testing.assert_allclose(B, [0.5, 0, 0.5], rtol=1e-15)


@pytest.mark.parametrize(
    "name", [name for name in cases.transitions() if name.startswith("proximal")]
)
def test_the_shared_cases_hold_both_kinds_of_coordinates(name):
    transition, w, lam = cases.transitions()[name]
    active = transition.step(0, w, lam) != 0
    assert active.any()
    assert not active.all()


def test_it_minimises_the_penalised_objective():
    descent, w = tb.ProximalGradient(G, 0.5, W, l1=0.5), W
    for t in range(80):
        w = descent.step(t, w, LAM)
    np.testing.assert_allclose(w, [1.5, 0, -1.5], rtol=1e-12)


@pytest.mark.parametrize("w", [np.zeros(3), np.array([1.0, 0.0, -1.0])])
def test_a_threshold_of_zero_is_gradient_descent(w):
    # Also where z = 0 exactly: soft(z, 0) = z has the derivative 1 there.
    proximal, plain = tb.ProximalGradient(G, 0.5, w, l1=0.0), tb.GradientDescent(G, 0.5, w)
    for lam in (LAM, np.zeros(3), w):
        cases.assert_same(
            cases.transition_calls(proximal, w, lam), cases.transition_calls(plain, w, lam)
        )


def test_the_derivative_on_the_threshold_is_zero():
    descent = tb.ProximalGradient(G, 0.5, W, l1=2.0)  # κ = 1 = |z|
    A, B = descent.vjp(0, W, LAM, np.ones(3))
    assert not A.any()
    assert not B.any()


@pytest.mark.parametrize("l1", [-0.1, np.nan])
def test_bad_l1(l1):
    with pytest.raises(ValueError, match="l1 must be finite and at least 0, got"):
        tb.ProximalGradient(G, 0.5, W, l1=l1)
