import numpy as np
import pytest

import tinybilevel as tb

G, W0 = np.array([1.0, 0.5]), np.array([2.0, 2.0])


def closed_form(lam, biased=False, T=100, gamma=0.1):
    """Return ŵ* = C w_0 + (1 − C) λ and the exact gradient, C = (I − γG)ᵀ (Section 4.1)."""
    C = (1 - gamma * G) ** T
    w = C * W0 + (1 - C) * lam
    grad = (1 - C) * (2 * w + 20 * np.sin(w) * np.cos(w))
    value = w @ w + 10 * np.sin(w) @ np.sin(w)
    if biased:
        value += 5 * ((lam[0] - 1) ** 2 + lam[1] ** 2)
        grad = grad + 10 * (lam - [1, 0])
    return w, value, grad


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("T", [0, 1, 100])
def test_it_is_the_problem_of_section_4_1(biased, T):
    lam = np.array([0.7, -1.3])
    w, value, grad = closed_form(lam, biased, T)
    r = tb.RMD()(tb.problems.toy(biased=biased, T=T), lam)
    np.testing.assert_allclose(r.w, w, rtol=1e-13)
    assert r.value == pytest.approx(value, rel=1e-13)
    np.testing.assert_allclose(r.grad, grad, rtol=1e-12, atol=1e-13)


def test_its_products_are_the_papers():
    moves, lam = tb.problems.toy().transition, np.array([0.3, 0.4])
    for alpha in np.eye(2):
        A_alpha, B_alpha = moves.vjp(0, W0, lam, alpha)
        np.testing.assert_allclose(B_alpha, 0.1 * G * alpha, rtol=1e-15)
        np.testing.assert_allclose(A_alpha, (1 - 0.1 * G) * alpha, rtol=1e-15)
        np.testing.assert_array_equal(moves.initial_vjp(lam, alpha), 0)


def test_upper_gradients():
    for biased in (False, True):
        f = tb.problems.toy(biased=biased).upper
        tb.testing.assert_upper_gradients(f, [0.3, -0.8], [0.2, 0.5])
