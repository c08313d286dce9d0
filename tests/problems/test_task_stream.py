import dataclasses

import numpy as np
import pytest

import tinybilevel as tb
from tinybilevel.problems import TaskStream


def toy(tau):
    return tb.problems.toy(T=10 + tau)


def test_each_update_is_at_the_problem_of_its_number():
    seen = []

    def draw(tau):
        seen.append(tau)
        return toy(tau)

    stream, sgd = TaskStream.of(draw), tb.SGD(0.05)
    result = tb.minimize(stream, method=tb.KRMD(K=3), optimizer=sgd, iterations=3)
    lam = np.array([1.0, 1.0])
    for tau in (1, 2, 3):
        lam, _ = sgd.update(tau, lam, tb.KRMD(K=3)(toy(tau), lam).grad, {})
    np.testing.assert_array_equal(result.lam, lam)
    assert seen == [1, 1, 2, 3, 4], "once when built, then one for each update, and the last value"


def test_it_changes_its_precision_at_every_update():
    stream = TaskStream.of(toy).astype(np.float32)
    assert isinstance(stream, TaskStream)
    for problem in (stream, stream.at_iteration(5)):
        assert tb.KRMD(K=3)(problem).grad.dtype == np.float32


def test_minibatches_within_it_are_those_of_the_update():
    rng = np.random.default_rng(0)
    net = tb.layers.Network([tb.layers.Dense(2)], (3,))
    g = tb.NetworkLoss(net, rng.standard_normal((8, 3)), np.arange(8) % 2)
    batches = tb.FreshMinibatches(8, 2, T=5, seed=0)
    descent = tb.GradientDescent(g, 0.1, net.init(0), batches=batches)
    problem = tb.BilevelProblem(descent, upper=g, T=5)
    third = TaskStream.of(lambda tau: problem).at_iteration(3).transition.batches
    np.testing.assert_array_equal(third, batches(3))
    assert not np.array_equal(third, batches(1))


def test_it_is_not_the_problem_that_it_begins_with():
    problem = tb.problems.toy()
    stream = TaskStream.of(problem.at_iteration)
    assert stream != problem
    assert problem != stream
    assert stream == TaskStream.of(problem.at_iteration)


def test_what_draws_no_problem_is_refused():
    with pytest.raises(TypeError, match=r"draw\(1\) must return a BilevelProblem, got 1"):
        TaskStream.of(lambda tau: tau)


def test_a_change_of_update_1_alone_is_refused():
    stream = TaskStream.of(toy)
    for change in ({"T": 3}, {"upper": toy(2).upper}, {"transition": toy(2).transition}):
        (name,) = change
        with pytest.raises(TypeError, match=f"{name} of a TaskStream cannot be changed .*draw"):
            dataclasses.replace(stream, **change)


def test_a_new_start_is_that_of_all_updates():
    stream = TaskStream.of(toy).starting_at([3.0, 4.0])
    for problem in (stream, stream.at_iteration(2)):
        np.testing.assert_array_equal(
            tb.RMD()(problem, [1.0, 1.0]).w,
            tb.RMD()(toy(2 if problem is not stream else 1).starting_at([3.0, 4.0]), [1.0, 1.0]).w,
        )


def test_what_each_is_made_into_stays_with_another_precision():
    made = dataclasses.replace(TaskStream.of(toy), made=as_it_is)
    assert made.astype(np.float32).made is as_it_is


def as_it_is(problem):
    return problem
