"""A batch of small problems on a device is the batch on the host."""

from dataclasses import replace

import numpy as np
import pytest

import tinybilevel as tb
from tinybilevel.problems.counterexample import Coupled

pytest.importorskip("numba")

from tinybilevel.kernels import cuda_loops


def quadratic(M, N, *, diagonal, identity, upper=0, T=7):
    rng = np.random.default_rng(0)
    G = rng.random(M) if diagonal else rng.random((M, M)) / M
    C = None if identity else rng.standard_normal((M, N))
    f = Coupled(0.7, 0.3) if upper == 0 else tb.problems.toy(biased=True).upper
    descent = tb.GradientDescent(tb.Quadratic(G, C, rng.random(M)), 0.3, rng.standard_normal(M))
    return tb.BilevelProblem(descent, f, T=T)


@pytest.mark.parametrize("K", [0, 3, 7])
@pytest.mark.parametrize(
    ("M", "N", "diagonal", "identity", "upper"),
    [
        (1, 2, True, False, 1),
        (3, 3, True, True, 0),
        (3, 2, False, False, 1),
        (2, 2, False, True, 1),
    ],
)
def test_a_batch(M, N, diagonal, identity, upper, K, place):
    plain = quadratic(M, N, diagonal=diagonal, identity=identity, upper=upper)
    lams = np.random.default_rng(1).standard_normal((5, N))
    values, grads = tb.KRMD(K=K).batch(tb.compile(plain.to("cupy")), lams)
    expected = tb.KRMD(K=K).batch(plain, lams)
    for found, known in zip((values, grads), expected, strict=True):
        assert type(found) is place.array
        np.testing.assert_allclose(place.get(found), known, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("rows", [0, 1, 127, 128, 129])
def test_any_number_of_rows(rows, place):
    lams = np.random.default_rng(1).standard_normal((rows, 2))
    fast = tb.compile(tb.problems.toy(T=3).to("cupy"))
    values, grads = tb.KRMD(K=2).batch(fast, lams)
    expected = tb.KRMD(K=2).batch(tb.problems.toy(T=3), lams)
    np.testing.assert_allclose(place.get(values), expected[0], rtol=1e-12)
    np.testing.assert_allclose(place.get(grads), expected[1], rtol=1e-12)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_what_runs_plain(place):
    toy = tb.problems.toy(T=3)
    fast = tb.compile(toy.to("cupy"))
    # One λ; λ of another dtype than the problem's; and what diverges, to say so.
    np.testing.assert_allclose(place.get(tb.RMD()(fast).grad), tb.RMD()(toy).grad)
    values, _ = tb.RMD().batch(fast, np.ones((2, 2), np.float32))
    np.testing.assert_allclose(place.get(values), tb.RMD()(toy, [1.0, 1.0]).value)
    plain = quadratic(2, 2, diagonal=True, identity=True)
    start = plain.transition.fixed_start()
    descent = tb.GradientDescent(plain.transition.objective, 1e200, start)
    steep = tb.compile(replace(plain, transition=descent).to("cupy"))
    with pytest.raises(tb.DivergenceError, match="step size"):
        tb.RMD().batch(steep, np.ones((2, 2)))


def test_large_problems_are_refused(place):
    M = cuda_loops.LARGEST + 1
    problem = quadratic(M, M, diagonal=True, identity=True)
    with pytest.raises(TypeError, match=f"at most {M - 1} entries of w"):
        tb.compile(problem.to("cupy"))
