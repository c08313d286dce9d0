"""Each checker passes where the statement holds, and fails, saying why, where it does not."""

import cases
import numpy as np
import pytest
import theory_cases
from hypothesis import given, settings

import tinybilevel as tb
from tinybilevel.testing import (
    assert_converges_to_stationary_point,
    assert_descent_direction,
    assert_truncation_bound,
)


@settings(max_examples=30, deadline=None)
@given(theory_cases.problems())
def test_the_bound_holds_on_random_problems(case):
    problem, K = case
    b = assert_truncation_bound(problem, K=K)
    assert b.K == K


def test_the_bound_on_real_digits():
    problem = theory_cases.digits(T=3)
    whole = tb.GradientDescent(problem.transition.objective, 0.1, np.zeros(problem.upper.size))
    batchless = tb.BilevelProblem(
        whole, problem.upper, T=3, hyper_map=tb.Sigmoid(), lam0=problem.lam0
    )
    b = assert_truncation_bound(batchless, K=2)
    assert 0 < b.error < b.eq_10


class Sabotaged(tb.GradientDescent):
    """Gradient descent with a fault in its vjp."""

    def vjp(self, t, w, lam, alpha):
        A_alpha, B_alpha = super().vjp(t, w, lam, alpha)
        return 2 * alpha - A_alpha, B_alpha  # α + γHα


def test_a_wrong_sign_in_the_adjoint_breaks_the_bound():
    toy = tb.problems.toy()
    moves = Sabotaged(toy.transition.objective, 0.1, initial=np.array([2.0, 2.0]))
    with pytest.raises(AssertionError, match=r"is above the bound \(10\)"):
        assert_truncation_bound(tb.BilevelProblem(moves, toy.upper, T=100, lam0=toy.lam0), K=20)


@pytest.mark.parametrize(("alpha", "ok"), [(0.25, True), (0.5, True), (0.9, False)])
def test_a_claim_about_alpha_is_checked(alpha, ok):
    problem = tb.problems.toy()
    if ok:
        assert_truncation_bound(problem, K=30, alpha=alpha)
    else:
        with pytest.raises(AssertionError, match=r"\(10\) = .* for K = 30"):
            assert_truncation_bound(problem, K=30, alpha=alpha)


def test_a_promise_that_does_not_apply_is_no_pass():
    with pytest.raises(
        AssertionError, match=r"promises nothing for K = 1: γ ≤ 1/β: fails \(γβ = 1.5"
    ):
        assert_truncation_bound(tb.problems.toy(step_size=1.5))
    moves = tb.GradientDescent(cases.softmax(), 0.1, np.zeros(6))
    flat = tb.BilevelProblem(moves, cases.cosine_of_state(), T=4, lam0=np.ones(5))
    with pytest.raises(AssertionError, match=r"α > 0 on w_0 … w_T: fails"):
        assert_truncation_bound(flat)


def test_descent_along_a_trajectory():
    problem = tb.problems.toy()
    points = np.random.default_rng(0).uniform(-1.5, 1.5, (20, 2))
    least = assert_descent_direction(problem, points, K=1)
    assert least == tb.bounds.lemma_3_2(problem, points, 1).by_grad.min()
    with pytest.raises(AssertionError, match=r"with K = 1 is no direction .* must be above 0.5"):
        assert_descent_direction(problem, points, K=1, c=0.5)


def test_interference_is_no_descent():
    problem = tb.problems.toy(biased=True)
    limit = tb.minimize(problem, method=tb.KRMD(K=1), optimizer=tb.SGD(0.05, 0), iterations=200).lam
    short = limit - [1e-3, 0]  # on the far side of the limit h turns round, d_λ f does not
    with pytest.raises(AssertionError, match="at point 1 of 2"):
        assert_descent_direction(problem, [2 * limit - short, short], K=1)


def test_no_direction_descends_where_the_gradient_is_0():
    moves = tb.GradientDescent(tb.Quadratic(np.ones(1)), 0.1, initial=np.zeros(1))
    upper = theory_cases.linear_upper(np.zeros(1))
    flat = tb.BilevelProblem(moves, upper, T=3, lam0=np.ones(1))
    with pytest.raises(AssertionError, match="‖d_λ f‖² = nan"):
        assert_descent_direction(flat)


@pytest.mark.parametrize("K", [1, 2, 10, 100])
def test_theorem_3_4_on_the_toy_problem(K):
    assert assert_converges_to_stationary_point(tb.problems.toy(), tb.KRMD(K=K)) < 1e-8


def test_biased_convergence_is_no_convergence():
    with pytest.raises(AssertionError, match=r"after 1000 updates by KRMD\(K=5.* is 6.0"):
        assert_converges_to_stationary_point(tb.problems.toy(biased=True), tb.KRMD(K=5))


def test_the_start_optimizer_and_tolerance_are_the_callers():
    problem, method = tb.problems.toy(biased=True), tb.RMD()
    options = dict(optimizer=tb.SGD(0.02, decay=0), iterations=5)
    with pytest.raises(AssertionError, match="after 5 updates"):
        assert_converges_to_stationary_point(problem, method, [0.3, 0.1], **options)
    norm = assert_converges_to_stationary_point(problem, method, [0.3, 0.1], tol=1, **options)
    r = tb.minimize(problem, [0.3, 0.1], method, **options)
    assert norm == np.linalg.norm(tb.RMD()(problem, r.lam).grad)
