import numpy as np
import pytest

import tinybilevel as tb

RNG = np.random.default_rng(0)


def test_it_is_the_penalty_of_section_4_3():
    w, c, rho = RNG.standard_normal(5), RNG.standard_normal(5), np.array([0.5, 2.0])
    expected = 0.5 * ((w - c)[:2] ** 2).sum() + 2.0 * ((w - c)[2:] ** 2).sum()
    g = tb.ProximityPenalty([2, 3])
    assert g.value(w, np.concatenate([c, rho])) == pytest.approx(expected, rel=1e-14)


def test_without_a_pull_it_is_l2_penalty_with_groups():
    w, rho, v = RNG.standard_normal(5), np.array([0.5, 2.0]), RNG.standard_normal(5)
    lam = np.concatenate([np.zeros(5), rho])
    g, ridge = tb.ProximityPenalty([2, 3]), tb.L2Penalty(groups=[0, 0, 1, 1, 1])
    np.testing.assert_allclose(g.grad(w, lam), ridge.grad(w, rho), rtol=1e-14)
    by_rho = g.grad_vjp(w, lam, v)[1][5:]
    np.testing.assert_allclose(by_rho, ridge.grad_vjp(w, rho, v)[1], rtol=1e-14)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tb.ProximityPenalty([]), "sizes must not be empty"),
        (lambda: tb.ProximityPenalty([2, 0]), "sizes must be at least 1, got 0"),
        (
            lambda: tb.ProximityPenalty([2, 3]).grad(np.ones(5), np.ones(6)),
            r"w must hold 5 numbers and lam 7, got \(5,\) and \(6,\)",
        ),
    ],
)
def test_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
