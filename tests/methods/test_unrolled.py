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
    tb.testing.assert_matches_differences(*PROBLEMS[name], tb.RMD(), step=1e-4, tol=1e-7)


@pytest.mark.parametrize("storage", STORAGES, ids=repr)
@pytest.mark.parametrize("transition", [tb.GradientDescent, tb.Nesterov, tb.AdamTransition])
def test_truncation_is_the_partial_sum_for_every_K(storage, transition):
    problem = engine_cases.long(10, transition)
    for K in range(problem.T + 1):
        r = tb.KRMD(K, storage)(problem, LAM)
        assert relative_error(r.grad, dense_hypergradient(problem, LAM, K)) <= TOL
        assert r.K == K
        assert r.alpha_norms.shape == (K + 1,)


@pytest.mark.parametrize("name", PROBLEMS)
def test_truncation_is_the_partial_sum_for_every_transition(name):
    problem, lam = PROBLEMS[name]
    for K in range(problem.T + 1):
        dense = dense_hypergradient(problem, lam, K)
        r = tb.KRMD(K)(problem, lam)
        assert relative_error(r.grad, dense) <= TOL
        assert r.w.shape == (6,), "without its buffers"


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


@pytest.mark.parametrize("storage", STORAGES, ids=repr)
def test_one_backward_pass_comes_by_every_truncation(storage):
    problem = engine_cases.long(10)
    *truncated, exact = tb.RMD(storage).truncations(problem, LAM)
    assert len(truncated) == problem.T + 1
    for K, h in enumerate(truncated):
        np.testing.assert_array_equal(h, tb.KRMD(K)(problem, LAM).grad)
    np.testing.assert_array_equal(exact, tb.RMD()(problem, LAM).grad)
    assert np.linalg.norm(exact - truncated[-1]) > 1e-3, "B_0 α_0 is not in h_0"


def test_truncations_own_their_arrays_and_leave_the_map_out_of_the_recursion():
    problem = tb.problems.toy(T=4)
    kept = [h.copy() for h in tb.RMD().truncations(problem)]
    for h, was in zip(list(tb.RMD().truncations(problem)), kept, strict=True):
        np.testing.assert_array_equal(h, was)
        h[...] = np.nan
    assert [h.size for h in tb.RMD().truncations(tb.problems.toy(T=0))] == [2, 2]


def test_truncations_refuse_and_diverge_as_a_call_does():
    with pytest.raises(ValueError, match=r"lam must have shape"):
        tb.RMD().truncations(tb.problems.toy(), [1.0])
    far = tb.RMD().truncations(tb.problems.toy(T=2000, step_size=30.0))
    with pytest.raises(tb.DivergenceError, match="γ = 30"):
        next(far)


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


@pytest.mark.parametrize("K", [-1, 2.0, True])
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


class Stale(tb.GradientDescent):
    """A peer's fault: the backward pass replays the batch of the step before."""

    def vjp(self, t, w, lam, alpha):
        return super().vjp(max(t - 1, 0), w, lam, alpha)


def test_a_stale_batch_is_seen():
    problem = engine_cases.long(8, Stale)
    assert relative_error(tb.RMD()(problem, LAM).grad, dense_hypergradient(problem, LAM)) > 1e-3
    with pytest.raises(AssertionError, match=r"disagree by .*grad"):
        tb.testing.assert_methods_agree(problem, LAM, [tb.RMD(), tb.FMD()])


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
