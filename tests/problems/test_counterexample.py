import numpy as np
import pytest

import tinybilevel as tb


def test_it_is_the_problem_of_theorem_3_5():
    """f = ½ŵ² + ½ρ(λ − b)², ŵ = (1 − q)λ with q = (1 − γ)^T."""
    problem = tb.problems.counterexample(T=7, step_size=0.2, coupling=3.0, target=-2.0)
    lam, q = np.array([0.7]), 0.8**7
    r = tb.RMD()(problem, lam)
    np.testing.assert_allclose(r.w, (1 - q) * lam)
    assert r.value == pytest.approx(((1 - q) * 0.7) ** 2 / 2 + 3 * 2.7**2 / 2)
    np.testing.assert_allclose(r.grad, (1 - q) ** 2 * lam + 3 * (lam + 2))
    np.testing.assert_array_equal(problem.lam0, [-2.0])


def test_its_derivatives():
    problem = tb.problems.counterexample(coupling=0.3)
    tb.testing.assert_upper_gradients(problem.upper, [1.3], [0.4])
    tb.testing.assert_transition_adjoints(problem.transition, [1.3], [0.4])


def test_all_assumptions_but_the_third_hold_where_it_stops():
    problem = tb.problems.counterexample()
    for K in (1, 5, 30):
        end = tb.bounds.theorem_3_5(problem, K)
        c = tb.bounds.certificate(problem, [end.lam], tb.KRMD(K=K), exact=True)
        assert [a.name[0] for a in c.missing] == ["3"]


@pytest.mark.parametrize("coupling", [0, -1.0, np.nan])
def test_coupling_must_be_positive(coupling):
    with pytest.raises(ValueError, match="coupling must be greater than 0, got"):
        tb.problems.counterexample(coupling=coupling)


def test_a_target_of_0_shows_nothing():
    with pytest.raises(ValueError, match="target must not be 0"):
        tb.problems.counterexample(target=0)
