"""What a run warns of, and what it says about where it stopped."""

from dataclasses import replace

import numpy as np
import pytest

import tinybilevel as tb
from tinybilevel.outer.derivatives import wrong_derivatives
from tinybilevel.outer.watch import Watch

TOY = tb.problems.toy()
UPPER = tb.Objective.from_functions(
    value=lambda w, lam: 0.5 * (w - 3) @ (w - 3), grad=lambda w, lam: w - 3
)


FIRST_TWO = (lambda lam: lam[:2], lambda lam, alpha: np.r_[alpha, 0, 0])


def from_lam(initial):
    """Return a problem in which only w_0 depends on λ."""
    pull = tb.Quadratic([1.0, 1.0]).on(slice(2, 4))
    descent = tb.GradientDescent(pull, 0.1, initial=initial)
    return tb.BilevelProblem(descent, UPPER, T=4, lam0=[1.0, 2.0, 0.0, 0.0])


@pytest.mark.parametrize("initial", [slice(0, 2), FIRST_TWO])
def test_a_truncated_method_that_cannot_see_w_0_says_so_once(initial):
    problem = from_lam(initial)
    with pytest.warns(tb.TruncationWarning, match=r"leaves out what comes through it") as caught:
        tb.minimize(problem, method=tb.KRMD(K=4), iterations=3)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    tb.minimize(problem, method=tb.RMD(), iterations=3)
    tb.minimize(problem, method=tb.KRMD(K=4), iterations=3, warm_start=True)


def test_an_exactly_zero_first_gradient_is_no_convergence():
    with pytest.warns(tb.ConvergenceWarning, match=r"by KRMD at the first lam is exactly 0"):
        result = tb.minimize(TOY, method=tb.KRMD(K=0))
    assert (result.stopped, result.iterations) == ("zero gradient", 0)
    assert "zero gradient, after 0 updates" in repr(result)


def test_gtol_is_met_by_equality():
    norms = tb.minimize(TOY, method=tb.RMD(), iterations=10).history["grad_norm"]
    assert norms[8] < norms[:8].min()
    result = tb.minimize(TOY, method=tb.RMD(), gtol=norms[8])
    assert (result.stopped, result.iterations) == ("gtol", 8)


def test_the_best_lam_is_kept_where_the_last_is_worse():
    result = tb.minimize(TOY, method=tb.RMD(), optimizer=tb.SGD(0.2, decay=0), iterations=30)
    values = np.append(result.history["value"], result.value)
    assert result.best_value == values.min() < result.value
    assert tb.RMD()(TOY, result.best_lam).value == result.best_value
    assert "best seen" in repr(result)


def test_the_last_lam_may_be_the_best():
    result = tb.minimize(TOY, method=tb.RMD(), iterations=10)
    assert result.best_value == result.value
    np.testing.assert_array_equal(result.best_lam, result.lam)


def test_no_iterations_know_one_value():
    result = tb.minimize(TOY, iterations=0)
    np.testing.assert_array_equal(result.best_lam, result.lam)


def blows_up(lam0):
    """Return f = −λ over a lower level that is not finite beyond λ = 0.5."""
    f = tb.Objective.from_functions(
        value=lambda w, lam: -float(lam[0]),
        grad=lambda w, lam: 0 * w,
        grad_lam=lambda w, lam: -np.ones(1),
    )
    moves = tb.Transition.from_functions(
        step=lambda t, w, lam: np.where(lam > 0.5, np.inf, w),
        vjp=lambda t, w, lam, alpha: (alpha, 0 * lam),
        initial=[1.0],
    )
    return tb.BilevelProblem(moves, f, T=1, lam0=lam0)


def test_divergence_reports_the_best_lam():
    with pytest.raises(tb.DivergenceError) as caught:
        tb.minimize(blows_up([0.0]), method=tb.RMD(), optimizer=tb.SGD(0.2, decay=0))
    np.testing.assert_allclose(caught.value.best_lam, 0.4)
    assert caught.value.best_value == -caught.value.best_lam[0]


def test_a_step_size_beyond_the_limit_is_said_once_with_one_that_would_do():
    problem = tb.problems.toy(T=8, step_size=2.5)
    with pytest.warns(tb.StabilityWarning, match=r"stable for γ < 2; γ = 1 would do") as caught:
        tb.minimize(problem, method=tb.RMD(), optimizer=tb.SGD(0.01), iterations=3)
    assert len(caught) == 1
    assert caught[0].filename == __file__


def test_a_step_size_that_becomes_too_large_is_said_where_f_is_far_above():
    # λ is the curvature, on which f pushes upwards until the steps no longer settle.
    g = tb.Objective.from_functions(
        value=lambda w, lam: 0.5 * lam[0] * w @ w,
        grad=lambda w, lam: lam * w,
        grad_vjp=lambda w, lam, v: (lam * v, np.array([w @ v])),
    )
    f = tb.Objective.from_functions(
        value=lambda w, lam: float(w @ w - 0.1 * lam[0]),
        grad=lambda w, lam: 2 * w,
        grad_lam=lambda w, lam: -0.1 * np.ones(1),
    )
    problem = tb.BilevelProblem(tb.GradientDescent(g, 1.0, initial=[1.0]), f, T=20, lam0=[1.0])
    options = {"method": tb.KRMD(K=0), "optimizer": tb.SGD(3.0, decay=0), "iterations": 6}
    with pytest.warns(tb.StabilityWarning, match="γ = 1 against smoothness") as caught:
        tb.minimize(problem, **options)
    assert len(caught) == 1


def wrong(**changes):
    right = {
        "value": lambda w, lam: 0.5 * float((w - lam) @ (w - lam)) + 0.25 * float((w**4).sum()),
        "grad": lambda w, lam: w - lam + w**3,
        "grad_vjp": lambda w, lam, v: (v + 3 * w**2 * v, -v),
        "grad_jvp": lambda w, lam, dw, dlam: dw + 3 * w**2 * dw - dlam,
    }
    return tb.Objective.from_functions(**{**right, **changes})


def problem_with(g, upper=UPPER, **options):
    descent = tb.GradientDescent(g, 0.1, initial=[0.5, 1.0])
    return tb.BilevelProblem(descent, upper, T=20, lam0=[1.0, 2.0], **options)


def test_right_derivatives_pass_in_both_precisions():
    for dtype in (np.float64, np.float32):
        descent = tb.GradientDescent(wrong(), 0.1, initial=np.array([0.5, 1], dtype))
        problem = tb.BilevelProblem(descent, UPPER, T=20, lam0=np.array([1, 2], dtype))
        tb.minimize(problem, method=tb.RMD(), iterations=2)
        tb.minimize(problem, method=tb.FMD(), iterations=2)


@pytest.mark.parametrize(
    ("g", "method", "message"),
    [
        (
            wrong(grad_vjp=lambda w, lam, v: (v + 3 * w**2 * v, v)),
            tb.RMD(),
            r"grad_vjp\[1\] of FunctionObjective \(the mixed product\) gives -1 .* give 1\.",
        ),
        (
            wrong(grad_vjp=lambda w, lam, v: (v, -v)),
            tb.KRMD(K=3),
            r"grad_vjp\[0\] of FunctionObjective \(the Hessian product\)",
        ),
        (
            wrong(grad_vjp=lambda w, lam, v: (v + 3 * w**2 * v, -1.03 * v)),
            tb.KRMD(K=3),
            "mixed product",
        ),
        (
            wrong(grad_jvp=lambda w, lam, dw, dlam: dw + 3 * w**2 * dw + dlam),
            tb.FMD(),
            "grad_jvp of FunctionObjective, by lam,",
        ),
        (
            0.5 * wrong(grad_vjp=lambda w, lam, v: (v, -v)) + tb.Quadratic([1.0, 1.0]),
            tb.RMD(),
            "the Hessian product",
        ),
    ],
)
def test_a_wrong_product_is_said_before_it_drives_anything(g, method, message):
    seen = []
    with pytest.warns(tb.DerivativeWarning, match=message) as caught:
        tb.minimize(
            problem_with(g),
            method=method,
            iterations=5,
            callback=lambda p: seen.append(len(caught)),
        )
    assert seen == [1] * 5
    assert caught[0].filename == __file__
    tb.minimize(problem_with(g), method=method, iterations=2, check_derivatives=False)


def test_a_mixed_product_that_is_left_out_is_said():
    problem = problem_with(wrong(grad_vjp=lambda w, lam, v: (v + 3 * w**2 * v, 0 * v)))
    with (
        pytest.warns(tb.DerivativeWarning, match="mixed product"),
        pytest.warns(tb.ConvergenceWarning, match="a product that returns 0"),
    ):
        tb.minimize(problem, method=tb.RMD())


def test_a_wrong_upper_gradient_is_said():
    upper = replace_upper(grad=lambda w, lam: w + 3)
    with pytest.warns(tb.DerivativeWarning, match="grad of FunctionObjective gives"):
        tb.minimize(problem_with(wrong(), upper), iterations=2)
    upper = replace_upper(value=lambda w, lam: 0.5 * float((w - 3) @ (w - 3) + lam @ lam))
    with pytest.warns(tb.DerivativeWarning, match="grad_lam of FunctionObjective gives 0 along"):
        tb.minimize(problem_with(wrong(), upper), iterations=2)


def replace_upper(**changes):
    right = {
        "value": lambda w, lam: 0.5 * float((w - 3) @ (w - 3)),
        "grad": lambda w, lam: w - 3,
    }
    return tb.Objective.from_functions(**{**right, **changes})


@pytest.mark.parametrize(("part", "name"), [(0, r"by w \(A alpha\)"), (1, r"by lam \(B alpha\)")])
def test_a_wrong_transition_is_said(part, name):
    def vjp(t, w, lam, alpha):
        products = [0.5 * alpha, np.cos(lam) * alpha]
        products[part] = -products[part]
        return tuple(products)

    moves = tb.Transition.from_functions(
        step=lambda t, w, lam: 0.5 * w + np.sin(lam), vjp=vjp, initial=[1.0, 1.0]
    )
    problem = tb.BilevelProblem(moves, UPPER, T=5, lam0=[0.3, 0.4])
    with pytest.warns(tb.DerivativeWarning, match=name):
        tb.minimize(problem, method=tb.RMD(), iterations=1)


def test_a_wrong_start_and_a_wrong_map_are_said():
    start = (lambda lam: lam**2, lambda lam, alpha: lam * alpha)
    descent = tb.GradientDescent(tb.Quadratic([1.0, 1.0]), 0.1, initial=start)
    problem = tb.BilevelProblem(descent, UPPER, T=3, lam0=[1.0, 2.0])
    with pytest.warns(tb.DerivativeWarning, match="the vjp of initial gives"):
        tb.minimize(problem, method=tb.RMD(), iterations=1)

    class Square(tb.HyperMap):
        def __call__(self, lam):
            return lam**2

        def vjp(self, lam, h):
            return lam * h

    problem = replace(TOY, hyper_map=Square())
    with pytest.warns(tb.DerivativeWarning, match="the vjp of Square gives"):
        tb.minimize(problem, method=tb.RMD(), iterations=1)


def test_kinks_jumps_and_edges_are_no_wrong_derivatives():
    kinked = wrong(
        grad=lambda w, lam: np.sign(w - 0.5) + np.abs(lam - 1),
        grad_vjp=lambda w, lam, v: (0 * v, v),
    )
    edge = wrong(grad=lambda w, lam: np.sqrt(w) - lam, grad_vjp=lambda w, lam, v: (v, -v))
    for g in (kinked, edge):
        descent = tb.GradientDescent(g, 0.0, initial=[0.5, 0.0])
        problem = tb.BilevelProblem(descent, UPPER, T=1, lam0=[1.0, 1.0])
        assert not wrong_derivatives(problem, problem.lam0, np.array([0.5, 0.0]))


def test_a_function_that_returns_its_own_buffer_is_not_suspected():
    buffer = np.zeros(2)

    def grad(w, lam):
        buffer[:] = w - lam + w**3
        return buffer

    problem = problem_with(wrong(grad=grad))
    assert not wrong_derivatives(problem, problem.lam0, np.array([0.5, 1.0]))
    right = problem_with(wrong())
    with pytest.warns(tb.DerivativeWarning):
        tb.minimize(problem_with(wrong(grad_vjp=lambda w, lam, v: (v, -v))), iterations=1)
    assert not wrong_derivatives(right, right.lam0, np.array([0.5, 1.0]))


def test_compiled_problems_are_carried_and_averaged_like_the_others():
    compiled = [tb.compile(TOY), tb.compile(tb.problems.toy(T=40))]
    plain = [TOY, tb.problems.toy(T=40)]
    for warm_start in (False, True, "state"):
        a, b = (
            tb.minimize(p, method=tb.RMD(), iterations=5, warm_start=warm_start)
            for p in (compiled, plain)
        )
        np.testing.assert_allclose(a.lam, b.lam, rtol=1e-10)


def test_of_two_equal_values_the_first_is_the_best():
    class Away(tb.Optimizer):
        def init(self, lam):
            return {}

        def update(self, iteration, lam, grad, state):
            return -lam, state

    problem = tb.BilevelProblem(  # f = ‖ŵ*‖² is even in λ
        tb.GradientDescent(tb.Quadratic([1.0, 1.0]), 0.5, initial=[0.0, 0.0]), tb.L2Penalty(1.0), 3
    )
    result = tb.minimize(problem, [1.0, 2.0], optimizer=Away(), iterations=3)
    np.testing.assert_array_equal(result.best_lam, [1.0, 2.0])


def test_where_f_is_0_at_first_a_small_one_is_not_far_above():
    watch, calm, wild = Watch(tb.RMD(), False), TOY, tb.problems.toy(step_size=5.0, T=1)
    r = tb.RMD()(TOY)
    watch([calm], TOY.lam0, [r], 0.0, False)
    watch([wild], TOY.lam0, [r], 0.009, False)
    with pytest.warns(tb.StabilityWarning):
        watch([wild], TOY.lam0, [r], 0.011, False)
