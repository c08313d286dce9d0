import pickle
from dataclasses import replace

import numpy as np
import pytest
from engine_cases import STORAGES

import tinybilevel as tb


def test_divergence_names_step_norm_and_cause():
    g = tb.Quadratic(np.array([1.0, 100.0]))
    f = tb.Objective.from_functions(value=lambda w, lam: w @ w, grad=lambda w, lam: 2 * w)
    problem = tb.BilevelProblem(tb.GradientDescent(g, 1.0, initial=[2.0, 2.0]), f, T=400)
    with pytest.raises(tb.DivergenceError, match=r"γ = 1 against smoothness β ≈ 100") as caught:
        tb.KRMD(K=1)(problem, [1.0, 1.0])
    # |1 − γβ|ᵗ = 99ᵗ passes the largest float, about 10³⁰⁸, after the step t = 154.
    assert caught.value.t == 154
    assert 1e300 < caught.value.norm < np.inf
    assert "after step t=154" in str(caught.value)
    np.testing.assert_array_equal(caught.value.lam, [1.0, 1.0])
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.t, again.norm, str(again)) == (154, caught.value.norm, str(caught.value))


def test_divergence_of_the_main_job_measures_its_smoothness():
    X, y = np.eye(3), np.arange(3)
    problem = tb.problems.hypercleaning(X, y, X, y, step_size=1e30, T=30)
    # β = ½ (weight) · ⅓ (mean) · ⅓ (softmax at 0) · 4 (largest eigenvalue of XXᵀ) + 2c/3
    message = r"likely cause: step size γ = 1e\+30 against smoothness β ≈ 0\.223"
    with pytest.raises(tb.DivergenceError, match=message):
        tb.RMD()(problem)


def test_divergence_of_the_upper_level_does_not_blame_the_lower():
    f = tb.Objective.from_functions(value=lambda w, lam: np.nan, grad=lambda w, lam: w)
    problem = tb.BilevelProblem(tb.problems.toy().transition, f, T=3)
    with pytest.raises(tb.DivergenceError, match="all states are finite") as caught:
        tb.RMD()(problem, [1.0, 1.0])
    assert caught.value.t is None


class OneArray(tb.GradientDescent):
    """Returns every state in the same array, as a user's own transition may."""

    def step(self, t, w, lam):
        self._initial.buffer[:] = super().step(t, w, lam)
        return self._initial.buffer


def test_a_transition_may_return_the_same_array_again():
    moves = tb.problems.toy().transition
    own = OneArray(moves.objective, 0.1, [2.0, 2.0])
    own._initial.buffer = np.empty(2)
    expected = tb.RMD()(tb.problems.toy())
    for storage in STORAGES:
        found = tb.RMD(storage)(replace(tb.problems.toy(), transition=own))
        np.testing.assert_array_equal(found.grad, expected.grad)


@pytest.mark.parametrize("name", ["grad", "grad_lam"])
def test_an_upper_level_of_the_wrong_shape_is_named(name):
    class Wrong(tb.Objective):
        def value(self, w, lam):
            return 0.0

        def grad(self, w, lam):
            return w

        def grad_lam(self, w, lam):
            return lam

    setattr(Wrong, name, lambda self, w, lam: w[:1])
    problem = replace(tb.problems.toy(), upper=Wrong())
    with pytest.raises(ValueError, match=rf"{name} of upper must have shape \(2,\), got \(1,\)"):
        tb.RMD()(problem)


@pytest.mark.parametrize("T", [0, 2])
def test_a_start_that_is_not_finite_is_said_to_be_the_start(T):
    start = (lambda lam: np.nan * lam, lambda lam, alpha: alpha)
    moves = tb.GradientDescent(tb.Quadratic([1.0, 1.0]), 0.1, start)
    problem = tb.BilevelProblem(moves, tb.problems.toy().upper, T=T)
    with pytest.raises(tb.DivergenceError, match="the initial state w_0 is not finite") as caught:
        tb.RMD()(problem, [1.0, 1.0])
    assert caught.value.t is None


def test_divergence_is_reported_for_an_objective_without_a_hessian_product():
    g = tb.Objective.from_functions(
        value=lambda w, lam: 0.0,
        grad=lambda w, lam: 1e3 * w,
        grad_jvp=lambda w, lam, dw, dlam: 1e3 * dw,
    )
    moves = tb.GradientDescent(g, 1.0, [1.0, 1.0])
    problem = tb.BilevelProblem(moves, tb.problems.toy().upper, T=400)
    with pytest.raises(tb.DivergenceError, match="the lower-level iteration diverges") as caught:
        tb.FMD()(problem, [1.0, 1.0])
    assert caught.value.t == 102


def test_the_largest_step_size_is_blamed():
    steps = tb.Learned(slice(2, 4), sizes=[1, 1])
    g = tb.Quadratic([1.0, 1.0], C=np.eye(2, 4))
    problem = tb.BilevelProblem(
        tb.GradientDescent(g, steps, [2.0, 2.0]), tb.problems.toy().upper, T=500
    )
    f = tb.Objective.from_functions(lambda w, lam: float(w @ w), lambda w, lam: 2 * w)
    with pytest.raises(tb.DivergenceError, match="γ = 30 against smoothness β ≈ 1 at"):
        tb.RMD()(replace(problem, upper=f), [0.0, 0.0, 0.5, 30.0])
