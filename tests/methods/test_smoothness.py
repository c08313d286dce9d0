"""The a-posteriori bound of ImplicitCG holds, and is of use."""

import pickle
import warnings

import numpy as np
import pytest
import theory_cases
from hypothesis import given, settings
from hypothesis import strategies as st

import tinybilevel as tb


def run(method, problem):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", tb.ConvergenceWarning)
        return method(problem)


def true_gradient(problem, w):
    """Return the gradient of λ ↦ f(w*(λ), λ) by dense Newton from w and a dense solve."""
    g, lam, theta = problem.transition.objective, problem.lam0, problem.hyper_map(problem.lam0)
    for _ in range(30):
        both = [g.grad_vjp(w, theta, e) for e in np.eye(w.size)]
        H, M = np.array([b[0] for b in both]), np.array([b[1] for b in both]).T
        w = w - np.linalg.solve(H, g.grad(w, theta))
    f = problem.upper
    h = f.grad_lam(w, theta) - M @ np.linalg.solve(H, f.grad(w, theta))
    return problem.hyper_map.vjp(lam, h)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 12),
    st.integers(1, 12),
    st.integers(0, 30),
    st.floats(1, 50),
    st.integers(1, 20),
    st.sampled_from([0.0, 0.1]),
)
def test_it_holds_for_a_quadratic_lower_level(seed, M, N, T, kappa, K, damping):
    problem = theory_cases.quadratic(M, N, T, seed, kappa)
    known = tb.Smoothness(alpha=1 / kappa, hessian=0, mixed=0, upper=1, upper_lam=0)
    method = tb.ImplicitCG(K, tol=0, damping=damping, constants=known)
    r = run(method, problem)
    error = np.linalg.norm(r.grad - true_gradient(problem, r.w))
    assert error <= r.bound * (1 + 1e-9) + 1e-12


def logistic(seed, T, n=8, d=3, l2=0.2):
    """Return weighted logistic regression with a map, and its constants worked by hand.

    |σ''| ≤ 1/(6√3) and σ' ≤ ¼: each example adds s θ_i ‖x_i‖³/(6√3) to L_H, and row i of the mixed
    product, s (σ(z_i) − y_i) x_i times |Φ'| ≤ ¼, moves by s‖x_i‖²/16.
    """
    rng = np.random.default_rng(seed)
    X, y = rng.standard_normal((n, d)), rng.integers(2, size=n)
    g = tb.LogisticRegression(X, y) + l2 * tb.L2Penalty(1.0)
    moves = tb.GradientDescent(g, 0.5, initial=rng.standard_normal(d))
    lam = rng.standard_normal(n)
    problem = tb.BilevelProblem(
        moves, theory_cases.smooth_upper(), T=T, hyper_map=tb.Sigmoid(), lam0=lam
    )
    sizes = np.linalg.norm(X, axis=1)
    constants = tb.Smoothness(
        hessian=float((tb.Sigmoid()(lam) * sizes**3).sum()) / n / (6 * 3**0.5),
        mixed=float(np.sqrt((sizes**4).sum())) / n / 16,
        upper=1.0,
        upper_lam=0.0,
    )
    return problem, constants


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 60), st.integers(1, 5))
def test_it_holds_for_regularised_logistic_regression(seed, T, K):
    problem, known = logistic(seed, T)
    r = run(tb.ImplicitCG(K, tol=0, constants=known), problem)
    error = np.linalg.norm(r.grad - true_gradient(problem, r.w))
    assert error <= r.bound * (1 + 1e-9) + 1e-12


@pytest.mark.parametrize("T", [5, 20, 60])
def test_on_logistic_regression_it_is_within_a_factor_of_50(T):
    factors = []
    for seed in range(10):
        problem, known = logistic(seed, T)
        r = run(tb.ImplicitCG(constants=known), problem)
        factors.append(r.bound / np.linalg.norm(r.grad - true_gradient(problem, r.w)))
    assert np.median(factors) <= 50


@pytest.mark.parametrize("T", [0, 3, 30])
def test_it_is_an_equality_in_one_direction(T):
    """g = h (w − λ)²/2 and f = (w − 3)²/2: both sides are ‖w_T − w*‖."""
    moves = tb.GradientDescent(tb.Quadratic(np.array([0.4])), 0.5, initial=np.full(1, 2.0))
    upper = tb.Objective.from_functions(
        value=lambda w, lam: float(((w - 3) ** 2).sum() / 2), grad=lambda w, lam: w - 3
    )
    problem = tb.BilevelProblem(moves, upper, T=T, lam0=np.ones(1))
    known = tb.Smoothness(hessian=0, mixed=0, upper=1, upper_lam=0)
    r = run(tb.ImplicitCG(constants=known), problem)
    assert r.bound == pytest.approx(0.8**T, rel=1e-9)
    assert np.abs(r.grad - true_gradient(problem, r.w))[0] == pytest.approx(r.bound, rel=1e-9)


def test_every_term_is_there():
    """Term by term, against the formula, at a point where no norm is 1."""
    problem, _ = logistic(0, 4)
    g, theta = problem.transition.objective, problem.hyper_map(problem.lam0)
    constants = dict(alpha=0.3, hessian=2.0, mixed=3.0, upper=5.0, upper_lam=7.0, mixed_norm=11.0)
    r = run(tb.ImplicitCG(2, tol=0, constants=tb.Smoothness(**constants)), problem)
    b = np.cos(r.w)
    e = np.linalg.norm(g.grad(r.w, theta)) / 0.3
    # Two steps of CG, by hand: the best of the Krylov space in the norm of H.
    H = np.array([g.grad_vjp(r.w, theta, v)[0] for v in np.eye(3)])
    V = np.stack([b, H @ b], axis=1)
    q = V @ np.linalg.solve(V.T @ H @ V, V.T @ b)
    size, rest = np.linalg.norm(q), np.linalg.norm(H @ q - b)
    off = (rest + (2 * size + 5) * e) / 0.3
    assert r.bound == pytest.approx((7 + 3 * size) * e + (11 + 3 * e) * off, rel=1e-8)


def test_the_norm_of_the_mixed_derivative_is_by_lambda():
    problem, known = logistic(1, 5)
    g, lam, theta = problem.transition.objective, problem.lam0, problem.hyper_map(problem.lam0)
    r = run(tb.ImplicitCG(constants=known), problem)
    M = np.array([problem.hyper_map.vjp(lam, g.grad_vjp(r.w, theta, e)[1]) for e in np.eye(3)]).T
    values = vars(known) | dict(mixed_norm=np.linalg.norm(M, 2))
    assert run(tb.ImplicitCG(constants=tb.Smoothness(**values)), problem).bound == pytest.approx(
        r.bound, rel=1e-12
    )


def test_a_claim_of_convexity_that_the_curvature_refutes():
    problem, known = logistic(0, 30)
    wrong = tb.Smoothness(**vars(known) | dict(alpha=5.0))
    with pytest.raises(ValueError, match=r"constants claim α = 5, but g has a curvature of 0\."):
        run(tb.ImplicitCG(constants=wrong), problem)


def test_what_is_not_known_is_asked_for():
    toy = theory_cases.quadratic()
    known = tb.Smoothness(hessian=0, mixed=0, upper=1, upper_lam=0)
    with pytest.raises(ValueError, match="alpha must be given: nothing above 0 is known of Quad"):
        run(tb.ImplicitCG(constants=known), toy)
    g = tb.Objective.from_functions(
        value=lambda w, lam: 0.5 * float(((w - lam) ** 2).sum()),
        grad=lambda w, lam: w - lam,
        grad_vjp=lambda w, lam, v: (v, -v),
    )
    moves = tb.GradientDescent(g, 0.5, initial=np.zeros(2))
    problem = tb.BilevelProblem(moves, theory_cases.smooth_upper(), T=60, lam0=np.ones(2))
    convex = dict(alpha=1, hessian=0, mixed=0, upper=1, upper_lam=0)
    with pytest.raises(TypeError, match="mixed_norm must be given: measuring it takes grad_jvp"):
        tb.ImplicitCG(constants=tb.Smoothness(**convex))(problem)
    known = tb.Smoothness(**convex, mixed_norm=1)
    assert tb.ImplicitCG(constants=known)(problem).bound < 1e-12


def test_wrong_constants_are_refused():
    good = dict(alpha=1, hessian=0, mixed=0, upper=1, upper_lam=0)
    for name, value in (("alpha", 0), ("hessian", -1), ("upper", np.inf), ("mixed", np.nan)):
        with pytest.raises(ValueError, match=f"{name} must be finite and"):
            tb.Smoothness(**good | {name: value})
    with pytest.raises(TypeError, match=r"constants must be a Smoothness\(…\), got 3"):
        tb.ImplicitCG(constants=3)
    with pytest.raises(ValueError, match="as a tail it has no certificate"):
        tb.KRMD(K=1, tail=tb.ImplicitCG(constants=tb.Smoothness(**good)))


def test_a_method_with_constants_is_a_value():
    method = tb.ImplicitCG(5, constants=tb.Smoothness(hessian=0, mixed=0, upper=1, upper_lam=0))
    assert pickle.loads(pickle.dumps(method)) == method
    assert eval(repr(method), vars(tb)) == method
    assert tb.ImplicitCG(5)(theory_cases.quadratic(T=200)).bound is None


def test_damping_does_not_hide_what_the_curvature_refutes():
    problem, known = logistic(0, 30)
    with pytest.raises(ValueError, match=r"claim α = 5, but g has a curvature of 0\.") as caught:
        run(
            tb.ImplicitCG(damping=10.0, constants=tb.Smoothness(**vars(known) | dict(alpha=5.0))),
            problem,
        )
    assert "at w_T" in str(caught.value)
