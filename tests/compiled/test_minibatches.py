"""The loop on minibatches gives what the plain code gives, whatever each step sees."""

import pickle
from dataclasses import replace

import cases
import numpy as np
import pytest
from scipy.sparse import csr_array

import tinybilevel as tb
from tinybilevel.compiled.problem import CompiledProblem
from tinybilevel.testing import relative_error

pytest.importorskip("numba")

ALGORITHMS = {
    "descent": (tb.GradientDescent, {}),
    "heavy ball": (tb.HeavyBall, {"momentum": 0.7}),
    "Nesterov": (tb.Nesterov, {"momentum": 0.7}),
    "Adam": (tb.AdamTransition, {"eps": 1e-2}),  # well conditioned
    "proximal": (tb.ProximalGradient, {"l1": 0.02}),
}
N, D, C, T = 60, 18, 5, 8


def data(sparse=False, dtype=np.float64):
    rng = np.random.default_rng(0)
    X = (rng.standard_normal((N, D)) * (rng.random((N, D)) < 0.4)).astype(dtype)
    X[7], X[:, 4] = 0, 0  # an empty row and an empty column
    return csr_array(X) if sparse else X, rng.integers(0, C, N)


def unequal(seed=0):
    """Batches of 1 to 14 rows, some of them twice."""
    rng = np.random.default_rng(seed)
    return [rng.integers(0, N, size) for size in (1, 14, 3, 7, 1, 9, 12, 5)]


def problem(
    algorithm="descent",
    *,
    sparse=False,
    dtype=np.float64,
    weighted=True,
    penalty="fixed",
    step_size=0.3,
    batches=None,
    start=None,
    strength=0.2,
    **options,
):
    """λ holds weights, then strengths, then the coefficients, behind a map for each."""
    X, y = data(sparse, dtype)
    loss = tb.SoftmaxRegression(X, y, C, weighted=weighted)
    features, classes = np.tile(np.arange(D), C), np.repeat(np.arange(C), D)
    penalties = {
        "none": [],
        "fixed": [
            tb.L2Penalty(strength),
            0.5 * tb.L2Penalty(0.1, groups=np.where(features > 3, 0, -1)),
        ],
        "one": [tb.L2Penalty(strength)],
        "per feature": [
            tb.L2Penalty((strength * np.linspace(0.5, 1, D)).astype(dtype), features),
            tb.L2Penalty(strength, groups=np.where(features == 2, 0, -1)),
        ],
        "learned": [4 * strength * tb.L2Penalty().on(slice(N, N + 1))],
        "learned per feature": [4 * strength * tb.L2Penalty(groups=features).on(slice(N, N + D))],
        "learned per class": [2.0 * tb.L2Penalty(groups=classes - 1).on(slice(N, N + C - 1))],
    }[penalty]
    g = 0.7 * loss.on(slice(0, N)) + sum(penalties) if penalties else 0.7 * loss.on(slice(0, N))
    kind, given = ALGORITHMS[algorithm]
    w0 = cases.normal(5, C * D, dtype=dtype) if start is None else start
    descent = kind(
        g,
        step_size,
        w0,
        batches=unequal() if batches is None else batches,
        **given | options,
    )
    # The penalty, so that α is not 0 in the empty column either.
    f = tb.SoftmaxRegression(X[::-1], y, C, weighted=False) + tb.L2Penalty(0.05)
    lam0 = 0.3 * np.random.default_rng(1).standard_normal(N + 120)
    return tb.BilevelProblem(descent, f, T=T, hyper_map=tb.Sigmoid(), lam0=lam0.astype(dtype))


def assert_same(plain, method, tol=1e-12):
    fast = tb.compile(plain)
    assert isinstance(fast, CompiledProblem)
    assert fast.loop.run(fast, fast.lam0, 0) is not None
    a, b = method(fast), method(plain)
    for name in ("grad", "w", "alpha_norms", "state"):
        found, expected = getattr(a, name), getattr(b, name)
        assert (found is None) == (expected is None), name
        if found is not None:
            assert found.dtype == expected.dtype, name
            assert relative_error(found, expected) < tol, name
    assert a.value == pytest.approx(b.value, rel=tol)
    assert (a.K, a.cost.transitions, a.cost.products) == (
        b.K,
        b.cost.transitions,
        b.cost.products,
    )
    if type(fast.loop.kernel).__name__ != "TouchedColumns":  # where no step goes over all of w
        assert a._restless == b._restless


@pytest.mark.filterwarnings("ignore::tinybilevel.StabilityWarning")
def test_a_step_size_that_is_too_large_is_seen():
    whole = [np.arange(N)] * T
    for step_size, swings in ((0.3, False), (500.0, True)):
        plain = problem(batches=whole, step_size=step_size, penalty="one")
        assert_same(plain, tb.KRMD(K=2), 1e-9)
        assert tb.KRMD(K=2)(tb.compile(plain))._restless is swings


@pytest.fixture
def met_alone(monkeypatch):
    """A step touches the columns that its batch meets alone, however few there are."""
    monkeypatch.setattr("tinybilevel.kernels.batch_rows._FEW", np.inf)


@pytest.fixture
def all_columns(monkeypatch):
    monkeypatch.setattr("tinybilevel.kernels.batch_rows._FEW", 0)


def loop(plain):
    return type(tb.compile(plain).loop.kernel).__name__


@pytest.mark.usefixtures("all_columns")
@pytest.mark.parametrize("K", [0, 1, 5, T])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_on_unequal_batches(algorithm, sparse, weighted, K):
    plain = problem(algorithm, sparse=sparse, weighted=weighted)
    assert_same(plain, tb.KRMD(K=K))


@pytest.mark.usefixtures("met_alone")
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("penalty", ["none", "fixed", "one", "per feature"])
def test_only_the_columns_that_a_batch_meets(penalty, weighted):
    plain = problem(sparse=True, penalty=penalty, weighted=weighted)
    assert loop(plain) == "TouchedColumns"
    for method in (*(tb.KRMD(K=K) for K in (0, 1, 5, T)), tb.RMD()):
        assert_same(plain, method)
        assert_same(problem(sparse=True, penalty=penalty, dtype=np.float32), method, 1e-4)


@pytest.mark.usefixtures("met_alone")
@pytest.mark.parametrize("penalty", ["learned", "learned per feature"])
@pytest.mark.parametrize("steps", [0.3, tb.PerStep(np.linspace(0.5, 0, T))], ids=["one", "many"])
def test_strengths_are_learned_by_a_log_of_what_was_overwritten(penalty, steps):
    plain = problem(sparse=True, penalty=penalty, step_size=steps)
    assert loop(plain) == "TouchedColumns"
    # Of batches of a row or two, most columns are left alone for some steps.
    small = [np.array([3 * t, 7 * t][: 1 + t % 2]) for t in range(T)]
    for method in (*(tb.KRMD(K=K) for K in (0, 1, 3, 5, T)), tb.RMD()):
        assert_same(plain, method)
        for dtype, tol in ((np.float64, 1e-12), (np.float32, 1e-4)):
            given = dict(penalty=penalty, step_size=steps, dtype=dtype, batches=small)
            assert_same(problem(sparse=True, **given), method, tol)


@pytest.mark.usefixtures("met_alone")
@pytest.mark.parametrize("penalty", ["one", "learned", "learned per feature"])
def test_last_batches_of_empty_rows_alone(penalty):
    batches = [*unequal()[: T - 2], np.array([7]), np.array([7, 7])]
    plain = problem(sparse=True, penalty=penalty, batches=batches)
    assert loop(plain) == "TouchedColumns"
    for K in (0, 1, 2, 3, T):
        assert_same(plain, tb.KRMD(K=K))


@pytest.mark.usefixtures("met_alone")
@pytest.mark.parametrize("penalty", ["one", "per feature", "learned", "learned per feature"])
@pytest.mark.parametrize("product", [0.5, 0.4999, 0.9, 0.499999])
@pytest.mark.filterwarnings("ignore::tinybilevel.StabilityWarning")
def test_a_penalty_that_leaves_nothing_of_w_in_a_step(penalty, product):
    # 1 − 2γρ is 0, 2e-4, negative and 2e-6: what w is multiplied by is soon too small to keep.
    plain = problem(sparse=True, penalty=penalty, step_size=0.3, strength=product / 0.3)
    for method in (tb.RMD(), tb.KRMD(K=3)):
        assert_same(plain, method, 1e-11)


@pytest.mark.usefixtures("met_alone")
def test_strengths_of_each_class_and_other_algorithms_update_all_columns():
    assert loop(problem(sparse=True, penalty="learned per class")) == "MinibatchLoop"
    for algorithm in ALGORITHMS:
        expected = "TouchedColumns" if algorithm == "descent" else "MinibatchLoop"
        assert loop(problem(algorithm, sparse=True)) == expected
    assert loop(problem(sparse=True, step_size=slice(100, 101))) == "MinibatchLoop"
    assert loop(problem()) == "MinibatchLoop"


def test_batches_that_meet_most_columns_update_all_of_them():
    many, few = ([np.arange(size)] * T for size in (20, 1))
    assert loop(problem(sparse=True, batches=many)) == "MinibatchLoop"
    assert loop(problem(sparse=True, batches=few)) == "TouchedColumns"


@pytest.mark.usefixtures("met_alone")
def test_a_log_holds_the_columns_that_were_met():
    K = 4
    X, _ = data(sparse=True)
    met = sum(len(np.unique(X[batch].indices)) for batch in unequal()[-K:])
    rows = 8 * (2 * D * 8 + K * 14 * 8)  # two states and the softmaxes
    plain = problem(sparse=True, penalty="learned")
    assert tb.KRMD(K=K)(tb.compile(plain)).cost.bytes == rows + met * (8 * 8 + 8)
    fixed = problem(sparse=True, penalty="per feature")
    assert tb.KRMD(K=K)(tb.compile(fixed)).cost.bytes == rows


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("sparse", [False, True])
def test_float32(algorithm, sparse):
    plain = problem(algorithm, sparse=sparse, dtype=np.float32)
    assert_same(plain, tb.KRMD(K=5), 1e-4)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize(
    "penalty",
    ["none", "per feature", "learned", "learned per feature", "learned per class"],
)
@pytest.mark.usefixtures("all_columns")
@pytest.mark.parametrize("algorithm", ["descent", "Nesterov", "Adam"])
def test_every_penalty(algorithm, penalty, sparse):
    plain = problem(algorithm, penalty=penalty, sparse=sparse)
    for method in (tb.KRMD(K=3), tb.RMD()):
        assert_same(plain, method)


@pytest.mark.parametrize(
    "step_size",
    [
        tb.PerStep(np.linspace(0.5, 0, T)),
        list(np.linspace(0.1, 0.5, T)),
        lambda t: 0.3 / (1 + t),
        tb.PerEntry(np.linspace(0.1, 0.5, C * D)),
        slice(100, 101),
        tb.Learned(slice(100, 102), sizes=[2 * D, 3 * D]),
    ],
    ids=["per step", "list", "function", "per entry", "learned", "learned for each block"],
)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_kind_of_step_size(algorithm, step_size):
    plain = problem(algorithm, step_size=step_size, penalty="learned")
    for method in (tb.KRMD(K=3), tb.RMD()):
        assert_same(plain, method)


@pytest.mark.parametrize(
    ("algorithm", "option"),
    [("heavy ball", "momentum"), ("Nesterov", "momentum"), ("proximal", "l1")],
)
def test_a_second_coefficient_is_scheduled_or_learned(algorithm, option):
    for value in (
        np.linspace(0, 0.1, T),
        slice(100, 101),
        tb.Learned(slice(100, 102), sizes=[D, 4 * D]),
        tb.PerEntry(np.linspace(0, 0.2, C * D)),
    ):
        plain = problem(algorithm, step_size=slice(110, 111), **{option: value})
        assert_same(plain, tb.RMD())


@pytest.mark.parametrize(
    "batches",
    [
        np.arange(T * 6).reshape(T, 6),
        np.arange(T)[:, None],
        [np.arange(N)] * T,
        [np.zeros(3, int)] * T,
        [np.arange(4, dtype=np.uint8)] * (T + 3),
        tb.FreshMinibatches(N, size=11, T=T, seed=3),
    ],
    ids=["array", "one row each", "all rows", "one row three times", "more than T", "fresh"],
)
@pytest.mark.parametrize("sparse", [False, True])
def test_every_form_of_batches(batches, sparse):
    plain = problem(batches=batches, sparse=sparse, penalty="per feature")
    for K in (1, 4, T):
        assert_same(plain, tb.KRMD(K=K))


@pytest.mark.parametrize("horizon", [0, 1, 2])
def test_short_horizons(horizon):
    for algorithm in ALGORITHMS:
        plain = replace(problem(algorithm, penalty="learned"), T=horizon)
        for K in range(horizon + 1):
            assert_same(plain, tb.KRMD(K=K))


@pytest.mark.parametrize("start", [slice(80, 80 + C * D), "function"])
def test_a_start_that_comes_from_lam(start):
    if start == "function":
        tile = np.random.default_rng(2).standard_normal((N + 120, C * D)) / 100
        start = (lambda lam: lam @ tile, lambda lam, alpha: tile @ alpha)
    plain = problem("Nesterov", start=start)
    plain = replace(plain, lam0=0.1 * cases.normal(4, N + 120))
    for method in (tb.RMD(), tb.KRMD(K=T), tb.KRMD(K=3)):
        assert_same(plain, method)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_run_goes_on_from_a_whole_state(algorithm):
    plain = problem(algorithm)
    first = tb.RMD()(plain)
    state = first.w if first.state is None else first.state
    assert_same(plain.continuing(state, steps_before=T), tb.KRMD(K=4))


@pytest.mark.parametrize("sparse", [False, True])
def test_minimize_runs_the_loop_in_every_update_and_lays_nothing_out_anew(monkeypatch, sparse):
    plain = problem(batches=tb.FreshMinibatches(N, size=11, T=T, seed=3), sparse=sparse)
    fast = tb.compile(plain)
    run = dict(method=tb.KRMD(K=4), optimizer=tb.Adam(0.1), iterations=6)
    expected = tb.minimize(plain, **run)
    monkeypatch.setattr(tb.GradientDescent, "step", None)
    found = tb.minimize(fast, **run)
    assert relative_error(found.lam, expected.lam) < 1e-12
    later = fast.at_iteration(5)
    assert isinstance(later, CompiledProblem)
    assert later.loop.kernel.rows is fast.loop.kernel.rows
    assert later.at_iteration(1).loop.kernel.rows is fast.loop.kernel.rows


def test_a_fixed_problem_is_that_of_every_update():
    for fast in (tb.compile(problem()), tb.compile(tb.problems.toy())):
        assert fast.at_iteration(7) is fast


def test_descent_keeps_softmaxes_in_place_of_states():
    kept, whole = (tb.KRMD(K=6)(p).cost.bytes for p in (tb.compile(problem()), problem()))
    assert kept == (2 * C * 24 + 6 * 14 * 8) * 8  # rows of 24 numbers, of up to 14 examples
    assert whole == 7 * C * D * 8


def test_what_the_loop_leaves_to_the_plain_code():
    plain = problem()
    lam = plain.lam0.astype(np.float32)
    fast = tb.compile(plain)
    np.testing.assert_array_equal(tb.RMD()(fast, lam).grad, tb.RMD()(plain, lam).grad)
    np.testing.assert_array_equal(tb.FMD()(fast).grad, tb.FMD()(plain).grad)
    assert_same(problem(start=np.zeros(C * D, np.float32)), tb.RMD())
    wide = problem(dtype=np.float32, start=np.zeros(C * D))
    assert tb.compile(wide) is wide
    copy = pickle.loads(pickle.dumps(fast))
    np.testing.assert_array_equal(tb.RMD()(copy).grad, tb.RMD()(fast).grad)


def test_large_batches_are_shared_among_threads_and_small_ones_are_not(monkeypatch):
    monkeypatch.setattr("tinybilevel.kernels.minibatch_loop.cores", lambda: 3)
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((1500, 400)).astype(np.float32), rng.integers(0, 10, 1500)
    loss = tb.SoftmaxRegression(X / 20, y, 10)
    f = tb.SoftmaxRegression(X[:50] / 20, y[:50], 10, weighted=False)
    for size, threads in ((1500, 3), (250, 2), (100, 1)):
        batches = [rng.integers(0, 1500, rows) for rows in (3, size, size)]
        start = np.zeros(4000, np.float32)
        descent = tb.GradientDescent(loss, 0.1, start, batches=batches)
        plain = tb.BilevelProblem(descent, f, T=3, lam0=np.ones(1500, np.float32))
        assert tb.compile(plain).loop.kernel.threads == threads
        assert_same(plain, tb.RMD(), 1e-4)


@pytest.mark.parametrize("sparse", [False, True])
def test_a_batch_of_more_rows_than_a_block(sparse):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((300, 150)) * (rng.random((300, 150)) < 0.5)
    loss = tb.SoftmaxRegression(csr_array(X) if sparse else X, rng.integers(0, 3, 300), 3)
    batches = [rng.integers(0, 300, size) for size in (299, 1200, 256, 2)]
    descent = tb.GradientDescent(loss, 0.3, np.zeros(450), batches=batches)
    f = tb.SoftmaxRegression(X, loss.y, 3, weighted=False)
    plain = tb.BilevelProblem(descent, f, T=4, lam0=rng.random(300))
    assert tb.compile(plain).loop.kernel.rows.sizes[4] < 600
    assert_same(plain, tb.RMD())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("d", [512, 520])
def test_rows_that_the_kernels_have_laid_are_read_as_they_lie(d, dtype):
    """Rows of many whole vectors, as embeddings are, lie with one more between them."""
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((40, d)).astype(dtype) / 20, rng.integers(0, 6, 40)
    loss = tb.SoftmaxRegression(X, y, 6, backend="numba")
    batches = [rng.integers(0, 40, size) for size in (9, 16, 5)]
    descent = tb.GradientDescent(loss, 0.3, np.zeros(6 * d, dtype), batches=batches)
    f = tb.SoftmaxRegression(X, y, 6, weighted=False)
    plain = tb.BilevelProblem(descent, f, T=3, lam0=rng.random(40).astype(dtype))
    kernel = tb.compile(plain).loop.kernel
    assert np.shares_memory(kernel.rows.data[0], loss.body.padded)
    assert_same(plain, tb.RMD(), 1e-12 if dtype == np.float64 else 1e-5)


def test_what_is_not_right_is_explained():
    fast = tb.compile(problem(step_size=1e200))
    with pytest.raises(tb.DivergenceError, match="step size"):
        tb.KRMD(K=3)(fast)
    short = replace(problem(), lam0=None)
    with pytest.raises(ValueError, match=r"block|lam"):
        tb.KRMD(K=3)(tb.compile(short), np.zeros(10))
    wrong = problem(start=np.zeros(7))
    with pytest.raises(ValueError, match=r"w must have shape \(90,\)"):
        tb.KRMD(K=3)(tb.compile(wrong))

    class Narrow(tb.LeastSquares):
        pass

    squares = Narrow(np.eye(4), np.ones(4))
    descent = tb.GradientDescent(squares, 0.1, np.zeros(4), batches=[np.arange(2)] * 3)
    with pytest.raises(TypeError, match="compile takes minibatches of a SoftmaxRegression"):
        tb.compile(tb.BilevelProblem(descent, squares, T=3))


@pytest.mark.parametrize("backend", ["plain", "numpy", "numba"])
@pytest.mark.parametrize("features", [2, D])
def test_every_backend(backend, features):
    X, y = data()
    loss = tb.SoftmaxRegression(X[:, :features], y, C, backend=backend)
    start = cases.normal(5, C * features)
    descent = tb.GradientDescent(loss, 0.3, start, batches=unequal())
    f = tb.SoftmaxRegression(X[:, :features], y, C, weighted=False)
    assert_same(tb.BilevelProblem(descent, f, T=T, lam0=np.ones(N)), tb.KRMD(K=5))


def of_one_score(
    kind,
    algorithm="descent",
    *,
    sparse=False,
    weighted=True,
    dtype=np.float64,
    batches="unequal",
    penalty="learned",
    step_size=0.1,
):
    """λ holds weights, then three strengths and a step size, or a start."""
    X, labels = data(sparse, dtype)
    y = labels.astype(dtype) if kind is tb.LeastSquares else labels % 2
    loss = kind(X, y, weighted=weighted)
    g = 0.7 * (loss.on(slice(0, N)) if weighted else loss)
    if penalty == "learned":
        groups = np.append(np.arange(D - 1) % 3, -1)
        g = g + 0.5 * tb.L2Penalty(groups=groups).on(slice(N, N + 3)) + tb.L2Penalty(0.1)
    made, given = ALGORITHMS[algorithm]
    steps = unequal() if batches == "unequal" else batches
    w0 = cases.normal(5, D, dtype=dtype)
    descent = made(g, step_size, w0, batches=steps, **given)
    f = kind(data(dtype=dtype)[0][::-1], y, weighted=False) + tb.L2Penalty(0.05)
    lam0 = 0.3 * np.random.default_rng(1).standard_normal(N + 30)
    return tb.BilevelProblem(descent, f, T=T, hyper_map=tb.Sigmoid(), lam0=lam0.astype(dtype))


KINDS = [tb.LogisticRegression, tb.LeastSquares]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize(
    ("sparse", "batches"), [(False, "unequal"), (True, "unequal"), (True, None)]
)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_one_score_by_every_algorithm(algorithm, sparse, batches, weighted, kind):
    """A sparse X also on whole data."""
    for penalty in ("none", "learned"):
        given = dict(sparse=sparse, weighted=weighted, batches=batches, penalty=penalty)
        plain = of_one_score(kind, algorithm, **given)
        assert loop(plain) == "MinibatchLoop"
        for method in (*(tb.KRMD(K=K) for K in (0, 1, 5, T)), tb.RMD()):
            assert_same(plain, method)
        assert_same(of_one_score(kind, algorithm, dtype=np.float32, **given), tb.KRMD(K=5), 1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("step_size", [tb.PerStep(np.linspace(0.2, 0.1, T)), slice(80, 81)])
def test_one_score_with_other_step_sizes(step_size, sparse, kind):
    step = tb.Learned(step_size) if isinstance(step_size, slice) else step_size
    assert_same(of_one_score(kind, "Nesterov", sparse=sparse, step_size=step), tb.RMD())


@pytest.mark.filterwarnings("ignore::tinybilevel.StabilityWarning")
@pytest.mark.parametrize("sparse", [False, True])
def test_one_score_where_it_is_far(sparse):
    plain = of_one_score(tb.LogisticRegression, sparse=sparse, step_size=300.0, penalty="none")
    assert_same(plain, tb.KRMD(K=3), 1e-9)


@pytest.mark.parametrize("sparse", [False, True])
def test_one_score_in_minimize_and_of_more_rows_than_a_block(sparse):
    rng = np.random.default_rng(0)
    X = rng.standard_normal((600, 150)) * (rng.random((600, 150)) < 0.5)
    loss = tb.LogisticRegression(csr_array(X) if sparse else X, np.arange(600) % 2)
    f = tb.LogisticRegression(X, np.arange(600) % 2, weighted=False)
    batches = tb.FreshMinibatches(600, size=590, T=4, seed=0)
    descent = tb.HeavyBall(loss, 0.3, np.zeros(150), momentum=0.5, batches=batches)
    plain = tb.BilevelProblem(descent, f, T=4, lam0=rng.random(600))
    assert tb.compile(plain).loop.kernel.rows.sizes[4] < 590
    assert_same(plain, tb.RMD())
    a, b = (tb.minimize(p, method=tb.KRMD(K=2), iterations=3) for p in (tb.compile(plain), plain))
    np.testing.assert_allclose(a.lam, b.lam, rtol=1e-9)


def test_whole_sparse_data_with_one_score_have_their_numbers_once():
    kernel = tb.compile(of_one_score(tb.LogisticRegression, sparse=True, batches=None)).loop.kernel
    assert kernel.batches.index.size == N
    fast = tb.compile(of_one_score(tb.LogisticRegression, sparse=True, batches=None))
    assert tb.KRMD(K=4)(fast).cost.bytes == 8 * (5 * D + 4 * N * 2)  # strengths are learned
