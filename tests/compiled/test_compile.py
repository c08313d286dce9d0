"""A compiled problem gives what the plain one gives, by every method and for many λ at once."""

import pickle
import sys
from dataclasses import replace

import cases
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

import tinybilevel as tb
from tinybilevel.compiled.problem import CompiledProblem
from tinybilevel.problems.counterexample import Coupled
from tinybilevel.testing import relative_error

numba = pytest.importorskip("numba")


def quadratic(M, N, T, seed, *, diagonal=False, identity=False, offset=True, upper=0):
    rng = np.random.default_rng(seed)
    if identity:
        N = M
    G = rng.random((M, M)) / M
    G = rng.random(M) if diagonal else G @ G.T + 0.1 * np.eye(M)
    C = None if identity else rng.standard_normal((M, N))
    g = tb.Quadratic(G, C, rng.standard_normal(M) if offset else None)
    f = (
        Coupled(0.7, 0.3),
        tb.Quadratic(rng.random(M), np.zeros((M, N)), rng.standard_normal(M)),
        tb.problems.toy(biased=True).upper if N == 2 else Coupled(2.0, -1.0),
        tb.L2Penalty(0.7),
    )[upper]
    descent = tb.GradientDescent(g, 0.3, rng.standard_normal(M))
    return tb.BilevelProblem(descent, f, T=T, lam0=rng.standard_normal(N))


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(0, 12)),
    seed=st.integers(0, 1000),
    diagonal=st.booleans(),
    identity=st.booleans(),
    offset=st.booleans(),
    upper=st.integers(0, 3),
    share=st.floats(0, 1),
)
def test_the_compiled_loop_is_the_plain_one(sizes, seed, diagonal, identity, offset, upper, share):
    M, N, T = sizes
    plain = quadratic(
        M, N, T, seed, diagonal=diagonal, identity=identity, offset=offset, upper=upper
    )
    fast = tb.compile(plain)
    assert isinstance(fast, CompiledProblem)
    for method in (tb.KRMD(K=round(share * T)), tb.RMD()):
        a, b = method(fast), method(plain)
        for name in ("grad", "w", "alpha_norms"):
            assert relative_error(getattr(a, name), getattr(b, name)) < 1e-12
        assert a.value == pytest.approx(b.value, rel=1e-12, abs=1e-12)
        assert a.K == b.K


@pytest.mark.parametrize("M", [63, 64, 65, 128, 200])
@pytest.mark.parametrize("diagonal", [False, True])
def test_more_entries_than_are_taken_together(M, diagonal):
    plain = quadratic(M, M, 30, 0, diagonal=diagonal, identity=True, upper=3)
    a, b = (tb.KRMD(K=11)(problem) for problem in (tb.compile(plain), plain))
    for name in ("grad", "w", "alpha_norms"):
        assert relative_error(getattr(a, name), getattr(b, name)) < 1e-13


@pytest.mark.parametrize("rows", [0, 1, 63, 64, 65, 1000])
@pytest.mark.parametrize("diagonal", [False, True])
def test_a_batch_is_one_after_the_other(rows, diagonal):
    plain = quadratic(4, 3, 20, 0, diagonal=diagonal)
    lams = np.random.default_rng(1).standard_normal((rows, 3))
    values, grads = tb.KRMD(K=7).batch(tb.compile(plain), lams)
    assert values.shape == (rows,)
    assert grads.shape == (rows, 3)
    for k in range(0, rows, 9):
        r = tb.KRMD(K=7)(plain, lams[k])
        assert relative_error(grads[k], r.grad) < 1e-13
        assert values[k] == pytest.approx(r.value, rel=1e-13)
    again, same = tb.KRMD(K=7).batch(plain, lams[:3])
    np.testing.assert_allclose(again, values[:3], rtol=1e-12)
    np.testing.assert_allclose(same, grads[:3], rtol=1e-12)


def test_the_paper_s_problems_compile():
    for problem in (
        tb.problems.toy(),
        tb.problems.toy(biased=True),
        tb.problems.counterexample(coupling=2.0, target=3.0),
    ):
        a, b = tb.KRMD(K=9)(tb.compile(problem)), tb.KRMD(K=9)(problem)
        assert relative_error(a.grad, b.grad) < 1e-13
        assert a.value == pytest.approx(b.value, rel=1e-13)


def test_a_run_of_minimize_is_the_same():
    plain = tb.problems.toy()
    runs = [
        tb.minimize(p, method=tb.KRMD(K=2), optimizer=tb.SGD(0.05), iterations=50)
        for p in (plain, tb.compile(plain))
    ]
    assert relative_error(runs[1].lam, runs[0].lam) < 1e-12


@pytest.mark.parametrize(
    "method",
    [
        tb.FMD(),
        tb.ImplicitCG(),
        tb.KRMD(K=3, storage=tb.Checkpoint()),
        tb.RMD(tb.Binomial(2)),
        tb.KRMD(tol=1e-2),
        tb.KRMD(K=3, tail=tb.Neumann(2)),
    ],
    ids=repr,
)
def test_other_methods_run_as_before(method):
    plain = tb.problems.toy()
    np.testing.assert_array_equal(method(tb.compile(plain)).grad, method(plain).grad)


def test_float32_runs_as_before():
    plain, lam = tb.problems.toy(), np.ones(2, dtype=np.float32)
    fast = tb.compile(plain)
    np.testing.assert_array_equal(tb.RMD()(fast, lam).grad, tb.RMD()(plain, lam).grad)
    values, _ = tb.RMD().batch(fast, lam[None])
    assert values == tb.RMD()(plain, lam).value


def test_a_changed_problem_is_not_the_compiled_one():
    fast = tb.compile(tb.problems.toy())
    for changed in (
        replace(fast, T=7),
        replace(fast, upper=tb.problems.toy(biased=True).upper),
        replace(fast, hyper_map=tb.Exp()),
        fast.starting_at(np.zeros(2)),
    ):
        assert type(changed) is tb.BilevelProblem
    assert type(replace(fast, lam0=np.zeros(2))) is CompiledProblem
    copy = pickle.loads(pickle.dumps(fast))
    np.testing.assert_array_equal(tb.KRMD(K=3)(copy).grad, tb.KRMD(K=3)(fast).grad)


def test_a_run_that_diverges_is_explained():
    fast = tb.compile(tb.problems.toy(step_size=100.0, T=1000))
    with pytest.raises(tb.DivergenceError, match="step size"):
        tb.KRMD(K=1)(fast)
    with pytest.raises(tb.DivergenceError, match="step size"):
        tb.KRMD(K=1).batch(fast, np.ones((2, 2)))


@pytest.mark.parametrize("generic", [False, True])
def test_a_state_or_a_product_that_is_not_finite_is_found_without_a_warning(generic):
    # ±∞ in w, whose sum would be NaN, beneath an upper level that does not see it.
    g, w0 = tb.Quadratic([30.0, 1.0, 30.0]), np.array([1.0, 1.0, -1.0])
    f = tb.Quadratic([0.0, 1.0, 0.0], np.zeros((3, 3)))
    f, g = (f + tb.L2Penalty(0.0), g + tb.L2Penalty(0.0)) if generic else (f, g)
    plain = tb.BilevelProblem(tb.GradientDescent(g, 0.5, w0), f, T=2000, lam0=np.zeros(3))
    fast = tb.compile(plain)
    assert (type(fast.loop).__name__ == "DenseOnHost") == generic
    for call in (tb.KRMD(K=1), lambda p: tb.KRMD(K=1).batch(p, np.zeros((2, 3)))):
        with pytest.raises(tb.DivergenceError, match="step size"):
            call(fast)


@pytest.mark.parametrize(
    ("lam", "message"),
    [
        (np.ones(3), r"lam must have shape \(2,\), got \(3,\)"),
        (np.array([1.0, np.nan]), "lam must be finite"),
        (np.array([True, True]), "lam must be float32 or float64"),
    ],
)
def test_bad_input_is_refused_as_before(lam, message):
    fast = tb.compile(tb.problems.toy())
    for call in (lambda: tb.RMD()(fast, lam), lambda: tb.RMD().batch(fast, lam[None])):
        with pytest.raises((TypeError, ValueError), match=message.replace("lam ", "lams? ", 1)):
            call()
    with pytest.raises(ValueError, match="K must be at most the horizon"):
        tb.KRMD(K=101)(fast)


def test_what_cannot_be_compiled_is_named():
    toy = tb.problems.toy()
    g = toy.transition.objective

    class Own(tb.HeavyBall):
        pass

    with pytest.raises(TypeError, match="compile takes the algorithms of tinybilevel"):
        tb.compile(replace(toy, transition=Own(g, 0.1, np.zeros(2))))
    with pytest.raises(TypeError, match=r"problem must be a BilevelProblem, got RMD"):
        tb.compile(tb.RMD())
    f = tb.Objective.from_functions(value=lambda w, lam: w @ w, grad=lambda w, lam: 2 * w)
    with pytest.raises(
        TypeError, match=r"value must be compiled, as by numba\.njit, got <function"
    ):
        tb.compile(replace(toy, upper=f))
    sparse = tb.SoftmaxRegression(csr_array(np.eye(2)), [0, 1], weighted=False)
    for objective in (g + sparse, g.on(slice(0, 4, 2))):
        descent = tb.GradientDescent(objective, 0.1, np.zeros(4))
        with pytest.raises(TypeError, match="compile knows no compiled form of the lower level"):
            tb.compile(replace(toy, transition=descent))
    with pytest.raises(TypeError, match="compile knows no compiled form of the upper level"):
        tb.compile(replace(toy, upper=sparse))
    only = tb.Objective.from_functions(
        numba.njit(cases.cosine_value), numba.njit(cases.cosine_grad)
    )
    descent = tb.GradientDescent(only, 0.1, np.zeros(2))
    with pytest.raises(TypeError, match="the lower level has no compiled grad_vjp"):
        tb.compile(replace(toy, transition=descent))


def test_numba_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "tinybilevel.kernels.loops", None)
    monkeypatch.delattr("tinybilevel.kernels.loops", raising=False)
    with pytest.raises(ImportError, match="pip install numba"):
        tb.compile(tb.problems.toy())
