"""Small dense objectives of every kind, compiled, give what the plain code gives."""

import gc
import pickle
from dataclasses import replace

import cases
import numpy as np
import pytest

import tinybilevel as tb
from tinybilevel.compiled.loops import CleaningOnHost
from tinybilevel.compiled.problem import CompiledProblem
from tinybilevel.problems.counterexample import Coupled
from tinybilevel.testing import relative_error

numba = pytest.importorskip("numba")

from tinybilevel.kernels import dense_loops  # noqa: E402
from tinybilevel.kernels.own import own as own_functions  # noqa: E402

M, N = 6, 5
NJIT = {
    name: numba.njit(getattr(cases, f"cosine_{name}"))
    for name in ("value", "grad", "grad_vjp", "grad_lam")
}


@numba.njit
def value_without_lam(w, lam):
    return np.sin(w).sum()


@numba.njit
def grad_without_lam(w, lam):
    return np.cos(w)


def softmax(dtype, **options):
    return tb.SoftmaxRegression(cases.normal(0, 5, 2, dtype=dtype), [0, 2, 1, 1, 0], 3, **options)


def linear(kind, dtype, **options):
    X = cases.normal(7, N, M, dtype=dtype)
    return kind(X, np.array([0, 1, 1, 0, 1], dtype), **options)


def quadratic(dtype, diagonal=False, **options):
    G = cases.normal(1, M, M, dtype=dtype)
    return tb.Quadratic(G[0] ** 2 if diagonal else G @ G.T / M, **options)


def lower(kind, dtype):
    """Return an objective of a kind and how many entries of λ it sees; w has M entries."""
    C, d = cases.normal(2, M, N, dtype=dtype), cases.normal(3, M, dtype=dtype)
    return {
        "dense": (quadratic(dtype, C=C, d=d), N),
        "dense, identity": (quadratic(dtype), M),
        "diagonal": (quadratic(dtype, diagonal=True, C=C), N),
        "softmax": (softmax(dtype), N),
        "softmax, unweighted": (softmax(dtype, weighted=False), M),
        "logistic": (linear(tb.LogisticRegression, dtype), N),
        "logistic, unweighted": (linear(tb.LogisticRegression, dtype, weighted=False), N),
        "least squares": (linear(tb.LeastSquares, dtype, scale=0.3) + tb.L2Penalty(0.2), N),
        "ridge": (softmax(dtype, scale=0.7) + 0.3 * tb.L2Penalty(0.2), N),
        "free bias": (softmax(dtype) + 0.5 * tb.L2Penalty(0.3, groups=[0, 0, -1] * 2), N),
        "grouped": (
            softmax(dtype) + tb.L2Penalty(np.array([0.1, 0.4], dtype), groups=[0, 1, 0, 1, 1, 1]),
            N,
        ),
        "learned": (
            0.5 * softmax(dtype).on(slice(2, 7)) + tb.L2Penalty(groups=[0, 1] * 3).on(slice(2)),
            7,
        ),
        "three": (quadratic(dtype, C=C) + tb.L2Penalty(0.1) + 0.2 * quadratic(dtype, C=2 * C), N),
        "functions": (tb.Objective.from_functions(**NJIT), M),
        "functions and ridge": (2.0 * tb.Objective.from_functions(**NJIT) + tb.L2Penalty(0.3), M),
    }[kind]


def upper(kind, N, dtype):
    return {
        "coupled": Coupled(0.7, 0.3),
        "softmax": softmax(dtype, weighted=False),
        "half": 0.5 * softmax(dtype),
        "block": tb.L2Penalty(groups=[0, 1] * 3).on(slice(3, 5)),
        "functions": tb.Objective.from_functions(value_without_lam, grad_without_lam),
        "own grad_lam": tb.Objective.from_functions(**NJIT),
        "logistic": linear(tb.LogisticRegression, dtype, weighted=False),
        "least squares": linear(tb.LeastSquares, dtype),
        "with lam": 0.5 * tb.Quadratic(np.ones(M, dtype), np.ones((M, N), dtype))
        + tb.L2Penalty(0.1),
    }[kind]


KINDS = (
    "dense",
    "dense, identity",
    "diagonal",
    "softmax",
    "softmax, unweighted",
    "logistic",
    "logistic, unweighted",
    "least squares",
    "ridge",
    "free bias",
    "grouped",
    "learned",
    "three",
    "functions",
    "functions and ridge",
)


def problem(kind="ridge", above="softmax", dtype=np.float64, T=9, **options):
    g, n_lam = lower(kind, dtype)
    descent = tb.GradientDescent(g, 0.2, cases.normal(4, M, dtype=dtype))
    lam0 = np.abs(cases.normal(5, n_lam, dtype=dtype))
    return tb.BilevelProblem(descent, upper(above, n_lam, dtype), T=T, lam0=lam0, **options)


def assert_same(plain, fast, method, tol=1e-12):
    a, b = method(fast), method(plain)
    for name in ("grad", "w", "alpha_norms"):
        assert getattr(a, name).dtype == getattr(b, name).dtype
        assert relative_error(getattr(a, name), getattr(b, name)) < tol, name
    assert a.value == pytest.approx(b.value, rel=tol, abs=tol)
    assert (a.K, a.cost.transitions) == (b.K, b.cost.transitions)


@pytest.mark.parametrize("kind", KINDS)
def test_every_lower_level(kind):
    plain = problem(kind)
    fast = tb.compile(plain)
    assert isinstance(fast, CompiledProblem)
    for K in (0, 1, 4, 9):
        assert_same(plain, fast, tb.KRMD(K=K))
    assert_same(plain, fast, tb.RMD())
    for T in (0, 1):
        assert_same(replace(plain, T=T), tb.compile(replace(plain, T=T)), tb.RMD())


@pytest.mark.parametrize(
    "above",
    [
        "coupled",
        "half",
        "block",
        "functions",
        "own grad_lam",
        "logistic",
        "least squares",
        "with lam",
    ],
)
def test_every_upper_level(above):
    plain = problem("dense, identity" if above == "own grad_lam" else "dense", above)
    assert_same(plain, tb.compile(plain), tb.KRMD(K=3))


def test_float32():
    plain = problem("dense", dtype=np.float32)
    fast = tb.compile(plain)
    assert_same(plain, fast, tb.KRMD(K=5), 1e-5)
    lam = plain.lam0.astype(np.float64)
    np.testing.assert_array_equal(tb.RMD()(fast, lam).grad, tb.RMD()(plain, lam).grad)


@pytest.mark.parametrize("phi", [tb.Sigmoid(), tb.Exp(), tb.Affine(np.eye(N)[::-1].copy())])
def test_maps_are_pulled_back(phi):
    plain = problem(hyper_map=phi)
    fast = tb.compile(plain)
    assert_same(plain, fast, tb.KRMD(K=5))
    lams = cases.normal(6, 3, N)
    for a, b in zip(tb.KRMD(K=5).batch(fast, lams), tb.KRMD(K=5).batch(plain, lams), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


@pytest.mark.parametrize("rows", [0, 1, 15, 16, 17, 100])
def test_a_batch_is_one_after_the_other(rows):
    plain, lams = problem(), np.random.default_rng(0).random((rows, N))
    fast = tb.compile(plain)
    values, grads = tb.KRMD(K=4).batch(fast, lams)
    assert values.shape == (rows,)
    assert grads.shape == (rows, N)
    for k in range(0, rows, 7):
        r = tb.KRMD(K=4)(plain, lams[k])
        assert values[k] == pytest.approx(r.value, rel=1e-13)
        assert relative_error(grads[k], r.grad) < 1e-13
    again = tb.KRMD(K=4).batch(fast, np.repeat(lams, 2, axis=1)[:, ::2])
    np.testing.assert_array_equal(again[1], grads)


def test_problems_of_one_form_share_a_loop_and_not_their_data():
    one, other = problem(), problem()
    object.__setattr__(
        other,
        "transition",
        tb.GradientDescent(
            softmax(np.float64, scale=0.1) + 0.9 * tb.L2Penalty(0.2), 0.2, np.zeros(M)
        ),
    )
    fast = [tb.compile(p) for p in (one, other)]
    tb.RMD()(fast[0])
    known = len(dense_loops._single.overloads)
    for plain, compiled in zip((one, other), fast, strict=True):
        assert_same(plain, compiled, tb.KRMD(K=5))
    assert len(dense_loops._single.overloads) == known
    copy = pickle.loads(pickle.dumps(fast[0]))
    np.testing.assert_array_equal(tb.RMD()(copy).grad, tb.RMD()(fast[0]).grad)


def test_sizes_are_looked_at_before_compiled_code_runs():
    fast = tb.compile(replace(problem(), lam0=None))
    with pytest.raises(ValueError, match="lam must hold 5 example weights, got shape"):
        tb.RMD()(fast, np.ones(4))
    with pytest.raises(ValueError, match="lam must hold 5 example weights, got shape"):
        tb.RMD().batch(fast, np.ones((3, 4)))
    wrong = problem("ridge")
    start = tb.GradientDescent(wrong.transition.objective, 0.2, np.zeros(M + 1))
    with pytest.raises(ValueError, match="w must have shape"):
        tb.RMD()(tb.compile(replace(wrong, transition=start)))


@numba.njit
def fails_above_one(w, lam):
    if lam[0] > 1:
        raise ValueError("as it should")
    return lam[0] * w


def test_what_a_function_of_the_user_s_own_raises_comes_out():
    plain = problem("functions")
    own = tb.Objective.from_functions(**{**NJIT, "grad": fails_above_one})
    fast = tb.compile(replace(plain, transition=tb.GradientDescent(own, 0.1, np.ones(M))))
    lams = np.full((100, M), 0.5)
    tb.RMD()(fast, lams[0])
    tb.RMD().batch(fast, lams)
    lams[70:] = 2.0
    with pytest.raises(ValueError, match="as it should"):
        tb.RMD()(fast, lams[70])
    with pytest.raises(ValueError, match="as it should"):
        tb.RMD().batch(fast, lams)


@numba.njit
def products_that_fail_away_from_one(w, lam, v):
    if w[0] != 1:
        raise ValueError("as it should")
    return lam[0] * v, w * v


@pytest.mark.parametrize("K", [1, 3])
def test_what_a_step_back_raises_comes_out(K):
    own = tb.Objective.from_functions(**{**NJIT, "grad_vjp": products_that_fail_away_from_one})
    descent = tb.GradientDescent(own, 0.1, np.ones(M))  # whose shapes are looked at there
    fast = tb.compile(replace(problem("functions"), transition=descent))
    with pytest.raises(ValueError, match="as it should"):
        tb.KRMD(K=K)(fast)
    with pytest.raises(ValueError, match="as it should"):
        tb.KRMD(K=K).batch(fast, np.full((2, M), 0.5))


def test_a_problem_keeps_what_is_compiled_around_its_functions():
    own = tb.Objective.from_functions(**{**NJIT, "value": numba.njit(cases.cosine_value)})
    plain = replace(problem("functions"), upper=own)
    fast = tb.compile(plain)
    expected = tb.RMD()(fast).grad
    own_functions.cache_clear()
    gc.collect()
    tb.RMD()(tb.compile(replace(plain, upper=tb.L2Penalty(0.1))))  # others come to lie there
    np.testing.assert_array_equal(tb.RMD()(fast).grad, expected)


@numba.njit
def short(w, lam):
    return w[1:]


@numba.njit
def short_below_zero(w, lam):
    return w[1:] if lam[0] < 0 else w + 0


def test_a_function_whose_shape_changes_with_lam_is_refused():
    own = tb.Objective.from_functions(**{**NJIT, "grad": short_below_zero})
    descent = tb.GradientDescent(own, 0.1, np.ones(M))
    fast = tb.compile(replace(problem("functions"), transition=descent))
    tb.RMD()(fast, np.ones(M))
    with pytest.raises(ValueError, match=r"grad must have shape \(6,\), got \(5,\)"):
        tb.RMD()(fast, -np.ones(M))


def test_a_function_of_the_wrong_shape_is_refused():
    plain = problem("functions")
    own = tb.Objective.from_functions(**{**NJIT, "grad": short})
    fast = tb.compile(replace(plain, transition=tb.GradientDescent(own, 0.1, np.ones(M))))
    with pytest.raises(ValueError, match=r"grad must have shape \(6,\), got \(5,\)"):
        tb.RMD()(fast)
    parallel = numba.njit(parallel=True)(cases.cosine_value)
    with pytest.raises(TypeError, match="value must not be parallel"):
        tb.compile(replace(plain, upper=tb.Objective.from_functions(parallel, NJIT["grad"])))


def test_a_run_that_diverges_is_explained():
    plain = problem("dense, identity", T=5000)
    steep = tb.GradientDescent(plain.transition.objective, 100.0, np.ones(M))
    fast = tb.compile(replace(plain, transition=steep))
    for call in (tb.KRMD(K=1), lambda p: tb.KRMD(K=1).batch(p, p.lam0[None])):
        with pytest.raises(tb.DivergenceError, match="step size"):
            call(fast)


def at_size(kind, n):
    """Return an objective of a kind whose size is n, and how many entries w has."""
    ridge, own = tb.L2Penalty(0.1), tb.Objective.from_functions(**NJIT)
    return {
        "softmax": (tb.SoftmaxRegression(np.ones((n, 3)), np.arange(n) % 2, weighted=False), 6),
        "logistic": (tb.LogisticRegression(np.ones((n, 4)), np.arange(n) % 2), 4),
        "matrix": (tb.Quadratic(np.eye(min(n, 1000))) + ridge, min(n, 1000)),
        "diagonal": (tb.Quadratic(np.ones(n)) + ridge, n),
        "C": (tb.Quadratic(np.ones(2), np.ones((2, n))) + ridge, 2),
        "penalty": (tb.L2Penalty(groups=np.zeros(n, int)) + ridge, n),
        "functions": (own, n),
    }[kind]


@pytest.mark.parametrize(
    ("kind", "largest"),
    [
        ("softmax", 581),
        ("logistic", 1379),
        ("matrix", 447),
        ("diagonal", 400),
        ("C", 100_000),
        ("penalty", 4000),
        ("functions", 10_000),
    ],
)
@pytest.mark.parametrize("level", ["lower", "upper"])
def test_what_a_scalar_loop_would_slow_down_stays_plain(kind, largest, level):
    if kind in ("softmax", "logistic") and level == "lower":
        pytest.skip("the kernels' loop takes any size of it")

    def problem(n):
        objective, M = at_size(kind, n)
        own = tb.Objective.from_functions(**NJIT)
        lower, upper = (objective, own) if level == "lower" else (own, objective)
        return tb.BilevelProblem(tb.GradientDescent(lower, 0.1, np.zeros(M)), upper, T=2)

    assert isinstance(tb.compile(problem(largest)), CompiledProblem)
    plain = problem(largest + 1)
    assert tb.compile(plain) is plain


def test_a_weighted_softmax_regression_of_any_size_has_a_loop():
    own = tb.Objective.from_functions(value=lambda w, lam: 0.5 * w @ w, grad=lambda w, lam: w)
    for n, backend in ((3, "auto"), (300, "auto"), (3000, "numpy")):
        X, y = cases.normal(0, n, 5), np.arange(n) % 3
        g = tb.SoftmaxRegression(X, y, backend=backend) + tb.L2Penalty(0.1)
        plain = tb.BilevelProblem(
            tb.GradientDescent(g, 0.1, np.zeros(15)), own, T=4, lam0=np.ones(n)
        )
        fast = tb.compile(plain)
        assert type(fast.loop).__name__ == "CleaningOnHost"
        assert_same(plain, fast, tb.KRMD(K=2))


def test_the_kernels_loop_leaves_a_bias_without_penalty_alone():
    X, y = cases.normal(0, 700, 3), np.arange(700) % 2
    free = tb.L2Penalty(0.5, groups=[0, 0, -1] * 2)
    g = tb.SoftmaxRegression(X, y, backend="numba") + free
    descent = tb.GradientDescent(g, 0.1, cases.normal(1, 6))
    plain = tb.BilevelProblem(descent, tb.L2Penalty(0.1), T=5, lam0=np.ones(700))
    assert_same(plain, tb.compile(plain), tb.RMD())


def quadratics(count, T=7):
    rng = np.random.default_rng(0)
    for _ in range(count):
        g = tb.Quadratic(rng.random(3), rng.standard_normal((3, 2)), rng.standard_normal(3))
        descent = tb.GradientDescent(g, rng.random(), rng.standard_normal(3))
        yield tb.BilevelProblem(descent, Coupled(rng.random(), 1.0), T=T)


@pytest.mark.parametrize("count", [1, 2, 63, 64, 65, 200])
def test_a_monte_carlo_over_problems(count, monkeypatch):
    plain, lams = list(quadratics(count)), np.random.default_rng(1).standard_normal((count, 2))
    fast, method = [tb.compile(p) for p in plain], tb.KRMD(K=5)
    values, grads = method.batch(plain, lams)
    calls = []
    monkeypatch.setattr(type(method), "_evaluate", lambda *_: calls.append(1))
    for found, expected in zip(method.batch(fast, lams), (values, grads), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-13)
    assert not calls


def test_problems_of_several_kinds_are_taken_one_by_one():
    a, b = list(quadratics(2))
    mixed = [
        tb.compile(a),
        b,
        tb.compile(replace(a, T=3)),
        tb.compile(replace(b, hyper_map=tb.Exp())),
    ]
    for problems in (mixed, mixed[::2]):  # the latter of one kind, but for T
        lams = cases.normal(0, len(problems), 2)
        values, grads = tb.RMD().batch(problems, lams)
        for p, lam, value, grad in zip(problems, lams, values, grads, strict=True):
            assert value == tb.RMD()(p, lam).value
            np.testing.assert_array_equal(grad, tb.RMD()(p, lam).grad)


def test_what_a_batch_refuses():
    problems = list(quadratics(2))
    with pytest.raises(ValueError, match="lams must have a row for each of 2 problems, got 3"):
        tb.RMD().batch(problems, np.ones((3, 2)))
    with pytest.raises(TypeError, match=r"problem\[1\] must be a BilevelProblem, got 'toy'"):
        tb.RMD().batch([problems[0], "toy"], np.ones((2, 2)))
    with pytest.raises(ValueError, match="lam must have shape"):
        tb.RMD().batch([tb.compile(p) for p in problems], np.ones((2, 3)))
    values, grads = tb.RMD().batch([], np.ones((0, 2)))
    assert values.shape == (0,)
    assert grads.shape == (0, 2)


def small(**options):
    X = np.random.default_rng(3).standard_normal((3, 2))
    g, f = (tb.SoftmaxRegression(X, [0, 1, 1], weighted=weighted) for weighted in (True, False))
    descent = tb.GradientDescent(g, step_size=0.1, initial=np.full(4, 0.1))
    return tb.BilevelProblem(descent, upper=f, T=4, **options)


def test_float32_hyperparameters_of_a_float64_problem_give_a_float64_hypergradient():
    problem, lam = small(), np.array([0.3, 0.2, 0.1], np.float32)
    want, got = (tb.KRMD(K=3)(p, lam) for p in (problem, tb.compile(problem)))
    _, grads = tb.KRMD(K=3).batch(tb.compile(problem), lam[None])
    for grad in (got.grad, grads[0]):
        assert grad.dtype == want.grad.dtype == np.float64
        np.testing.assert_allclose(grad, want.grad, rtol=1e-12)


def test_a_hyper_map_with_a_vjp_of_the_wrong_shape_is_told_so():
    class Short(tb.HyperMap):
        def __call__(self, lam):
            return 1.0 * lam

        def vjp(self, lam, h):
            return h[:2]

    problem = tb.compile(small(hyper_map=Short()))
    message = r"the vjp of hyper_map must have shape \(3,\), got \(2,\)"
    with pytest.raises(ValueError, match=message):
        tb.KRMD(K=2)(problem, np.ones(3))
    with pytest.raises(ValueError, match=message):
        tb.KRMD(K=2).batch(problem, np.ones((1, 3)))


@pytest.mark.parametrize("margin", [-800.0, 800.0])
def test_the_logistic_loss_does_not_overflow(margin):
    g = tb.LogisticRegression(np.eye(2), [0, 1], weighted=False)
    w0 = np.array([margin, margin])
    plain = tb.BilevelProblem(tb.GradientDescent(g, 0.1, w0), g, T=3, lam0=np.ones(2))
    assert_same(plain, tb.compile(plain), tb.RMD())


def test_the_kernels_loop_scales_loss_and_ridge():
    rng = np.random.default_rng(0)
    X, y = rng.random((300, 20)), rng.integers(0, 3, 300)
    loss = tb.SoftmaxRegression(X, y, backend="numba")
    upper = tb.SoftmaxRegression(X, y, weighted=False, backend="numba")
    lower = 0.5 * loss + 0.3 * tb.L2Penalty(0.2)
    descent = tb.GradientDescent(lower, 0.5, initial=np.zeros(loss.size))
    problem = tb.BilevelProblem(descent, upper, T=6, hyper_map=tb.Sigmoid(), lam0=np.zeros(300))
    fast = tb.compile(problem)
    assert isinstance(fast.loop, CleaningOnHost)
    right, found = tb.RMD()(problem), tb.RMD()(fast)
    np.testing.assert_allclose(found.w, right.w, rtol=1e-12)
    np.testing.assert_allclose(found.grad, right.grad, rtol=1e-10, atol=1e-18)
