"""What holds for each transition: right adjoints, pure calls, the dtype of its inputs."""

import pickle

import cases
import numpy as np
import pytest

import tinybilevel as tb

NAMES = list(cases.transitions())
LAM = cases.hyperparameters()


@pytest.fixture(params=NAMES)
def case(request):
    return cases.transitions()[request.param]


@pytest.mark.parametrize("t", [0, 2])
def test_adjoints(case, t):
    tb.testing.assert_transition_adjoints(*case, t=t, seed=t, tol=1e-12)


def test_a_call_leaves_no_trace(case):
    before = pickle.dumps(case.subject)
    calls = cases.transition_calls(*case)
    assert pickle.dumps(case.subject) == before
    for result in calls.values():
        for array in cases.arrays(result):
            if array.flags.writeable:  # a view of a read-only input is not
                array[...] = np.nan
    calls = cases.transition_calls(*case)
    assert all(np.isfinite(part).all() for r in calls.values() for part in cases.arrays(r))


def test_the_initial_state_belongs_to_the_caller(case):
    transition, _, lam = case
    lam, w0 = lam.copy(), transition.initial(lam)
    before = lam.copy(), w0.copy()
    w0 += 1
    np.testing.assert_array_equal(lam, before[0])
    np.testing.assert_array_equal(transition.initial(lam), before[1])


def test_pickle_and_strides_change_nothing(case):
    transition, w, lam = case
    calls = cases.transition_calls(transition, w, lam)
    again = cases.transition_calls(pickle.loads(pickle.dumps(transition)), w, lam)
    cases.assert_same(calls, again)
    strided = cases.transition_calls(transition, np.repeat(w, 2)[::2], np.repeat(lam, 3)[::3])
    for name, result in calls.items():
        for a, b in zip(cases.arrays(result), cases.arrays(strided[name]), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-14, err_msg=name)


@pytest.mark.parametrize("name", NAMES)
def test_float32_stays_and_a_mix_promotes(name):
    transition, w, lam = cases.transitions(np.float32)[name]
    calls = cases.transition_calls(transition, w, lam)
    exact = cases.transition_calls(*cases.transitions()[name])
    for method, result in calls.items():
        for a, b in zip(cases.arrays(result), cases.arrays(exact[method]), strict=True):
            assert a.dtype == np.float32, method
            assert a.shape == b.shape, method
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4, err_msg=method)
    for mixed in ((w.astype(np.float64), lam), (w, lam.astype(np.float64))):
        calls = cases.transition_calls(transition, *mixed)
        for array in (calls["step"], calls["jvp"], calls["vjp"][0]):
            assert array.dtype == np.float64


@pytest.mark.parametrize(("data", "of_lam"), [(np.float32, np.float64), (np.float64, np.float32)])
def test_a_mixed_problem_has_a_double_hypergradient(data, of_lam):
    for name, (transition, _, _) in cases.transitions(data).items():
        problem = tb.BilevelProblem(transition, cases.cosine_of_state(), T=3)
        r = tb.RMD()(problem, cases.hyperparameters(of_lam))
        assert r.grad.dtype == r.w.dtype == np.float64, name
        exact = tb.RMD()(problem, cases.hyperparameters(of_lam).astype(np.float64))
        np.testing.assert_allclose(r.grad, exact.grad, rtol=1e-5, atol=1e-6, err_msg=name)


def test_readout_starting_at_and_buffers(case):
    transition, w, lam = case
    assert transition.readout(w).size == 6
    M = w.size
    assert transition.initial(lam).shape == (M,)
    assert not transition.initial(lam)[6:].any()
    np.testing.assert_array_equal(transition.readout_vjp(np.ones(6)), np.arange(M) < 6)
    warm = transition.starting_at(np.arange(6.0))
    np.testing.assert_array_equal(warm.initial(lam)[:6], np.arange(6.0))
    assert not warm.initial_vjp(lam, np.ones(M)).any()
    np.testing.assert_array_equal(warm.step(1, w, lam), transition.step(1, w, lam))


def run(transition, w, lam, steps):
    for t in range(steps):
        w = transition.step(t, w, lam)
    return w


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (tb.GradientDescent, {}),
        (tb.HeavyBall, {}),
        (tb.Nesterov, {}),
        (tb.AdamTransition, {}),
        (tb.ProximalGradient, dict(l1=0.1)),
    ],
)
def test_runs_that_continue_are_one_long_run(kind, options):
    transition, lam = kind(cases.lower(), 0.3, cases.STARTS["array"], **options), LAM
    once = run(transition, transition.initial(lam), lam, 12)
    state = transition.initial(lam)
    for done in range(0, 12, 3):
        part = transition.continuing(state, done)
        np.testing.assert_array_equal(part.initial(lam), state)
        assert not part.initial_vjp(lam, np.ones(state.size)).any()
        assert not part.initial_jvp(lam, lam).any()
        state = run(part, state, lam, 3)
    np.testing.assert_allclose(state, once, rtol=1e-13)
    assert (
        np.abs(transition.continuing(state, 12).starting_at(np.ones(6)).initial(lam)[6:]).sum() == 0
    )


def test_what_continues_has_right_adjoints(case):
    transition, w, lam = case
    tb.testing.assert_transition_adjoints(transition.continuing(w, 7), w, lam, t=1)


def test_a_repr_is_short_and_names_the_parts(case):
    words = repr(case.subject)
    assert words.startswith(type(case.subject).__name__)
    assert "initial=" in words
    assert len(words) < 400
