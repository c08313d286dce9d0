import copy
import pickle
import re

import cases
import engine_cases
import numpy as np
import pytest
from engine_cases import LAM, STORAGES

import tinybilevel as tb

PROBLEMS = engine_cases.problems()


def hypercleaning():
    digits = tb.data.digits().split(seed=0)
    return tb.problems.hypercleaning(
        digits.X_train[:60], digits.y_train[:60], digits.X_val[:40], digits.y_val[:40], T=12
    )


def assert_ends_as(method, problem, lam):
    trace, r = method.trace(problem, lam, keep=True), method(problem, lam)
    np.testing.assert_array_equal(trace.grad, r.grad, strict=True)
    np.testing.assert_array_equal(trace.h[-1], r.grad, strict=True)
    np.testing.assert_array_equal(trace.alpha_norms[: r.K + 1], r.alpha_norms)
    assert trace.result.cost == r.cost


@pytest.mark.parametrize("name", PROBLEMS)
def test_it_ends_with_the_hypergradient_of_every_transition_bit_for_bit(name):
    assert_ends_as(tb.RMD(), *PROBLEMS[name])
    assert_ends_as(tb.KRMD(K=2), *PROBLEMS[name])


@pytest.mark.parametrize("storage", STORAGES, ids=repr)
@pytest.mark.parametrize("transition", [tb.GradientDescent, tb.Nesterov, tb.AdamTransition])
def test_it_ends_with_the_hypergradient_on_every_storage(storage, transition):
    problem = engine_cases.long(10, transition)
    assert_ends_as(tb.RMD(storage), problem, LAM)
    for K in (0, 1, 7, 10):
        assert_ends_as(tb.KRMD(K, storage), problem, LAM)


@pytest.mark.parametrize("method", [tb.RMD(), tb.KRMD(K=5), tb.KRMD(K=5, storage=tb.Binomial(2))])
@pytest.mark.parametrize("make", [tb.problems.toy, hypercleaning])
def test_it_ends_with_the_hypergradient_of_the_paper_s_problems(method, make):
    problem = make()
    assert_ends_as(method, problem, problem.lam0)


@pytest.mark.parametrize("transition", [tb.GradientDescent, tb.HeavyBall, tb.AdamTransition])
def test_its_arrays_are_those_of_a_loop_written_out(transition):
    problem, move = (p := engine_cases.long(6, transition)), p.transition
    theta = problem.hyper_map(LAM)
    states = [move.initial(theta)]
    for t in range(6):
        states.append(move.step(t, states[-1], theta))
    h, x = -np.sin(theta), move.readout(states[-1])
    alphas, hs = [move.readout_vjp(np.cos(x))], [h]
    for t in range(5, -1, -1):
        alpha, B_alpha = move.vjp(t, states[t], theta, alphas[-1])
        alphas.append(alpha)
        hs.append(hs[-1] + B_alpha)
    hs.append(hs[-1] + move.initial_vjp(theta, alphas[-1]))
    hs = np.array([problem.hyper_map.vjp(LAM, h) for h in hs])

    trace = tb.RMD(tb.Checkpoint()).trace(problem, LAM, keep=True)
    np.testing.assert_array_equal(trace.t, [6, 5, 4, 3, 2, 1, 0, -1])
    np.testing.assert_allclose(trace.w, states[::-1], rtol=1e-12)
    np.testing.assert_allclose(trace.alpha, alphas, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(trace.h, hs, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(trace.alpha_norms[:-1], np.linalg.norm(alphas, axis=1), rtol=1e-12)
    np.testing.assert_allclose(trace.h_norms, np.linalg.norm(hs, axis=1), rtol=1e-12)
    np.testing.assert_allclose(
        trace.product_norms[:-1], np.linalg.norm(np.diff(hs, axis=0), axis=1), rtol=1e-9
    )
    np.testing.assert_allclose(trace.errors, np.linalg.norm(hs - hs[-1], axis=1), atol=1e-12)
    assert trace.product_norms[-2] > 1e-3, "B_0 α_0 has its row"
    assert np.isnan([trace.alpha_norms[-1], trace.product_norms[-1]]).all()


def test_the_error_at_each_row_is_that_of_KRMD():
    problem = engine_cases.long(5)
    exact = tb.RMD()(problem, LAM).grad
    errors = [np.linalg.norm(tb.KRMD(K)(problem, LAM).grad - exact) for K in range(6)]
    np.testing.assert_allclose(tb.RMD().trace(problem, LAM).errors, [*errors, 0], rtol=1e-12)
    truncated = tb.KRMD(K=3)
    for given in (True, exact, exact.tolist()):
        trace = truncated.trace(problem, LAM, exact=given)
        np.testing.assert_allclose(trace.errors, errors[:4], rtol=1e-12)
        np.testing.assert_array_equal(trace.exact, exact)
    assert truncated.trace(problem, LAM).errors is None
    assert tb.RMD().trace(problem, LAM, exact=False).errors is None


def test_a_tolerance_ends_it_where_it_ends_the_call():
    problem = tb.problems.toy(T=400)
    trace = tb.KRMD(tol=0.1).trace(problem, exact=True)
    assert (trace.t[0], trace.t[-1], len(trace.t)) == (400, 400 - trace.result.K, 107)
    assert trace.errors[-1] <= trace.result.bound <= 0.1


def test_a_tail_is_in_the_hypergradient_and_not_in_the_rows():
    problem, method = tb.problems.toy(T=400), tb.KRMD(K=5, tail=tb.ImplicitCG())
    trace = method.trace(problem, exact=True, keep=True)
    np.testing.assert_array_equal(trace.grad, method(problem).grad)
    np.testing.assert_array_equal(trace.h[-1], tb.KRMD(K=5)(problem).grad)
    assert len(trace.t) == 6
    assert "tail" in repr(trace)


def test_the_toy_s_norms_contract_at_the_rate_of_its_flattest_direction():
    trace = tb.KRMD(K=60).trace(tb.problems.toy(), exact=True)
    assert trace.alpha_norms[-1] / trace.alpha_norms[-2] == pytest.approx(0.95, rel=1e-2)
    assert np.all(np.diff(trace.errors) < 0)


@pytest.mark.parametrize("T", [0, 1])
def test_short_horizons(T):
    problem = engine_cases.long(T)
    assert_ends_as(tb.RMD(), problem, LAM)
    trace = tb.KRMD(K=0).trace(problem, LAM, exact=True, keep=True)
    assert (trace.t.tolist(), trace.w.shape, trace.h.shape) == ([T], (1, 12), (1, LAM.size))
    assert np.isnan(trace.product_norms).all()


def test_a_compiled_problem_is_traced_step_by_step():
    pytest.importorskip("numba")
    problem = tb.problems.toy()
    trace = tb.RMD().trace(tb.compile(problem), keep=True)
    np.testing.assert_array_equal(trace.grad, tb.RMD()(problem).grad)


def test_the_arrays_are_the_trace_s_own_and_of_the_problem_s_dtype():
    problem = tb.problems.toy(T=3).astype(np.float32)
    trace = tb.RMD().trace(problem, keep=True)
    assert {a.dtype for a in (trace.w, trace.alpha, trace.h, trace.grad)} == {np.dtype("f4")}
    for kept in (trace.w, trace.alpha, trace.h):
        assert len(np.unique(kept, axis=0)) >= 3, "rows that share memory would be equal"
    again = tb.RMD().trace(problem, keep=True)
    np.testing.assert_array_equal(again.h, trace.h)
    for other in (copy.copy(trace), pickle.loads(pickle.dumps(trace))):
        np.testing.assert_array_equal(other.h, trace.h)


def test_it_prints_one_row_a_line_with_columns_in_line():
    text = str(tb.KRMD(K=4).trace(tb.problems.toy(), exact=True))
    head, *rows = text.splitlines()[1:]
    assert len({len(line) for line in (head, *rows)}) == 1
    assert [row.split()[0] for row in rows] == ["100", "99", "98", "97", "96"]
    assert rows[-1].split()[2] == "—", "the product of the last row is not taken"
    assert "‖h_t − d_λ f‖" in head
    assert "‖h_t − d_λ f‖" not in str(tb.KRMD(K=4).trace(tb.problems.toy()))


def test_a_long_one_prints_its_two_ends():
    rows = str(tb.RMD().trace(tb.problems.toy())).splitlines()[2:]
    assert [row.split()[0] for row in rows[:2] + rows[-2:]] == ["100", "99", "0", "-1"]
    assert len(rows) == 33
    assert rows[16].split() == ["…"] * 5


def test_in_a_notebook_it_is_a_table():
    page = tb.RMD().trace(tb.problems.toy(T=3))._repr_html_()
    assert page.count("<tr>") == 6
    assert re.search(r"<tr><td>3</td><td>[\d.]+</td>", page)
    assert "<th>‖B_t α_t‖</th>" in page


def test_its_columns_make_a_data_frame():
    trace = tb.KRMD(K=2).trace(tb.problems.toy())
    assert list(trace.columns) == ["t", "alpha_norms", "product_norms", "h_norms"]
    assert {len(column) for column in trace.columns.values()} == {3}


def test_arrays_that_were_not_kept_say_how_to_keep_them():
    trace = tb.RMD().trace(tb.problems.toy())
    for name in ("w", "alpha", "h"):
        with pytest.raises(AttributeError, match=rf"{name} was not kept: .*keep=True"):
            getattr(trace, name)


def test_what_is_wrong_is_named():
    problem, method = tb.problems.toy(), tb.KRMD(K=3)
    with pytest.raises(TypeError, match="problem must be a BilevelProblem"):
        method.trace([1.0, 1.0])
    with pytest.raises(ValueError, match=r"exact must have the shape \(2,\) of lam, got \(3,\)"):
        method.trace(problem, exact=[1.0, 2.0, 3.0])
    with pytest.raises(TypeError, match="exact must be float32 or float64"):
        method.trace(problem, exact="yes")
    with pytest.raises(TypeError, match="keep must be True or False"):
        method.trace(problem, keep=1)
    with pytest.raises(ValueError, match="K must be at most the horizon T = 100"):
        tb.KRMD(K=101).trace(problem)
    with pytest.raises(tb.DivergenceError, match="γ = 30"):
        method.trace(tb.problems.toy(T=2000, step_size=30.0))


def test_warnings_name_the_caller_s_line():
    with pytest.warns(tb.ConvergenceWarning, match="is not met") as seen:
        tb.KRMD(K=3, tol=1e-6).trace(tb.problems.toy())
    with pytest.warns(tb.StabilityWarning, match="γ = 2.5") as restless:
        tb.RMD().trace(tb.problems.toy(step_size=2.5, T=30))
    assert {w.filename for w in (*seen, *restless)} == {__file__}


def test_a_product_that_is_missing_is_refused_before_anything_runs():
    g = tb.Objective.from_functions(value=cases.cosine_value, grad=cases.cosine_grad)
    move = tb.GradientDescent(g, 0.1, initial=np.zeros(3))
    problem = tb.BilevelProblem(move, cases.cosine(), T=4)
    with pytest.raises(TypeError, match="grad_vjp, which RMD needs"):
        tb.RMD().trace(problem, np.ones(3))
