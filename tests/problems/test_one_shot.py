"""The one-shot family: streams of tasks, and how well they end."""

import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

import tinybilevel as tb
from tinybilevel.data import Characters
from tinybilevel.problems.one_shot import OneShot, four_blocks

SHAPE = (1, 8, 8)
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def family():
    return OneShot(four_blocks(3, filters=3, input_shape=SHAPE), input_shape=SHAPE, T=4)


@pytest.fixture(scope="module")
def lam(family):
    lam = family.start(0, rho=0.5, gamma=0.05)
    return lam + (0.05 * RNG.standard_normal(lam.size)).astype(np.float32)


@pytest.fixture(scope="module")
def characters():
    """Return marks that are easy to tell: a bright row each, and noise."""
    images = RNG.integers(0, 60, (8, 9, 8, 8))
    for c in range(8):
        images[c, :, c] += 180
    return Characters("rows", images.astype(np.uint8), ("A",) * 8, tuple("abcdefgh"))


def draw(characters, seed):
    return characters.draw(ways=3, shots=1, queries=4, seed=seed)


def test_a_stream_draws_another_task_for_each_update_and_problem(family, lam, characters):
    options = {"ways": 3, "queries": 4, "seed": 7}
    first, second = family.stream(characters, lam, **options, tasks=2)
    values = [tb.KRMD(K=0)(p.at_iteration(t), lam).value for p in (first, second) for t in (1, 2)]
    assert len(set(values)) == 4
    again = pickle.loads(pickle.dumps(family.stream(characters, lam, **options)[0]))
    assert tb.KRMD(K=0)(again.at_iteration(2), lam).value == values[1]
    assert tb.KRMD(K=0)(first).value == values[0], "a direct call is update 1"


@pytest.mark.filterwarnings("ignore::tinybilevel.TruncationWarning")
def test_a_resumed_run_goes_on_with_the_same_tasks(family, lam, characters, tmp_path):
    stream = family.stream(characters, lam, ways=3, queries=4, tasks=2)
    options = {"method": tb.KRMD(K=2), "optimizer": tb.Adam(1e-3), "check_derivatives": False}
    file = {"checkpoint": tmp_path / "run.npz", "resume": True}
    tb.minimize(stream, **options, **file, iterations=2)
    resumed = tb.minimize(stream, **options, **file, iterations=4)
    whole = tb.minimize(stream, **options, iterations=4)
    other = family.stream(characters, lam, ways=3, queries=4, tasks=2, seed=1)
    with pytest.raises(ValueError, match="belongs to another problem"):
        tb.minimize(other, **options, **file, iterations=6)
    np.testing.assert_array_equal(resumed.lam, whole.lam)
    assert len(set(whole.history["value"])) == 4


def test_accuracy_is_the_share_of_right_predictions(family, lam, characters):
    task = draw(characters, 0)
    for statistics in ("query", "support"):
        predicted = family.predict(lam, task, statistics=statistics)
        assert predicted.shape == task.y_query.shape
        right = float(np.mean(predicted == task.y_query))
        assert family.accuracy(lam, task, statistics=statistics) == right
    with pytest.raises(ValueError, match="statistics must be one of query, support, got 'both'"):
        family.accuracy(lam, task, statistics="both")


def test_what_is_learned_from_the_support_set_beats_a_guess(lam, characters):
    longer = OneShot(four_blocks(3, filters=8, input_shape=SHAPE), input_shape=SHAPE, T=20)
    start = longer.start(0, rho=0.01, gamma=0.05)
    found = longer.evaluate(start, (draw(characters, seed) for seed in range(10)))
    assert found["query"].mean > 0.5
    assert found["support"].mean > 0.5


def test_predictions_with_the_support_sets_statistics_do_not_see_other_queries(
    family, lam, characters
):
    same = {"query": [], "support": []}
    for seed in (1, 2):
        task = draw(characters, seed)
        for name, found in same.items():
            together = family.predict(lam, task, statistics=name)
            for i, label in enumerate(together):
                alone = replace(task, X_query=task.X_query[[i]], y_query=task.y_query[[i]])
                found.append(family.predict(lam, alone, statistics=name).item() == label)
    assert all(same["support"])
    assert not all(same["query"])


def test_evaluation_is_the_mean_over_tasks_with_and_without_an_executor(family, lam, characters):
    tasks = [draw(characters, seed) for seed in range(4)]
    found = family.evaluate(lam, iter(tasks))
    assert found["query"] != found["support"]
    each = [family.accuracy(lam, task) for task in tasks]
    assert found["query"] == tb.problems.Accuracy(each)
    with ThreadPoolExecutor(2) as pool:
        assert family.evaluate(lam, tasks, executor=pool) == found


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_tasks_that_do_not_settle_are_warned_of_once(family, characters):
    start = family.start(0, rho=0.5, gamma=3.0)
    tasks = [draw(characters, seed) for seed in range(3)]
    message = r"in [123] of 3 tasks the lower level does not settle: step size γ = 3"
    with pytest.warns(tb.StabilityWarning, match=message) as caught:
        family.evaluate(start, tasks)
    assert len(caught) == 1
