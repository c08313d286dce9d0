"""The one-shot problem in the span of its patches gives what the plain code gives."""

import pickle
from dataclasses import replace

import numpy as np
import pytest

import tinybilevel as tb
from tinybilevel.data import Characters
from tinybilevel.layers import BatchNorm, Conv2d, Dense, FeatureLoss, Flatten, MaxPool, ReLU, Tanh
from tinybilevel.problems.one_shot import OneShot, four_blocks
from tinybilevel.testing import relative_error

pytest.importorskip("numba")

T, SHAPE = 6, (1, 8, 8)


def block(channels, stride=1, pool=2, **options):
    conv = Conv2d(
        channels, **{"kernel_size": 3, "padding": 1, "stride": stride, "bias": False} | options
    )
    return [conv, BatchNorm(), ReLU(), *([MaxPool(pool)] if pool > 1 else [])]


def network(*adapted, front=4, head=None):
    return {
        "front": block(front),
        **{f"block{b}": a for b, a in enumerate(adapted)},
        "head": [Flatten(), head or Dense(3)],
    }


NETWORKS = {
    "one block": network(block(5)),
    "two": network(block(5), block(3)),
    "three, strided, unpooled": network(block(5, 2, 1), block(3, 1, 1), block(4, 1, 1)),
    "odd windows": network(block(3, kernel_size=4), block(2, pool=1, kernel_size=1, padding=0)),
    "one channel": network(block(1), block(1), front=3),
}


def problem(layers=NETWORKS["two"], T=T, dtype=np.float64, n=3, gamma=0.05, **options):
    rng, adapt = np.random.default_rng(0), tuple(list(layers)[1:])
    family = OneShot(layers, input_shape=SHAPE, adapt=adapt, T=T, backend="plain", **options)
    X, X_query = rng.random((n, *SHAPE)).astype(dtype), rng.random((6, *SHAPE)).astype(dtype)
    rho = {name: 0.5 + 0.3 * k for k, name in enumerate(adapt)}
    lam = family.start(0, rho=rho, gamma=gamma, dtype=dtype)
    lam += (0.1 * rng.standard_normal(lam.size)).astype(dtype)
    return family.problem(X, np.arange(n) % 3, X_query, np.arange(6) % 3, lam0=lam), family


def assert_same(plain, method, layout, tol=1e-12):
    fast = tb.compile(plain)
    assert type(fast.loop).__name__ == "AdaptationOnHost"
    a, b = method(fast), method(plain)
    assert a.value == pytest.approx(b.value, rel=tol)
    assert a.cost.transitions == b.cost.transitions
    assert a.cost.products == b.cost.products
    for name in ("w", "alpha_norms"):
        assert getattr(a, name).dtype == getattr(b, name).dtype
        assert relative_error(getattr(a, name), getattr(b, name)) <= tol, name
    for name in layout:
        part = layout[name]
        assert relative_error(a.grad[part], b.grad[part]) <= 30 * tol, name
    return a, b


@pytest.mark.parametrize("method", [*(tb.KRMD(K=K) for K in (0, 1, 2, T)), tb.RMD()], ids=str)
@pytest.mark.parametrize("name", NETWORKS)
def test_the_loop_is_the_plain_one(name, method):
    plain, family = problem(NETWORKS[name])
    assert_same(plain, method, family.layout)


@pytest.mark.parametrize("T", [0, 1, 2, 3])
def test_short_horizons(T):
    for method in [*(tb.KRMD(K=K) for K in range(T + 1)), tb.RMD()]:
        plain, family = problem(T=T)
        a, b = assert_same(plain, method, family.layout)
        assert a._restless == b._restless


def test_in_float32():
    plain, family = problem(dtype=np.float32, gamma=0.01)
    assert_same(plain, tb.KRMD(K=3), family.layout, tol=2e-5)


def test_terms_that_are_scaled():
    plain, family = problem()
    (_, loss), (_, pull) = plain.transition.objective.terms
    g = 0.7 * loss + 3.0 * pull
    descent = tb.GradientDescent(g, plain.transition.step_size, plain.transition._initial._block)
    assert_same(replace(plain, transition=descent), tb.RMD(), family.layout)


@pytest.mark.filterwarnings("ignore::tinybilevel.StabilityWarning")
def test_it_sees_a_step_size_that_is_too_large():
    found = set()
    for gamma in (0.01, 0.1, 2.0):
        plain, _ = problem(T=8, gamma=gamma)
        a, b = tb.KRMD(K=1)(tb.compile(plain)), tb.KRMD(K=1)(plain)
        assert a._restless == b._restless
        found.add(a._restless)
    assert found == {True, False}


def test_a_run_that_diverges_is_explained_by_the_plain_code():
    plain, _ = problem(T=400, gamma=200.0)
    with pytest.raises(tb.DivergenceError, match="likely cause"):
        tb.KRMD(K=1)(tb.compile(plain))


def test_what_the_gram_matrix_is_not_faster_for_stays_plain():
    plain, _ = problem(network(block(3, kernel_size=1, padding=0)))
    assert tb.compile(plain) is plain


@pytest.mark.parametrize(
    "layers",
    [
        network(block(3, bias=True)),
        network([*block(3)[:2], Tanh()]),
        network([*block(3), Tanh()]),
        network(block(3), head=Dense(3, bias=False)),
    ],
)
def test_another_network_is_not_taken_for_it(layers):
    with pytest.raises(TypeError, match="compile knows no compiled form of the lower"):
        tb.compile(problem(layers)[0])


def test_another_lower_level_is_not_taken_for_it():
    plain, family = problem()
    descent, blocks = plain.transition, family.layout
    (_, loss), (_, pull) = descent.objective.terms
    squared = FeatureLoss(family.back, np.zeros((3, 3)), loss="squared").on(loss.block)
    for g, start in (
        (loss + pull, np.zeros(family.back.size)),
        (loss + pull + pull, descent._initial._block),
        (squared + pull, descent._initial._block),
    ):
        other = tb.GradientDescent(g, descent.step_size, start)
        with pytest.raises(TypeError, match="no compiled form of the lower level"):
            tb.compile(replace(plain, transition=other))
    with pytest.raises(TypeError, match="no compiled form of the lower level"):
        tb.compile(problem(features_once=False)[0])
    assert set(blocks) == {"front", "c", "log_rho", "log_gamma"}


def test_it_pickles_and_takes_a_lam_of_another_dtype_step_by_step():
    plain, _ = problem()
    fast, method = tb.compile(plain), tb.KRMD(K=2)
    again = pickle.loads(pickle.dumps(fast))
    np.testing.assert_array_equal(method(again).grad, method(fast).grad)
    mixed = plain.lam0.astype(np.float32)
    np.testing.assert_array_equal(method(fast, mixed).grad, method(plain, mixed).grad)
    with pytest.raises(ValueError, match="lam"):
        method(fast, np.zeros(3))


@pytest.mark.filterwarnings("ignore::tinybilevel.TruncationWarning")
def test_a_stream_is_compiled_task_by_task_and_stays_the_same_run(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (5, 9, 8, 8)).astype(np.uint8)
    characters = Characters("drawn", images, ("A",) * 5, tuple("abcde"))
    plain, family = problem()
    streams = family.stream(characters, plain.lam0, ways=3, queries=2, tasks=2)
    fast = [tb.compile(each) for each in streams]
    assert type(fast[0].at_iteration(3)).__name__ == "CompiledProblem"
    options = {"method": tb.KRMD(K=2), "optimizer": tb.SGD(0.01), "check_derivatives": False}
    expected = tb.minimize(streams, **options, iterations=4).lam
    assert relative_error(tb.minimize(fast, **options, iterations=4).lam, expected) < 1e-12
    file = {"checkpoint": tmp_path / "run.npz", "resume": True}
    tb.minimize(streams, **options, **file, iterations=2)
    assert relative_error(tb.minimize(fast, **options, **file, iterations=4).lam, expected) < 1e-12


def test_four_blocks():
    shape = (1, 16, 16)
    family = OneShot(four_blocks(3, filters=3, input_shape=shape), input_shape=shape, T=5)
    rng = np.random.default_rng(1)
    X, X_query = rng.random((3, *shape)), rng.random((6, *shape))
    lam = family.start(0, dtype=float)
    lam += 0.05 * rng.standard_normal(lam.size)
    plain = family.problem(X, [0, 1, 2], X_query, [0, 1, 2] * 2, lam0=lam)
    assert_same(plain, tb.KRMD(K=4), family.layout)
