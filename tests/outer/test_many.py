"""Each of many runs is what `minimize` does alone."""

import warnings
from dataclasses import dataclass, replace

import numpy as np
import pytest

import tinybilevel as tb

STARTS = np.array([[1.0, 1.0], [-1.0, 0.5], [3.0, -2.0]])
METHOD = tb.KRMD(K=10)


def many(problem=None, lam0=STARTS, **options):
    problem = tb.problems.toy() if problem is None else problem
    return tb.minimize_many(problem, lam0, METHOD, **{"iterations": 20, **options})


def cleaning(seed, n=800, dtype=np.float64, X=None):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((n, 4)).astype(dtype) if X is None else X
    y, y_val = rng.integers(0, 3, n), rng.integers(0, 3, 9)
    val = rng.standard_normal((9, 4)).astype(dtype)
    return tb.problems.hypercleaning(X, y, val, y_val, T=15, step_size=1.0)


def assert_alone(found, problems, lams, tol=0.0, **options):
    """Compare with a run of `minimize` for each."""
    for r, problem, lam in zip(found, problems, lams, strict=True):
        alone = tb.minimize(problem, lam, METHOD, **{"iterations": 20, **options})
        for name in ("lam", "w", "value", "best_lam", "best_value"):
            np.testing.assert_allclose(getattr(r, name), getattr(alone, name), tol, tol)
        assert (r.stopped, r.iterations) == (alone.stopped, alone.iterations)
        assert set(r.history) == set(alone.history)
        for name in set(r.history) - {"seconds"}:
            np.testing.assert_allclose(r.history[name], alone.history[name], tol, tol)
        assert r.lam.dtype == alone.lam.dtype


@pytest.mark.parametrize("optimizer", [tb.Adam(0.05), tb.Clipped(tb.SGD(0.05), norm=0.5)])
@pytest.mark.parametrize("compiled", [False, True])
def test_each_run_is_as_if_alone(optimizer, compiled):
    problem = tb.problems.toy()
    if compiled:
        pytest.importorskip("numba")
        problem = tb.compile(problem)
    options = {"optimizer": optimizer, "bounds": [(-2, 2), (None, 1)], "keep_lam": 3}
    found = many(problem, **options)
    assert_alone(found, [problem] * 3, STARTS, 1e-12, **options)
    assert found[0].history["lam"].shape == (7, 2)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_each_seed_is_as_if_alone(compiled, dtype):
    problems = [cleaning(seed, dtype=dtype) for seed in range(3)]
    if compiled:
        pytest.importorskip("numba")
        problems = [tb.compile(p) for p in problems]
    tol = 1e-12 if dtype == np.float64 else 1e-6
    assert_alone(many(problems, None), problems, [p.lam0 for p in problems], tol)
    one = np.linspace(-1, 1, 800).astype(dtype)
    assert_alone(many(problems, one), problems, [one] * 3, tol)


def test_a_batch_is_asked_for_once_an_update(monkeypatch):
    pytest.importorskip("numba")
    asked = []

    @dataclass(frozen=True)
    class Asked(tb.KRMD):
        def batch(self, problem, lams):
            asked.append(len(lams))
            return super().batch(problem, lams)

    problem = tb.compile(tb.problems.toy())
    tb.minimize_many(problem, STARTS, Asked(K=10), iterations=5)
    # The first is looked at run by run.
    assert asked == [3] * 4


def test_runs_end_for_themselves():
    problem = tb.problems.toy()
    options = {"optimizer": tb.SGD(0.3, decay=0), "gtol": 1e-2, "iterations": 200}
    lams = [[0.0, -0.012], [1.0, 1.0], [-1.0, 1.0]]
    found = many(problem, lams, **options)
    assert len({r.iterations for r in found}) > 1
    assert {r.stopped for r in found} == {"gtol", "iterations"}
    assert_alone(found, [problem] * 3, lams, **options)


def test_a_projection_and_problems_own_boxes_hold_for_each():
    boxed = [
        replace(tb.problems.toy(), bounds=([low, low], [2.0, 2.0])) for low in (0.9, 0.5, -1.0)
    ]
    options = {"projection": lambda lam: np.round(lam, 3)}
    found = many(boxed, **options)
    assert_alone(found, boxed, STARTS, **options)
    assert found[0].lam.min() >= 0.9 > found[1].lam.min()


def test_each_update_has_minibatches_of_its_own():
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((20, 3)), rng.integers(0, 2, 20)
    g = tb.SoftmaxRegression(X, y, 2)
    batches = tb.FreshMinibatches(20, size=5, T=12, seed=0)
    descent = tb.GradientDescent(g, 0.5, np.zeros(6), batches=batches)
    upper = tb.SoftmaxRegression(X[:8], y[:8], 2, weighted=False)
    problem = tb.BilevelProblem(descent, upper, T=12)
    lams = rng.random((3, 20))
    assert_alone(many(problem, lams), [problem] * 3, lams)


def test_the_best_is_the_one_with_the_lowest_value():
    found = many()
    assert found.best.best_value == min(r.best_value for r in found)
    assert found[found.best_index] is found.best
    text = repr(found)
    assert text.splitlines()[0] == "OptimizeResults"
    assert len(text.splitlines()) == 5
    assert f"{found[2].best_value:.6g}" in text
    html = found._repr_html_()
    assert html.count("<tr>") == 4
    assert "<th>stopped</th>" in html


def divergent():
    """Return a problem whose lower level diverges where λ_0 is above 2."""
    g = tb.Objective.from_functions(
        value=lambda w, lam: 0.5 * lam[0] * w @ w,
        grad=lambda w, lam: lam[0] * w,
        grad_vjp=lambda w, lam, v: (lam[0] * v, np.array([w @ v])),
    )
    f = tb.Objective.from_functions(
        value=lambda w, lam: -lam[0] + w @ w,
        grad=lambda w, lam: 2 * w,
        grad_lam=lambda w, lam: np.array([-1.0]),
    )
    return tb.BilevelProblem(tb.GradientDescent(g, 1.0, np.ones(2)), f, T=3000)


def test_a_run_that_diverges_is_named_or_ends_alone():
    lams, options = [[0.1], [1.9]], {"optimizer": tb.SGD(0.3, decay=0), "iterations": 4}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", tb.StabilityWarning)
        with pytest.raises(tb.DivergenceError, match=r"^run 1: ") as caught:
            many(divergent(), lams, **options)
        assert caught.value.last_good == [1.9]
        assert caught.value.best_lam == [1.9]
        found = many(divergent(), lams, on_divergence="stop", **options)
        with pytest.raises(tb.DivergenceError, match=r"^run 0: "):
            many(divergent(), [[3.0], [1.0]], on_divergence="stop", **options)
    assert [(r.stopped, r.iterations) for r in found] == [("iterations", 4), ("diverged", 1)]
    assert found[1].lam == [1.9]
    assert found[1].value == found[1].history["value"][-1] == found[1].best_value
    assert_alone(found[:1], [divergent()], lams[:1], **options)


def test_derivatives_of_one_problem_are_checked_once():
    g = tb.Objective.from_functions(
        value=lambda w, lam: 0.5 * (w - lam) @ (w - lam),
        grad=lambda w, lam: 2 * (w - lam),
        grad_vjp=lambda w, lam, v: (v, -v),
    )
    problem = tb.BilevelProblem(
        tb.GradientDescent(g, 0.1, np.zeros(2)), tb.problems.toy().upper, T=15
    )
    with pytest.warns(tb.DerivativeWarning) as seen:
        many(problem, iterations=2)
    assert len(seen) == 1
    assert seen[0].filename == __file__
    many(problem, iterations=2, check_derivatives=False)


def test_it_stops_at_a_zero_gradient_and_says_so():
    problem = replace(tb.problems.toy(), upper=tb.L2Penalty(0.0))
    with pytest.warns(tb.ConvergenceWarning, match="exactly 0") as seen:
        found = many(problem, check_derivatives=False)
    assert seen[0].filename == __file__
    assert {r.stopped for r in found} == {"zero gradient"}


@pytest.mark.parametrize(
    ("problem", "lam0", "options", "message"),
    [
        (None, [1.0, 1.0], {}, r"lam0 must have 2 dimension"),
        (None, None, {}, r"lam0 must have a row for each run, \(B, N\)"),
        (None, np.zeros((0, 2)), {}, "there must be a run"),
        ([tb.problems.toy()] * 2, STARTS, {}, "a row for each of 2 problems, got 3"),
        ([], None, {}, "there must be a run"),
        ([tb.problems.toy()] * 2, 3.0, {}, r"lam0 must be \(B, N\) or \(N,\), got shape \(\)"),
        ([tb.problems.toy()], [[np.nan, 1.0]], {}, "lam0 must be finite"),
        (None, STARTS, {"on_divergence": "inf"}, 'must be "raise" or "stop", got .inf'),
        ([cleaning(0), cleaning(1, n=801)], None, {}, "one size and dtype in all runs"),
    ],
)
def test_what_is_no_set_of_runs_is_refused(problem, lam0, options, message):
    with pytest.raises(ValueError, match=message):
        many(problem, lam0, **options)


@pytest.mark.parametrize(
    ("problem", "message"),
    [("toy", "problem must be a BilevelProblem or a list"), (["toy"], r"problem\[0\] must be")],
)
def test_what_is_no_problem_is_refused(problem, message):
    with pytest.raises(TypeError, match=message):
        many(problem)


@pytest.mark.parametrize("lam0", [STARTS, STARTS.tolist(), list(STARTS)])
def test_minimize_sends_a_matrix_here(lam0):
    with pytest.raises(ValueError, match="got 3 rows: minimize_many does a run from each"):
        tb.minimize(tb.problems.toy(), lam0)


def test_progress_is_shown(capsys):
    pytest.importorskip("tqdm")
    many(iterations=3, progress=True)
    assert "3/3" in capsys.readouterr().err
