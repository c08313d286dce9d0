"""Batches at each step: which rows are seen, on the way there and on the way back."""

import pickle

import cases
import numpy as np
import pytest

import tinybilevel as tb


@pytest.mark.parametrize("t", range(4))
def test_batch_t_is_used_at_step_t_by_all_three(t):
    loss, w, lam = cases.objectives()["softmax"]
    descent = tb.GradientDescent(loss, 0.3, w, batches=cases.BATCHES)
    alone = tb.GradientDescent(loss.restrict(cases.BATCHES[t]), 0.3, w)
    batched = cases.transition_calls(descent, w, lam, t=t)
    cases.assert_same(batched, cases.transition_calls(alone, w, lam, t=t))


def test_too_few_batches():
    descent = tb.GradientDescent(cases.softmax(), 0.3, np.zeros(6), batches=[[0], [1]])
    for call in (descent.step, lambda t, w, lam: descent.vjp(t, w, lam, w)):
        with pytest.raises(ValueError, match="batches has 2 entries; step t=2 needs one more"):
            call(2, np.zeros(6), np.zeros(5))


@pytest.mark.parametrize("n", [1, 5, 7])
@pytest.mark.parametrize("size", [1, 2, 5])
def test_minibatches_pass_through_the_data(n, size):
    if size > n:
        with pytest.raises(ValueError, match=f"size must be at most n = {n}, got {size}"):
            tb.minibatches(n, size, 3, seed=0)
        return
    per_epoch = n // size
    rows = tb.minibatches(n, size, 3 * per_epoch + 1, seed=0)
    assert rows.shape == (3 * per_epoch + 1, size)
    for epoch in range(3):
        seen = rows[epoch * per_epoch : (epoch + 1) * per_epoch].ravel()
        assert len(set(seen)) == per_epoch * size
        assert set(seen) <= set(range(n))


def test_minibatches_come_from_the_seed_alone():
    rows = tb.minibatches(50, 5, 20, seed=3)
    np.testing.assert_array_equal(rows, tb.minibatches(50, 5, 20, seed=3))
    np.testing.assert_array_equal(rows, tb.minibatches(50, 5, 20, np.random.default_rng(3)))
    assert (rows != tb.minibatches(50, 5, 20, seed=4)).any()
    assert (rows[:10] != rows[10:]).any()  # a new shuffle each epoch
    assert tb.minibatches(50, 5, 0, seed=3).shape == (0, 5)


@pytest.mark.parametrize("arguments", [(0, 1, 1), (5, 0, 1), (5, 1, -1)])
def test_minibatches_refuse_what_is_empty(arguments):
    with pytest.raises(ValueError, match="must be at least"):
        tb.minibatches(*arguments, seed=0)


FRESH = tb.FreshMinibatches(n=40, size=4, T=4, seed=3)


def test_fresh_minibatches_come_from_the_seed_and_the_update():
    rows = [FRESH(tau) for tau in (1, 2, 3)]
    for tau, batch in enumerate(rows, 1):
        expected = tb.minibatches(40, 4, 4, np.random.default_rng([3, tau]))
        np.testing.assert_array_equal(batch, expected)
    assert (rows[0] != rows[1]).any()
    assert (rows[1] != rows[2]).any()
    again = pickle.loads(pickle.dumps(FRESH))
    assert again == FRESH == tb.FreshMinibatches(np.int64(40), 4, 4, 3)
    np.testing.assert_array_equal(again(2), rows[1])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((40, 41, 4, 0), ValueError, "size must be at most n = 40, got 41"),
        ((40, 0, 4, 0), ValueError, "size must be at least 1, got 0"),
        ((40, 4, 2.0, 0), TypeError, "T must be an integer, got 2.0"),
        ((40, 4, 4, -1), ValueError, "seed must be at least 0, got -1"),
        ((40, 4, 4, None), TypeError, "seed must be an integer, got None"),
    ],
)
def test_fresh_minibatches_refuse(arguments, error, message):
    with pytest.raises(error, match=message):
        tb.FreshMinibatches(*arguments)


def test_updates_are_counted_from_one():
    with pytest.raises(ValueError, match="tau must be at least 1, got 0"):
        FRESH(0)


def problem(batches, transition=tb.GradientDescent):
    loss, w, lam = cases.objectives()["softmax"]
    moves = transition(loss, 0.3, w, batches=batches)
    return tb.BilevelProblem(moves, cases.cosine_of_state(), T=4, lam0=lam)


def rows_of(tau):
    return np.random.default_rng(tau).integers(5, size=(4, 2))


@pytest.mark.parametrize("batches", [tb.FreshMinibatches(5, 2, 4, seed=1), rows_of])
@pytest.mark.parametrize("kind", [tb.GradientDescent, tb.HeavyBall, tb.AdamTransition])
def test_each_update_is_the_problem_with_its_own_batches(kind, batches):
    drawn = problem(batches, kind)
    for tau in (1, 2, 5):
        expected = tb.RMD()(problem(batches(tau), kind)).grad
        np.testing.assert_array_equal(tb.RMD()(drawn.at_iteration(tau)).grad, expected)
    np.testing.assert_array_equal(
        tb.RMD()(drawn).grad, tb.RMD()(drawn.at_iteration(2).at_iteration(1)).grad
    )
    assert (tb.RMD()(drawn).grad != tb.RMD()(drawn.at_iteration(2)).grad).any()


def test_without_fresh_batches_each_update_is_the_same_problem():
    for fixed in (problem(None), problem(cases.BATCHES), tb.problems.toy()):
        assert fixed.at_iteration(7) is fixed


def test_in_time_every_example_is_seen():
    seen = {int(i) for tau in range(1, 11) for i in FRESH(tau).ravel()}
    assert seen == set(range(40))


@pytest.mark.parametrize(
    ("batches", "error", "message"),
    [
        ([[0, 1], [5]], ValueError, r"batches\[1\] asks for example 5, which is beyond the data"),
        (np.array([[0, 9], [1, 2]]), ValueError, r"batches\[0\] asks for example 9, which is"),
        ([[0], [2, -1]], ValueError, r"batches\[1\] must hold .* at least 0, got -1 at entry 1"),
        (np.array([[0, 1], [-2, 1]]), ValueError, r"batches\[1\] must hold .* got -2 at entry 0"),
        ([[True, False]], TypeError, r"batches\[0\] must hold whole .* dtype bool; np.flatnonzero"),
        ([[0], [1.0]], TypeError, r"batches\[1\] must hold whole numbers, got dtype float64"),
        (
            [0, 1],
            ValueError,
            r"batches\[0\] must be a vector of at least one index, got shape \(\)",
        ),
        ([[0], []], ValueError, r"batches\[1\] must be a vector of at least one index, got shape"),
        (np.zeros((3, 0), int), ValueError, r"batches\[0\] must be a vector of at least one index"),
        ("01", TypeError, "batches must be a sequence of vectors of indices, .* got '01'"),
        (iter([[0]]), TypeError, "batches must be a sequence of vectors of indices"),
        (3, TypeError, "batches must be a sequence of vectors of indices, .* got 3"),
        (lambda tau: [[0], [7]], ValueError, r"batches\[1\] asks for example 7"),
    ],
)
def test_batches_of_a_wrong_kind_are_refused_when_built(batches, error, message):
    with pytest.raises(error, match=message):
        tb.GradientDescent(cases.softmax(), 0.1, np.zeros(6), batches=batches)


@pytest.mark.parametrize("batches", [[[0], [1]], np.zeros((2, 3), int), lambda tau: [[0], [tau]]])
def test_too_few_batches_are_refused_before_anything_runs(batches):
    with pytest.raises(ValueError, match="batches has 2 entries, one for each step, and T = 4"):
        problem(batches)


def test_an_update_with_too_few_batches_is_refused():
    drawn = problem(lambda tau: [[0]] * (4 if tau < 3 else 2))
    drawn.at_iteration(2)
    with pytest.raises(ValueError, match="batches has 2 entries, one for each step, and T = 4"):
        drawn.at_iteration(3)


@pytest.mark.parametrize("kind", [list, np.array])
def test_batches_that_change_later_change_nothing(kind):
    rows = [np.array(batch) for batch in cases.BATCHES]
    given = kind(rows)
    built = problem(given)
    before = tb.RMD()(built).grad
    for batch in given:
        batch[:] = 0
    np.testing.assert_array_equal(tb.RMD()(built).grad, before)
    assert not any(batch.flags.writeable for batch in built.transition.batches)
