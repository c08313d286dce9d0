"""Each assumption broken on purpose: the promise fails, and the certificate says which is gone."""

import numpy as np
import pytest
import theory_cases

import tinybilevel as tb
from tinybilevel.bounds import certificate, equation_10, lemma_3_2, theorem_3_4, theorem_3_5

NAMES = [
    "w_{t+1} = w_t − γ ∇_w g",
    "γ ≤ 1/β",
    "α > 0 on w_{T−K−1} … w_T",
    "α > 0 on w_0 … w_T",
    "1. ∇²_ww g is continuous around w_T",
    "2. B_t has full column rank around w_T",
    "3. ∇_λ fᵀ(d_λ f + h_{T−K} − ∇_λ f) ≥ c ‖∇_λ f‖², c > 0",
    "4. deterministic",
]


def gone(problem, K, lam=None):
    c = certificate(problem, lam, tb.KRMD(K=K), exact=True)
    assert [a.name for a in c.assumptions] == NAMES
    return [a.name for a in c.missing], c


def two_directions(gamma, C=None, c=(1.0, 1.0)):
    lower = tb.Quadratic(np.array([1.0, 0.1]), C)
    moves = tb.GradientDescent(lower, gamma, initial=np.zeros(2))
    upper = theory_cases.linear_upper(np.array(c))
    return tb.BilevelProblem(moves, upper, T=300, lam0=np.ones(2))


def test_all_hold_on_the_toy_problem():
    assert gone(tb.problems.toy(), K=5)[0] == []


def test_a_step_longer_than_1_over_beta():
    """γ = 1.9/β: the direction of curvature β decays by 0.9 a step, and not by 1 − γα = 0.81."""
    K, values = 60, dict(gamma=1.9, alpha=0.1, grad_norm=2**0.5, M_B=1.9)
    missing, c = gone(two_directions(1.9), K)
    assert missing == ["γ ≤ 1/β"]
    assert c.assumptions[1].measured == "γβ = 1.9, β = 1"
    assert c.eq_9 is c.eq_10 is None
    assert c.error > 10 * equation_10(K, **values)
    # At γ = 1/β the same formula holds.
    assert gone(two_directions(1.0), K)[0] == []


def test_no_convexity_along_the_tail():
    """All of the trajectory is concave: ten steps back, nearly all is yet to come."""
    problem = theory_cases.kinked(T=20, doublings=60)
    missing, c = gone(problem, K=10)
    assert missing == ["α > 0 on w_{T−K−1} … w_T", "α > 0 on w_0 … w_T"]
    assert c.error > 0.99 * np.linalg.norm(tb.RMD()(problem).grad)
    assert c.eq_9 is c.eq_10 is None


def test_convex_along_the_tail_alone():
    """Eq. (9) applies, eq. (10) does not."""
    missing, c = gone(theory_cases.kinked(T=14, doublings=8), K=5)
    assert missing == ["α > 0 on w_0 … w_T"]
    assert c.eq_9 is not None
    assert c.eq_10 is None
    assert c.error <= c.eq_9


def test_a_rank_deficient_B():
    """C = (1, 1) uᵀ: then h_{T−1} is γ u (1, 1)ᵀG∇f, and d_λ f is u (1, 1)ᵀ∇f."""
    problem = two_directions(1.0, C=np.outer([1.0, 1.0], [1.0, 2.0]), c=(-1.0, 2.0))
    missing, c = gone(problem, K=1)
    assert missing == ["2. B_t has full column rank around w_T"]
    assert c.assumptions[5].measured.startswith("rank 1 of 2")
    assert c.descent == pytest.approx(-0.8)
    # Of full rank, with the same ∇f, it descends.
    whole = two_directions(1.0, c=(-1.0, 2.0))
    assert gone(whole, K=1)[0] == []
    assert lemma_3_2(whole, K=1).by_grad[0] > 0


def test_fewer_hyperparameters_than_variables():
    """B_t is N × M: N < M leaves no room for M independent columns."""
    assert gone(theory_cases.quadratic(M=3, N=2, T=5), K=2)[1].assumptions[5].measured == (
        "rank at most N = 2 of M = 3"
    )


def test_the_rank_of_a_large_problem():
    problem = theory_cases.quadratic(M=110, N=150, T=1)
    a = theorem_3_4(problem, K=1)[1]
    assert a.holds
    assert a.status == "estimated"
    a = theorem_3_4(problem, K=1, confidence=0.99)[1]
    assert a.holds
    assert a.status == "certified"
    assert a.measured.startswith("σ_min = ")


def test_interference():
    """On the counterexample at its wrong limit h = 0 and d_λ f is not; c is negative there."""
    problem, K = tb.problems.counterexample(), 3
    limit = theorem_3_5(problem, K)
    missing, c = gone(problem, K, [limit.lam])
    assert missing == [NAMES[6]]
    # ∇f (d + h − ∇f) / ∇f² with h = 0, d = (r − q)(1 − q) λ and ∇f = −(1 − r)(1 − q) λ
    r, q = 0.9**3, 0.9**100
    assert c.assumptions[6].measured == f"c = {-(1 - q) / (1 - r):.6g}"
    # Without the exact gradient it is not measured, and not claimed.
    unmeasured = certificate(problem, [limit.lam], tb.KRMD(K=K)).assumptions[6]
    assert unmeasured.holds is None


def test_the_corrected_form_of_assumption_3_at_a_point_worked_by_hand():
    """f = ½w² + ½(λ − 1)², T = 1, γ = ½, w_0 = 0: w_1 = λ/2, h_0 = d_λ f = λ − 1 + λ/4."""
    problem = tb.problems.counterexample(T=1, step_size=0.5)
    a = theorem_3_4(problem, [3.0], K=1)[2]
    direct, d = 2.0, 2.0 + 0.75
    assert a.measured == f"c = {direct * (2 * d - direct) / direct**2:.6g}"


def test_a_hessian_that_jumps():
    """g = ½w|w| + ¼w² has a curvature of 1½ on one side of w* = 0 and −½ on the other."""
    g = tb.Objective.from_functions(
        value=lambda w, lam: float((w * abs(w) / 2 + w**2 / 4).sum()),
        grad=lambda w, lam: abs(w) + w / 2,
        grad_vjp=lambda w, lam, v: ((np.sign(w) + 0.5) * v, np.zeros_like(lam)),
        grad_jvp=lambda w, lam, dw, dlam: (np.sign(w) + 0.5) * dw,
    )
    moves = tb.GradientDescent(g, 0.1, initial=np.zeros(1))
    problem = tb.BilevelProblem(moves, theory_cases.smooth_upper(), T=3, lam0=np.ones(1))
    a = theorem_3_4(problem)[0]
    assert a.holds is False
    assert a.measured.startswith("changes by 2.0e+00")


def test_a_hessian_that_is_steep_but_continuous():
    a = theorem_3_4(theory_cases.softmax())[0]
    assert a.holds
    assert "changes by 0.0" not in a.measured, "softmax regression is no quadratic"


def test_a_transition_without_an_objective():
    decay = tb.Transition.from_functions(
        step=lambda t, w, lam: lam * w,
        vjp=lambda t, w, lam, alpha: (lam * alpha, w * alpha),
        initial=np.ones(2),
    )
    problem = tb.BilevelProblem(decay, theory_cases.smooth_upper(), T=3, lam0=np.array([0.5, 0.1]))
    c = certificate(problem, method=tb.KRMD(K=1))
    assert c.assumptions[0].holds is False
    assert c.assumptions[4].holds is None
    assert c.assumptions[4].measured == "the transition names no objective"


def test_an_upper_level_that_draws_at_random():
    rng = np.random.default_rng(0)
    noisy = tb.Objective.from_functions(
        value=lambda w, lam: float(w @ w) + rng.standard_normal(), grad=lambda w, lam: 2 * w
    )
    toy = tb.problems.toy()
    problem = tb.BilevelProblem(toy.transition, noisy, T=10, lam0=toy.lam0)
    assert gone(problem, K=1)[0] == ["4. deterministic"]


def test_an_assumption_reads_as_a_sentence():
    assert str(certificate(tb.problems.toy()).assumptions[1]) == (
        "γ ≤ 1/β: holds (γβ = 0.1, β = 1)"
    )
