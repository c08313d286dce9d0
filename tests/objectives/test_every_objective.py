"""What holds for each objective: right derivatives, pure calls, the dtype of its inputs."""

import pickle

import cases
import numpy as np
import pytest

import tinybilevel as tb

NAMES = list(cases.objectives())


@pytest.fixture(params=NAMES)
def case(request):
    return cases.objectives()[request.param]


@pytest.mark.parametrize("seed", [0, 1])
def test_derivatives(case, seed):
    tb.testing.assert_objective_derivatives(*case, seed=seed, tol=1e-12)
    tb.testing.assert_upper_gradients(*case, seed=seed)


def test_a_call_leaves_no_trace(case):
    before = pickle.dumps(case.subject)
    calls = cases.objective_calls(*case)
    assert pickle.dumps(case.subject) == before
    for result in calls.values():
        for array in cases.arrays(result):
            assert not np.shares_memory(array, case.w)
            assert not np.shares_memory(array, case.lam)
            array[...] = np.nan  # what the caller does with a result is not the objective's concern
    cases.assert_same(cases.objective_calls(*case), cases.objective_calls(*case))
    assert not np.isnan(case.subject.value(case.w, case.lam))


def test_pickle_and_strides_change_nothing(case):
    g, w, lam = case
    calls = cases.objective_calls(g, w, lam)
    cases.assert_same(calls, cases.objective_calls(pickle.loads(pickle.dumps(g)), w, lam))
    strided = cases.objective_calls(g, np.repeat(w, 2)[::2], np.repeat(lam, 3)[::3])
    for name, result in calls.items():
        for a, b in zip(cases.arrays(result), cases.arrays(strided[name]), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("name", NAMES)
def test_float32_stays_and_a_mix_promotes(name):
    g, w, lam = cases.objectives(np.float32)[name]
    calls = cases.objective_calls(g, w, lam)
    assert isinstance(calls["value"], float)
    exact = cases.objective_calls(*cases.objectives()[name])
    for method, result in calls.items():
        for a, b in zip(cases.arrays(result), cases.arrays(exact[method]), strict=True):
            assert a.dtype == np.float32, method
            assert a.shape == b.shape, method
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
    w64, lam64 = w.astype(np.float64), lam.astype(np.float64)
    mixed = cases.objective_calls(g, w64, lam64)
    assert mixed["grad"].dtype == mixed["grad_jvp"].dtype == np.float64
    assert all(part.dtype == np.float64 for part in mixed["grad_vjp"])


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("functions")])
def test_astype_gives_the_same_in_another_precision(name):
    single, double = cases.objectives(np.float32)[name].subject, cases.objectives()[name]
    g, w, lam = single.astype(np.float64), double.w, double.lam
    back = cases.objective_calls(g.astype("float32"), *(x.astype(np.float32) for x in (w, lam)))
    assert g.dtype in (None, np.float64)
    calls = cases.objective_calls(g, w, lam)
    exact = cases.objective_calls(single, w, lam)  # a mix promotes
    for method, result in calls.items():
        for a, b, c in zip(*map(cases.arrays, (result, exact[method], back[method])), strict=True):
            assert a.dtype == np.float64, method
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13)
            assert c.dtype == np.float32, method
    for part in vars(g).values():
        assert not isinstance(part, np.ndarray) or part.dtype != np.float32
