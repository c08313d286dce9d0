import pickle
import warnings

import engine_cases
import numpy as np
import pytest
import theory_cases
from engine_cases import LAM
from hypothesis import given, settings
from hypothesis import strategies as st

import tinybilevel as tb
from tinybilevel.methods.truncation import geometric
from tinybilevel.testing import dense_hypergradient, relative_error

TOL = 1e-12

# The algebra of a tail holds at any state; whether it is worth much there is another question.
pytestmark = pytest.mark.filterwarnings("ignore:.*takes w_T for a minimum")


def constants(problem):
    c = tb.bounds.measure(problem)
    return dict(rate=c.rate, B_norm=c.B_norm)


@settings(max_examples=40, deadline=None)
@given(theory_cases.problems(), st.floats(-6, 1), st.booleans())
def test_the_certified_remainder_is_never_less_than_the_true_one(case, exponent, measured):
    problem, _ = case
    tol = 10.0**exponent
    limit = tol if measured else tb.Tolerance(tol, **constants(problem))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", tb.ConvergenceWarning)
        r = tb.KRMD(tol=limit)(problem)
    exact = tb.RMD()(problem).grad
    error = np.linalg.norm(r.grad - exact)
    assert error <= r.bound * (1 + 1e-9) + 1e-13 * (1 + np.linalg.norm(exact))
    assert r.converged == (r.bound <= tol)
    np.testing.assert_array_equal(r.grad, tb.KRMD(K=r.K)(problem).grad)


def test_it_stops_at_the_first_step_that_will_do():
    problem = tb.problems.toy(T=400)
    S = tb.bounds.measure(problem).remainders
    norms = tb.RMD()(problem).alpha_norms
    bounds = [S[400 - k] * norms[k] for k in range(401)]
    for tol in (1e-6, 1e-2, 1.0, 10.0):
        r = tb.KRMD(tol=tol)(problem)
        assert int(np.argmax(np.array(bounds) <= tol)) == r.K
        assert r.bound == pytest.approx(bounds[r.K], rel=1e-12)
        assert r.cost.products == r.K


def test_the_certificate_is_tight_in_one_direction():
    moves = tb.GradientDescent(tb.Quadratic(np.ones(1)), 0.1, initial=np.zeros(1))
    upper = theory_cases.linear_upper(np.ones(1))
    problem = tb.BilevelProblem(moves, upper, T=80, lam0=np.ones(1))
    exact = tb.RMD()(problem).grad
    for tol in (0.5, tb.Tolerance(0.5, rate=0.9, B_norm=0.1)):
        r = tb.KRMD(tol=tol)(problem)
        assert 0.99 <= np.abs(exact - r.grad)[0] / r.bound <= 1 + 1e-12


def test_a_bound_by_lambda_and_not_by_theta():
    """A map that stretches λ a thousandfold stretches the remainder as well."""
    toy = tb.problems.toy()
    problem = tb.BilevelProblem(
        toy.transition, toy.upper, T=100, hyper_map=tb.Affine(1000.0), lam0=toy.lam0 / 1000
    )
    r = tb.KRMD(tol=100.0)(problem)
    error = np.linalg.norm(r.grad - tb.RMD()(problem).grad)
    assert 1 < error <= r.bound <= 100


def test_capacity_too_small_for_the_tolerance():
    problem = tb.problems.toy(T=400)
    with pytest.warns(
        tb.ConvergenceWarning,
        match=r"KRMD stopped after its 7 steps at a certified "
        r"remainder of 1.9e\+01: tol = 1.0e-03 is not met",
    ):
        r = tb.KRMD(K=7, tol=1e-3)(problem)
    assert not r.converged
    assert r.K == 7
    assert r.bound > 1e-3
    assert r.cost.bytes == tb.KRMD(K=7).cost(problem).bytes


def test_nothing_left_to_propagate_needs_no_step():
    moves = tb.GradientDescent(tb.Quadratic(np.ones(1)), 0.1, initial=np.zeros(1))
    upper = theory_cases.linear_upper(np.zeros(1))
    problem = tb.BilevelProblem(moves, upper, T=50, lam0=np.ones(1))
    for tol in (1e-9, tb.Tolerance(1e-9, rate=1e10, B_norm=1.0)):
        r = tb.KRMD(tol=tol)(problem)
        assert (r.K, r.bound, r.converged) == (0, 0, True)


@pytest.mark.parametrize("storage", engine_cases.STORAGES, ids=repr)
def test_any_storage_may_be_stopped_early(storage):
    problem = tb.problems.toy(T=60)
    r = tb.KRMD(storage=storage, tol=1.0)(problem)
    assert 0 < r.K < 60
    np.testing.assert_array_equal(r.grad, tb.KRMD(K=r.K)(problem).grad)


@pytest.mark.parametrize(
    ("rate", "terms", "total"),
    [(0.5, 3, 1.75), (1.0, 7, 7.0), (2.0, 4, 15.0), (0.0, 3, 1.0), (1 - 1e-12, 1000, 1000.0)],
)
def test_the_geometric_sum(rate, terms, total):
    assert geometric(rate, terms) == pytest.approx(total, rel=1e-9)


def test_the_geometric_sum_overflows_to_infinity():
    assert geometric(2.0, 5000) == np.inf


@pytest.mark.parametrize("tol", [0, -1.0, np.inf, np.nan])
def test_a_tolerance_out_of_range(tol):
    with pytest.raises(ValueError, match="tol must be greater than 0 and finite, got"):
        tb.KRMD(tol=tol)
    with pytest.raises(ValueError, match="value must be greater than 0 and finite, got"):
        tb.Tolerance(tol, rate=0.5, B_norm=1.0)


@pytest.mark.parametrize(("name", "value"), [("rate", -0.1), ("B_norm", np.inf), ("rate", np.nan)])
def test_a_constant_out_of_range(name, value):
    with pytest.raises(ValueError, match=f"{name} must be finite and at least 0, got"):
        tb.Tolerance(1.0, **(dict(rate=0.5, B_norm=1.0) | {name: value}))


def test_wrong_kinds():
    with pytest.raises(TypeError, match="KRMD needs K, the number of backward steps, or a tol"):
        tb.KRMD()
    for tol in ("0.1", True, [0.1]):
        with pytest.raises(TypeError, match="tol must be a number or a Tolerance, got"):
            tb.KRMD(tol=tol)
    for tail in (tb.RMD(), tb.KRMD(K=1), 5):
        with pytest.raises(TypeError, match=r"tail must be Neumann\(…\) or ImplicitCG\(…\), got"):
            tb.KRMD(K=1, tail=tail)
    with pytest.raises(ValueError, match="give tol or tail, not both"):
        tb.KRMD(K=1, tol=0.1, tail=tb.Neumann(1))


@pytest.mark.parametrize("make", [tb.RMD, lambda storage: tb.KRMD(2, storage)])
@pytest.mark.parametrize("storage", [tb.Ring, 5, None])
def test_what_is_no_storage_is_refused(make, storage):
    with pytest.raises(TypeError, match=r"storage must be a Storage such as Checkpoint\(\), got"):
        make(storage)


def test_a_method_made_with_a_problem_says_how_it_is_called():
    with pytest.raises(TypeError, match=r"RMD\(\)\(problem\) is the call"):
        tb.RMD(tb.problems.toy())


@pytest.mark.parametrize("value", ["x", True, None])
def test_what_is_no_number_is_refused(value):
    for name in ("tol", "damping"):
        with pytest.raises(TypeError, match=f"{name} must be a number, got"):
            tb.ImplicitCG(**{name: value})
    for name in ("rate", "B_norm"):
        with pytest.raises(TypeError, match=f"{name} must be a number, got"):
            tb.Tolerance(0.1, **{**dict(rate=0.5, B_norm=1.0), name: value})


@pytest.mark.parametrize(
    ("method", "T"),
    [
        (tb.KRMD(K=2, tol=1e-6), 100),
        (tb.ImplicitCG(), 3),
        (tb.KRMD(K=2, tail=tb.ImplicitCG()), 3),
    ],
)
def test_a_warning_names_the_line_of_the_call(method, T):
    with pytest.warns(tb.ConvergenceWarning) as caught:
        method(tb.problems.toy(T=T))
    assert [each.filename for each in caught] == [__file__]


@pytest.mark.parametrize(
    "method",
    [
        tb.KRMD(tol=0.5),
        tb.KRMD(K=30, tol=tb.Tolerance(0.5, 0.95, 0.1)),
        tb.KRMD(K=3, tail=tb.Neumann(4)),
        tb.KRMD(K=3, tail=tb.ImplicitCG(4)),
    ],
)
def test_methods_are_values(method):
    assert pickle.loads(pickle.dumps(method)) == method
    assert eval(repr(method), vars(tb)) == method


def test_the_text_that_a_checkpoint_knows_a_run_by_has_not_changed():
    assert repr(tb.KRMD(K=5)) == "KRMD(K=5, storage=Ring())"


# The tail


def dense_tail(problem, lam, K, m):
    """Return h_{T−K} + B Σ_{k<m} Aᵏ α_{T−K}, by vjps at w_{T−K} alone."""
    theta, move = problem.hyper_map(lam), problem.transition
    w = [move.initial(theta)]
    for t in range(problem.T):
        w.append(move.step(t, w[-1], theta))
    x = move.readout(w[-1])
    alpha = move.readout_vjp(problem.upper.grad(x, theta))
    h = problem.upper.grad_lam(x, theta)
    for t in range(problem.T - 1, problem.T - K - 1, -1):
        alpha, B_alpha = move.vjp(t, w[t], theta, alpha)
        h = h + B_alpha
    start = problem.T - K
    for _ in range(m):
        alpha, B_alpha = move.vjp(max(start - 1, 0), w[start], theta, alpha)
        h = h + B_alpha
    return problem.hyper_map.vjp(lam, h)


@pytest.mark.parametrize("storage", engine_cases.STORAGES, ids=repr)
@pytest.mark.parametrize("transition", [tb.GradientDescent, tb.Nesterov, tb.AdamTransition])
def test_a_neumann_tail_is_linearised_at_the_oldest_state(storage, transition):
    problem = engine_cases.long(10, transition)
    for K in (0, 1, 4, 10):
        r = tb.KRMD(K=K, storage=storage, tail=tb.Neumann(3))(problem, LAM)
        assert relative_error(r.grad, dense_tail(problem, LAM, K, 3)) <= TOL
        assert r.K == K


def test_no_terms_are_no_tail():
    problem = engine_cases.long(10)
    for K in (0, 4):
        without = tb.KRMD(K=K)(problem, LAM)
        np.testing.assert_array_equal(
            tb.KRMD(K=K, tail=tb.Neumann(0))(problem, LAM).grad, without.grad
        )


@pytest.mark.parametrize("m", [0, 1, 5])
def test_with_K_0_it_is_the_tail_alone(m):
    problem = engine_cases.long(10)
    together = tb.KRMD(K=0, tail=tb.Neumann(m))(problem, LAM)
    np.testing.assert_array_equal(together.grad, tb.Neumann(m)(problem, LAM).grad)


def test_a_quadratic_is_exact_with_as_many_terms_as_steps_left():
    problem = theory_cases.quadratic(T=30)
    for K in (0, 1, 12):
        tail = tb.KRMD(K=K, tail=tb.Neumann(30 - K))(problem).grad
        assert relative_error(tail, dense_hypergradient(problem, problem.lam0, 30)) <= TOL


@pytest.mark.parametrize("K", [0, 1, 7])
def test_a_cg_tail_solves_at_the_oldest_state(K):
    """h_{T−K} − M H⁻¹ α_{T−K}/… with H and M at w_{T−K}; here g is no quadratic."""
    problem = theory_cases.softmax(T=20)
    g, theta = problem.transition.objective, problem.hyper_map(problem.lam0)
    w = [problem.transition.initial(theta)]
    for t in range(20):
        w.append(problem.transition.step(t, w[-1], theta))
    alpha, h = np.cos(w[-1]), -np.sin(theta)
    for t in range(19, 19 - K, -1):
        alpha, B_alpha = problem.transition.vjp(t, w[t], theta, alpha)
        h = h + B_alpha
    H, mixed = zip(*(g.grad_vjp(w[20 - K], theta, e) for e in np.eye(w[0].size)), strict=True)
    h = h - np.array(mixed).T @ np.linalg.solve(np.array(H), alpha)
    r = tb.KRMD(K=K, tail=tb.ImplicitCG(tol=1e-13))(problem)
    assert relative_error(r.grad, problem.hyper_map.vjp(problem.lam0, h)) <= 1e-10
    assert r.converged
    assert 0 < r.residual < 1e-12


@pytest.mark.parametrize("transition", [tb.HeavyBall, tb.Nesterov])
def test_a_cg_tail_after_momentum_converges_to_the_exact_gradient(transition):
    """The velocity's share of α_{T−K} drops out: derived in docs/howto/truncation.md."""
    base = theory_cases.softmax(T=400, l2=0.5)
    gamma = base.transition.step_size(0, base.lam0)
    moves = transition(
        base.transition.objective, gamma, base.transition.initial(base.lam0), momentum=0.5
    )
    problem = tb.BilevelProblem(moves, base.upper, T=400, hyper_map=base.hyper_map, lam0=base.lam0)
    exact = tb.RMD()(problem).grad
    for K in (0, 1, 2, 6):
        r = tb.KRMD(K=K, tail=tb.ImplicitCG(tol=1e-13))(problem)
        assert relative_error(r.grad, exact) <= 1e-9


def test_a_tail_that_does_not_converge_says_so():
    problem = theory_cases.quadratic(M=40, N=5, T=5, kappa=1e4)
    with pytest.warns(tb.ConvergenceWarning, match=r"after 3 iterations"):
        r = tb.KRMD(K=2, tail=tb.ImplicitCG(3))(problem)
    assert not r.converged
    assert r.residual > 1e-3


@pytest.mark.parametrize("tail", [tb.Neumann(6), tb.ImplicitCG(4, tol=0)])
def test_the_cost_of_a_tail_is_predicted(tail):
    problem = theory_cases.quadratic(M=20, N=5, T=9)
    method = tb.KRMD(K=4, tail=tail)
    assert method(problem).cost == method.cost(problem)
    assert method.cost(problem).bytes == tb.KRMD(K=4).cost(problem).bytes, "for free"


@pytest.mark.parametrize("K", [10, 50])
def test_where_the_lower_level_is_stochastic_the_tail_beats_both_of_its_parts(K):
    """The last K steps go through their own batches; the mean curvature does for the rest."""
    problem = theory_cases.digits()
    exact = tb.RMD()(problem).grad

    def error(method):
        return relative_error(method(problem).grad, exact)

    both = error(tb.KRMD(K=K, tail=tb.ImplicitCG(K, tol=0)))
    assert both < 0.5 * error(tb.ImplicitCG(2 * K, tol=0))
    assert both < 0.1 * error(tb.KRMD(K=2 * K))
    assert both < 0.1 * error(tb.Neumann(2 * K))
