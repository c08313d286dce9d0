"""What a result tells: of the lower level, of itself, and of nobody else's arrays."""

import copy
import gc
import pickle
import weakref
from dataclasses import replace

import engine_cases
import numpy as np
import pytest
from engine_cases import LAM

import tinybilevel as tb


class Watched(tb.Quadratic):
    calls = 0

    def grad(self, w, lam):
        type(self).calls += 1
        return super().grad(w, lam)


@pytest.mark.parametrize("method", [tb.RMD(), tb.KRMD(K=2), tb.FMD(), tb.RMD(tb.Binomial(2))])
def test_the_lower_gradient_says_how_far_from_a_minimum_the_run_ended(method):
    T, curvature = 30, np.array([1.0, 0.5])
    r = method(tb.problems.toy(T=T))
    last = curvature * (1 - 0.1 * curvature) ** T  # w_0 − λ = 1
    assert r.lower_grad_norm == pytest.approx(np.linalg.norm(last), rel=1e-12)
    assert r.lower_grad_ratio == pytest.approx(
        np.linalg.norm(last) / np.linalg.norm(curvature), rel=1e-12
    )


def test_it_is_evaluated_when_first_asked_for_and_once():
    moves = tb.GradientDescent(Watched([1.0, 0.5]), 0.1, [2.0, 2.0])
    r = tb.RMD()(replace(tb.problems.toy(), transition=moves))
    before = Watched.calls
    first = r.lower_grad_norm
    assert Watched.calls == before + 2
    assert (r.lower_grad_norm, r.lower_grad_ratio) == (first, first / np.sqrt(1.25))
    assert Watched.calls == before + 2


def test_it_sees_the_lambda_of_the_call_and_the_whole_data():
    problem, lam = engine_cases.long(6), LAM.copy()
    r = tb.RMD()(problem, lam)
    lam[...] = 9
    theta, move = problem.hyper_map(LAM), problem.transition
    expected = np.linalg.norm(move.objective.grad(r.w, theta))
    assert r.lower_grad_norm == pytest.approx(expected, rel=1e-14)


def test_there_is_none_without_an_objective_that_comes_to_rest():
    g = tb.Quadratic([1.0, 0.5])
    handmade = tb.Transition.from_functions(
        lambda t, w, lam: w / 2, lambda t, w, lam, a: (a / 2, 0 * lam), initial=[1.0, 1.0]
    )
    for moves in (tb.ProximalGradient(g, 0.1, [2.0, 2.0], l1=0.1), handmade):
        r = tb.RMD()(replace(tb.problems.toy(), transition=moves))
        assert (r.lower_grad_norm, r.lower_grad_ratio) == (None, None)


def test_a_start_at_the_minimum():
    r = tb.RMD()(tb.problems.toy().starting_at(np.ones(2)))
    assert (r.lower_grad_norm, r.lower_grad_ratio) == (0, 0)


def test_the_numbers_travel_and_the_data_stay():
    problem = tb.problems.toy()
    r = tb.RMD()(problem)
    assert len(pickle.dumps(r)) < 2500
    again = pickle.loads(pickle.dumps(r))
    assert again.lower_grad_norm == r.lower_grad_norm
    data = weakref.ref(problem)
    del problem
    gc.collect()
    assert data() is None


def test_a_copy_asks_for_nothing_and_keeps_the_answer():
    moves = tb.GradientDescent(Watched([1.0, 0.5]), 0.1, [2.0, 2.0])
    r = tb.RMD()(replace(tb.problems.toy(), transition=moves))
    before = Watched.calls
    twin, changed = copy.copy(r), replace(r, converged=False)
    assert Watched.calls == before
    assert twin.lower_grad_norm == changed.lower_grad_norm == r.lower_grad_norm
    assert replace(r, value=0.0).lower_grad_norm == r.lower_grad_norm


def test_a_compiled_result_knows_it_too():
    pytest.importorskip("numba")
    problem = tb.problems.toy()
    fast, lam = tb.compile(problem), np.array([0.5, 0.3])
    r = tb.KRMD(K=5)(fast, lam)
    lam[...] = 7
    expected = tb.KRMD(K=5)(problem, [0.5, 0.3]).lower_grad_norm
    assert r.lower_grad_norm == pytest.approx(expected, rel=1e-9)


def test_a_result_prints_as_a_line_and_shows_as_a_table():
    text = repr(tb.KRMD(K=5)(tb.problems.toy(), [1.0, 1.0]))
    assert text.startswith("Hypergradient(value=16.2273")
    assert "grad=[4.5426, 2.5008]" in text
    assert "K=5" in text
    rng = np.random.default_rng(0)
    X, y = rng.random((300, 40)), rng.integers(3, size=300)
    long = tb.RMD()(tb.problems.hypercleaning(X, y, X[:9], y[:9], T=50))
    assert len(repr(long)) < 250
    assert "(300,) float64" in repr(long)
    page = long._repr_html_()
    assert page.startswith("<table>")
    assert len(page) < 800
    assert "converged" not in page


def test_what_went_wrong_is_in_the_text():
    with pytest.warns(tb.ConvergenceWarning):
        r = tb.KRMD(K=3, tol=1e-6)(tb.problems.toy())
    assert "bound=" in repr(r)
    assert "converged=False" in repr(r)


def test_a_problem_prints_as_a_line():
    assert repr(tb.problems.toy()) == (
        "BilevelProblem(GradientDescent of Quadratic, T=100, upper Rippled, hyper_map Identity, "
        "lam0 (2,) float64)"
    )


def test_results_cannot_be_set():
    r = tb.RMD()(tb.problems.toy())
    with pytest.raises(AttributeError):
        r.value = 0.0


def test_a_run_that_left_a_minimum_has_an_infinite_ratio():
    loss = tb.LeastSquares(np.ones((2, 1)), [1.0, -1.0], weighted=False)
    leaves = tb.GradientDescent(loss, 0.1, initial=[0.0], batches=[[0], [0]])
    rests = tb.GradientDescent(loss, 0.1, initial=[0.0])
    for moves, ratio in ((leaves, np.inf), (rests, 0.0)):
        r = tb.RMD()(tb.BilevelProblem(moves, tb.L2Penalty(1.0), T=2, lam0=[0.0]))
        assert r.lower_grad_ratio == ratio
