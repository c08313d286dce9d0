from dataclasses import replace

import engine_cases
import numpy as np
import pytest
import theory_cases

import tinybilevel as tb
from tinybilevel.bounds import measure
from tinybilevel.measure import remainder


def momentum(transition=tb.HeavyBall, T=300, mu=0.9):
    """Return the toy problem with momentum: ‖A_t‖ is above 1.4 at every step."""
    toy = tb.problems.toy(T=T)
    moves = transition(toy.transition.objective, 0.1, initial=np.full(2, 2.0), momentum=mu)
    return replace(toy, transition=moves)


def large(transition=tb.HeavyBall, T=60):
    """Return one whose state has 104 entries, a w_0 that depends on λ, and no quadratic g."""
    base = theory_cases.softmax(n=8, d=26, C=2, T=T, l2=0.2)
    start = np.random.default_rng(1).standard_normal((52, 8))
    initial = (lambda v: start @ v, lambda v, a: start.T @ a, lambda v, d: start @ d)
    moves = transition(base.transition.objective, 0.2, initial, momentum=0.8)
    return replace(base, transition=moves)


def left_out(problem, K):
    exact = tb.RMD()(problem).grad
    r = tb.KRMD(K=K)(problem)
    return np.linalg.norm(exact - r.grad), r.alpha_norms[-1]


@pytest.mark.parametrize("transition", [tb.HeavyBall, tb.Nesterov])
@pytest.mark.parametrize("T", [300, 2000])
def test_momentum_has_a_bound_that_is_finite_and_stops_early(transition, T):
    problem = momentum(transition, T)
    c = measure(problem)
    assert c.rate > 1.4, "no single step contracts"
    S = c.remainders
    assert np.isfinite(S).all()
    assert S[-1] == pytest.approx(S[300], rel=1e-6), "no longer with the horizon"
    r = tb.KRMD(tol=1e-3)(problem)
    error = np.linalg.norm(r.grad - tb.RMD()(problem).grad)
    assert error <= r.bound <= 1e-3
    assert r.bound <= 2 * error, "within a factor of 2"
    assert r.K < 200
    assert c.remainder_words == "certified, by exact spectra"


@pytest.mark.parametrize("name", engine_cases.problems())
def test_what_is_left_out_by_any_transition(name):
    problem, lam = engine_cases.problems()[name]
    S = measure(problem, lam).remainders
    exact = tb.RMD()(problem, lam).grad
    for K in range(problem.T + 1):
        r = tb.KRMD(K=K)(problem, lam)
        rest = np.linalg.norm(exact - r.grad)
        assert rest <= S[problem.T - K] * r.alpha_norms[-1] * (1 + 1e-9) + 1e-12


@pytest.mark.parametrize("transition", [tb.HeavyBall, tb.Nesterov])
def test_a_small_state_is_written_out_exactly(transition):
    """S_t is the norm of the whole map α_t → what h_t leaves out, column by column."""
    problem = momentum(transition, 3)
    S = measure(problem).remainders
    columns = []
    move, theta, w = problem.transition, problem.lam0, problem.transition.initial(problem.lam0)
    states = [w]
    for t in range(2):
        states.append(move.step(t, states[-1], theta))
    for e in np.eye(4):
        alpha, h = e, 0
        for t in (1, 0):
            alpha, B_alpha = move.vjp(t, states[t], theta, alpha)
            h = h + B_alpha
        columns.append(h + move.initial_vjp(theta, alpha))
    assert S[2] == pytest.approx(np.linalg.norm(columns, 2), rel=1e-12)


@pytest.mark.parametrize("transition", [tb.HeavyBall, tb.Nesterov])
def test_a_large_state_is_bounded_over_stretches(transition, monkeypatch):
    problem = large(transition)
    c = measure(problem, confidence=0.99)
    S = c.remainders
    ends = np.flatnonzero(np.isfinite(S))
    assert list(ends) == [0, 50, 60]
    for K in (0, 10, 40, 60):
        error, norm = left_out(problem, K)
        assert error <= c.remainder(60 - K) * norm * (1 + 1e-9)
    assert np.isfinite(c.remainder(20)), "within a stretch"
    assert c.remainder_words.startswith("certified with probability 0.99")
    assert measure(problem).remainder_words.startswith("estimated")
    # Written out, the same state has the least S_t there is.
    monkeypatch.setattr(remainder, "DENSE", 200)
    exact = measure(problem).remainders
    assert (exact[ends] <= S[ends] * (1 + 1e-9)).all()
    assert (S[ends] <= 3 * exact[ends]).all()


def test_a_tolerance_on_a_large_state_with_momentum():
    problem = large(T=70)
    r = tb.KRMD(tol=0.5)(problem)
    assert r.K == 20
    assert np.linalg.norm(r.grad - tb.RMD()(problem).grad) <= r.bound <= 0.5


def test_a_stretch_grows_where_it_does_not_contract(monkeypatch):
    monkeypatch.setattr(remainder, "_STRETCH", 4)
    S = measure(large(T=40)).remainders
    ends = np.flatnonzero(np.isfinite(S))
    assert (np.diff(ends)[1:-1] > 4).all()
    assert np.isfinite(S[-1])


def test_unstable_momentum_has_no_bound_and_says_infinity():
    problem = momentum(mu=1.5, T=4000)
    with np.errstate(over="ignore", invalid="ignore"):
        S = measure(problem.starting_at(np.zeros(2)), np.zeros(2)).remainders
    assert S[1000] > 1e90
    assert S[-1] == np.inf
