"""Softmax regression and one score, by each algorithm, with each coefficient and penalty."""

import cases
import numpy as np
import pytest
from scipy.sparse import csr_array

import tinybilevel as tb
from tinybilevel.objectives import Sum
from tinybilevel.testing import relative_error

pytest.importorskip("numba")

from tinybilevel.kernels import softmax_loop

n, T = 60, 6
#: θ has the weights, strengths for each group, feature and at once, rates of blocks, and one.
BLOCKS = tb.Layout(weights=n, groups=3, features=9, one=1, steps=2, rates=2, rate=1, start=27)
LAYOUTS = {  # columns, classes, and what makes the kernels lay them so
    "along": (9, 3, False),
    "across": (9, 3, True),
    "two classes": (9, 2, True),
    "csr": (9, 3, None),
    "logistic": (9, 1, tb.LogisticRegression),
    "squares": (9, 1, tb.LeastSquares),
}
ALGORITHMS = {
    tb.GradientDescent: (0.5, None),
    tb.HeavyBall: (0.2, "momentum"),
    tb.Nesterov: (0.2, "momentum"),
    tb.AdamTransition: (0.05, None),
    tb.ProximalGradient: (0.3, "l1"),
}
SECOND = {"momentum": 0.7, "l1": 0.02}


@pytest.fixture(autouse=True)
def nothing_is_kept_unasked(monkeypatch):
    monkeypatch.setattr(softmax_loop, "_FREE", 0)


def loss(layout, weighted=True, dtype=np.float64, remember=0):
    """Return a softmax regression in one of the layouts, or another loss that the loop takes."""
    from tinybilevel.kernels.softmax import Softmax

    d, C, across = LAYOUTS[layout]
    X = np.array(cases.normal(0, n, d), dtype)
    if C == 1:
        y = np.random.default_rng(2).integers(0, 2, n).astype(dtype)
        return across(X, y, weighted=weighted, backend="numba")
    X *= cases.normal(1, n, d) > (0.8 if across is None else -9)
    X = csr_array(X) if across is None else X
    y = np.random.default_rng(2).integers(0, C, n)
    g = tb.SoftmaxRegression(X, y, C, weighted=weighted, backend="numba", remember=remember)
    g.body = Softmax(g.X, g.y, C, plain=g.body.plain, across=across, sparse=across is None)
    return g


def coefficient(kind, value, M, block, dtype):
    """Return a coefficient of a kind, all about as large as `value`."""
    factors = 1 + 0.3 * np.cos(np.arange(max(M, T)))
    return {
        "fixed": value,
        "each step": tb.PerStep(value * factors[:T]),
        "callable": lambda t: value / (1 + 0.1 * t),
        "each entry": tb.PerEntry((value * factors[:M]).astype(dtype)),
        "learned": tb.Learned(BLOCKS["rate"]),
        "learned by block": tb.Learned(BLOCKS[block], [M - 5, 5]),
    }[kind]


def penalties(kind, C, d, dtype):
    """Return L2 penalties of a kind."""
    without_bias = np.tile(np.append(np.arange(d - 1) % 3, -1), C)
    return {
        "none": [],
        "fixed": [
            0.1 * tb.L2Penalty(0.3),
            tb.L2Penalty(np.array([0.2, 0.1, 0.3], dtype), without_bias),
        ],
        "learned": [
            0.5 * tb.L2Penalty().on(BLOCKS["one"]),
            tb.L2Penalty(0.1, np.minimum(without_bias, 0)),
        ],
        "groups": [2.0 * tb.L2Penalty(groups=without_bias).on(BLOCKS["groups"])],
        "features": [
            tb.L2Penalty(groups=np.tile(np.arange(d), C)).on(BLOCKS["features"]),
            tb.L2Penalty().on(BLOCKS["one"]),
        ],
    }[kind]


def problem(
    move=tb.GradientDescent,
    step="fixed",
    second="fixed",
    penalty="fixed",
    weighted=True,
    layout="along",
    dtype=np.float64,
    T=T,
    **options,
):
    g = loss(layout, weighted, dtype, options.pop("remember", 0))
    d, C, kind = LAYOUTS[layout]
    M = C * d
    lower = 0.7 * (g.on(BLOCKS["weights"]) if weighted else g)
    for term in penalties(penalty, C, d, dtype):
        lower = lower + term
    value, name = ALGORITHMS[move]
    if name:
        options[name] = coefficient(second, SECOND[name], M, "rates", dtype)
    start = options.pop("initial", np.array(cases.normal(3, M), dtype))
    descent = move(lower, coefficient(step, value, M, "steps", dtype), start, **options)
    if C > 1:
        f = tb.SoftmaxRegression(g.X[::-1], g.y, C, weighted=False, backend="plain")
    else:
        f = kind(g.X[::-1], g.y, weighted=False)
    lam0 = BLOCKS.pack(
        weights=cases.normal(4, n),
        groups=[-2.0, -1.0, -1.5],
        features=cases.normal(5, 9) - 2,
        one=-2.0,
        steps=np.log([value, 0.7 * value]),
        rates=np.log([SECOND.get(name, 1), 0.5 * SECOND.get(name, 1)]),
        rate=np.log(0.2 if name != "l1" else 0.1),
        start=cases.normal(7, 27) - 1,
    ).astype(dtype)
    return tb.BilevelProblem(descent, f, T=T, hyper_map=tb.Exp(), lam0=lam0)


def assert_same(plain, *methods):
    fast = tb.compile(plain)
    assert type(fast.loop).__name__ == "CleaningOnHost"
    for method in methods or (tb.KRMD(K=1), tb.KRMD(K=4), tb.RMD()):
        a, b = method(fast), method(plain)
        tol = 1e-12 if b.grad.dtype == np.float64 else 1e-4
        for name in ("grad", "w", "alpha_norms", "state"):
            x, y = getattr(a, name), getattr(b, name)
            assert (x is None) == (y is None)
            if y is not None:
                assert x.dtype == y.dtype
                assert relative_error(x, y) < tol, (name, method)
        for block in BLOCKS:  # none is hidden by a larger one
            assert relative_error(a.grad[BLOCKS[block]], b.grad[BLOCKS[block]]) < 1000 * tol, block
        assert a.value == pytest.approx(b.value, rel=tol)
        assert a._restless == b._restless


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("move", [tb.GradientDescent, tb.Nesterov])
@pytest.mark.parametrize("horizon", [1, 2, 3, 6])
def test_a_step_size_that_is_too_large_is_seen(layout, move, horizon, monkeypatch):
    seen = set()
    for step in (0.3, 40.0, 400.0):
        monkeypatch.setitem(ALGORITHMS, move, (step, ALGORITHMS[move][1]))
        plain = problem(move, layout=layout, T=horizon)
        fast = tb.compile(plain)
        found = tb.KRMD(K=1).unwatched(fast)._restless
        assert found == tb.KRMD(K=1).unwatched(plain)._restless
        seen.add(found)
        if found:
            with pytest.warns(tb.StabilityWarning, match="does not settle"):
                tb.KRMD(K=1)(fast)
    assert seen == ({False} if horizon < 3 else {False, True})


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("move", ALGORITHMS)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("free", [0, 8_000_000])
def test_each_algorithm_is_the_plain_one_in_each_layout(move, layout, dtype, free, monkeypatch):
    monkeypatch.setattr(softmax_loop, "_FREE", free)
    rates = ("learned by block", "learned by block", "groups")
    assert_same(problem(move, *rates, layout=layout, dtype=dtype), tb.KRMD(K=3), tb.RMD())


@pytest.mark.parametrize("penalty", ["none", "fixed", "learned", "groups", "features"])
@pytest.mark.parametrize("weighted", [True, False])
def test_each_kind_of_penalty(penalty, weighted):
    for move in (tb.GradientDescent, tb.Nesterov):
        assert_same(problem(move, penalty=penalty, weighted=weighted))


@pytest.mark.parametrize(
    "step", ["fixed", "each step", "callable", "each entry", "learned", "learned by block"]
)
@pytest.mark.parametrize("move", ALGORITHMS)
def test_each_kind_of_coefficient(move, step):
    others = {"fixed": "learned", "learned by block": "each step"}
    assert_same(problem(move, step, others.get(step, step), weighted=False))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("free", [0, 8_000_000])
def test_weights_that_are_all_the_same_in_each_layout(layout, free, monkeypatch):
    monkeypatch.setattr(softmax_loop, "_FREE", free)
    assert_same(problem(penalty="features", weighted=False, layout=layout))


def test_each_lambda_has_its_own_strengths_rates_and_start():
    plain = problem(tb.Nesterov, "learned", "learned", "features", initial=BLOCKS["start"])
    fast = tb.compile(plain)
    for lam in (plain.lam0, plain.lam0 - 0.2, plain.lam0 + 0.1):
        assert relative_error(tb.RMD()(fast, lam).grad, tb.RMD()(plain, lam).grad) < 1e-12


def test_blocks_of_blocks_and_sums_of_sums():
    plain = problem()
    g, M = loss("along"), 27
    inner = g.on(slice(2, n + 2)) + 0.3 * tb.L2Penalty().on(slice(1, None)).on(slice(0, 2))
    lower = 0.5 * (inner.on(slice(3, n + 5)) + tb.L2Penalty(0.1))
    nested = tb.BilevelProblem(
        tb.Nesterov(Sum((2.0, lower), (1.0, tb.L2Penalty(0.2))), 0.3, np.zeros(M)),
        plain.upper,
        T=T,
        hyper_map=tb.Exp(),
        lam0=plain.lam0,
    )
    assert_same(nested, tb.KRMD(K=4))


@pytest.mark.parametrize("move", ALGORITHMS)
@pytest.mark.parametrize("T", [0, 1, 2])
def test_short_horizons(move, T):
    plain = problem(move, "learned", "learned", "groups", T=T)
    assert_same(plain, *(tb.KRMD(K=K) for K in range(T + 1)))


@pytest.mark.parametrize("move", ALGORITHMS)
def test_the_softmaxes_that_are_kept_are_those_of_the_points(move):
    assert_same(problem(move, remember=3), tb.KRMD(K=2), tb.KRMD(K=5))


@pytest.mark.parametrize("move", [tb.HeavyBall, tb.Nesterov, tb.AdamTransition])
def test_a_run_goes_on_from_the_buffers_of_another(move):
    plain = problem(move)
    further = plain.continuing(tb.KRMD(K=1)(plain).state, steps_before=T)
    assert_same(further, tb.KRMD(K=4))
    fast = tb.compile(plain)
    again = fast.continuing(tb.KRMD(K=1)(fast).state, steps_before=T)
    assert relative_error(tb.RMD()(again).grad, tb.RMD()(further).grad) < 1e-12


@pytest.mark.parametrize("move", ALGORITHMS)
def test_a_learned_start(move):
    block = BLOCKS["start"]
    assert_same(problem(move, initial=block), tb.KRMD(K=2), tb.RMD())
    pair = lambda lam: lam[block] ** 2, lambda lam, alpha: pulled(lam, 2 * lam[block] * alpha)
    plain = problem(move, initial=pair)
    assert_same(plain, tb.RMD())
    for method in (tb.RMD(), tb.KRMD(K=T)):
        (value,), (grad,) = method.batch(tb.compile(plain), plain.lam0[None])
        one = method(plain)
        assert value == pytest.approx(one.value, rel=1e-12)
        assert relative_error(grad, one.grad) < 1e-12


def pulled(lam, x):
    h = np.zeros_like(lam)
    h[BLOCKS["start"]] = x
    return h


@pytest.mark.parametrize("move", ALGORITHMS)
def test_a_batch_is_one_after_the_other(move):
    plain = problem(move, "learned", "learned", "features")
    fast, lams = tb.compile(plain), plain.lam0 + 0.1 * cases.normal(6, 3, plain.lam0.size)
    values, grads = tb.KRMD(K=4).batch(fast, lams)
    for lam, value, grad in zip(lams, values, grads, strict=True):
        one = tb.KRMD(K=4)(fast, lam)
        assert value == one.value
        np.testing.assert_array_equal(grad, one.grad)


@pytest.mark.parametrize("move", ALGORITHMS)
def test_a_result_says_what_was_held_for_the_way_back(move):
    states = {tb.GradientDescent: 5, tb.HeavyBall: 10, tb.Nesterov: 15}
    states |= {tb.AdamTransition: 15 + 4, tb.ProximalGradient: 5 + 4}
    r = tb.KRMD(K=4)(tb.compile(problem(move)))
    assert r.cost.bytes == states[move] * 27 * 8


@pytest.mark.parametrize("move", ALGORITHMS)
@pytest.mark.parametrize("threads", [2, 5])
def test_the_same_bits_for_any_number_of_threads(move, threads):
    found = []
    for count in (1, threads):
        fast = tb.compile(problem(move, "learned", "learned", "features"))
        fast.loop.kernel.lower.threads, fast.loop.kernel.patience = count, 20
        found.append(tb.KRMD(K=4)(fast))
    for name in ("grad", "w", "alpha_norms"):
        np.testing.assert_array_equal(*(getattr(r, name) for r in found))


def test_what_does_not_fit_is_explained_as_before():
    plain = problem(penalty="groups", step="learned by block")
    fast = tb.compile(tb.BilevelProblem(plain.transition, plain.upper, T=T))
    for size in (n - 1, n + 2, BLOCKS["steps"].stop - 1):
        for call in (tb.RMD(), lambda p, lam: tb.RMD().batch(p, lam[None])):
            with pytest.raises(ValueError, match=r"must hold|must have"):
                call(fast, np.ones(size))
    g = plain.transition.objective + tb.L2Penalty(0.1, groups=[0, 0])
    odd = tb.BilevelProblem(tb.Nesterov(g, 0.1, np.zeros(27)), plain.upper, T=T)
    with pytest.raises(ValueError, match="groups"):
        tb.RMD()(tb.compile(odd), np.ones(BLOCKS["start"].stop))


def test_numbers_of_a_wider_dtype_leave_it_to_the_plain_code():
    plain = problem(dtype=np.float32, layout="csr")
    g, start = plain.transition.objective, plain.transition.fixed_start()
    for descent in (
        tb.Nesterov(g, tb.PerEntry(np.full(27, 0.1)), start),
        tb.Nesterov(g + tb.L2Penalty([0.1], np.zeros(27, int)), 0.1, start),
        tb.Nesterov(g, 0.1, start.astype(float)),
    ):
        wide = tb.BilevelProblem(descent, plain.upper, T=T)
        assert tb.compile(wide) is wide


def test_what_no_loop_can_do_is_named():
    plain = problem(layout="csr")
    g, start = plain.transition.objective, plain.transition.fixed_start()

    class Own(tb.Nesterov):
        pass

    class Odd(tb.PerStep):
        pass

    for descent in (Own(g, 0.1, start), tb.Nesterov(g, Odd(np.ones(T)), start)):
        with pytest.raises(TypeError, match="compile takes the algorithms"):
            tb.compile(tb.BilevelProblem(descent, plain.upper, T=T))
    for objective in (g + g, g + tb.Quadratic(np.ones(27))):
        descent = tb.Nesterov(objective, 0.1, start)
        with pytest.raises(TypeError, match="no compiled form of the lower level"):
            tb.compile(tb.BilevelProblem(descent, plain.upper, T=T))


def test_a_run_that_diverges_is_explained():
    for move in ALGORITHMS:
        steep = problem(move, T=T)
        steep.transition.step_size.values = 1e200
        with pytest.raises(tb.DivergenceError):
            tb.KRMD(K=3)(tb.compile(steep))


@pytest.mark.parametrize("method", [tb.RMD(), tb.KRMD(K=2)])
def test_a_theta_that_overflows_is_explained_without_numpys_warnings(method):
    fast = tb.compile(problem(penalty="groups"))
    lam = fast.lam0.copy()
    lam[BLOCKS["one"]] = 1e3  # of which nothing looks but the map
    for call in (method, lambda p, lam: method.batch(p, [lam, lam])):
        with pytest.raises(tb.DivergenceError, match="θ is not finite"):
            call(fast, lam)


@pytest.mark.parametrize("layout", ["logistic", "squares", "two classes"])
@pytest.mark.parametrize("weighted", [True, False])
def test_many_blocks_and_a_last_one_of_a_few_rows(layout, weighted, monkeypatch):
    """An odd step takes them from the last one on."""
    monkeypatch.setattr(softmax_loop, "_FREE", 8_000_000)
    for rows in (257, 300):
        X, labels = cases.normal(0, rows, 5), np.random.default_rng(2).integers(0, 2, rows)
        C, kind = LAYOUTS[layout][1:]
        make = kind if C == 1 else tb.SoftmaxRegression
        g = make(X, labels.astype(float) if C == 1 else labels, weighted=weighted)
        f = make(X[::-1].copy(), labels.astype(float) if C == 1 else labels, weighted=False)
        descent = tb.Nesterov(g + tb.L2Penalty(0.1), 0.1, np.zeros(5 * C), momentum=0.5)
        lam0 = np.abs(cases.normal(4, rows))
        assert_same(tb.BilevelProblem(descent, f, T=7, lam0=lam0))


@pytest.mark.parametrize("kind", [tb.LogisticRegression, tb.LeastSquares])
def test_the_upper_level_has_the_kernels_of_the_lower_one_where_it_has_its_data(kind):
    X, y = cases.normal(0, 400, 10), np.arange(400.0) % 2
    g, start = kind(X, y, weighted=False), np.zeros(10)
    others = kind(X[:20], y[:20], weighted=False), kind(g.X, 1 - y, weighted=False)
    for f, same in ((g, True), *((other, False) for other in others)):
        plain = tb.BilevelProblem(
            tb.HeavyBall(g, 0.1, start, momentum=0.5), f, T=5, lam0=np.ones(1)
        )
        loop = tb.compile(plain).loop
        assert (loop.f.body is loop.kernel.lower) == same
        assert loop.upper is f
        assert f.body is None
        assert_same(plain)
