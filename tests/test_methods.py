import concurrent.futures
import pickle
import tracemalloc
from dataclasses import replace

import cases
import engine_cases
import numpy as np
import pytest
from engine_cases import LAM, STORAGES

import tinybilevel as tb
from tinybilevel.testing import dense_hypergradient, relative_error

PROBLEMS = engine_cases.problems()
TOL = 1e-12


@pytest.mark.parametrize("name", PROBLEMS)
def test_all_exact_methods_agree_for_every_transition(name):
    problem, lam = PROBLEMS[name]
    exact = [tb.RMD(storage) for storage in STORAGES]
    tb.testing.assert_methods_agree(problem, lam, [*exact, tb.FMD()], tol=TOL)
    assert relative_error(tb.RMD()(problem, lam).grad, dense_hypergradient(problem, lam)) <= TOL


@pytest.mark.parametrize("name", [n for n in PROBLEMS if not n.startswith(("adam", "proximal"))])
def test_differences_agree_for_smooth_transitions(name):
    tb.testing.assert_matches_differences(*PROBLEMS[name], tb.RMD(), tol=1e-7)


@pytest.mark.parametrize("name", [n for n in PROBLEMS if n.startswith(("adam", "proximal"))])
def test_differences_agree_off_the_kinks(name):
    # A short step stays on one side of |z| = κ, and away from √ŝ near 0.
    tb.testing.assert_matches_differences(*PROBLEMS[name], tb.RMD(), step=1e-4, tol=1e-6)


@pytest.mark.parametrize("storage", STORAGES, ids=repr)
@pytest.mark.parametrize("transition", [tb.GradientDescent, tb.Nesterov, tb.AdamTransition])
def test_truncation_is_the_partial_sum_for_every_K(storage, transition):
    problem = engine_cases.long(10, transition)
    for K in range(problem.T + 1):
        r = tb.KRMD(K, storage)(problem, LAM)
        assert relative_error(r.grad, dense_hypergradient(problem, LAM, K)) <= TOL
        assert r.K == K
        assert r.alpha_norms.shape == (K + 1,)


def test_alpha_norms_are_those_of_the_recursion():
    problem = engine_cases.long(6)
    theta = problem.hyper_map(LAM)
    states = [problem.transition.initial(theta)]
    for t in range(6):
        states.append(problem.transition.step(t, states[-1], theta))
    alpha = problem.transition.readout_vjp(np.cos(problem.transition.readout(states[-1])))
    norms = [np.linalg.norm(alpha)]
    for t in range(5, -1, -1):
        alpha, _ = problem.transition.vjp(t, states[t], theta, alpha)
        norms.append(np.linalg.norm(alpha))
    np.testing.assert_allclose(tb.RMD()(problem, LAM).alpha_norms, norms, rtol=1e-13)


def test_K_equal_to_T_leaves_out_the_initial_product_and_RMD_does_not():
    problem = engine_cases.long(5)
    full, truncated = tb.RMD()(problem, LAM).grad, tb.KRMD(K=5)(problem, LAM).grad
    gap = (full - truncated)[cases.LAYOUT["w0"]]
    assert np.linalg.norm(gap) > 1e-3
    np.testing.assert_array_equal(np.delete(full - truncated, cases.LAYOUT["w0"]), 0)

    fixed = engine_cases.from_fixed_start(problem)
    np.testing.assert_array_equal(tb.RMD()(fixed, LAM).grad, tb.KRMD(K=5)(fixed, LAM).grad)


@pytest.mark.parametrize("T", [0, 1])
def test_short_horizons(T):
    problem = engine_cases.long(T)
    methods = [*(tb.RMD(storage) for storage in STORAGES), tb.FMD()]
    tb.testing.assert_methods_agree(problem, LAM, methods, tol=TOL)
    dense = dense_hypergradient(problem, LAM)
    assert relative_error(tb.RMD()(problem, LAM).grad, dense) <= TOL
    direct = engine_cases.MAP.vjp(LAM, -np.sin(engine_cases.MAP(LAM)))
    np.testing.assert_allclose(tb.KRMD(K=0)(problem, LAM).grad, direct, rtol=1e-14)


def test_K_beyond_the_horizon_is_refused():
    for call in (tb.KRMD(K=4), tb.KRMD(K=4).cost):
        with pytest.raises(ValueError, match="K must be at most the horizon T = 3, got 4"):
            call(engine_cases.long(3), LAM)


@pytest.mark.parametrize("K", [-1, 2.0, True, None])
def test_K_must_be_a_count(K):
    with pytest.raises((TypeError, ValueError), match="K must be"):
        tb.KRMD(K=K)


@pytest.mark.parametrize("transition", [tb.HeavyBall, tb.Nesterov, tb.AdamTransition])
def test_buffers_cross_the_truncation_boundary(transition):
    """The window starts from the state that the run reached, buffers included."""
    problem, K = engine_cases.long(8, transition), 3
    theta = problem.hyper_map(LAM)
    w = problem.transition.initial(theta)
    for t in range(5):
        w = problem.transition.step(t, w, theta)
    states = [w]
    for t in range(5, 8):
        states.append(problem.transition.step(t, states[-1], theta))
    alpha = problem.transition.readout_vjp(np.cos(problem.transition.readout(states[-1])))
    h = -np.sin(theta)
    for t in range(7, 4, -1):
        alpha, b = problem.transition.vjp(t, states[t - 5], theta, alpha)
        h = h + b
    expected = engine_cases.MAP.vjp(LAM, h)
    assert relative_error(tb.KRMD(K)(problem, LAM).grad, expected) <= TOL


def test_batches_are_replayed_in_their_order():
    problem = engine_cases.long(8)
    right = tb.RMD()(problem, LAM).grad
    rolled = engine_cases.long(8)
    rolled.transition.batches = rolled.transition.batches[1:] + rolled.transition.batches[:1]
    assert relative_error(right, tb.RMD()(rolled, LAM).grad) > 1e-3
    assert relative_error(right, dense_hypergradient(problem, LAM)) <= TOL


class Counted(tb.HyperMap):
    def __init__(self, inner):
        self.inner, self.calls, self.pulls = inner, 0, 0

    def __call__(self, lam):
        self.calls += 1
        return self.inner(lam)

    def vjp(self, lam, h):
        self.pulls += 1
        return self.inner.vjp(lam, h)

    def jvp(self, lam, dlam):
        return self.inner.jvp(lam, dlam)


def test_the_map_is_evaluated_once_and_that_equals_pulling_back_at_every_step():
    problem = engine_cases.long(7)
    counted = Counted(problem.hyper_map)
    r = tb.KRMD(K=5)(replace(problem, hyper_map=counted), LAM)
    assert (counted.calls, counted.pulls) == (1, 1)

    theta, pull = problem.hyper_map(LAM), problem.hyper_map.vjp
    states = [problem.transition.initial(theta)]
    for t in range(7):
        states.append(problem.transition.step(t, states[-1], theta))
    alpha = problem.transition.readout_vjp(np.cos(problem.transition.readout(states[-1])))
    h = pull(LAM, -np.sin(theta))
    for t in range(6, 1, -1):
        alpha, b = problem.transition.vjp(t, states[t], theta, alpha)
        h = h + pull(LAM, b)
    assert relative_error(r.grad, h) <= TOL


METHODS = [
    *(tb.RMD(storage) for storage in STORAGES),
    *(tb.KRMD(K, storage) for K in (0, 1, 4, 9) for storage in STORAGES),
    tb.FMD(),
    tb.Neumann(6),
]


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_cost_is_predicted(method):
    for problem in (engine_cases.long(9), engine_cases.long(10, tb.AdamTransition)):
        assert method.cost(problem, LAM) == method(problem, LAM).cost


def quadratic(T, M=20_000, N=2):
    rng = np.random.default_rng(0)
    g = tb.Quadratic(rng.uniform(0.5, 1.0, M), C=rng.standard_normal((M, N)))
    f = tb.Objective.from_functions(value=lambda w, lam: w @ w, grad=lambda w, lam: 2 * w)
    moves = tb.GradientDescent(g, 0.5, initial=np.zeros(M))
    return tb.BilevelProblem(moves, upper=f, T=T, lam0=np.ones(N))


def peak(method, problem):
    """Return the peak memory of a call, in states."""
    tracemalloc.start()
    try:
        method(problem)
        return tracemalloc.get_traced_memory()[1] / problem.transition.initial(problem.lam0).nbytes
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("method", "T"),
    [
        (tb.KRMD(K=1), 100),
        (tb.KRMD(K=40), 100),
        (tb.RMD(), 60),
        (tb.RMD(tb.Checkpoint()), 100),
        (tb.RMD(tb.Checkpoint()), 400),
        (tb.RMD(tb.Binomial(7)), 100),
        (tb.FMD(), 20),
        (tb.FMD(), 80),
    ],
    ids=repr,
)
def test_memory_is_what_the_cost_says_and_a_few_temporaries(method, T):
    problem = quadratic(T)
    held = method.cost(problem).bytes / (8 * 20_000)
    assert held <= peak(method, problem) <= held + 9


def test_results_own_their_arrays():
    problem = engine_cases.long(6)
    for method in METHODS[:5]:
        r = method(problem, LAM)
        assert r.w.base is None
        assert not np.shares_memory(r.grad, LAM)
    np.testing.assert_array_equal(LAM, cases.hyperparameters())


def test_a_gradient_never_is_a_users_array():
    kept = np.zeros(2)
    f = tb.Objective.from_functions(
        value=lambda w, lam: 0.0, grad=lambda w, lam: 0 * w, grad_lam=lambda w, lam: kept
    )
    r = tb.KRMD(K=0)(replace(tb.problems.toy(), upper=f))
    assert not np.shares_memory(r.grad, kept)


def test_float32_stays_float32():
    lam = cases.hyperparameters(np.float32)
    for name, case in cases.transitions(np.float32).items():
        if "from-slice" not in name and "descent" in name:
            f = cases.cosine_of_state()
            r = tb.KRMD(K=2)(tb.BilevelProblem(case.subject, f, T=3), lam)
            assert (r.grad.dtype, r.w.dtype) == (np.float32, np.float32), name


def test_a_mix_promotes():
    case = cases.transitions(np.float32)["descent-constant"]
    problem = tb.BilevelProblem(case.subject, cases.cosine_of_state(), T=3)
    assert tb.RMD()(problem, cases.hyperparameters()).grad.dtype == np.float64


def test_a_float32_lam_does_not_cost_float64_data_their_precision():
    data = np.random.default_rng(0).random((4, 3))
    problem = replace(tb.problems.hypercleaning(data, [0, 1, 1, 0], data, [0, 1, 1, 0]), lam0=None)
    lam = np.array([0.5, 0.3, 1, 2], np.float32)
    r = tb.RMD()(problem, lam)
    np.testing.assert_array_equal(r.grad, tb.RMD()(problem, lam.astype(np.float64)).grad)


@pytest.mark.parametrize(
    ("lam", "error", "message"),
    [
        (np.ones(3, dtype=int), TypeError, "lam must be float32 or float64, got dtype int64"),
        ([[1.0, 2.0]], ValueError, r"lam must have 1 dimension\(s\), got shape \(1, 2\)"),
        ([np.nan, 1.0], ValueError, "lam must be finite, got 1 NaN or inf"),
        (np.ones(3), ValueError, r"lam must have shape \(2,\), got \(3,\)"),
    ],
)
def test_a_wrong_lam_is_named(lam, error, message):
    with pytest.raises(error, match=message):
        tb.RMD()(tb.problems.toy(), lam)


def test_one_problem_serves_many_threads():
    problem = engine_cases.long(12)
    expected = tb.KRMD(K=7)(problem, LAM).grad
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        grads = list(pool.map(lambda _: tb.KRMD(K=7)(problem, LAM).grad, range(32)))
    for grad in grads:
        np.testing.assert_array_equal(grad, expected)


@pytest.mark.parametrize(
    "method", [tb.RMD(), tb.KRMD(3, tb.Binomial(2)), tb.FMD(), tb.ImplicitCG()]
)
def test_methods_and_problems_pickle(method):
    problem, again = pickle.loads(pickle.dumps((tb.problems.toy(), method)))
    assert again == method
    np.testing.assert_array_equal(again(problem).grad, method(tb.problems.toy()).grad)


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


def test_scipy_drives_the_hypergradients():
    from scipy.optimize import minimize

    problem = tb.problems.toy()
    fun = tb.value_and_grad(problem, tb.RMD())
    value, grad = fun(np.array([1.0, 1.0], dtype=np.float32))
    assert grad.dtype == np.float64
    assert value == tb.RMD()(problem).value
    bounds = [(0.1, 2), (-1, 2)]
    result = minimize(fun, [1.0, 1.0], jac=True, method="L-BFGS-B", bounds=bounds)
    np.testing.assert_allclose(result.x, [0.1, -0.0119], atol=1e-4)


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


class IgnoresOut(tb.GradientDescent):
    def step(self, t, w, lam, out=None):
        return super().step(t, w, lam)


def test_a_transition_may_ignore_out():
    moves = tb.problems.toy().transition
    problem = replace(tb.problems.toy(), transition=IgnoresOut(moves.objective, 0.1, [2.0, 2.0]))
    expected = tb.RMD()(tb.problems.toy())
    for storage in STORAGES:
        np.testing.assert_array_equal(tb.RMD(storage)(problem).grad, expected.grad)


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
