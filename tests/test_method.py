"""What every method shares: its cost, its memory, its dtypes, and what a result is."""

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
