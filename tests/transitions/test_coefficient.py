import cases
import numpy as np
import pytest

import tinybilevel as tb

LAM = np.array([1.0, 2.0, 3.0, 4.0])


@pytest.mark.parametrize(
    ("block", "sizes", "expected"),
    [
        (slice(1, 2), None, [2]),
        (slice(-1, None), None, [4]),
        (slice(3, None), None, [4]),
        (slice(None, 2), [1, 2], [1, 2, 2]),
        (slice(-2, None), [2, 1], [3, 3, 4]),
        (slice(0, 4, 2), [1, 1], [1, 3]),
        (slice(2, 3), [3], [3, 3, 3]),
    ],
)
def test_learned_reads_its_block(block, sizes, expected):
    c = tb.Learned(block, sizes)
    np.testing.assert_array_equal(c(0, LAM), expected)
    np.testing.assert_array_equal(c.push(LAM), expected)
    u = cases.normal(0, len(expected))
    pulled = c.pull(u, LAM)
    np.testing.assert_allclose(pulled @ LAM, u @ c.push(LAM), rtol=1e-14)
    assert not pulled[np.setdiff1d(range(4), np.arange(4)[block])].any()


def test_pull_promotes():
    c, h = tb.Learned(slice(0, 1)), cases.frozen(np.zeros(2), np.float32)
    pulled = c.pull(np.array([1 / 3]), h)
    assert pulled.dtype == np.float64
    assert pulled[0] == 1 / 3


@pytest.mark.parametrize(
    ("block", "sizes", "error", "message"),
    [
        (slice(0, 2), None, ValueError, "block must have 1 entries, .* got slice"),
        (slice(1, 1), None, ValueError, "block must have 1 entries"),
        (slice(3, 2), None, ValueError, "block must have 1 entries"),
        (slice(0, 2), [1, 2, 3], ValueError, "block must have 3 entries, .* one for each of sizes"),
        (slice(0, 2), [1, 0], ValueError, "sizes must be at least 1, got 0"),
        (slice(0, 2), [1, 2.0], TypeError, "sizes must be an integer, got 2.0"),
        (3, None, TypeError, r"block must be a slice, as layout\['name'\] gives, got 3"),
        ([0, 1], None, TypeError, r"block must be a slice, .* got \[0, 1\]"),
    ],
)
def test_refused_when_built(block, sizes, error, message):
    with pytest.raises(error, match=message):
        tb.Learned(block, sizes)


@pytest.mark.parametrize(
    ("block", "sizes"), [(slice(4, 5), None), (slice(None), None), (slice(3, 5), [1, 1])]
)
def test_a_block_that_does_not_fit_lam_is_refused(block, sizes):
    for call in (lambda c: c(0, LAM), lambda c: c.push(LAM)):
        with pytest.raises(ValueError, match=r"of lam must have . entries, got \d of 4"):
            call(tb.Learned(block, sizes))


@pytest.mark.parametrize("sizes", [[1], [2], [1, 1], [4], [3, 3]])
def test_sizes_that_do_not_add_up_to_w_are_refused(sizes):
    layout = tb.Layout(center=3, steps=len(sizes))
    descent = tb.GradientDescent(
        tb.Quadratic(np.ones(3)).on(layout["center"]),
        tb.Learned(layout["steps"], sizes),
        np.ones(3),
    )
    w, lam = np.ones(3), np.full(layout.size, 0.1)
    with pytest.raises(ValueError, match="shape"):
        descent.vjp(0, w, lam, w)


def problem(T=3, M=3, transition=tb.GradientDescent, **options):
    g, start = tb.Quadratic(np.linspace(0.5, 1.0, M)), np.ones(M)
    moves = transition(g, **({"step_size": 0.1} | options), initial=start)
    return tb.BilevelProblem(moves, cases.cosine_of_state(), T=T, lam0=np.full(M, 0.5))


ARGUMENTS = {
    "step_size": tb.GradientDescent,
    "momentum": tb.HeavyBall,
    "l1": tb.ProximalGradient,
}


@pytest.mark.parametrize("name", ARGUMENTS)
@pytest.mark.parametrize("values", [[0.1, 0.2, 0.3], np.array([0.1, 0.2, 0.3]), (1, 0, 0)])
@pytest.mark.parametrize("T", [2, 3, 4])
def test_a_sequence_as_long_as_w_is_refused_for_its_two_readings(name, values, T):
    message = rf"{name} has 3 entries, as many as w: write PerStep.* or PerEntry"
    with pytest.raises(ValueError, match=message):
        problem(T=T, transition=ARGUMENTS[name], **{name: values})


@pytest.mark.parametrize("name", ARGUMENTS)
def test_both_readings_can_be_written(name):
    values = np.array([0.1, 0.2, 0.3])
    kind = ARGUMENTS[name]
    by_step = problem(transition=kind, **{name: tb.PerStep(values)})
    scheduled = problem(transition=kind, **{name: lambda t: values[t]})
    np.testing.assert_array_equal(tb.RMD()(by_step).grad, tb.RMD()(scheduled).grad)
    by_entry = problem(transition=kind, **{name: tb.PerEntry(values)})
    lam = by_entry.lam0
    one_by_one = [
        tb.RMD()(
            tb.BilevelProblem(
                kind(
                    tb.Quadratic(by_entry.transition.objective.G[j : j + 1]),
                    **({"step_size": 0.1} | {name: float(values[j])}),
                    initial=np.ones(1),
                ),
                cases.cosine_of_state(),
                T=3,
            ),
            lam[j : j + 1],
        ).grad[0]
        for j in range(3)
    ]
    np.testing.assert_allclose(tb.RMD()(by_entry).grad, one_by_one, rtol=1e-13)
    state = np.linspace(0.5, 1.5, by_entry.transition.initial(lam).size)
    tb.testing.assert_transition_adjoints(by_entry.transition, state, lam)


def test_one_entry_reads_the_same_either_way():
    assert problem(M=1, T=1, step_size=[0.1]).T == 1


@pytest.mark.parametrize("values", [[0.1, 0.2], tb.PerStep([0.1, 0.2])])
def test_a_schedule_that_ends_before_T_is_refused_when_built(values):
    with pytest.raises(ValueError, match="step_size has 2 entries, one for each step, and T = 4"):
        problem(T=4, step_size=values)
    problem(T=2, step_size=values)


@pytest.mark.parametrize("M", [1, 2, 4])
def test_values_per_entry_that_do_not_fit_w_are_refused_when_built(M):
    values = tb.PerEntry([0.1, 0.2, 0.3])
    with pytest.raises(ValueError, match=rf"step_size, one .* w, must have shape \({M},\), got"):
        problem(M=M, step_size=values)


def test_sizes_that_do_not_fit_w_are_refused_when_built_or_when_w_is_known():
    learned = tb.Learned(slice(0, 1), sizes=[1])  # would multiply all three entries
    with pytest.raises(ValueError, match="step_size: sizes must add up to the 3 entries of w, got"):
        problem(step_size=learned)
    g = tb.Quadratic(np.ones(3))
    moves = tb.GradientDescent(g, learned, (lambda lam: lam + 1, lambda lam, alpha: alpha))
    with pytest.raises(ValueError, match="step_size: sizes must add up to the 3 entries of w, got"):
        moves.initial(np.ones(3))


@pytest.mark.parametrize(
    ("value", "error", "message"),
    [
        ([True, False], TypeError, "step_size must be float32 or float64, got dtype bool"),
        (["0.1", "0.2"], TypeError, "step_size must be float32 or float64"),
        ("0.1", TypeError, "step_size must be a number"),
        ([0.1, np.inf], ValueError, "step_size must be .* at least 0, got inf at entry 1"),
        (tb.PerEntry([0.1, -1.0]), ValueError, "step_size must be .* got -1.0 at entry 1"),
        (tb.PerEntry([[0.1]]), ValueError, "step_size must have 1 dimension"),
        (tb.PerStep(0.1), ValueError, "step_size must have 1 dimension"),
        (tb.Learned, TypeError, "step_size must be a number"),
        ({0.1: 0.2}, TypeError, "step_size must be a number"),
        (slice(0, 3), ValueError, "block must have 1 entries.* a schedule, .* is not learned"),
    ],
)
def test_arguments_refused(value, error, message):
    with pytest.raises(error, match=message):
        tb.GradientDescent(tb.Quadratic(np.ones(3)), value, np.ones(3))


@pytest.mark.parametrize("value", [np.array(0.1), np.float32(0.1), 1])
def test_any_one_number_is_a_number(value):
    descent = tb.GradientDescent(tb.Quadratic(np.ones(3)), value, np.ones(3))
    assert descent.step_size(0, LAM) == float(value)


@pytest.mark.parametrize("returned", ["0.1", True, None, np.ones(3), 1j])
def test_a_schedule_that_returns_no_number_is_named(returned):
    descent = tb.GradientDescent(tb.Quadratic(np.ones(3)), lambda t: returned, np.ones(3))
    with pytest.raises(TypeError, match="step_size must be a number at each step, got"):
        descent.step(0, np.ones(3), np.ones(3))


def test_values_that_change_later_change_nothing():
    values = np.array([0.1, 0.2, 0.3])
    descent = tb.GradientDescent(tb.Quadratic(np.ones(3)), tb.PerEntry(values), np.ones(3))
    values[:] = np.nan
    np.testing.assert_array_equal(descent.step_size(0, LAM), [0.1, 0.2, 0.3])


def test_one_learned_value_for_each_entry_takes_no_loop():
    M = 2000
    c = tb.Learned(slice(0, M), sizes=[1] * M)
    lam, u = cases.normal(0, M), cases.normal(1, M)
    np.testing.assert_array_equal(c(0, lam), lam)
    np.testing.assert_array_equal(c.pull(u, lam), u)
    assert len(repr(c)) < 60


def test_what_is_wrong_can_be_printed():
    assert repr(tb.PerEntry(0.1)) == "PerEntry(<1 values>)"
    assert repr(tb.PerStep(0.1)) == "PerStep(<1 values>)"


def test_a_schedule_that_is_one_short_is_refused():
    with pytest.raises(ValueError, match=r"step_size has 3 entries, .* and T = 4 steps are run"):
        problem(T=4, M=5, step_size=tb.PerStep([0.1] * 3))
