import pickle
from dataclasses import replace

import numpy as np
import pytest
from engine_cases import STORAGES

import tinybilevel as tb
from tinybilevel.engine.dynamics import Dynamics


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
    with pytest.warns(tb.StabilityWarning, match=r"β ≈ 0\.223"):
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


# λ that the map cannot bear

LAYOUT = tb.Layout(weights=2, step=1)


def stepping(phi, lam0):
    """Return a problem whose step size is an entry of θ."""
    moves = tb.GradientDescent(
        tb.Quadratic([1.0, 0.5]).on(LAYOUT["weights"]), LAYOUT["step"], [2, 2]
    )
    return tb.BilevelProblem(moves, tb.L2Penalty(1.0), T=5, hyper_map=phi, lam0=lam0)


@pytest.mark.parametrize(
    ("phi", "blame"),
    [
        (tb.Blocks(LAYOUT, step=tb.Exp()), "block 'step': Exp makes inf of 800, entry 0"),
        (tb.Exp(), "Exp makes inf of 800, entry 2"),
        (tb.Compose(tb.Affine(1.0), tb.Exp(), tb.Affine(2.0)), "Exp makes inf of 800, entry 2"),
        (
            tb.Blocks(LAYOUT, step=tb.Compose(tb.Exp(), tb.Exp())),
            "block 'step': Exp makes inf of 800, entry 0",
        ),
        (tb.Affine(np.array([[1.0, 1, 1e308]] * 3)), "Affine makes inf, entry 0"),
    ],
    ids=["blocks", "exp", "compose", "compose in a block", "matrix"],
)
@pytest.mark.parametrize("method", [tb.RMD(), tb.KRMD(K=0), tb.FMD(), tb.ImplicitCG()], ids=repr)
def test_a_map_that_overflows_is_blamed_and_not_the_step_size(phi, blame, method):
    with pytest.raises(tb.DivergenceError, match=f"θ is not finite: ({blame})") as caught:
        method(stepping(phi, [1.0, 1.0, 800.0]))
    assert "γ" not in str(caught.value)
    assert caught.value.t is None
    np.testing.assert_array_equal(caught.value.lam, [1, 1, 800])


def test_the_cost_says_so_as_well():
    with pytest.raises(tb.DivergenceError, match="θ is not finite"):
        tb.RMD().cost(stepping(tb.Exp(), [1.0, 1.0, 800.0]))


def test_the_upper_levels_precision_counts_before_the_map():
    """λ and the lower level are float32, f is not: θ = Φ(λ) is made in float64."""
    g = tb.Quadratic(np.array([1.0, 0.5], np.float32))
    moves = tb.GradientDescent(g, 0.1, np.array([2.0, 2.0], np.float32))
    f = tb.Quadratic(np.array([0.3, 0.7]))
    problem = tb.BilevelProblem(moves, f, T=7, hyper_map=tb.Exp())
    lam = np.array([0.1, 0.2], np.float32)
    r = tb.RMD()(problem, lam)
    assert r.grad.dtype == r.w.dtype == np.float64
    np.testing.assert_array_equal(r.grad, tb.RMD()(problem, lam.astype(np.float64)).grad)


def test_a_constant_upper_gradient_may_be_of_whole_numbers():
    f = tb.Objective.from_functions(lambda w, lam: w.sum(), lambda w, lam: np.array([1, 1]))
    g = tb.Objective.from_functions(lambda w, lam: w.sum(), lambda w, lam: np.ones(2))
    toy = tb.problems.toy(T=400)
    for method in (tb.RMD(), tb.KRMD(K=3), tb.FMD(), tb.ImplicitCG(), tb.Neumann(5)):
        whole, real = (method(replace(toy, upper=each)) for each in (f, g))
        np.testing.assert_array_equal(whole.grad, real.grad)


# A step size that is too large, seen in a single call


def swinging(step_size, transition=tb.GradientDescent, T=60, G=(1.0, 0.5), **options):
    moves = transition(tb.Quadratic(G), step_size, [2.0, 2.0], **options)
    return replace(tb.problems.toy(T=T), transition=moves)


@pytest.mark.parametrize("method", [tb.RMD(), tb.KRMD(K=1), tb.RMD(tb.Checkpoint()), tb.FMD()])
def test_a_single_call_says_that_the_step_size_is_too_large(method):
    message = r"γ = 2.2 against smoothness β ≈ 1 at w_0 \(stable for γ < 2; γ = 1 would do\)"
    with pytest.warns(tb.StabilityWarning, match=message) as caught:
        method(swinging(2.2))
    assert caught[0].filename == __file__, "the warning names the line of the call"


@pytest.mark.parametrize("storage", STORAGES, ids=repr)
def test_every_storage_sees_the_moves_of_one_forward_pass(storage):
    with pytest.warns(tb.StabilityWarning):
        tb.RMD(storage)(swinging(2.2))
    tb.RMD(storage)(swinging(1.9))


@pytest.mark.parametrize(
    "problem",
    [
        swinging(1.95),  # swings, and comes to rest
        swinging(1.0, G=(1.0, -0.2)),  # grows, whatever the step size
        swinging(2.2, T=2),
        swinging(0.1, tb.HeavyBall, T=8, momentum=0.99),  # gathers speed
        swinging(0.5, tb.AdamTransition, T=200),
        swinging(1.0, tb.ProximalGradient, l1=0.1),
        swinging(1.0).starting_at(np.ones(2)),  # nothing moves
    ],
    ids=["swings", "saddle", "short", "speed", "adam", "proximal", "still"],
)
def test_nothing_is_said_of_a_step_size_that_will_do(problem):
    tb.RMD()(problem)


def test_nothing_is_said_of_noise():
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((40, 3)), rng.integers(2, size=40)
    g = tb.SoftmaxRegression(X, y, 2, weighted=False) + 0.01 * tb.L2Penalty(1.0)
    f = tb.Objective.from_functions(lambda w, lam: w @ w, lambda w, lam: 2 * w)
    for seed in range(30):
        batches = tb.minibatches(40, size=2, T=30, seed=seed)
        moves = tb.GradientDescent(g, 0.5, np.zeros(6), batches=batches)
        tb.RMD()(tb.BilevelProblem(moves, f, T=30, lam0=np.ones(1)))


@pytest.mark.parametrize(
    ("problem", "restless"),
    [
        (swinging(2.2), True),
        (swinging(1.95), False),  # turns back, ever shorter
        (swinging(1.0, G=(1.0, -0.2)), False),  # grows, and never turns back
        (swinging(2.2, T=2), False),
    ],
    ids=["beyond", "swings", "saddle", "short"],
)
def test_curvature_is_measured_only_where_the_moves_turn_back_and_grow(problem, restless):
    dynamics = Dynamics(problem, problem.lam0)
    tb.Ring().run(dynamics, 0)
    assert dynamics.restless == restless


@pytest.mark.parametrize(
    ("lam", "message"),
    [
        (
            40.0,
            r"all states are finite .*; likely cause: step size γ = 0.1 against .* β ≈ 4.71e\+17",
        ),
        (500.0, "likely cause: curvature beyond all numbers, as lam is too large"),
    ],
)
def test_growth_is_blamed_where_the_states_are_finite_and_no_step_size_of_0_is_named(lam, message):
    descent = tb.GradientDescent(tb.L2Penalty(), 0.1, initial=[1.0, 1.0])
    problem = tb.BilevelProblem(descent, tb.L2Penalty(1.0), T=10, hyper_map=tb.Exp())
    with pytest.raises(tb.DivergenceError, match=message):
        tb.RMD()(problem, [lam])


def test_no_step_size_is_blamed_for_a_concave_lower_level():
    descent = tb.GradientDescent(tb.L2Penalty(), 0.1, initial=[1.0, 1.0])
    problem = tb.BilevelProblem(descent, tb.L2Penalty(1.0), T=10)
    with pytest.raises(tb.DivergenceError, match=r"; the lower-level iteration diverges$"):
        tb.RMD()(problem, [-1e68])
