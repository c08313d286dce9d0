"""Many problems in one outer loop, new minibatches and states that are carried."""

import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

import tinybilevel as tb

TOY = tb.problems.toy()
THREE = [tb.problems.toy(step_size=s, T=T) for s, T in ((0.05, 100), (0.1, 40), (0.2, 10))]


def test_tasks_are_averaged():
    lam, state, optimizer = TOY.lam0, tb.Adam(0.1).init(TOY.lam0), tb.Adam(0.1)
    values = []
    for tau in range(1, 6):
        results = [tb.KRMD(K=5)(p, lam) for p in THREE]
        values.append(np.mean([r.value for r in results]))
        grad = np.mean([r.grad for r in results], axis=0)
        lam, state = optimizer.update(tau, lam, grad, state)
    result = tb.minimize(THREE, method=tb.KRMD(K=5), optimizer=optimizer, iterations=5)
    np.testing.assert_allclose(result.lam, lam, rtol=1e-13)
    np.testing.assert_allclose(result.history["value"], values, rtol=1e-13)
    last = [tb.KRMD(K=5)(p, result.lam) for p in THREE]
    assert result.value == pytest.approx(np.mean([r.value for r in last]), rel=1e-13)
    for w, r in zip(result.w, last, strict=True):
        np.testing.assert_array_equal(w, r.w)


def test_a_list_of_one_is_the_problem_itself():
    one, many = tb.minimize(TOY, iterations=4), tb.minimize([TOY], iterations=4)
    np.testing.assert_array_equal(one.lam, many.lam)
    np.testing.assert_array_equal(many.w[0], one.w)


def test_a_callback_sees_the_mean():
    seen = []
    tb.minimize(THREE, method=tb.RMD(), iterations=1, callback=seen.append)
    r, each = seen[0].hypergradient, [tb.RMD()(p) for p in THREE]
    np.testing.assert_allclose(r.grad, np.mean([e.grad for e in each], axis=0), rtol=1e-13)
    assert r.cost.transitions == sum(e.cost.transitions for e in each) == 150
    assert (len(r.w), r.K) == (3, 100)


@pytest.mark.parametrize("warm_start", [False, True, "state"])
def test_tasks_resume_bit_for_bit(tmp_path, warm_start):
    options = {"method": tb.KRMD(K=5), "warm_start": warm_start, "keep_lam": 2}
    whole = tb.minimize(THREE, iterations=9, **options)
    tb.minimize(THREE, iterations=4, checkpoint=tmp_path / "run.npz", **options)
    resumed = tb.minimize(
        THREE, iterations=9, checkpoint=tmp_path / "run.npz", resume=True, **options
    )
    np.testing.assert_array_equal(resumed.lam, whole.lam)
    np.testing.assert_array_equal(resumed.history["lam"], whole.history["lam"])
    for a, b in zip(resumed.w, whole.w, strict=True):
        np.testing.assert_array_equal(a, b)


def sized(N, **options):
    g = tb.Quadratic(np.ones(N))
    descent = tb.GradientDescent(g, 0.1, initial=np.zeros(N))
    upper = tb.Objective.from_functions(value=lambda w, lam: w @ w, grad=lambda w, lam: 2 * w)
    return tb.BilevelProblem(descent, upper, T=3, **options)


@pytest.mark.parametrize(
    ("problems", "lam0", "message"),
    [
        ([], None, "problem must not be an empty list"),
        ([TOY, sized(3, lam0=np.ones(3))], None, r"lam0 is needed: those of problem\[0\] and prob"),
        ([TOY, replace(TOY, lam0=[0.0, 1.0])], None, "lam0 is needed: those of problem"),
        ([TOY, sized(3, lam0=np.ones(3))], [1.0, 1.0], r"problem\[1\]: lam must have shape \(3,\)"),
        ([TOY, sized(3)], None, r"problem\[1\]: "),
        ([sized(2), sized(2)], None, r"problem\[0\]: lam is needed"),
    ],
)
def test_tasks_that_do_not_fit_are_named(problems, lam0, message):
    with pytest.raises(ValueError, match=message):
        tb.minimize(problems, lam0)


def test_a_task_of_another_kind_is_named():
    with pytest.raises(TypeError, match=r"problem\[1\] must be a BilevelProblem, got 3"):
        tb.minimize([TOY, 3])


def test_a_task_that_diverges_is_named():
    with pytest.raises(tb.DivergenceError, match=r"problem\[1\]: the state w_"):
        tb.minimize([TOY, tb.problems.toy(step_size=1e200)])


def buffered(kind, T):
    g = tb.Quadratic([1.0, 0.5])
    move = {
        "heavy ball": lambda: tb.HeavyBall(g, 0.1, [2.0, 2.0], momentum=0.9),
        "nesterov": lambda: tb.Nesterov(g, 0.1, [2.0, 2.0], momentum=0.9),
        "adam": lambda: tb.AdamTransition(g, 0.1, [2.0, 2.0]),
        "descent": lambda: tb.GradientDescent(g, 0.1, [2.0, 2.0]),
    }[kind]()
    return tb.BilevelProblem(move, TOY.upper, T=T, lam0=[1.0, 1.0])


@pytest.mark.parametrize("kind", ["heavy ball", "nesterov", "adam", "descent"])
def test_five_runs_that_carry_the_state_are_one_long_run(kind):
    still = {"projection": lambda lam: np.ones(2), "method": tb.RMD(), "iterations": 4}
    long = tb.RMD()(buffered(kind, 50)).w
    carried = tb.minimize(buffered(kind, 10), warm_start="state", **still).w
    np.testing.assert_allclose(carried, long, rtol=1e-12)
    restarted = tb.minimize(buffered(kind, 10), warm_start=True, **still).w
    if kind != "descent":
        assert np.abs(restarted - long).max() > 1e-3


def test_each_update_has_minibatches_of_its_own():
    rng = np.random.default_rng(0)
    X, y = rng.random((40, 3)), rng.integers(0, 3, 40)
    problem = tb.problems.hypercleaning(X, y, X, y, T=4, n_classes=3)
    fresh = tb.FreshMinibatches(n=40, size=4, T=4, seed=0)
    loss = problem.transition.objective
    descent = tb.GradientDescent(loss, 1.0, initial=problem.transition.initial(None), batches=fresh)
    drawn = replace(problem, transition=descent)
    options = {"method": tb.RMD(), "iterations": 20, "optimizer": tb.SGD(1.0)}
    moved = tb.minimize(drawn, **options).lam != problem.lam0
    seen = np.unique(np.concatenate([fresh(tau).ravel() for tau in range(1, 21)]))
    np.testing.assert_array_equal(np.flatnonzero(moved), seen)
    assert moved.sum() == 40


def test_fresh_minibatches_resume_bit_for_bit(tmp_path):
    rng = np.random.default_rng(0)
    X, y = rng.random((40, 3)), rng.integers(0, 3, 40)
    problem = tb.problems.hypercleaning(X, y, X, y, T=4, n_classes=3)
    fresh = tb.FreshMinibatches(n=40, size=4, T=4, seed=0)
    move = problem.transition
    descent = tb.GradientDescent(move.objective, 1.0, move.initial(None), batches=fresh)
    options = {"problem": replace(problem, transition=descent), "method": tb.RMD()}
    whole = tb.minimize(iterations=9, **options)
    tb.minimize(iterations=4, checkpoint=tmp_path / "run.npz", **options)
    resumed = tb.minimize(iterations=9, checkpoint=tmp_path / "run.npz", resume=True, **options)
    np.testing.assert_array_equal(resumed.lam, whole.lam)
    assert resumed.value == whole.value


def test_tasks_must_agree_on_their_bounds():
    boxes = [replace(TOY, bounds=b) for b in ((-1, 1), (np.full(2, -1), np.ones(2)), None)]
    with pytest.raises(ValueError, match=r"those of problem\[0\] and problem\[2\] differ, \(-1, 1"):
        tb.minimize([boxes[0], boxes[0], boxes[2]])
    tb.minimize(boxes[1:2] * 2, iterations=1)
    tb.minimize(boxes, iterations=1, bounds=(-1, 1))


def test_the_mean_has_a_short_text_and_the_largest_lower_gradient():
    seen = []
    tb.minimize(THREE, method=tb.RMD(), iterations=1, callback=seen.append)
    r, each = seen[0].hypergradient, [tb.RMD()(p) for p in THREE]
    assert repr(r).endswith("], w=3 tasks, K=100)")
    assert "<td>3 tasks</td>" in r._repr_html_()
    for kept in (pickle.loads(pickle.dumps(r)), r):
        assert kept.lower_grad_norm == max(e.lower_grad_norm for e in each)
        assert kept.lower_grad_ratio == max(e.lower_grad_ratio for e in each)


class Solver(tb.RMD):
    """Says how well it did: the better the longer the horizon is."""

    def _evaluate(self, dynamics):
        T = dynamics.T
        return replace(super()._evaluate(dynamics), residual=1 / T, converged=T > 10)


def test_the_mean_is_as_good_as_the_worst_of_its_tasks():
    seen = []
    tb.minimize(THREE, method=Solver(), iterations=1, callback=seen.append)
    assert (seen[0].hypergradient.residual, seen[0].hypergradient.converged) == (0.1, False)


def processes(count):
    # Not forked: JAX, of the oracles' tests, has threads.
    return ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn"))


@pytest.mark.parametrize("pool", [ThreadPoolExecutor, processes])
def test_an_executor_changes_nothing(pool):
    tasks = [tb.problems.toy(T=T) for T in (10, 20, 30)]
    options = {"method": tb.KRMD(K=5), "iterations": 4}
    with pool(2) as executor:
        found = tb.minimize(tasks, executor=executor, **options)
        np.testing.assert_array_equal(found.lam, tb.minimize(tasks, **options).lam)
        with pytest.raises(ValueError, match=r"problem\[0\]: K must be at most the horizon"):
            tb.minimize(tasks, method=tb.KRMD(K=11), executor=executor)
    with pytest.raises(TypeError, match=r"executor must be a concurrent.futures.Executor, got 2"):
        tb.minimize(tasks, executor=2)
