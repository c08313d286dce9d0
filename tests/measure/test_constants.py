import pickle

import cases
import engine_cases
import numpy as np
import pytest
import theory_cases

import tinybilevel as tb
from tinybilevel.bounds import measure


def dense(problem, lam):
    """Return every A_t, (T, M, M), and B_t, (T + 1, N, M), row by row from forward products."""
    move, theta = problem.transition, problem.hyper_map(lam)
    directions = [problem.hyper_map.jvp(lam, e) for e in np.eye(lam.size)]
    w = move.initial(theta)
    A, B = [], [[move.initial_jvp(theta, d) for d in directions]]
    for t in range(problem.T):
        A.append([move.jvp(t, w, theta, e, 0 * theta) for e in np.eye(w.size)])
        B.append([move.jvp(t, w, theta, 0 * w, d) for d in directions])
        w = move.step(t, w, theta)
    return np.array(A), np.array(B)


@pytest.mark.parametrize("name", engine_cases.problems())
def test_norms_are_those_of_the_dense_jacobians(name):
    """For every transition of the package, with its hyperparameter map."""
    problem, lam = engine_cases.problems()[name]
    c = measure(problem, lam)
    A, B = dense(problem, lam)
    np.testing.assert_allclose(c.A_norms, np.linalg.norm(A, 2, axis=(1, 2)), rtol=1e-11)
    np.testing.assert_allclose(c.B_norms, np.linalg.norm(B, 2, axis=(1, 2)), rtol=1e-11, atol=1e-14)
    assert c.shape == B.shape[1:]
    assert c.error == 0


def test_curvature_along_the_trajectory():
    problem = theory_cases.softmax(T=7)
    c = measure(problem)
    g, theta = problem.transition.objective, problem.hyper_map(problem.lam0)
    w = problem.transition.initial(theta)
    for t in range(8):
        H = np.array([g.grad_vjp(w, theta, e)[0] for e in np.eye(w.size)])
        values = np.linalg.eigvalsh(H)
        np.testing.assert_allclose([c.alpha[t], c.beta[t]], values[[0, -1]], rtol=1e-12)
        w = problem.transition.step(t, w, theta)
    assert len(c.alpha) == len(c.beta) == 8
    np.testing.assert_allclose(c.A_norms, 1 - c.gamma * c.alpha[:-1], rtol=1e-12)
    assert c.rate == c.A_norms.max()
    assert c.B_norm == c.B_norms.max()


def test_beta_of_a_concave_objective_is_the_size_of_its_curvature():
    problem = theory_cases.kinked(T=3, doublings=5)
    c = measure(problem)
    np.testing.assert_array_equal(c.alpha, -1)
    np.testing.assert_array_equal(c.beta, 1)
    np.testing.assert_array_equal(c.A_norms, 2)


@pytest.mark.parametrize("large", [False, True])
def test_large_problems_by_products_alone(large):
    M, N = (220, 150) if large else (60, 40)
    problem = theory_cases.quadratic(M, N, T=2, kappa=20.0)
    c = measure(problem)
    C = problem.transition.objective.C
    G = problem.transition.objective.G
    true = np.linalg.svd(C.T @ G, compute_uv=False)
    assert abs(c.alpha[0] - 0.05) <= c.error + 1e-12
    assert abs(c.beta[0] - 1) <= c.error + 1e-12
    assert abs(c.B_norms[1] - true[0]) <= c.error + 1e-12
    assert abs(c.B_smallest[1] - true[-1]) <= c.error + 1e-12
    assert (c.error > 0) == (c.rank is None) == large
    assert c.error < 1e-5
    if not large:
        np.testing.assert_array_equal(c.rank, 40)


def test_remainders_add_up():
    problem = theory_cases.quadratic(T=6)
    c = measure(problem)
    by_hand = [sum(c.B_norms[s] * np.prod(c.A_norms[s:t]) for s in range(t + 1)) for t in range(7)]
    np.testing.assert_allclose(c.remainders, by_hand, rtol=1e-12)
    flat = c.given(A_norms=0.5, B_norms=2.0)
    np.testing.assert_allclose(flat.remainders, 4 - 2 * 0.5 ** np.arange(7), rtol=1e-12)


def test_constants_in_float32_are_measured_in_float64():
    problem = theory_cases.softmax()
    single = tb.BilevelProblem(
        problem.transition,
        problem.upper,
        T=problem.T,
        hyper_map=problem.hyper_map,
        lam0=problem.lam0.astype(np.float32),
    )
    assert measure(single).alpha.dtype == np.float64
    np.testing.assert_allclose(measure(single).alpha, measure(problem).alpha, rtol=1e-6)


@pytest.mark.parametrize(
    ("step_size", "gamma"),
    [(0.1, 0.1), ([0.1, 0.1, 0.1], 0.1), ([0.1, 0.2, 0.1], None), (lambda t: 0.25, 0.25)],
)
def test_only_a_constant_step_size_counts(step_size, gamma):
    moves = tb.GradientDescent(tb.Quadratic(np.ones(2)), step_size, initial=np.zeros(2))
    problem = tb.BilevelProblem(moves, theory_cases.smooth_upper(), T=3, lam0=np.ones(2))
    assert measure(problem).gamma == gamma


def test_minibatches_are_no_gradient_descent_on_one_objective():
    moves = tb.GradientDescent(cases.softmax(), 0.1, np.zeros(6), batches=[np.array([0, 1])] * 2)
    problem = tb.BilevelProblem(moves, cases.cosine_of_state(), T=2, lam0=np.ones(5))
    c = measure(problem)
    assert c.gamma is None
    assert len(c.alpha) == 0
    assert len(c.A_norms) == 2


def test_no_steps_at_all():
    problem = theory_cases.quadratic(T=0)
    c = measure(problem)
    assert (c.rate, len(c.B_norms), len(c.alpha)) == (0, 1, 1)


# Large problems


def wide(T=1):
    """Return hypercleaning with 20 classes of 12 features: 260 variables, 200 hyperparameters."""
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((200, 12)), np.arange(200) % 20
    return tb.problems.hypercleaning(X, y, X[:60], y[:60], T=T, step_size=0.5)


@pytest.mark.parametrize("confidence", [None, 0.99])
def test_a_large_problem_of_softmax_regression_is_measured(confidence):
    problem = wide()
    c = measure(problem, confidence=confidence)
    A, B = dense(problem, problem.lam0)
    slack = 1e-12 if confidence else 1e-6
    assert (np.linalg.norm(A, 2, axis=(1, 2)) <= c.A_norms + slack).all()
    assert (np.linalg.norm(B, 2, axis=(1, 2)) <= c.B_norms + slack).all()
    np.testing.assert_allclose(c.B_norms, np.linalg.norm(B, 2, axis=(1, 2)), rtol=3e-3, atol=1e-14)
    np.testing.assert_allclose(c.alpha, 2e-3 / 200, rtol=1e-12)  # the penalty's, in closed form
    assert c.words("alpha", "beta", "B_norms").startswith("certified" if confidence else "estim")


def test_a_statement_measures_what_it_uses_and_no_more():
    problem = wide()
    c = measure(problem)
    assert "not measured yet: alpha, beta, A_norms, B_norms, B_smallest" in repr(c)
    tb.bounds.proposition_3_1(problem, K=1, constants=c)
    assert "not measured yet: B_smallest" in repr(c)


def test_the_constants_of_another_problem_are_refused():
    problem = wide()
    with pytest.raises(ValueError, match="constants must be what measure returned for this very"):
        tb.bounds.proposition_3_1(wide(), constants=measure(problem))
    elsewhere = measure(problem, problem.lam0 + 1)
    with pytest.raises(ValueError, match="at this lam, got another one"):
        tb.bounds.proposition_3_1(problem, constants=elsewhere)
    with pytest.raises(ValueError, match="give confidence to measure"):
        tb.bounds.proposition_3_1(problem, constants=measure(problem), confidence=0.9)


@pytest.mark.parametrize("confidence", [0, 1, -0.5, np.nan])
def test_a_confidence_is_a_probability(confidence):
    with pytest.raises(ValueError, match=r"confidence must (lie between 0 and 1|be finite), got"):
        measure(tb.problems.toy(), confidence=confidence)


def test_all_numbers_hold_together_as_often_as_promised():
    """Over a dozen starts at δ = 0.2, against the dense Jacobians."""
    problem = theory_cases.quadratic(M=101, N=105, T=1, kappa=20.0)
    A, B = dense(problem, problem.lam0)
    A, B = (np.linalg.norm(x, 2, axis=(1, 2)) for x in (A, B))
    failed = 0
    for seed in range(12):
        c = measure(problem, seed=seed, confidence=0.8)
        ok = (c.A_norms + 1e-12 >= A).all() and (c.B_norms + 1e-12 >= B).all()
        failed += not (ok and (c.alpha <= 0.05 + 1e-12).all() and (c.beta >= 1 - 1e-12).all())
    assert failed <= 0.2 * 12


def test_a_trajectory_that_diverges_is_named():
    problem = theory_cases.quadratic(T=3000, share=3.0)
    with pytest.raises(tb.DivergenceError, match="step size γ"):
        measure(problem).B_norms  # noqa: B018


def test_constants_are_pickled_with_what_was_measured():
    c = measure(tb.problems.toy())
    assert c.rate == 0.95
    again = pickle.loads(pickle.dumps(c))
    np.testing.assert_array_equal(again.B_norms, c.B_norms)
    assert again.rate == 0.95


def test_a_confidence_that_is_no_number_is_named():
    with pytest.raises(TypeError, match="confidence must be a number, got 'x'"):
        tb.bounds.measure(tb.problems.toy(), confidence="x")
