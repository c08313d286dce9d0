import warnings

import cases
import engine_cases
import numpy as np
import pytest

import tinybilevel as tb
from tinybilevel.testing import relative_error

# The algebra holds at any state; these tests take it where it is easy to see.
ANYWHERE = pytest.mark.filterwarnings("ignore:.*takes w_T for a minimum")


def quadratic(M=6, N=4, T=0, seed=0, condition=10.0):
    """Return a strongly convex problem, its Hessian G, C, and ∇f = w_T − 1 at w_T."""
    rng = np.random.default_rng(seed)
    Q, _ = np.linalg.qr(rng.standard_normal((M, M)))
    G = Q @ np.diag(np.geomspace(1 / condition, 1, M)) @ Q.T
    C = rng.standard_normal((M, N))
    f = tb.Objective.from_functions(
        value=lambda w, lam: 0.5 * ((w - 1) ** 2).sum() + lam.sum(),
        grad=lambda w, lam: w - 1,
        grad_lam=lambda w, lam: np.ones_like(lam),
    )
    moves = tb.GradientDescent(tb.Quadratic(G, C), 0.9, initial=rng.standard_normal(M))
    problem = tb.BilevelProblem(moves, f, T=T, lam0=rng.standard_normal(N))
    return problem, G, C


def reference_cg(G, b, K):
    """Hestenes and Stiefel's recurrence as printed; return iterate K."""
    x, r = np.zeros_like(b), b.copy()
    p = r.copy()
    for _ in range(K):
        Gp = G @ p
        step = (r @ r) / (p @ Gp)
        x = x + step * p
        r_next = r - step * Gp
        p = r_next + (r_next @ r_next) / (r @ r) * p
        r = r_next
    return x


@ANYWHERE
@pytest.mark.parametrize("T", [0, 3, 50])
def test_cg_solves_eq_11(T):
    problem, G, C = quadratic(T=T)
    r = tb.ImplicitCG()(problem)
    closed = 1 + C.T @ G @ np.linalg.solve(G, r.w - 1)
    np.testing.assert_allclose(r.grad, closed, rtol=1e-10)
    assert r.residual <= 1e-9
    assert r.converged == (T == 50), "only there w_T is a minimum"


@ANYWHERE
def test_both_derivatives_are_taken_at_the_last_state():
    """The Hessian of the other tests is the same everywhere; this one is not."""
    g = cases.softmax() + 0.2 * tb.L2Penalty(1.0)
    moves = tb.GradientDescent(g, 1.0, cases.normal(1, 6))
    problem = tb.BilevelProblem(moves, cases.cosine_of_state(), T=3)
    lam = np.linspace(0.5, 1.5, 5)
    r = tb.ImplicitCG(tol=1e-12)(problem, lam)
    H, mixed = zip(*(g.grad_vjp(r.w, lam, v) for v in np.eye(6)), strict=True)
    expected = -np.array(mixed).T @ np.linalg.solve(np.array(H), np.cos(r.w))
    assert relative_error(r.grad, expected) <= 1e-10


@ANYWHERE
@pytest.mark.parametrize("K", [1, 2, 3, 4])
def test_K_iterations_give_the_iterate_K(K):
    problem, G, C = quadratic()
    r = tb.ImplicitCG(K=K, tol=0)(problem)
    b = r.w - 1
    x = reference_cg(G, b, K)
    np.testing.assert_allclose(r.grad, 1 + C.T @ G @ x, rtol=1e-11)
    assert r.K == K
    assert r.residual == pytest.approx(np.linalg.norm(G @ x - b) / np.linalg.norm(b))
    assert r.cost == tb.ImplicitCG(K=K, tol=0).cost(problem)


@ANYWHERE
def test_it_says_so_when_it_has_not_converged():
    problem, _, _ = quadratic(M=40, condition=1e4)
    with pytest.warns(
        tb.ConvergenceWarning, match=r"after 3 iterations .*tol = 1.0e-10 is not met"
    ):
        r = tb.ImplicitCG(K=3)(problem)
    assert not r.converged
    assert r.residual > 1e-3


@ANYWHERE
def test_it_says_so_when_the_hessian_is_not_positive_definite():
    f = tb.Objective.from_functions(value=lambda w, lam: w.sum(), grad=lambda w, lam: np.ones(2))
    moves = tb.GradientDescent(tb.Quadratic([1.0, -0.5]), 0.1, initial=[1.0, 1.0])
    with pytest.warns(tb.ConvergenceWarning, match="H is not positive definite"):
        r = tb.ImplicitCG()(tb.BilevelProblem(moves, f, T=2), [0.0, 0.0])
    assert not r.converged


@ANYWHERE
def test_more_iterations_than_unknowns_do_not_divide_by_zero():
    problem, _, C = quadratic(M=1, N=1)
    r = tb.ImplicitCG(K=10, tol=0)(problem)
    np.testing.assert_allclose(r.grad, 1 + C.T @ (r.w - 1), rtol=1e-12)


@ANYWHERE
def test_a_residual_of_exactly_zero_is_not_divided_by():
    f = tb.Objective.from_functions(value=lambda w, lam: w.sum(), grad=lambda w, lam: np.ones(1))
    moves = tb.GradientDescent(tb.Quadratic([1.0]), 0.5, initial=[1.0])
    r = tb.ImplicitCG(K=10, tol=0)(tb.BilevelProblem(moves, f, T=2), [0.0])
    np.testing.assert_array_equal(r.grad, [1.0])


@ANYWHERE
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("K", [20, 200])
def test_iterations_beyond_rounding_do_no_harm(dtype, K):
    """CG's own residual falls on to underflow, where it would divide by 0."""
    rng = np.random.default_rng(0)
    for condition in (2, 40, 1e3):
        G, start = np.geomspace(1 / condition, 1, 6).astype(dtype), rng.standard_normal(6)
        f = tb.Objective.from_functions(lambda w, lam: float(w @ w / 2), lambda w, lam: w)
        moves = tb.GradientDescent(tb.Quadratic(G), 0.1, start.astype(dtype))
        r = tb.ImplicitCG(K=K, tol=0)(tb.BilevelProblem(moves, f, T=0), np.zeros(6, dtype))
        np.testing.assert_allclose(r.grad, r.w, rtol=2000 * np.finfo(dtype).eps)


@ANYWHERE
def test_a_zero_right_hand_side():
    f = tb.Objective.from_functions(
        value=lambda w, lam: lam.sum(), grad=lambda w, lam: 0 * w, grad_lam=lambda w, lam: lam
    )
    moves = tb.GradientDescent(tb.Quadratic([1.0, 0.5]), 0.1, initial=[1.0, 1.0])
    r = tb.ImplicitCG()(tb.BilevelProblem(moves, f, T=2), [3.0, 4.0])
    np.testing.assert_array_equal(r.grad, [3.0, 4.0])
    assert r.residual == 0


@ANYWHERE
@pytest.mark.parametrize("K", [0, 1, 5, 40])
def test_neumann_is_the_partial_sum_of_eq_12(K):
    problem, G, C = quadratic(T=4)
    r = tb.Neumann(K)(problem)
    A, B = np.eye(6) - 0.9 * G, 0.9 * C.T @ G
    expected = 1 + sum(
        (B @ np.linalg.matrix_power(A, k) @ (r.w - 1) for k in range(K)), np.zeros(4)
    )
    np.testing.assert_allclose(r.grad, expected, rtol=1e-12)


@ANYWHERE
def test_neumann_takes_the_last_steps_coefficients():
    problem, *_ = quadratic()
    g, start = problem.transition.objective, np.zeros(6)
    schedule = tb.GradientDescent(g, [0.1, 0.2, 0.7], start)
    states = tb.GradientDescent(g, [0.1, 0.2], start)
    at = tb.BilevelProblem(schedule, problem.upper, 3, lam0=problem.lam0)
    before = tb.BilevelProblem(states, problem.upper, 2, lam0=problem.lam0)
    w = schedule.step(2, tb.RMD()(before).w, problem.lam0)
    B_alpha = tb.GradientDescent(g, 0.7, start).vjp(0, w, problem.lam0, w - 1)[1]
    np.testing.assert_allclose(tb.Neumann(1)(at).grad, 1 + B_alpha, rtol=1e-12)


def test_neumann_equals_truncation_where_the_lower_level_has_converged():
    problem, *_ = quadratic(T=3000)
    for K in (1, 7, 60):
        r, truncated = tb.Neumann(K)(problem), tb.KRMD(K=K)(problem)
        assert relative_error(r.grad, truncated.grad) <= 1e-12
    exact = tb.RMD(tb.Checkpoint())(problem).grad
    assert relative_error(tb.ImplicitCG()(problem).grad, exact) <= 1e-8
    assert relative_error(tb.Neumann(600)(problem).grad, exact) <= 1e-12


@pytest.mark.parametrize("transition", [tb.HeavyBall, tb.Nesterov])
def test_momentum_changes_the_path_and_not_the_implicit_gradient(transition):
    problem, *_ = quadratic(T=2000)
    g = problem.transition.objective
    other = tb.BilevelProblem(
        transition(g, 0.5, np.zeros(6), momentum=0.5), problem.upper, 2000, lam0=problem.lam0
    )
    expected = tb.ImplicitCG()(problem).grad
    np.testing.assert_allclose(tb.ImplicitCG()(other).grad, expected, rtol=1e-8)
    np.testing.assert_allclose(tb.RMD()(other).grad, expected, rtol=1e-8)


@ANYWHERE
def test_float32_stays_float32():
    g = tb.Quadratic(np.array([1.0, 0.5], dtype=np.float32))
    f = tb.Objective.from_functions(value=lambda w, lam: float(w @ w), grad=lambda w, lam: 2 * w)
    start, lam = np.ones(2, np.float32), np.zeros(2, np.float32)
    problem = tb.BilevelProblem(tb.GradientDescent(g, 0.1, start), f, T=3)
    for method in (tb.ImplicitCG(tol=1e-6), tb.Neumann(3)):
        assert method(problem, lam).grad.dtype == np.float32


def test_transitions_without_a_smooth_minimum_are_refused():
    g, f = tb.Quadratic([1.0]), engine_cases.upper()
    step = tb.Transition.from_functions(
        lambda t, w, lam: w, lambda t, w, lam, a: (a, lam), initial=[1.0]
    )
    for transition in (tb.ProximalGradient(g, 0.1, [1.0], l1=0.1), step):
        with pytest.raises(TypeError, match=type(transition).__name__), warnings.catch_warnings():
            tb.ImplicitCG()(tb.BilevelProblem(transition, f, T=1), [1.0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"K": 0}, "K must be at least 1, got 0"),
        ({"tol": 1.0}, r"tol must lie in \[0, 1\), got 1.0"),
        ({"tol": 0.0}, "give K, tol > 0 or both"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        tb.ImplicitCG(**arguments)


# What is not known is not claimed


def sloping(G, step_size=0.5, start=None, T=0, b=None):
    """Return a lower level of curvature G, c(λ) = λ, under f = bᵀw; w* = λ is w_0 by default."""
    M = len(G)
    b = np.ones(M) if b is None else np.array(b)
    f = tb.Objective.from_functions(lambda w, lam: float(b @ w), lambda w, lam: b)
    lam = np.zeros(M)
    moves = tb.GradientDescent(tb.Quadratic(G), step_size, lam if start is None else start)
    return tb.BilevelProblem(moves, f, T=T, lam0=lam)


@pytest.mark.parametrize(
    ("method", "name"),
    [
        (tb.ImplicitCG(), "ImplicitCG"),
        (tb.Neumann(400), "Neumann"),
        (tb.KRMD(K=1, tail=tb.ImplicitCG()), "ImplicitCG"),
        (tb.KRMD(K=1, tail=tb.Neumann(400)), "Neumann"),
    ],
)
def test_a_state_that_is_no_minimum_is_said_to_be_none(method, name):
    problem = tb.problems.toy(T=3)
    with pytest.warns(tb.ConvergenceWarning, match=f"{name} takes w_T for a minimum of the lower"):
        r = method(problem)
    assert not r.converged
    exact = tb.RMD()(problem).grad
    assert np.linalg.norm(r.grad - exact) > 5 * np.linalg.norm(exact)
    far = method(tb.problems.toy(T=400))
    assert far.converged
    assert relative_error(far.grad, tb.RMD()(tb.problems.toy(T=400)).grad) < 1e-2


def test_a_warm_start_that_is_a_minimum_is_no_cause_for_a_warning():
    problem = tb.problems.toy(T=1).starting_at(np.ones(2) + 1e-6)
    r = tb.ImplicitCG()(problem)
    assert r.lower_grad_ratio > 0.5
    assert r.converged


def test_a_series_that_grows_ends_with_its_smallest_term():
    problem = sloping([1.0, -0.05])  # A = diag(½, 1.025), B = diag(½, −1/40)
    with pytest.warns(tb.ConvergenceWarning, match="Neumann stopped after 2 of 2000 terms"):
        r = tb.Neumann(2000)(problem)
    assert not r.converged
    norms = [np.hypot(0.5**k, 1.025**k) for k in range(9)]
    assert r.K == int(np.argmin(norms)) == 2
    np.testing.assert_allclose(r.alpha_norms, norms[:3], rtol=1e-12)
    partial = [1 - 0.5**2, -(1.025**2 - 1)]
    np.testing.assert_allclose(r.grad, partial, rtol=1e-12)


def test_a_step_size_beyond_its_limit_makes_the_series_grow():
    with pytest.warns(tb.ConvergenceWarning, match="the step size is beyond 2/β"):
        r = tb.Neumann(50)(sloping([1.0, 0.5], step_size=2.5))
    assert not r.converged


@pytest.mark.parametrize("G", [[1.0, 0.5], [1.0, 0.0], [2.0, 1e-12]])
def test_a_series_that_does_not_grow_is_left_alone(G):
    r = tb.Neumann(3000)(sloping(G))
    assert r.converged
    assert r.K == 3000


@pytest.mark.parametrize("transition", [tb.HeavyBall, tb.Nesterov])
def test_a_velocitys_transient_growth_is_no_divergence(transition):
    problem = sloping([1.0, 1e-3])
    moves = transition(problem.transition.objective, 0.5, np.zeros(2), momentum=0.95)
    r = tb.Neumann(8000)(tb.BilevelProblem(moves, problem.upper, T=0, lam0=[0.0, 0.0]))
    assert r.alpha_norms.max() > 5 * r.alpha_norms[0]
    assert r.converged
    np.testing.assert_allclose(r.grad, 1, rtol=1e-6)


def test_growth_under_a_velocity_is_seen_in_the_end():
    problem = sloping([1.0, -0.05])
    moves = tb.HeavyBall(problem.transition.objective, 0.5, np.zeros(2), momentum=0.5)
    with pytest.warns(tb.ConvergenceWarning, match="began to grow"):
        r = tb.Neumann(2000)(tb.BilevelProblem(moves, problem.upper, T=0, lam0=[0.0, 0.0]))
    assert not r.converged
    assert np.abs(r.grad).max() < 10


@pytest.mark.parametrize(
    ("G", "b", "iterations", "grad"),
    [
        ([1.0, 0.0], [1, 1], 1, [2, 0]),  # the next direction is (0, 2), flat
        ([0.0, 0.0], [1, 1], 0, [0, 0]),
        ([1.0, -1.0], [1, 1], 0, [0, 0]),  # pᵀHp = 0 at once
        ([-1.0, -2.0], [1, 1], 0, [0, 0]),
        ([2.0, 0.0], [1, 0], 1, [1, 0]),  # singular, and b in the range: solved
    ],
)
def test_a_singular_or_indefinite_hessian_is_no_divergence(G, b, iterations, grad):
    problem = sloping(G, b=b)
    solved = G == [2.0, 0.0]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        r = tb.ImplicitCG()(problem)
    assert [each.category for each in caught] == (not solved) * [tb.ConvergenceWarning]
    assert r.converged == solved
    assert iterations == r.K
    np.testing.assert_allclose(r.grad, grad, atol=1e-14)


@pytest.mark.parametrize("damping", [0.1, 3.0])
@pytest.mark.parametrize("condition", [10.0, 1e6])
def test_damping_solves_the_shifted_system(damping, condition):
    problem, G, C = quadratic(T=0, condition=condition)
    start = C @ problem.lam0  # the minimum
    problem = problem.starting_at(start)
    r = tb.ImplicitCG(damping=damping)(problem)
    closed = 1 + C.T @ G @ np.linalg.solve(G + damping * np.eye(6), start - 1)
    np.testing.assert_allclose(r.grad, closed, rtol=1e-9)
    assert r.converged


def test_damping_makes_an_indefinite_system_solvable():
    r = tb.ImplicitCG(damping=0.1)(sloping([1.0, -0.05, 0.0]))
    assert r.converged
    np.testing.assert_allclose(r.grad, [1 / 1.1, -0.05 / 0.05, 0], atol=1e-9)


def test_damping_is_part_of_the_tail_and_of_the_text():
    method = tb.KRMD(K=0, tail=tb.ImplicitCG(damping=0.1))
    np.testing.assert_allclose(method(sloping([1.0, -0.05])).grad, [1 / 1.1, -1], atol=1e-9)
    assert repr(tb.ImplicitCG(damping=0.5)) == "ImplicitCG(K=None, tol=1e-10, damping=0.5)"
    assert repr(tb.ImplicitCG()) == "ImplicitCG(K=None, tol=1e-10)"
    for damping in (-1.0, np.inf, np.nan):
        with pytest.raises(ValueError, match="damping must be finite and at least 0, got"):
            tb.ImplicitCG(damping=damping)


@ANYWHERE
def test_a_residual_of_ten_times_the_tolerance_is_let_pass_and_no_more():
    problem, _, _ = quadratic(M=40, condition=1e4)
    r = tb.ImplicitCG(K=20, tol=0)(problem)
    tb.ImplicitCG(K=20, tol=r.residual / 9)(problem)
    with pytest.warns(tb.ConvergenceWarning, match="is not met"):
        tb.ImplicitCG(K=20, tol=r.residual / 11)(problem)
