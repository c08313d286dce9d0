import numpy as np
import pytest
import theory_cases
from hypothesis import given, settings

import tinybilevel as tb
from tinybilevel.bounds import equation_9, equation_10, measure, proposition_3_1


@settings(max_examples=60, deadline=None)
@given(theory_cases.problems())
def test_neither_bound_is_ever_violated(case):
    problem, _ = case
    constants = measure(problem)
    scale = np.linalg.norm(tb.RMD()(problem).grad) + 1
    for K in range(problem.T + 1):
        b = proposition_3_1(problem, K=K, constants=constants)
        assert not b.missing
        rounding = 1e-13 * (scale + b.grad_norm * b.M_B)
        for bound in (b.eq_9, b.eq_10, b.a_posteriori):
            assert b.error <= bound * (1 + 1e-12) + rounding


def scalar(T=100, curvature=1.0, gamma=0.2):
    """Return a problem for which eq. (10) is all but an equality: one direction, and B_0 = 0."""
    moves = tb.GradientDescent(tb.Quadratic(np.array([curvature])), gamma, initial=np.zeros(1))
    upper = theory_cases.linear_upper(np.array([3.0]))
    return tb.BilevelProblem(moves, upper, T=T, lam0=np.ones(1))


@pytest.mark.parametrize("K", [0, 1, 5, 30])
@pytest.mark.parametrize(("curvature", "gamma"), [(1.0, 0.2), (0.5, 0.5), (4.0, 0.05)])
def test_equation_10_is_tight(K, curvature, gamma):
    b = proposition_3_1(scalar(curvature=curvature, gamma=gamma), K=K)
    assert 0.99 <= b.error / b.eq_10 <= 1
    assert 1 - 1e-9 <= b.error / b.a_posteriori <= 1 + 1e-9
    assert pytest.approx(gamma * curvature) == b.M_B
    assert b.grad_norm == 3


@pytest.mark.parametrize("K", [0, 1, 5])
def test_equation_9_is_tight_on_the_states_that_its_proof_uses(K):
    """Convex from w_{T−K} on, every step before it doubles: the sum is 2^{T−K+1} − 1."""
    T = 8 + K
    problem = theory_cases.kinked(T, doublings=8)
    error = np.linalg.norm(tb.KRMD(K=K)(problem).grad - tb.RMD()(problem).grad)
    bound = equation_9(K, T, gamma=1.0, alpha=0.01, grad_norm=1.0, M_B=0.5)
    assert error / bound == pytest.approx(1 - 0.5**9, rel=1e-9)


def test_equation_9_is_within_a_factor_of_2_as_printed():
    """The printed window has w_{T−K−1} too, where the proof yet counts a factor of 2."""
    b = proposition_3_1(theory_cases.kinked(T=14, doublings=8, slope=0.001), K=5)
    assert b.eq_10 is None, "not convex everywhere"
    assert 0.49 <= b.error / b.eq_9 <= 0.5
    assert b.bound == b.eq_9


def test_both_sides_are_made_of_what_they_say():
    """Each constant where it varies along the way."""
    problem, K = theory_cases.softmax(T=12, l2=0.05), 5
    c = measure(problem).given(alpha=0.05 + 0.01 * np.arange(13))
    b = proposition_3_1(problem, K=K, constants=c)
    exact, truncated = tb.RMD()(problem), tb.KRMD(K=K)(problem)
    assert b.error == np.sqrt(((exact.grad - truncated.grad) ** 2).sum())
    near, everywhere = 0.11, 0.05
    values = dict(gamma=c.gamma, grad_norm=b.grad_norm, M_B=max(c.B_norms[:8]))
    assert b.eq_9 == pytest.approx(equation_9(K, 12, alpha=near, **values), rel=1e-13)
    assert b.eq_10 == pytest.approx(equation_10(K, alpha=everywhere, **values), rel=1e-13)


def test_the_window_of_equation_9_begins_at_T_minus_K_minus_1():
    """w_9 is the last state of the concave part."""
    problem = theory_cases.kinked(T=15, doublings=10)
    assert proposition_3_1(problem, K=4).eq_9 is not None  # from w_10
    at_fault = proposition_3_1(problem, K=5)  # from w_9
    assert at_fault.eq_9 is None
    assert [a.name for a in at_fault.missing] == ["α > 0 on w_{T−K−1} … w_T", "α > 0 on w_0 … w_T"]


def test_M_B_takes_in_B_0_and_leaves_out_the_last_K():
    """B_0 is 7 times the others; the learned batch-free step never sees it again."""
    lower = tb.Quadratic(np.ones(1))
    start = (lambda lam: 7 * lam, lambda lam, alpha: 7 * alpha)
    problem = tb.BilevelProblem(
        tb.GradientDescent(lower, 0.5, initial=start),
        theory_cases.linear_upper(np.ones(1)),
        T=4,
        lam0=np.ones(1),
    )
    assert proposition_3_1(problem, K=0).M_B == 7
    assert proposition_3_1(problem, K=4).M_B == 7
    # With w_0 fixed, T−K = 0 leaves B_0 = 0 alone: nothing was left out, and the bound is 0.
    exact = proposition_3_1(problem.starting_at(np.ones(1)), K=4)
    assert (exact.M_B, exact.eq_10, exact.error) == (0, 0, 0)


def test_the_equations_by_hand():
    values = dict(gamma=0.1, alpha=0.5, grad_norm=2.0, M_B=3.0)
    assert equation_10(2, **values) == pytest.approx(0.95**2 / 0.05 * 6)
    assert equation_9(2, 5, **values) == pytest.approx(2**4 * 0.95**2 * 6)
    assert equation_9(0, 5000, **values) == np.inf
    one_step = dict(gamma=0.1 + 0.2, alpha=1 / 0.3, grad_norm=1.0, M_B=1.0)
    assert equation_10(3, **one_step) == 0


def test_known_constants_take_the_place_of_measured_ones():
    problem = scalar()
    b = proposition_3_1(problem, K=3, alpha=0.5, beta=2.0)
    assert b.eq_10 == pytest.approx(equation_10(3, gamma=0.2, alpha=0.5, grad_norm=3, M_B=0.2))
    said = {a.name: a.measured for a in b.assumptions}
    assert said["γ ≤ 1/β"] == "γβ = 0.4, β = 2 (given)"
    assert said["α > 0 on w_0 … w_T"] == "α = 0.5 (given)"
    assert not proposition_3_1(problem, K=3, beta=6.0).assumptions[1].holds
    with pytest.raises(ValueError, match="alpha must be finite, got nan"):
        proposition_3_1(problem, alpha=np.nan)


@pytest.mark.parametrize(("K", "error"), [(101, ValueError), (-1, ValueError), (1.5, TypeError)])
def test_a_wrong_depth_is_refused(K, error):
    with pytest.raises(error, match="K must be"):
        proposition_3_1(scalar(), K=K)


def test_no_promise_without_gradient_descent():
    moves = tb.HeavyBall(tb.Quadratic(np.ones(1)), 0.1, np.zeros(1), momentum=0.5)
    problem = tb.BilevelProblem(moves, theory_cases.smooth_upper(), T=5, lam0=np.ones(1))
    b = proposition_3_1(problem)
    assert b.bound is None
    assert [a.holds for a in b.assumptions] == [False, None, None, None]
    assert b.error <= b.a_posteriori
