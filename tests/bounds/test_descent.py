import numpy as np
import pytest
import theory_cases

import tinybilevel as tb
from tinybilevel.bounds import first_update, lemma_3_2


def test_the_ratios_by_hand():
    problem = theory_cases.quadratic(M=3, N=3, T=12)
    points = np.random.default_rng(0).standard_normal((4, 3))
    ratios = lemma_3_2(problem, points, K=2)
    for i, lam in enumerate(points):
        d, r = tb.RMD()(problem, lam).grad, tb.KRMD(K=2)(problem, lam)
        assert ratios.by_grad[i] == pytest.approx(r.grad @ d / (d @ d))
        assert ratios.by_grad_w[i] == pytest.approx(r.grad @ d / np.sum(np.cos(r.w) ** 2))
    assert ratios.c == ratios.by_grad_w.min()


@pytest.mark.parametrize("K", [1, 2, 5, 20])
def test_c_on_a_problem_worked_by_hand(K):
    """w_T = (1 − q)λ, h_{T−K} = (1 − r)∇f and d_λ f = (1 − q)∇f, so c = (1 − r)(1 − q)."""
    moves = tb.GradientDescent(tb.Quadratic(np.ones(2)), 0.1, initial=np.zeros(2))
    upper = theory_cases.linear_upper(np.array([3.0, -1.0]))
    problem = tb.BilevelProblem(moves, upper, T=30, lam0=np.ones(2))
    assert lemma_3_2(problem, K=K).c == pytest.approx((1 - 0.9**K) * (1 - 0.9**30), rel=1e-12)


def test_lemma_3_2_along_the_trajectory_of_1_rmd():
    """Figure 2, left: the ratio stays well away from 0, for every K."""
    problem = tb.problems.toy()
    points = []
    tb.minimize(
        problem,
        method=tb.KRMD(K=1),
        optimizer=first_update(problem, tb.KRMD(K=1)),
        iterations=50,
        callback=lambda step: points.append(step.lam),
    )
    for K, least in ((1, 0.05), (5, 0.2), (20, 0.6), (50, 0.9)):
        assert least < lemma_3_2(problem, points, K).by_grad.min() <= 1.001


def test_with_interference_the_ratio_turns_negative():
    """Figure 2, right: on its way to (1, 0), 1-RMD walks past the optimum of f̃."""
    problem = tb.problems.toy(biased=True)
    lam, method = np.array([-1.0, 1.0]), tb.KRMD(K=1)
    points = []
    tb.minimize(
        problem,
        lam,
        method,
        optimizer=first_update(problem, method, lam),
        iterations=60,
        callback=lambda step: points.append(step.lam),
    )
    for K in (1, 2):
        assert lemma_3_2(problem, points, K).by_grad.min() < -0.05
    assert lemma_3_2(problem, points, 50).by_grad.min() > 0.9


def test_nothing_to_descend():
    """Where ∇f = 0 any c holds; the ratios there are not numbers."""
    moves = tb.GradientDescent(tb.Quadratic(np.ones(1)), 0.1, initial=np.zeros(1))
    upper = theory_cases.linear_upper(np.zeros(1))
    ratios = lemma_3_2(tb.BilevelProblem(moves, upper, T=3, lam0=np.ones(1)))
    assert np.isnan(ratios.by_grad).all()
    assert ratios.c == np.inf


def test_a_point_of_the_wrong_size():
    with pytest.raises(ValueError, match=r"lam must have shape \(2,\), got \(3,\)"):
        lemma_3_2(tb.problems.toy(), np.ones((4, 3)))
