from dataclasses import FrozenInstanceError, replace

import cases
import engine_cases
import numpy as np
import pytest

import tinybilevel as tb


def test_a_problem_does_not_change_with_the_callers_arrays():
    lam0 = np.ones(2)
    problem = replace(tb.problems.toy(), lam0=lam0)
    lam0[0] = 7
    np.testing.assert_array_equal(problem.lam0, [1, 1])
    with pytest.raises(ValueError, match="read-only"):
        problem.lam0[0] = 7
    with pytest.raises(FrozenInstanceError):
        problem.T = 7


def test_a_start_elsewhere_leaves_the_problem_as_it_was():
    problem, w = engine_cases.long(4), np.arange(6.0)
    moved = problem.starting_at(w)
    w[:] = 0
    start = moved.transition.initial(moved.hyper_map(engine_cases.LAM))
    np.testing.assert_array_equal(start, [*range(6), *[0] * 6])  # the velocity too
    assert not np.any(moved.transition.initial_vjp(engine_cases.LAM, np.ones(12)))
    assert np.any(problem.transition.initial_vjp(engine_cases.LAM, np.ones(12)))


def test_lam0_stands_in_for_lam():
    problem = tb.problems.toy()
    np.testing.assert_array_equal(problem.check(None), [1, 1])
    with pytest.raises(ValueError, match="lam is needed: the problem has no lam0"):
        replace(problem, lam0=None).check(None)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"transition": cases.cosine()}, TypeError, "transition must be a Transition such as"),
        ({"upper": np.sin}, TypeError, "upper must be an Objective such as"),
        ({"hyper_map": tb.Exp}, TypeError, r"must be a HyperMap such as Exp\(\), got"),
        ({"T": -1}, ValueError, "T must be at least 0, got -1"),
        ({"T": True}, TypeError, "T must be an integer, got True"),
        ({"lam0": [True]}, TypeError, "lam0 must be float32 or float64, got dtype bool"),
        ({"lam0": [[1.0]]}, ValueError, r"lam0 must have 1 dimension\(s\)"),
        ({"lam0": [np.inf]}, ValueError, "lam0 must be finite"),
    ],
)
def test_wrong_arguments_are_named(change, error, message):
    with pytest.raises(error, match=message):
        replace(tb.problems.toy(), **change)


def test_problems_are_compared_by_their_parts_and_hashed():
    toy = tb.problems.toy()
    assert replace(toy) == toy
    assert replace(toy, lam0=[1.0, 1.0]) == toy
    assert hash(replace(toy)) == hash(toy)
    for other in (
        replace(toy, T=3),
        replace(toy, lam0=[1.0, 2.0]),
        replace(toy, lam0=[1.0]),
        replace(toy, lam0=None),
        tb.problems.toy(),
    ):
        assert other != toy
    assert toy != 1


def test_astype_is_the_whole_problem_in_another_precision():
    X, y = cases.normal(1, 6, 2, dtype=np.float32), np.array([0, 1, 1, 0, 2, 2])
    single = tb.problems.hypercleaning(X, y, X, y, T=4, step_size=0.3)
    double = tb.problems.hypercleaning(
        X.astype(np.float64), y, X.astype(np.float64), y, T=4, step_size=0.3
    )
    found, right = tb.RMD()(single.astype(np.float64)), tb.RMD()(double)
    np.testing.assert_array_equal(found.grad, right.grad)
    assert found.grad.dtype == found.w.dtype == np.float64
    assert tb.RMD()(double.astype(np.float32)).grad.dtype == np.float32
    np.testing.assert_array_equal(tb.RMD()(double.astype(np.float32)).grad, tb.RMD()(single).grad)
    assert single.lam0.dtype == np.float32  # itself unchanged
    with pytest.raises(TypeError, match="dtype must be float32 or float64, got int64"):
        single.astype(int)


def test_bounds_that_are_changed_later_change_nothing():
    low = np.full(2, -1.0)
    problem = replace(tb.problems.toy(), bounds=(low, np.ones(2)))
    low[:] = 0.9
    np.testing.assert_array_equal(problem.bounds[0], [-1.0, -1.0])
