import warnings

import cases
import engine_cases
import numpy as np
import pytest

import tinybilevel as tb
from tinybilevel.testing import relative_error


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


@pytest.mark.parametrize("T", [0, 3, 50])
def test_cg_solves_eq_11(T):
    problem, G, C = quadratic(T=T)
    r = tb.ImplicitCG()(problem)
    closed = 1 + C.T @ G @ np.linalg.solve(G, r.w - 1)
    np.testing.assert_allclose(r.grad, closed, rtol=1e-10)
    assert r.converged
    assert r.residual <= 1e-9


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
    assert r.converged, "no tolerance was asked for"


def test_it_says_so_when_it_has_not_converged():
    problem, _, _ = quadratic(M=40, condition=1e4)
    with pytest.warns(
        tb.ConvergenceWarning, match=r"after 3 iterations .*tol = 1.0e-10 is not met"
    ):
        r = tb.ImplicitCG(K=3)(problem)
    assert not r.converged
    assert r.residual > 1e-3


def test_it_says_so_when_the_hessian_is_not_positive_definite():
    f = tb.Objective.from_functions(value=lambda w, lam: w.sum(), grad=lambda w, lam: np.ones(2))
    moves = tb.GradientDescent(tb.Quadratic([1.0, -0.5]), 0.1, initial=[1.0, 1.0])
    with pytest.warns(tb.ConvergenceWarning, match="H is not positive definite"):
        r = tb.ImplicitCG()(tb.BilevelProblem(moves, f, T=2), [0.0, 0.0])
    assert not r.converged


def test_more_iterations_than_unknowns_do_not_divide_by_zero():
    problem, _, C = quadratic(M=1, N=1)
    r = tb.ImplicitCG(K=10, tol=0)(problem)
    np.testing.assert_allclose(r.grad, 1 + C.T @ (r.w - 1), rtol=1e-12)


def test_a_residual_of_exactly_zero_is_not_divided_by():
    f = tb.Objective.from_functions(value=lambda w, lam: w.sum(), grad=lambda w, lam: np.ones(1))
    moves = tb.GradientDescent(tb.Quadratic([1.0]), 0.5, initial=[1.0])
    r = tb.ImplicitCG(K=10, tol=0)(tb.BilevelProblem(moves, f, T=2), [0.0])
    np.testing.assert_array_equal(r.grad, [1.0])


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
        assert r.converged


def test_a_zero_right_hand_side():
    f = tb.Objective.from_functions(
        value=lambda w, lam: lam.sum(), grad=lambda w, lam: 0 * w, grad_lam=lambda w, lam: lam
    )
    moves = tb.GradientDescent(tb.Quadratic([1.0, 0.5]), 0.1, initial=[1.0, 1.0])
    r = tb.ImplicitCG()(tb.BilevelProblem(moves, f, T=2), [3.0, 4.0])
    np.testing.assert_array_equal(r.grad, [3.0, 4.0])
    assert r.converged
    assert r.residual == 0


@pytest.mark.parametrize("K", [0, 1, 5, 40])
def test_neumann_is_the_partial_sum_of_eq_12(K):
    problem, G, C = quadratic(T=4)
    r = tb.Neumann(K)(problem)
    A, B = np.eye(6) - 0.9 * G, 0.9 * C.T @ G
    expected = 1 + sum(
        (B @ np.linalg.matrix_power(A, k) @ (r.w - 1) for k in range(K)), np.zeros(4)
    )
    np.testing.assert_allclose(r.grad, expected, rtol=1e-12)


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
