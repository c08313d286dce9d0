"""The engine on arrays that are CuPy's in all that it asks of them: the same numbers, no copies."""

import dataclasses
import functools
import inspect
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from cases import (
    arrays,
    maps,
    normal,
    objective_calls,
    objectives,
    transition_calls,
    transitions,
)
from device import FUNCTIONS, DeviceArray, counts, install, to_device

import tinybilevel as tb

# Sparse products are SciPy's or CuPy's own; plain functions choose their own arrays.
OBJECTIVES = [
    name for name in objectives() if not {"numba", "sparse", "functions"} & set(name.split("-"))
]


@pytest.fixture(params=["stand-in", pytest.param("gpu", marks=pytest.mark.gpu)])
def device(request, monkeypatch):
    """Return where the arrays are put: a class of arrays, and the ways there and back."""
    if request.param == "gpu":
        import cupy

        return SimpleNamespace(array=cupy.ndarray, put=cupy.asarray, get=cupy.asnumpy)
    install(monkeypatch)
    return SimpleNamespace(array=DeviceArray, put=to_device, get=lambda x: x._data)


@pytest.fixture
def stand_in(monkeypatch):
    install(monkeypatch)


def assert_equal(device, found, expected):
    assert found.keys() == expected.keys()
    for name, result in expected.items():
        others = found[name] if isinstance(found[name], tuple) else (found[name],)
        for other, part in zip(others, arrays(result), strict=False):
            assert isinstance(other, device.array), name
            assert other.dtype == part.dtype, name
            # A device adds up in another order, and has an exp of its own.
            tol = 1e-5 if part.dtype == np.float32 else 1e-12
            np.testing.assert_allclose(device.get(other), part, rtol=tol, atol=tol, err_msg=name)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_objectives(name, dtype, device):
    g, w, lam = objectives(dtype)[name]
    assert_equal(
        device,
        objective_calls(g.to("cupy"), device.put(w), device.put(lam)),
        objective_calls(g, w, lam),
    )


@pytest.mark.parametrize("name", transitions())
def test_transitions(name, device):
    transition, w, lam = transitions()[name]
    moved_there = transition.to("cupy")
    assert_equal(
        device,
        transition_calls(moved_there, device.put(w), device.put(lam)),
        transition_calls(transition, w, lam),
    )


@pytest.mark.parametrize("name", maps())
def test_maps(name, device):
    phi, _, lam = maps()[name]
    there, far = phi.to("cupy"), device.put(lam)
    h = normal(5, *phi(lam).shape)
    assert_equal(
        device,
        {"map": there(far), "vjp": there.vjp(far, device.put(h)), "jvp": there.jvp(far, 1 - far)},
        {"map": phi(lam), "vjp": phi.vjp(lam, h), "jvp": phi.jvp(lam, 1 - lam)},
    )


def cleaning(T=6, dtype=np.float64):
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((12, 5)).astype(dtype), rng.integers(0, 3, 12)
    return tb.problems.hypercleaning(X[:8], y[:8], X[8:], y[8:], n_classes=3, T=T)


def general(T=7):
    """Return a problem with every kind of part: momentum, batches, a learned step, groups."""
    loss = tb.SoftmaxRegression(normal(1, 5, 2), [0, 1, 2, 0, 1], 3)
    layout = tb.Layout(weights=5, step=1, l2=2)
    lower = loss.on(layout["weights"]) + tb.L2Penalty(groups=[0, 1] * 3).on(layout["l2"])
    batches = tb.minibatches(5, 2, T=T, seed=0)
    descent = tb.HeavyBall(lower, layout["step"], initial=normal(2, 6), batches=batches)
    phi = tb.Blocks(layout, weights=tb.Sigmoid(), step=tb.Exp(), l2=tb.Softplus())
    upper = tb.SoftmaxRegression(normal(3, 4, 2), [0, 1, 2, 1], 3, weighted=False)
    return tb.BilevelProblem(descent, upper, T=T, hyper_map=phi, lam0=normal(4, 8))


PROBLEMS = {"toy": tb.problems.toy, "cleaning": cleaning, "general": general}
METHODS = (
    tb.RMD(),
    tb.KRMD(K=0),
    tb.KRMD(K=3),
    tb.KRMD(K=5, storage=tb.Checkpoint()),
    tb.KRMD(K=5, storage=tb.Binomial(2)),
    tb.KRMD(K=5, tol=tb.Tolerance(1e-1, rate=0.5, B_norm=1.0)),
    tb.KRMD(K=2, tail=tb.Neumann(3)),
    tb.FMD(),
    tb.Neumann(4),
)


@pytest.mark.filterwarnings("ignore:KRMD stopped", "ignore:.*takes w_T for a minimum")
@pytest.mark.parametrize("method", METHODS, ids=repr)
@pytest.mark.parametrize("name", PROBLEMS)
def test_methods(name, method, device):
    problem = PROBLEMS[name]()
    there, here = method(problem.to("cupy")), method(problem)
    for part in ("grad", "w"):
        assert_equal(device, {part: getattr(there, part)}, {part: getattr(here, part)})
    assert isinstance(there.value, float)
    assert there.value == pytest.approx(here.value)
    np.testing.assert_allclose(there.alpha_norms, here.alpha_norms)
    assert there.cost == here.cost


@pytest.mark.parametrize("name", PROBLEMS)
def test_traces(name, device):
    problem = PROBLEMS[name]()
    for method, exact in ((tb.RMD(), None), (tb.KRMD(K=3), tb.RMD()(problem).grad)):
        there, here = (
            method.trace(p, exact=exact, keep=True) for p in (problem.to("cupy"), problem)
        )
        for part in ("grad", "w", "alpha", "h", "exact"):
            assert_equal(device, {part: getattr(there, part)}, {part: getattr(here, part)})
        for column, numbers in here.columns.items():
            np.testing.assert_allclose(there.columns[column], numbers, rtol=1e-12, atol=1e-12)
        assert repr(there).count("\n") == repr(here).count("\n")


@pytest.mark.parametrize("method", [tb.RMD(), tb.KRMD(K=3, storage=tb.Checkpoint())], ids=repr)
@pytest.mark.parametrize("make", [cleaning, general])
def test_the_host_does_not_wait_within_the_loops(make, method, stand_in):
    waits = set()
    for T in (4, 40):
        problem = make(T).to("cupy")
        lam, before = problem.lam0, (counts.waits, counts.copies)
        method(problem, lam)
        waits.add((counts.waits - before[0], counts.copies - before[1]))
    # Checks of λ, of θ, of how the steps end and of the result, the value, and the norms of α, the
    # only array that comes back.
    assert waits == {(7, 1)}


def test_lambda_is_copied_to_where_the_problem_lies(device):
    problem = cleaning().to("cupy")
    found = tb.KRMD(K=2)(problem, np.full(8, 0.5))
    np.testing.assert_allclose(
        device.get(found.grad), tb.KRMD(K=2)(cleaning(), np.full(8, 0.5)).grad
    )
    fun = tb.value_and_grad(problem, tb.KRMD(K=2))
    value, grad = fun(np.full(8, 0.5))
    assert isinstance(grad, np.ndarray)
    assert value == found.value


def test_a_problem_built_on_the_device(device):
    rng = np.random.default_rng(0)
    X, y = device.put(rng.standard_normal((12, 5))), rng.integers(0, 3, 12)
    problem = tb.problems.hypercleaning(X[:8], device.put(y[:8]), X[8:], y[8:], n_classes=3, T=6)
    np.testing.assert_allclose(
        device.get(tb.RMD()(problem, np.ones(8)).grad), tb.RMD()(cleaning(), np.ones(8)).grad
    )


def test_there_and_back(device):
    problem = general()
    again = problem.to("cupy").to("numpy")
    np.testing.assert_array_equal(tb.RMD()(again).grad, tb.RMD()(problem).grad)


def test_minimize(tmp_path, device):
    options = dict(method=tb.KRMD(K=3), bounds=(-0.2, 0.2))
    expected = tb.minimize(cleaning(), iterations=4, **options)
    problem, saved = cleaning().to("cupy"), dict(checkpoint=tmp_path / "run.npz", **options)
    tb.minimize(problem, iterations=2, **saved)
    found = tb.minimize(problem, iterations=4, resume=True, **saved)
    assert isinstance(found.lam, device.array)
    np.testing.assert_allclose(device.get(found.lam), expected.lam)
    np.testing.assert_allclose(found.history["value"], expected.history["value"])


def test_divergence_is_explained(device):
    problem = dataclasses.replace(tb.problems.toy(step_size=30.0, T=300))
    with pytest.raises(tb.DivergenceError, match="step size"):
        tb.RMD()(problem.to("cupy"))


def test_the_stand_in_takes_what_cupy_takes():
    cupy = pytest.importorskip("cupy", exc_type=ImportError)
    for function, names in FUNCTIONS.items():
        parts = f"{function.__module__}.{function.__name__}".split(".")[1:]
        theirs = functools.reduce(getattr, parts, cupy)
        if names and not isinstance(theirs, cupy.ufunc):
            assert names <= set(inspect.signature(theirs).parameters), function
    for name in ("sum", "max", "min", "take", "all", "any", "astype", "ravel", "reshape"):
        assert hasattr(cupy.ndarray, name)


@pytest.mark.skipif(find_spec("numba") is None, reason="the kernels need Numba")
def test_the_gpu_suite_holds_the_kernels_tests():
    env = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}
    command = "-m pytest -m gpu --collect-only -q -p no:cacheprovider tests/kernels"
    root = Path(__file__).parent.parent
    run = subprocess.run(
        [sys.executable, *command.split()], cwd=root, env=env, capture_output=True, text=True
    )
    for name in ("test_cuda.py", "test_cuda_loops.py"):
        assert f"{name}::" in run.stdout, run.stdout + run.stderr


def test_errors(monkeypatch, stand_in):
    problem = cleaning()
    with pytest.raises(ValueError, match='"numpy" or "cupy", got'):
        problem.to("gpu")
    with pytest.raises(TypeError, match="ImplicitCG"):
        tb.ImplicitCG()(problem.to("cupy"))
    with pytest.raises(TypeError, match="measure runs SciPy, on the host"):
        tb.KRMD(tol=0.1)(problem.to("cupy"))
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(ImportError, match="pip install cupy-cuda13x"):
        problem.to("cupy")
