import numpy as np
import pytest
import theory_cases
from hypothesis import given, settings
from hypothesis import strategies as st

import tinybilevel as tb
from tinybilevel.bounds import proposition_3_6, rates

# The statement holds at any state, be it a minimum or not.
pytestmark = pytest.mark.filterwarnings("ignore:.*takes w_T for a minimum")


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 12),
    st.integers(1, 12),
    st.floats(1.0, 20.0),
    st.floats(0.1, 0.99),
    st.integers(0, 99),
)
def test_partial_sums_come_within_their_bound(M, N, kappa, share, seed):
    problem = theory_cases.quadratic(M, N, T=3, seed=seed, kappa=kappa, share=share)
    series = proposition_3_6(problem, Ks=[0, 1, 2, 5, 20, int(30 * kappa / share)])
    scale = np.linalg.norm(tb.ImplicitCG()(problem).grad) + 1
    assert (series.error <= series.bound * (1 + 1e-12) + 1e-11 * scale).all()
    assert series.error[-1] <= 1e-9 * scale, "the sum is the implicit product, eq. (12)"


def test_the_bound_on_a_residual_is_tight():
    """One direction: the tail of the geometric series is the bound."""
    moves = tb.GradientDescent(tb.Quadratic(np.array([2.0])), 0.1, initial=np.zeros(1))
    upper = theory_cases.linear_upper(np.array([3.0]))
    problem = tb.BilevelProblem(moves, upper, T=500, lam0=np.ones(1))
    series = proposition_3_6(problem, Ks=range(30))
    np.testing.assert_allclose(series.error, series.bound, rtol=1e-10)
    np.testing.assert_array_equal(series.K, np.arange(30))


def test_stationarity_is_reported():
    early, late = (proposition_3_6(theory_cases.softmax(T=T), Ks=[0, 5, 20]) for T in (3, 2000))
    assert early.stationarity > 1e-2
    assert late.stationarity < 1e-12
    assert (late.error <= late.bound + 1e-11).all()


def test_no_bound_for_steps_that_are_too_long():
    problem = theory_cases.quadratic(share=1.5)
    assert np.isnan(proposition_3_6(problem).bound).all()


@pytest.mark.parametrize("kappa", [2.0, 10.0, 100.0])
def test_k_rmd_converges_like_1_minus_1_over_kappa(kappa):
    """At γ = 1/β; the spectrum is spaced so that its low end leads after 8κ steps."""
    problem = theory_cases.quadratic(5, 5, int(30 * kappa), kappa=kappa, spacing=np.linspace)
    fit = rates(problem, Ks=(np.linspace(8, 14, 7) * kappa).astype(int))
    assert fit.kappa == pytest.approx(kappa, rel=1e-9)
    assert fit.krmd_theory == pytest.approx(np.log(1 - 1 / kappa), rel=1e-9)
    assert fit.krmd_slope == pytest.approx(fit.krmd_theory, rel=0.02)


@pytest.mark.parametrize("kappa", [2.0, 10.0, 100.0])
def test_cg_converges_at_least_like_its_square_root(kappa):
    """At most (√κ − 1)/(√κ + 1) a step, in a space too large to be searched through."""
    problem = theory_cases.quadratic(200, 30, int(10 * kappa), kappa=kappa)
    root = np.sqrt(kappa)
    fit = rates(problem, Ks=range(1, int(8 * root)))
    assert fit.cg_theory == pytest.approx(np.log((root - 1) / (root + 1)), rel=1e-6)
    assert fit.cg_slope <= 0.98 * fit.cg_theory, "to the noise of a fit"
    assert fit.cg_slope < fit.krmd_theory, "CG is the faster"
    # For each K: ‖q_K − q‖_G ≤ 2 rate^K ‖q‖_G, and the hypergradient is Cᵀ G q.
    g, w = problem.transition.objective, tb.KRMD(K=0)(problem).w
    q = np.linalg.solve(g.G, np.cos(w))
    values, vectors = np.linalg.eigh(g.G)
    factor = np.linalg.norm(g.C.T @ vectors * np.sqrt(values), 2) * np.sqrt(q @ g.G @ q)
    assert (fit.cg <= 2 * np.exp(fit.cg_theory * fit.K) * factor + 1e-12).all()


def test_one_step_is_enough_at_kappa_1():
    fit = rates(theory_cases.quadratic(M=1, N=2, T=50), Ks=[1, 2, 3])
    assert fit.krmd_theory == -np.inf
    assert np.isnan(fit.krmd_slope)


@pytest.mark.parametrize("statement", [proposition_3_6, rates])
def test_only_gradient_descent(statement):
    moves = tb.HeavyBall(tb.Quadratic(np.ones(1)), 0.1, np.zeros(1), momentum=0.5)
    problem = tb.BilevelProblem(moves, theory_cases.smooth_upper(), T=30, lam0=np.ones(1))
    with pytest.raises(TypeError, match=r"gradient descent .* got HeavyBall"):
        statement(problem)


def test_wrong_depths():
    problem = theory_cases.quadratic(T=5)
    with pytest.raises(ValueError, match="K must be at most the horizon T = 5, got 6"):
        rates(problem, Ks=[1, 6])
    with pytest.raises(ValueError, match="Ks must hold at least two depths to fit a slope, got 1"):
        rates(problem, Ks=[1])
    with pytest.raises(ValueError, match="must be strongly convex at w_T for a rate, got α = -1"):
        rates(theory_cases.kinked(T=5, doublings=9), Ks=[1, 2])
