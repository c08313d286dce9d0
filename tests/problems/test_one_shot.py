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


def small(**options):
    """Return a task's problem in float64, with differing strengths and step sizes."""
    shape, rng = (1, 4, 4), np.random.default_rng(5)
    layers = four_blocks(3, filters=2, input_shape=shape)
    family = OneShot(layers, input_shape=shape, T=3, backend="plain", **options)
    lam = family.start(0, dtype=float) + 0.1 * rng.standard_normal(family.layout.size)
    lam[family.layout["log_rho"]] = np.log(np.linspace(0.2, 0.9, 8))
    lam[family.layout["log_gamma"]] = np.log(np.linspace(0.01, 0.08, 8))
    X, X_query = rng.random((3, *shape)), rng.random((6, *shape))
    task = X, np.arange(3), X_query, np.array([0, 1, 2, 2, 1, 0])
    return family, family.problem(*task, lam0=lam), task


@pytest.mark.parametrize("once", [True, False])
def test_its_hypergradients_are_the_slopes_of_its_value(once):
    _, problem, _ = small(features_once=once)
    assert tb.testing.assert_matches_differences(problem, problem.lam0, tb.RMD()) < 1e-6


@pytest.mark.parametrize("once", [True, False])
def test_both_levels_are_what_the_class_says(once):
    family, problem, (X, y, X_query, y_query) = small(features_once=once)
    lam, layout, network = problem.lam0, family.layout, family.network
    front, c = lam[layout["front"]], lam[layout["c"]]
    rho, gamma = (np.repeat(np.exp(lam[layout[n]]), family.sizes) for n in ("log_rho", "log_gamma"))
    w = c + 0.1 * np.random.default_rng(0).standard_normal(c.size)
    theta = problem.hyper_map(lam)

    def losses(X, y):
        return tb.NetworkLoss(network, X, y, reduction="sum", adapt=family.adapt)

    support, query = losses(X, y), losses(X_query, y_query)
    expected = support.value(w, front) + (rho * (w - c) ** 2).sum()
    assert problem.transition.objective.value(w, theta) == pytest.approx(expected, rel=1e-12)
    assert problem.upper.value(w, theta) == pytest.approx(query.value(w, front) / 6, rel=1e-12)
    moved = w - gamma * (support.grad(w, front) + 2 * rho * (w - c))
    np.testing.assert_allclose(problem.transition.step(0, w, theta), moved, rtol=1e-11)
    np.testing.assert_array_equal(problem.transition.initial(theta), c)
    images = family.front.output_shape
    assert theta.size - lam.size == (9 * np.prod(images) - front.size if once else 0)


def test_adaptation_learns_from_the_support_set_alone(family, lam, characters):
    task = draw(characters, 0)
    whole = family.adapted(lam, task)
    other = replace(task, X_query=task.X_query[:3], y_query=task.y_query[:3])
    np.testing.assert_array_equal(family.adapted(lam, other), whole)
    problem = family.problem(task.X, task.y, task.X_query, task.y_query)
    w = tb.KRMD(K=0)(problem, lam).w
    np.testing.assert_array_equal(whole, np.concatenate([lam[family.layout["front"]], w]))
    scores = family.network.forward(whole, task.X_query)
    np.testing.assert_array_equal(family.predict(lam, task), scores.argmax(axis=1))


def test_it_starts_from_a_head_of_zeros_and_strengths_by_block(family):
    start = family.start(3, rho={"block3": 1.0, "block4": 2.0, "head": 4.0}, gamma=0.5)
    parts = family.layout.unpack(start.astype(float))
    tensors = family.back.tensors(parts["c"])
    assert not tensors["head.dense.weight"].any()
    drawn = family.network.init(3, np.float32)
    np.testing.assert_array_equal(parts["front"], drawn[: family.front.size])
    body = slice(0, family.back.layout["head.dense.weight"].start)
    np.testing.assert_array_equal(parts["c"][body], drawn[family.front.size :][body])
    np.testing.assert_allclose(np.exp(parts["log_rho"]), [1, 1, 1, 2, 2, 2, 4, 4], rtol=1e-6)
    np.testing.assert_allclose(np.exp(parts["log_gamma"]), 0.5, rtol=1e-6)


def test_four_blocks_halve_the_image_while_they_can():
    for side, pools in ((28, 4), (8, 3), (1, 0)):
        layers = four_blocks(5, filters=2, input_shape=(1, side, side))
        kinds = [type(layer).__name__ for block in layers.values() for layer in block]
        assert kinds.count("MaxPool") == pools
        tb.layers.Network(layers, (1, side, side))


def test_a_stream_draws_another_task_for_each_update_and_problem(family, lam, characters):
    options = {"ways": 3, "queries": 4, "seed": 7}
    first, second = family.stream(characters, lam, **options, tasks=2)
    values = [tb.KRMD(K=0)(p.at_iteration(t), lam).value for p in (first, second) for t in (1, 2)]
    assert len(set(values)) == 4
    again = pickle.loads(pickle.dumps(family.stream(characters, lam, **options)[0]))
    assert tb.KRMD(K=0)(again.at_iteration(2), lam).value == values[1]
    assert tb.KRMD(K=0)(first).value == values[0], "a direct call is update 1"
    other = family.stream(characters, lam, **{**options, "seed": 8})[0]
    assert tb.KRMD(K=0)(other).value != values[0]
    assert tb.KRMD(K=0)(first).w.dtype == lam.dtype


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


def test_images_that_are_changed_later_change_nothing(family, lam, characters):
    task, values = draw(characters, 0), []
    for each in (family, replaced(features_once=False)):
        X, X_query = task.X.copy(), task.X_query.copy()
        problem = each.problem(X, task.y, X_query, task.y_query)
        before = tb.KRMD(K=1)(problem, lam).value
        X[:], X_query[:] = 0, 1
        assert tb.KRMD(K=1)(problem, lam).value == before
        values.append(before)
    assert values[0] == pytest.approx(values[1], rel=1e-5)


def replaced(**options):
    return OneShot(
        four_blocks(3, filters=3, input_shape=SHAPE), input_shape=SHAPE, **{"T": 4} | options
    )


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda f, t, lam: replaced(adapt="head"), ValueError, r"adapt must name .* got 'head'"),
        (lambda f, t, lam: replaced(adapt=("block1", "head")), ValueError, "adapt must name some"),
        (lambda f, t, lam: replaced(T=-1), ValueError, "T must be at least 0, got -1"),
        (lambda f, t, lam: replaced(features_once="no"), TypeError, "True or False, got 'no'"),
        (lambda f, t, lam: OneShot([1]), TypeError, r"layers must be a mapping .* got \[1\]"),
        (
            lambda f, t, lam: f.start(rho={"block3": 1.0}),
            ValueError,
            r"rho must have a number for each of \['block3', 'block4', 'head'\], got one for",
        ),
        (
            lambda f, t, lam: f.start(gamma={"block3": 1, "block4": 1, "head": 1, "heat": 1}),
            ValueError,
            "gamma must have a number for each .*'heat'",
        ),
        (lambda f, t, lam: f.start(rho=-1), ValueError, "rho must be greater than 0 .* got -1"),
        (lambda f, t, lam: f.start(gamma=0), ValueError, "gamma must be greater than 0"),
        (lambda f, t, lam: f.start(dtype=int), TypeError, "float32 or float64, got int64"),
        (
            lambda f, t, lam: f.problem(t.X, t.y, t.X_query, t.y_query[:2]),
            ValueError,
            r"y_query must be 12 integers, got shape \(2,\)",
        ),
        (lambda f, t, lam: f.problem(t.X, t.y + 1, t.X, t.y), ValueError, "y must lie in 0 … 2"),
        (
            lambda f, t, lam: f.problem(t.X, t.y, t.X_query[:0], t.y_query[:0]),
            ValueError,
            r"X_query must have shape \(n, 1, 8, 8\), n ≥ 1, got \(0, 1, 8, 8\)",
        ),
        (
            lambda f, t, lam: f.problem(t.X, t.y, t.X, t.y, lam[1:]),
            ValueError,
            r"lam0 must have shape \(322,\), got \(321,\)",
        ),
        (lambda f, t, lam: f.evaluate(lam, []), ValueError, "at least one task"),
    ],
)
def test_refused(family, lam, characters, call, error, message):
    with pytest.raises(error, match=message):
        call(family, draw(characters, 0), lam)


def test_its_repr_says_what_adapts(family):
    assert repr(family).endswith("adapt=('block3', 'block4', 'head'), T=4)")


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_tasks_that_do_not_settle_are_warned_of_once(family, characters):
    start = family.start(0, rho=0.5, gamma=3.0)
    tasks = [draw(characters, seed) for seed in range(3)]
    message = r"in [123] of 3 tasks the lower level does not settle: step size γ = 3"
    with pytest.warns(tb.StabilityWarning, match=message) as caught:
        family.evaluate(start, tasks)
    assert len(caught) == 1
