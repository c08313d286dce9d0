"""What every method shares: its cost, its memory, its dtypes, and what a result is."""

import concurrent.futures
import multiprocessing
import pickle
import re
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

ANYWHERE = pytest.mark.filterwarnings("ignore:Neumann takes w_T for a minimum")


@ANYWHERE
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


@pytest.mark.parametrize("method", [tb.KRMD(5000), tb.RMD(tb.Checkpoint()), tb.Neumann(5000)])
def test_a_backward_step_keeps_nothing_but_its_state_and_its_norm(method):
    problem = tb.problems.toy(T=5000)
    tracemalloc.start()
    try:
        method(problem)
        top = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    norms = 2 * 8 * 5000  # their squares, and they
    assert top <= method.cost(problem).bytes + norms + 30_000


def test_results_own_their_arrays():
    problem = engine_cases.long(6)
    for method in METHODS[:5]:
        r = method(problem, LAM)
        assert r.w.base is None
        assert not np.shares_memory(r.grad, LAM)
    np.testing.assert_array_equal(LAM, cases.hyperparameters())


@pytest.mark.parametrize("method", [tb.KRMD(K=0), tb.KRMD(K=3), tb.FMD(), tb.ImplicitCG()])
def test_a_gradient_never_is_a_users_array(method):
    kept = np.zeros(2)
    f = tb.Objective.from_functions(
        value=lambda w, lam: 0.0, grad=lambda w, lam: w, grad_lam=lambda w, lam: kept
    )
    r = method(replace(tb.problems.toy(), upper=f))
    assert not np.shares_memory(r.grad, kept)
    np.testing.assert_array_equal(kept, 0)  # nor is it written into


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
        (np.ones(3, dtype=bool), TypeError, "lam must be float32 or float64, got dtype bool"),
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


def test_scipy_cleans_real_digits():
    pytest.importorskip("sklearn")
    from scipy.optimize import minimize

    split = tb.data.digits().split(n_train=80, n_val=80, seed=0)  # float32
    y, _ = tb.data.corrupt_labels(split.y_train, 0.5, seed=0)
    problem = tb.problems.hypercleaning(split.X_train, y, split.X_val, split.y_val, T=20)
    fun, lam0 = tb.value_and_grad(problem, tb.RMD()), problem.lam0
    options = {"maxiter": 15}
    result = minimize(
        fun, lam0, jac=True, method="L-BFGS-B", bounds=[(-4, 4)] * 80, options=options
    )
    assert fun(lam0)[1].dtype == np.float64
    assert result.fun < 0.8 * fun(lam0)[0]
    assert np.abs(result.x).max() <= 4


def test_an_upper_gradient_may_be_the_state_itself():
    """No storage may write over the array that α_T shares with w_T."""
    f = tb.Objective.from_functions(
        value=lambda w, lam: float(w @ w / 2), grad=lambda w, lam: w, grad_lam=lambda w, lam: lam
    )
    problem = replace(tb.problems.toy(T=9), upper=f)
    methods = [tb.FMD(), *(tb.RMD(storage) for storage in STORAGES)]
    tb.testing.assert_methods_agree(problem, [1.0, 1.0], methods)


class Careless(tb.Ring):
    """A storage that writes over w_T once its iterator runs."""

    def run(self, dynamics, K):
        w, states = super().run(dynamics, K)

        def spoiling():
            w.fill(np.nan)
            yield from states

        return w, spoiling()


@pytest.mark.parametrize("make", [tb.RMD, lambda storage: tb.KRMD(4, storage)])
def test_a_storage_may_write_over_the_last_state(make):
    problem = engine_cases.long(6)
    expected, r = make(tb.Ring())(problem, LAM), make(Careless())(problem, LAM)
    np.testing.assert_array_equal(r.grad, expected.grad)
    np.testing.assert_array_equal(r.w, expected.w)


class Handmade(tb.Transition):
    """w_{t+1} = w_t / 2 + λ_1; one of its products comes in a shape that would broadcast."""

    def __init__(self, wrong=None):
        super().__init__(np.ones(3))
        self.wrong = wrong

    def _give(self, name, result):
        return np.ones(1) if name == self.wrong else result

    def step(self, t, w, lam):
        return self._give("step", w / 2 + lam[0])

    def vjp(self, t, w, lam, alpha):
        B_alpha = np.array([alpha.sum(), 0])
        return self._give("vjp[0]", alpha / 2), self._give("vjp[1]", B_alpha)

    def jvp(self, t, w, lam, dw, dlam):
        return self._give("jvp", dw / 2 + dlam[0])

    def initial_vjp(self, lam, alpha):
        return self._give("initial_vjp", super().initial_vjp(lam, alpha))

    def initial_jvp(self, lam, dlam):
        return self._give("initial_jvp", super().initial_jvp(lam, dlam))


@pytest.mark.parametrize(
    ("wrong", "method"),
    [
        ("step", tb.RMD()),
        ("vjp[0]", tb.RMD()),
        ("vjp[1]", tb.RMD()),
        ("initial_vjp", tb.RMD()),
        ("jvp", tb.FMD()),
        ("initial_jvp", tb.FMD()),
    ],
)
def test_a_product_of_the_wrong_shape_does_not_broadcast(wrong, method):
    right = tb.BilevelProblem(Handmade(), cases.cosine_of_state(), T=3)
    tb.testing.assert_methods_agree(right, [1.0, 1.0], [tb.RMD(), tb.FMD()])
    broken = replace(right, transition=Handmade(wrong))
    with pytest.raises(ValueError, match=rf"^{re.escape(wrong)} must have shape"):
        method(broken, [1.0, 1.0])


class Flat(tb.HyperMap):
    """A map with one method that returns the wrong shape."""

    def __init__(self, wrong):
        self.wrong = wrong

    def __call__(self, lam):
        return lam[:, None] if self.wrong == "call" else lam

    def vjp(self, lam, h):
        return h.sum() if self.wrong == "vjp" else h


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("call", r"hyper_map\(lam\) must have 1 dimension"),
        ("vjp", r"the vjp of hyper_map must have shape \(2,\), got \(\)"),
    ],
)
def test_a_map_of_the_wrong_shape_is_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        tb.RMD()(replace(tb.problems.toy(), hyper_map=Flat(wrong)))


def test_a_process_pool_brings_back_results_and_errors():
    good, lam = tb.problems.toy(), np.array([1.0, 1.0])
    bad = tb.problems.toy(T=2000, step_size=30.0)
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        result, failed = pool.submit(tb.RMD(), good, lam), pool.submit(tb.RMD(), bad, lam)
        np.testing.assert_array_equal(result.result().grad, tb.RMD()(good, lam).grad)
        with pytest.raises(tb.DivergenceError, match="step size γ = 30") as caught:
            failed.result()
    with pytest.raises(tb.DivergenceError) as here:
        tb.RMD()(bad, lam)
    assert (caught.value.t, caught.value.norm) == (here.value.t, here.value.norm)
    np.testing.assert_array_equal(caught.value.lam, lam)


@pytest.mark.parametrize(
    ("given", "plain"),
    [
        (tb.KRMD(K=np.int64(5)), tb.KRMD(K=5)),
        (tb.Neumann(np.int32(5)), tb.Neumann(5)),
        (tb.ImplicitCG(np.int64(5)), tb.ImplicitCG(5)),
        (tb.Checkpoint(np.int64(5)), tb.Checkpoint(5)),
        (tb.Binomial(np.int64(5)), tb.Binomial(5)),
    ],
)
def test_a_numpy_count_is_the_plain_one(given, plain):
    assert given == plain
    assert repr(given) == repr(plain)


@pytest.mark.parametrize("method", [tb.RMD(), tb.KRMD(K=2), tb.FMD()])
def test_the_whole_state_comes_back_where_it_has_buffers(method):
    g, lam = tb.Quadratic([1.0, 0.5]), np.ones(2)
    ball = tb.HeavyBall(g, 0.1, initial=[2.0, 2.0], momentum=0.5)
    problem = tb.BilevelProblem(ball, tb.problems.toy().upper, T=3)
    state = ball.initial(lam)
    for t in range(3):
        state = ball.step(t, state, lam)
    r = method(problem, lam)
    np.testing.assert_array_equal(r.state, state)
    np.testing.assert_array_equal(r.w, state[:2])
    assert method(tb.problems.toy()).state is None


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        (None, "problem must be a BilevelProblem or a list of them, got None"),
        ([None] * 3, r"problem\[0\] must be a BilevelProblem, got None"),
    ],
)
def test_a_batch_of_something_else_is_refused(problem, message):
    with pytest.raises(TypeError, match=message):
        tb.KRMD(K=1).batch(problem, np.ones((3, 2)))
