import numpy as np
import pytest
import theory_cases
from scipy.optimize import root

import tinybilevel as tb
from tinybilevel.bounds import first_update, theorem_3_3, theorem_3_5

KS = [1, 2, 5, 10, 20, 50]


def limit(problem, method):
    """Return where the iterates of a method stop: the zero of its hypergradient."""
    found = root(lambda lam: method(problem, lam).grad, problem.lam0, tol=1e-14)
    assert np.abs(found.fun).max() < 1e-10
    return found.x


@pytest.mark.parametrize("K", [0, 1, 5, 20, 100])
@pytest.mark.parametrize("biased", [False, True])
def test_theorem_3_3_holds_after_every_iteration(K, biased):
    problem = tb.problems.toy(biased=biased)
    if K == 0 and not biased:
        with pytest.raises(ValueError, match=r"the first hypergradient of KRMD.* is 0"):
            theorem_3_3(problem, K=K)
        return
    run = theorem_3_3(problem, K=K, iterations=300)
    assert (run.average <= run.bound * (1 + 1e-12)).all()
    assert len(run.average) == 300
    assert run.lam.shape == (301, 2)


def test_both_sides_by_hand():
    problem = tb.problems.toy(biased=True)
    run = theorem_3_3(problem, [0.5, 0.5], K=2, iterations=5, lr=0.01)
    lam, norms, biases, etas = np.array([0.5, 0.5]), [], [], []
    for tau in range(1, 6):
        np.testing.assert_allclose(run.lam[tau - 1], lam, rtol=1e-14)
        d, h = tb.RMD()(problem, lam).grad, tb.KRMD(K=2)(problem, lam).grad
        norms.append(np.linalg.norm(d))
        biases.append(np.linalg.norm(h - d))
        etas.append(0.01 / np.sqrt(tau))
        lam = lam - etas[-1] * h
    eta, F = np.array(etas), [tb.RMD()(problem, x).value for x in run.lam]
    np.testing.assert_allclose(run.grad_norms[:-1], norms, rtol=1e-12)
    assert run.average[-1] == pytest.approx(eta @ np.square(norms) / eta.sum())
    assert run.epsilon == pytest.approx(max(biases))
    assert run.grad_norms.max() == run.G
    right = (
        run.epsilon * run.G
        + (F[0] - min(F) + run.L * (run.G**2 + run.epsilon**2) * (eta**2).sum()) / eta.sum()
    )
    assert run.bound[-1] == pytest.approx(right)
    assert run.rate[-1] == pytest.approx(run.epsilon + (run.epsilon**2 + 1) / 5**0.5)


def test_the_measured_smoothness():
    """F = ½(1 − q)²λ² to all intents: L is its curvature, found by the descent lemma."""
    moves = tb.GradientDescent(tb.Quadratic(np.ones(1)), 0.5, initial=np.zeros(1))
    upper = tb.Objective.from_functions(
        value=lambda w, lam: float(w @ w) / 2, grad=lambda w, lam: w
    )
    problem = tb.BilevelProblem(moves, upper, T=4, lam0=np.ones(1))
    run = theorem_3_3(problem, K=4, iterations=20, lr=0.5)
    assert pytest.approx((1 - 0.5**4) ** 2, rel=1e-6) == run.L


def test_without_bias_the_average_vanishes_like_1_over_root_R():
    run = theorem_3_3(tb.problems.toy(), K=100, iterations=1000)
    R = np.array([100, 1000])
    fall = np.log(run.average[R - 1][1] / run.average[R - 1][0]) / np.log(10)
    assert -0.75 < fall < -0.45


def test_with_bias_it_does_not_fall_below_the_limit():
    run = theorem_3_3(tb.problems.toy(biased=True), K=5, iterations=1000)
    floor = np.linalg.norm(tb.RMD()(tb.problems.toy(biased=True), run.lam[-1]).grad) ** 2
    assert floor > 1
    assert floor < run.average[-1] < 3 * floor
    assert run.grad_norms[-1] < run.epsilon * 1.0001, "ε-approximately stationary"


@pytest.mark.parametrize("K", [1, 3, 10])
def test_epsilon_is_within_proposition_3_1(K):
    problem = tb.problems.toy(biased=True)
    run = theorem_3_3(problem, K=K, iterations=50)
    bounds = [tb.bounds.proposition_3_1(problem, lam, K).eq_10 for lam in run.lam]
    assert run.epsilon <= max(bounds)


def test_the_limits_of_figure_3():
    """On f̃ K-RMD stops short of the optimum, by less the larger K."""
    problem = tb.problems.toy(biased=True)
    best = limit(problem, tb.RMD())
    limits = {K: limit(problem, tb.KRMD(K=K)) for K in KS}
    bias = [np.linalg.norm(limits[K] - best) for K in KS]
    assert (np.diff(bias) < 0).all()
    assert bias[0] > 0.4
    assert bias[-1] < 2e-3
    # The iterates do arrive there.
    for K in KS:
        run = theorem_3_3(problem, K=K, iterations=200)
        np.testing.assert_allclose(run.lam[-1], limits[K], atol=1e-4)


def log_bias_slope(problem, K):
    best = limit(problem, tb.RMD())
    bias = [np.linalg.norm(limit(problem, tb.KRMD(K=int(k))) - best) for k in K]
    return np.polyfit(K, np.log(bias), 1)[0]


def test_the_bias_on_f_tilde_decays_at_the_rate_of_the_direction_that_is_pulled():
    """f̃ pulls along the first axis alone, where the curvature of g is 1: log(1 − γ)."""
    slope = log_bias_slope(tb.problems.toy(biased=True, T=400), np.arange(20, 101, 5))
    assert slope == pytest.approx(np.log(1 - 0.1 * 1.0), rel=0.05)


def test_the_bias_decays_at_the_rate_of_alpha_where_its_direction_is_pulled():
    """Pulled to (0, 1) instead, along the axis of curvature α = ½: log(1 − γα), at twice the K."""
    toy = tb.problems.toy()
    target = np.array([0.0, 1.0])
    pulled = tb.Objective.from_functions(
        value=lambda w, lam: toy.upper.value(w, lam) + 5 * float(((lam - target) ** 2).sum()),
        grad=toy.upper.grad,
        grad_lam=lambda w, lam: 10 * (lam - target),
    )
    problem = tb.BilevelProblem(toy.transition, pulled, T=800, lam0=toy.lam0)
    slope = log_bias_slope(problem, np.arange(40, 201, 20))
    assert slope == pytest.approx(np.log(1 - 0.1 * 0.5), rel=0.05)


def test_the_first_update_has_norm_0_6():
    for K in KS:
        problem = tb.problems.toy()
        optimizer = first_update(problem, tb.KRMD(K=K))
        run = tb.minimize(problem, method=tb.KRMD(K=K), optimizer=optimizer, iterations=1)
        assert np.linalg.norm(run.lam - problem.lam0) == pytest.approx(0.6)
        assert optimizer.decay == 0.5


@pytest.mark.parametrize("K", [0, 1, 2, 5, 10, 50, 99, 100])
@pytest.mark.parametrize(("coupling", "target"), [(1.0, 1.0), (0.3, -2.0)])
def test_theorem_3_5_in_closed_form(K, coupling, target):
    problem = tb.problems.counterexample(coupling=coupling, target=target)
    end = theorem_3_5(problem, K)
    assert end.measured_h == pytest.approx(0, abs=1e-14)
    assert end.measured_grad == pytest.approx(end.grad, rel=1e-10, abs=1e-14)
    assert (end.grad != 0) == (K < 100)


@pytest.mark.parametrize("K", [1, 5, 20])
def test_the_iterates_of_the_counterexample_stop_at_the_wrong_point(K):
    problem = tb.problems.counterexample()
    end = theorem_3_5(problem, K)
    run = tb.minimize(problem, method=tb.KRMD(K=K), optimizer=tb.SGD(0.5, decay=0), iterations=100)
    np.testing.assert_allclose(run.lam, [end.lam], rtol=1e-12)
    exact = tb.RMD()(problem, run.lam).grad
    assert abs(exact[0]) > 0.5 * 0.9**K, "bounded away from 0"
    # The exact method, and the same K without interference, do arrive.
    best = tb.minimize(problem, optimizer=tb.SGD(0.4, decay=0), iterations=200)
    assert abs(tb.RMD()(problem, best.lam).grad[0]) < 1e-12


def test_theorem_3_5_is_about_its_own_problem():
    with pytest.raises(TypeError, match=r"problem must be problems.counterexample\(…\), got"):
        theorem_3_5(tb.problems.toy(), 1)


def test_iterations_must_be_a_count():
    with pytest.raises(ValueError, match="iterations must be at least 1, got 0"):
        theorem_3_3(theory_cases.quadratic(), iterations=0)
