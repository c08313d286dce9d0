import itertools
from functools import cache

import engine_cases
import numpy as np
import pytest

import tinybilevel as tb
from tinybilevel.engine.dynamics import Dynamics
from tinybilevel.engine.storage import binomial_cost


def trajectory(problem, lam):
    """Run the dynamics with none of the engine."""
    theta = problem.hyper_map(lam)
    states = [problem.transition.initial(theta)]
    for t in range(problem.T):
        states.append(problem.transition.step(t, states[-1], theta))
    return states


@pytest.mark.parametrize("storage", engine_cases.STORAGES, ids=repr)
@pytest.mark.parametrize(("T", "K"), [(12, 12), (12, 7), (12, 1), (12, 0), (1, 1), (1, 0), (0, 0)])
def test_states_are_those_of_the_forward_pass_newest_first(storage, T, K):
    problem = engine_cases.long(T)
    expected = trajectory(problem, engine_cases.LAM)
    dynamics = Dynamics(problem, engine_cases.LAM)
    w, states = storage.run(dynamics, K)
    np.testing.assert_array_equal(w, expected[T])
    times = []
    for t, state in states:
        np.testing.assert_array_equal(state, expected[t])
        times.append(t)
    assert times == list(range(T - 1, T - K - 1, -1))
    transitions, held = storage.cost(T, K)
    assert dynamics.transitions == transitions
    assert dynamics.bytes == held * expected[0].nbytes


@pytest.mark.parametrize("storage", engine_cases.STORAGES, ids=repr)
def test_the_backward_pass_is_lazy(storage):
    dynamics = Dynamics(engine_cases.long(12), engine_cases.LAM)
    _, states = storage.run(dynamics, 12)
    next(states)
    assert dynamics.transitions <= storage.cost(12, 12)[0]
    before = dynamics.transitions
    states.close()
    assert dynamics.transitions == before


def test_ring_holds_the_last_states_in_one_array():
    dynamics = Dynamics(engine_cases.long(12), engine_cases.LAM)
    w, states = tb.Ring().run(dynamics, 4)
    rows = [state for _, state in states]
    assert all(row.base is w.base for row in rows)
    assert w.base.shape == (5, w.size)
    assert w.base.flags.c_contiguous
    np.testing.assert_array_equal(w.base, [*reversed(rows), w])  # in the order of time


@cache
def fewest(length, slots):
    """Return the fewest transitions to visit the states backward, by trying every split."""
    if length == 1:
        return 0
    if slots == 1:
        return length * (length - 1) // 2
    return min(m + fewest(length - m, slots - 1) + fewest(m, slots) for m in range(1, length))


@pytest.mark.parametrize("slots", range(1, 9))
def test_binomial_recomputes_as_little_as_any_schedule_can(slots):
    for K in range(1, 41):
        minimum = fewest(K, slots)
        assert binomial_cost(K, slots) == minimum
        # One more transition makes w_K itself.
        dynamics = Dynamics(counting_problem(K), np.zeros(1))
        _, states = tb.Binomial(slots).run(dynamics, K)
        assert [t for t, _ in states] == list(range(K - 1, -1, -1))
        assert dynamics.transitions == minimum + 1


def counting_problem(T):
    counter = tb.Transition.from_functions(
        step=lambda t, w, lam: w + 1, vjp=lambda t, w, lam, alpha: (alpha, lam), initial=np.zeros(1)
    )
    nothing = tb.Objective.from_functions(value=lambda w, lam: 0.0, grad=lambda w, lam: 0 * w)
    return tb.BilevelProblem(counter, nothing, T=T)


def test_checkpoints_take_one_more_pass_at_most():
    for T, every in itertools.product((1, 2, 10, 100, 101), (None, 1, 3, 200)):
        transitions, held = tb.Checkpoint(every).cost(T, T)
        assert T <= transitions <= 2 * T
        assert held <= T + 3
        if every is None:
            assert held <= 2 * np.sqrt(T) + 4


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: tb.Binomial(0), ValueError, "slots must be at least 1, got 0"),
        (lambda: tb.Binomial(1.5), TypeError, "slots must be an integer, got 1.5"),
        (lambda: tb.Checkpoint(0), ValueError, "every must be at least 1, got 0"),
    ],
)
def test_wrong_arguments_are_named(make, error, message):
    with pytest.raises(error, match=message):
        make()
