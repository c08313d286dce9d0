import warnings

import engine_cases
import numpy as np
import pytest

import tinybilevel as tb
from tinybilevel.engine.stability import check, largest_curvature, look


def along(G, step_size, transition=tb.GradientDescent, T=60, **options):
    """Return a quadratic problem of curvature G."""
    f = tb.Objective.from_functions(lambda w, lam: float(w @ w), lambda w, lam: 2 * w)
    moves = transition(tb.Quadratic(G), step_size, np.ones(len(G)), **options)
    return tb.BilevelProblem(moves, f, T=T, lam0=np.zeros(len(G)))


@pytest.mark.parametrize("G", [[1.0, 0.5], [1.0, -0.2], [1.0, -5.0], [3.0, 0.0]])
def test_the_largest_eigenvalue_is_found_whatever_the_others(G):
    w = np.ones(2)
    assert largest_curvature(tb.Quadratic(G), w, w) == pytest.approx(max(G), rel=1e-6)


def test_no_curvature_is_no_curvature():
    w = np.ones(2)
    assert largest_curvature(tb.Quadratic([0.0, 0.0]), w, w) == 0
    assert check(along([0.0, 0.0], 1e6)).stable


MOVES = {
    "descent": (tb.GradientDescent, {}, 2.0),
    "proximal": (tb.ProximalGradient, {"l1": 0.0}, 2.0),
    "heavy ball": (tb.HeavyBall, {"momentum": 0.5}, 3.0),
    "nesterov": (tb.Nesterov, {"momentum": 0.5}, 1.5),
}


@pytest.mark.parametrize("name", MOVES)
def test_the_limit_is_where_the_iteration_begins_to_grow(name):
    transition, options, limit = MOVES[name]
    for factor, grows in ((0.99, False), (1.01, True)):
        problem = along([1.0, 0.3], factor * limit, transition, T=4000, **options)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", tb.StabilityWarning)
            w = tb.KRMD(K=0)(problem).w
        assert (np.linalg.norm(w) > 1) == grows
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = check(problem)
        assert found.stable != grows
        assert found.limit == pytest.approx(limit, rel=1e-6)
        assert [each.category for each in caught] == grows * [tb.StabilityWarning]


def test_the_warning_names_the_step_size_that_would_do():
    message = r"γ = 3 against smoothness β ≈ 1 at w_0 \(stable for γ < 2; γ = 1 would do\)"
    with pytest.warns(tb.StabilityWarning, match=message):
        found = check(along([1.0, 0.5], 3.0))
    assert check(along([1.0, 0.5], found.advice)).stable


def test_each_entrys_own_step_size_counts_with_its_own_curvature():
    """‖Γ‖ β = 90 ≫ 2, and the iteration is stable: the long step is along the flat entry."""
    f = tb.Objective.from_functions(lambda w, lam: float(w @ w), lambda w, lam: 2 * w)
    steps = tb.Learned(slice(2, 4), sizes=[1, 1])
    g = tb.Quadratic([3.0, 0.03], C=np.zeros((2, 4)))
    moves = tb.GradientDescent(g, steps, [1.0, 1.0])
    problem = tb.BilevelProblem(moves, f, T=50)
    assert check(problem, [0.0, 0.0, 0.5, 30.0]).stable
    with pytest.warns(tb.StabilityWarning):
        check(problem, [0.0, 0.0, 0.7, 30.0])


@pytest.mark.parametrize("steps", [[-0.1, -0.1], [0.1, -0.1]])
def test_a_step_size_below_0_climbs(steps):
    moves = tb.GradientDescent(tb.Quadratic([1.0, 0.5]), tb.Learned(slice(0, 2), [1, 1]), [1.0, 1])
    with pytest.warns(tb.StabilityWarning, match=r"γ = -0.1 against .* \(stable for 0 < γ < 2;"):
        check(tb.BilevelProblem(moves, engine_cases.upper(), T=5), steps)


def test_curvature_that_grows_on_the_way_is_seen_at_the_end():
    g = tb.Objective.from_functions(  # w⁴/4 − 27 w: flat at 0, curvature 27 at the minimum 3
        value=lambda w, lam: float((w**4 / 4 - 27 * w).sum()),
        grad=lambda w, lam: w**3 - 27,
        grad_vjp=lambda w, lam, v: (3 * w**2 * v, 0 * lam),
    )
    moves = tb.GradientDescent(g, 0.08, [0.1])
    problem = tb.BilevelProblem(moves, engine_cases.upper(), T=40, lam0=[0.0])
    with pytest.warns(tb.StabilityWarning, match="at w_T"):
        check(problem)
    with pytest.warns(tb.StabilityWarning, match="at w_T"):
        check(problem, w=np.array([3.0]))
    assert check(problem, w=np.array([0.0])).stable


@pytest.mark.parametrize("transition", ["adam", "functions"])
def test_nothing_is_said_where_no_limit_is_known(transition):
    if transition == "adam":
        problem = along([1.0, 0.5], 1e3, tb.AdamTransition)
    else:
        moves = tb.Transition.from_functions(
            lambda t, w, lam: -3 * w, lambda t, w, lam, a: (-3 * a, 0 * lam), initial=[1.0, 1.0]
        )
        problem = tb.BilevelProblem(moves, engine_cases.upper(), T=5, lam0=[0.0, 0.0])
    assert check(problem) is None


def test_a_state_that_is_not_finite_is_left_out():
    with pytest.warns(tb.StabilityWarning, match="at w_0"):
        check(along([1.0, 0.5], 1e9, T=200))


def test_the_step_size_of_the_last_step_counts_at_the_end():
    steps = tb.PerStep([0.1] * 9 + [3.0])
    with pytest.warns(tb.StabilityWarning, match="γ = 3 against smoothness β ≈ 1 at w_T"):
        check(along([1.0, 0.5], steps, T=10))
    assert check(along([1.0, 0.5], steps, T=9)).stable


@pytest.mark.parametrize(
    ("factor", "asks_all", "warns"), [(0.1, False, False), (0.8, True, False), (1.5, True, True)]
)
def test_of_minibatches_all_data_are_asked_where_two_batches_leave_it_open(
    factor, asks_all, warns, monkeypatch
):
    rng = np.random.default_rng(0)
    X = np.tile(rng.standard_normal((10, 4)), (8, 1))  # batches are alike
    g = tb.LeastSquares(X, rng.standard_normal(80), weighted=False)
    limit = 2 / np.linalg.eigvalsh(2 * X.T @ X / 80 / 2).max()
    batches = [np.arange(10) + 10 * t for t in range(6)]
    moves = tb.GradientDescent(g, factor * limit, np.zeros(4), batches=batches)
    problem = tb.BilevelProblem(moves, engine_cases.upper(), T=6, lam0=np.ones(4))
    asked, product = [], tb.LeastSquares.grad_vjp

    def counted(self, *args):
        asked.append(self._rows is None)
        return product(self, *args)

    monkeypatch.setattr(tb.LeastSquares, "grad_vjp", counted)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        look(problem, None, np.ones(4))
    assert (any(asked), bool(caught)) == (asks_all, warns)
    assert not all(asked)
    assert all(each.filename == __file__ for each in caught)


def test_a_call_on_minibatches_with_too_large_a_step_says_so():
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((60, 5)), rng.integers(0, 3, 60)
    g = tb.SoftmaxRegression(X, y, 3, weighted=False) + tb.L2Penalty(0.5)
    f = tb.SoftmaxRegression(X, y, 3, weighted=False)
    for seed in range(9):
        batches = tb.minibatches(60, size=12, T=40, seed=seed)
        moves = tb.GradientDescent(g, 2.2, np.zeros(15), batches=batches)
        with pytest.warns(tb.StabilityWarning, match=r"γ = 2.2 against smoothness β"):
            tb.RMD()(tb.BilevelProblem(moves, f, T=40, lam0=np.ones(1)))
