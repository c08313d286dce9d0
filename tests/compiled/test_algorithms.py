"""Each lower-level algorithm on small objectives, compiled from end to end, is the plain one."""

import pickle

import cases
import numpy as np
import pytest

import tinybilevel as tb
from tinybilevel.compiled.problem import CompiledProblem
from tinybilevel.testing import relative_error

numba = pytest.importorskip("numba")

M, T = 6, 7
#: θ has what the objectives see, then a strength, rates for two blocks and for one, and w_0.
BLOCKS = tb.Layout(seen=M, strength=1, steps=2, rates=2, rate=1, start=M)
OWN = {
    name: numba.njit(getattr(cases, f"cosine_{name}"))
    for name in ("value", "grad", "grad_vjp", "grad_lam")
}
ALGORITHMS = {
    tb.GradientDescent: (0.3, None),
    tb.HeavyBall: (0.2, "momentum"),
    tb.Nesterov: (0.2, "momentum"),
    tb.AdamTransition: (0.05, None),
    tb.ProximalGradient: (0.3, "l1"),
}
ALL = list(ALGORITHMS)
SECOND = {"momentum": 0.7, "l1": 0.02}


def quadratic(dtype, diagonal=False, **options):
    G = cases.normal(1, M, M, dtype=dtype)
    return tb.Quadratic(G[0] ** 2 if diagonal else G @ G.T / M, **options)


def softmax(dtype):
    return tb.SoftmaxRegression(cases.normal(0, 5, 2, dtype=dtype), [0, 2, 1, 1, 0], 3)


def logistic(dtype):
    return tb.LogisticRegression(cases.normal(7, 5, M, dtype=dtype), np.arange(5) % 2)


def lower(kind, dtype):
    """Return an objective that sees M entries of λ."""
    own = tb.Objective.from_functions(**OWN)
    strength = tb.L2Penalty().on(BLOCKS["strength"])
    return {
        "quadratic": quadratic(dtype, d=cases.normal(3, M, dtype=dtype)).on(BLOCKS["seen"]),
        "diagonal": quadratic(dtype, diagonal=True).on(BLOCKS["seen"]),
        "own": own.on(BLOCKS["seen"]),
        "own and ridge": 0.5 * own.on(BLOCKS["seen"]) + strength,
        "sum": 0.7 * softmax(dtype).on(slice(1, 6))
        + strength
        + 0.3 * quadratic(dtype).on(slice(M)),
        "logistic and quadratic": logistic(dtype).on(slice(5))
        + 0.2 * quadratic(dtype).on(slice(M)),
    }[kind]


def coefficient(kind, value, block, dtype):
    factors = 1 + 0.3 * np.cos(np.arange(max(M, T)))
    return {
        "fixed": value,
        "each step": tb.PerStep(value * factors[:T]),
        "each entry": tb.PerEntry((value * factors[:M]).astype(dtype)),
        "learned": tb.Learned(BLOCKS["rate"]),
        "learned by block": tb.Learned(BLOCKS[block], [M - 2, 2]),
    }[kind]


def problem(
    move, kind="quadratic", step="fixed", second="fixed", dtype=np.float64, T=T, start=None
):
    value, name = ALGORITHMS[move]
    options = {name: coefficient(second, SECOND[name], "rates", dtype)} if name else {}
    start = np.array(cases.normal(4, M), dtype) if start is None else start
    descent = move(lower(kind, dtype), coefficient(step, value, "steps", dtype), start, **options)
    lam0 = BLOCKS.pack(
        seen=0.3 * cases.normal(5, M),
        strength=-1.0,
        steps=np.log([value, 0.7 * value]),
        rates=np.log([SECOND.get(name, 1), 0.5 * SECOND.get(name, 1)]),
        rate=np.log(0.2 if name != "l1" else 0.1),
        start=cases.normal(7, M) - 1,
    ).astype(dtype)
    f = tb.Quadratic(np.ones(M, dtype), np.ones((M, BLOCKS.size), dtype)) + tb.L2Penalty(0.1)
    return tb.BilevelProblem(descent, f, T=T, hyper_map=tb.Exp(), lam0=lam0)


def assert_same(plain, *methods):
    fast = tb.compile(plain)
    assert type(fast.loop).__name__ == "DenseOnHost"
    for method in methods or (tb.KRMD(K=1), tb.KRMD(K=5), tb.KRMD(K=plain.T), tb.RMD()):
        a, b = method(fast), method(plain)
        assert a.grad.dtype == b.grad.dtype
        tol = 1e-12 if b.grad.dtype == np.float64 else 2e-5
        for name in ("grad", "w", "alpha_norms", "state"):
            x, y = getattr(a, name), getattr(b, name)
            assert (x is None) == (y is None), name
            assert x is None or relative_error(x, y) < tol, name
        assert a.value == pytest.approx(b.value, rel=tol)
        assert (a.K, a.cost.transitions) == (b.K, b.cost.transitions)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("kind", ["quadratic", "diagonal", "own", "own and ridge", "sum"])
@pytest.mark.parametrize("move", ALL)
def test_each_algorithm_on_each_kind_of_objective(move, kind, dtype):
    if move is tb.GradientDescent and kind in ("quadratic", "diagonal"):
        kind = "logistic and quadratic"
    assert_same(problem(move, kind, dtype=dtype))


@pytest.mark.parametrize("step", ["each step", "each entry", "learned", "learned by block"])
@pytest.mark.parametrize("move", ALL)
def test_each_kind_of_coefficient(move, step):
    for kind in ("diagonal", "own and ridge"):
        assert_same(problem(move, kind, step, step))


@pytest.mark.parametrize("horizon", [0, 1, 2])
@pytest.mark.parametrize("move", ALL)
def test_short_horizons(move, horizon):
    assert_same(problem(move, "sum", "learned", T=horizon), tb.KRMD(K=horizon), tb.RMD())


@pytest.mark.parametrize("move", ALL)
def test_a_learned_start(move):
    for start in (BLOCKS["start"], (pulled, pushed)):
        assert_same(problem(move, "sum", start=start))


def pulled(lam):
    return lam[BLOCKS["start"]] ** 2


def pushed(lam, alpha):
    h = np.zeros_like(lam)
    h[BLOCKS["start"]] = 2 * lam[BLOCKS["start"]] * alpha
    return h


@pytest.mark.parametrize("move", ALL)
def test_a_run_goes_on_from_the_buffers_of_another(move):
    plain = problem(move, "sum")
    state = plain.transition.initial(plain.lam0)
    for t in range(3):
        state = plain.transition.step(t, state, np.exp(plain.lam0))
    other = tb.BilevelProblem(
        plain.transition.continuing(state, 3), plain.upper, 4, plain.hyper_map, plain.lam0
    )
    assert_same(other, tb.KRMD(K=2), tb.RMD())


@pytest.mark.parametrize("step", ["fixed", "learned"])
@pytest.mark.parametrize("move", ALL)
def test_a_batch_is_one_after_the_other(move, step):
    fast = tb.compile(problem(move, "sum", step))
    lams = fast.lam0 + 0.1 * cases.normal(8, 20, BLOCKS.size)
    values, grads = tb.KRMD(K=3).batch(fast, lams)
    for lam, value, grad in zip(lams, values, grads, strict=True):
        r = tb.KRMD(K=3)(fast, lam)
        assert value == pytest.approx(r.value, rel=1e-14)
        assert relative_error(grad, r.grad) < 1e-13


@pytest.mark.parametrize("move", ALL)
def test_a_result_says_what_was_held_for_the_way_back(move):
    rows = {tb.HeavyBall: 8, tb.Nesterov: 8, tb.AdamTransition: 12 + 3, tb.ProximalGradient: 4 + 3}
    r = tb.KRMD(K=3)(tb.compile(problem(move, "sum")))
    assert r.cost.bytes == rows.get(move, 4) * M * 8
    copy = pickle.loads(pickle.dumps(tb.compile(problem(move, "own"))))
    assert relative_error(tb.RMD()(copy).grad, tb.RMD()(problem(move, "own")).grad) < 1e-12


@pytest.mark.filterwarnings("ignore::tinybilevel.StabilityWarning")
@pytest.mark.parametrize("steep", [False, True])
@pytest.mark.parametrize("move", [tb.GradientDescent, tb.HeavyBall])
def test_a_step_size_that_is_too_large_is_seen(move, steep):
    # The very last steps are longer than the first, and swing about, or the run comes to rest.
    g = tb.Quadratic([1.0, 50.0 if steep else 5.0]) + tb.L2Penalty(0.0)
    plain = tb.BilevelProblem(
        move(g, 0.1, [2.0, 2.0]), tb.Quadratic([1.0, 1.0]), T=20, lam0=np.zeros(2)
    )
    fast = tb.compile(plain)
    assert type(fast.loop).__name__ == "DenseOnHost"
    assert fast.loop.run(fast, plain.lam0, 2)._restless is steep
    assert tb.KRMD(K=2)(plain)._restless is steep


def test_blocks_of_blocks():
    inner = quadratic(np.float64).on(slice(1, 1 + M)) + tb.L2Penalty().on(slice(1))
    plain = problem(tb.HeavyBall)
    descent = tb.HeavyBall(0.3 * inner.on(slice(2, 3 + M)), 0.1, cases.normal(4, M))
    assert_same(tb.BilevelProblem(descent, plain.upper, T, plain.hyper_map, plain.lam0))


def test_numbers_of_a_wider_dtype_leave_it_to_the_plain_code():
    g = quadratic(np.float32)
    wide = tb.PerEntry(np.full(M, 0.1))
    descent = tb.HeavyBall(g, wide, cases.normal(4, M, dtype=np.float32))
    plain = tb.BilevelProblem(descent, tb.L2Penalty(0.1), T=3, lam0=np.ones(M, np.float32))
    assert tb.compile(plain) is plain


def test_a_start_of_unknown_size_is_refused():
    plain = problem(tb.HeavyBall, start=(pulled, pushed))
    without = tb.BilevelProblem(plain.transition, plain.upper, T, plain.hyper_map)
    with pytest.raises(TypeError, match="from a w_0 whose size is known"):
        tb.compile(without)
    assert isinstance(tb.compile(plain), CompiledProblem)


@pytest.mark.parametrize("size", [M - 1, M + 1])
def test_a_start_of_the_wrong_size_is_explained(size):
    descent = tb.HeavyBall(quadratic(np.float64), 0.1, slice(0, size))
    plain = tb.BilevelProblem(descent, tb.L2Penalty(0.1), T=3, lam0=np.ones(M))
    with pytest.raises(ValueError, match="must"):
        tb.RMD()(plain)
    with pytest.raises(ValueError, match="must"):
        tb.RMD()(tb.compile(plain))
