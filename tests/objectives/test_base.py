"""Sums, scaling, blocks of lam, and objectives from plain functions."""

from dataclasses import replace

import cases
import numpy as np
import pytest

import tinybilevel as tb

W, V, LAM = np.array([1.0, 2.0]), np.array([0.5, -1.0]), np.array([0.3, 0.1, -0.2])
G = np.array([[2.0, 1.0], [1.0, 3.0]])


def broken(**functions):
    """Return ½wᵀGw from functions, some of them replaced."""
    right = dict(
        value=lambda w, lam: 0.5 * w @ G @ w,
        grad=lambda w, lam: G @ w,
        grad_vjp=lambda w, lam, v: (G @ v, np.zeros(3)),
        grad_jvp=lambda w, lam, dw, dlam: G @ dw,
    )
    return tb.Objective.from_functions(**(right | functions))


CALLS = {
    "value": lambda g: g.value(W, LAM),
    "grad": lambda g: g.grad(W, LAM),
    "grad_lam": lambda g: g.grad_lam(W, LAM),
    "grad_vjp": lambda g: g.grad_vjp(W, LAM, V),
    "grad_jvp": lambda g: g.grad_jvp(W, LAM, V, LAM),
}


@pytest.mark.parametrize(
    ("name", "returned", "error", "message"),
    [
        ("value", np.ones(1), ValueError, r"value must have shape \(\), got \(1,\)"),
        ("value", 1j, TypeError, "complex"),
        ("value", None, TypeError, r"value must have shape \(\), got None: is a return missing\?"),
        ("grad", None, TypeError, r"grad must have shape \(2,\), got None"),
        ("grad", np.ones(3), ValueError, r"grad must have shape \(2,\), got \(3,\)"),
        ("grad", np.ones((2, 1)), ValueError, r"grad must have shape \(2,\), got \(2, 1\)"),
        ("grad", 1.0, ValueError, r"grad must have shape \(2,\), got \(\)"),
        ("grad_lam", np.ones(1), ValueError, r"grad_lam must have shape \(3,\), got \(1,\)"),
        ("grad_vjp", (LAM, LAM), ValueError, r"grad_vjp\[0\] must have shape \(2,\), got \(3,\)"),
        ("grad_vjp", (W, 0.0), ValueError, r"grad_vjp\[1\] must have shape \(3,\), got \(\)"),
        ("grad_vjp", W, TypeError, "grad_vjp must return a pair of arrays, got ndarray"),
        ("grad_vjp", (W, LAM, W), TypeError, "grad_vjp must return a pair of arrays, got tuple"),
        ("grad_jvp", LAM, ValueError, r"grad_jvp must have shape \(2,\), got \(3,\)"),
    ],
)
def test_a_function_that_returns_the_wrong_thing_is_named(name, returned, error, message):
    with pytest.raises(error, match=message):
        CALLS[name](broken(**{name: lambda *_: returned}))


@pytest.mark.parametrize(
    ("name", "function", "message"),
    [
        ("value", lambda w: 0.0, r"value must take \(w, lam\), got a function of \(w\)"),
        ("grad_vjp", lambda w, lam: (w, lam), r"grad_vjp must take \(w, lam, v\), got"),
        ("grad_jvp", lambda w, lam, dw: dw, r"grad_jvp must take \(w, lam, dw, dlam\), got"),
        ("restrict", lambda a, b: None, r"restrict must take \(index\), got"),
    ],
)
def test_a_function_of_other_arguments_is_named_before_it_is_called(name, function, message):
    with pytest.raises(TypeError, match=message):
        broken(**{name: function})


def test_functions_may_take_more_by_default_or_be_without_a_signature():
    f = broken(value=lambda w, lam, scale=2.0: scale, grad=lambda *args: args[0], grad_lam=max)
    assert f.value(W, LAM) == 2.0


def test_the_repr_of_a_block_says_of_what_it_is_one():
    assert repr(tb.L2Penalty().on(slice(0, 1))) == "L2Penalty().on(slice(0, 1, None))"


@pytest.mark.parametrize("name", ["grad_vjp", "grad_jvp"])
def test_a_function_that_is_missing_is_named(name):
    with pytest.raises(TypeError, match=f"FunctionObjective has no {name}"):
        CALLS[name](broken(**{name: None}))


@pytest.mark.parametrize("name", ["value", "grad"])
def test_value_and_grad_are_needed(name):
    with pytest.raises(TypeError, match=f"{name} must be a function, got None"):
        broken(**{name: None})
    with pytest.raises(TypeError, match=f"{name} must be a function, got 3"):
        broken(**{name: 3})


def test_functions_may_return_lists_and_leave_out_grad_lam():
    g = broken(grad=lambda w, lam: [1.0, 2.0])
    assert isinstance(g.grad(W, LAM), np.ndarray)
    np.testing.assert_array_equal(g.grad_lam(W, LAM), np.zeros(3))
    tb.testing.assert_objective_derivatives(broken(), W, LAM)


@pytest.mark.parametrize("name", list(CALLS))
def test_a_subclass_that_does_not_define_a_method_says_so(name):
    if name == "grad_lam":
        np.testing.assert_array_equal(CALLS[name](tb.Objective()), np.zeros(3))
        return
    with pytest.raises(TypeError, match=f"Objective has no {name}"):
        CALLS[name](tb.Objective())


def test_sum_and_scale_act_on_every_method():
    a, b = broken(), cases.cosine().on(slice(1, 3))
    total = 2 * (a + 0.5 * b) + np.float64(3) * a
    for name, call in CALLS.items():
        for left, right_a, right_b in zip(
            *(r if isinstance(r, tuple) else (r,) for r in map(call, (total, a, b))), strict=True
        ):
            np.testing.assert_allclose(left, 5 * right_a + right_b, rtol=1e-14, err_msg=name)
    assert [c for c, _ in total.terms] == [2, 1, 3]  # flat


def test_a_sum_knows_its_dtype_and_sizes():
    f32 = cases.softmax(dtype=np.float32)
    assert (f32 + tb.L2Penalty(0.1)).dtype == np.float32
    assert (f32 + cases.softmax()).dtype == np.float64
    assert (tb.L2Penalty(0.1) + tb.L2Penalty(0.2)).dtype is None
    assert (f32 + tb.L2Penalty(0.1)).n_lam == 5
    with pytest.raises(ValueError, match=r"different sizes of lam: \[1, 5\]"):
        f32 + tb.L2Penalty()


@pytest.mark.parametrize("other", [1, None, np.ones(2)])
def test_only_objectives_add(other):
    with pytest.raises(TypeError):
        tb.L2Penalty(0.1) + other


@pytest.mark.parametrize("factor", ["a", "2", None, 1j, np.ones(2), [2.0], tb.L2Penalty(0.1)])
def test_only_numbers_scale(factor):
    g = tb.L2Penalty(0.1)
    for call in (lambda: factor * g, lambda: g * factor, lambda: g / factor):
        with pytest.raises(TypeError):
            call()


@pytest.mark.parametrize("factor", [np.nan, np.inf, -np.inf])
def test_only_finite_numbers_scale(factor):
    for call in (lambda g: factor * g, lambda g: g / factor):
        with pytest.raises(ValueError, match=r"scales by a finite number, got -?(nan|inf)"):
            call(tb.L2Penalty(0.1))


def test_division_by_zero_is_an_error():
    with pytest.raises(ZeroDivisionError):
        tb.L2Penalty(0.1) / 0


def coefficients(g):
    return [c for c, _ in g.terms]


def test_objectives_scale_from_both_sides_and_by_division():
    g = tb.L2Penalty(0.1)
    for half in (0.5 * g, g * 0.5, g / 2, np.float32(0.5) * g, g * np.array(0.5), 1 * g / 2):
        assert half.value(np.ones(1), LAM) == 0.05
    assert coefficients((3 * g + g) / 2) == [1.5, 0.5]
    with pytest.raises(TypeError):
        2 / g


def test_objectives_subtract_and_change_sign():
    g, h = tb.L2Penalty(1.0), tb.L2Penalty(0.25)
    assert (g - h).value(np.ones(2), LAM) == 1.5
    assert (-g).value(np.ones(2), LAM) == -2
    assert coefficients(g - (h - 2 * g)) == [1, -1, 2]
    for other in (1, None, np.ones(2)):
        with pytest.raises(TypeError):
            g - other
        with pytest.raises(TypeError):
            other - g


def test_objectives_sum():
    g, h = tb.L2Penalty(1.0), tb.L2Penalty(0.25)
    assert sum([g, h, h]).value(np.ones(1), LAM) == 1.5
    assert sum([g]) is g
    for other in (1, 0.5, None):
        with pytest.raises(TypeError):
            other + g


@pytest.mark.parametrize("name", [*CALLS, "restrict"])
def test_a_function_that_writes_into_its_argument_is_named(name):
    def writes(w, *rest):
        w[-1] = 0

    calls = {**CALLS, "restrict": lambda g: g.restrict(np.arange(2))}
    before = W.copy(), V.copy(), LAM.copy()
    with pytest.raises(ValueError, match=f"^{name} wrote into an array that it may only read"):
        calls[name](broken(**{name: writes}))
    for x, kept in zip((W, V, LAM), before, strict=True):
        np.testing.assert_array_equal(x, kept)


def test_an_error_of_a_function_s_own_comes_out_as_it_is():
    def fails(w, lam):
        raise ValueError("as it should")

    with pytest.raises(ValueError, match=r"^as it should$"):
        broken(grad=fails).grad(W, LAM)


def test_a_function_may_return_its_argument_or_one_array_again_and_again():
    buffers = {name: np.zeros(2) for name in ("grad", "hessian", "mixed")}

    def into(name, value):
        buffers[name][...] = value
        return buffers[name]

    reused = tb.Objective.from_functions(
        value=lambda w, lam: 0.5 * (w - lam) @ (w - lam),
        grad=lambda w, lam: into("grad", w - lam),
        grad_vjp=lambda w, lam, v: (v, into("mixed", -v)),
        grad_lam=lambda w, lam: into("grad", lam - w),
    )
    fresh = tb.Quadratic(np.ones(2))
    lam = np.array([0.3, -0.2])
    for make in (tb.GradientDescent, tb.HeavyBall, tb.AdamTransition):
        r, right = (
            tb.RMD()(tb.BilevelProblem(make(g + 0.5 * g.on(slice(2)), 0.1, V), g, T=4), lam)
            for g in (reused, fresh)
        )
        np.testing.assert_array_equal(r.w, right.w)
        np.testing.assert_array_equal(r.grad, right.grad)
        assert not any(np.shares_memory(r.grad, x) for x in buffers.values())


def test_examples_are_known_to_whoever_has_them():
    loss, ridge, functions = cases.softmax(), tb.L2Penalty(0.1), cases.cosine()
    for g in (loss, loss + ridge, ridge - 2 * loss, loss.on(slice(1, 6)), cases.cosine_of_rows()):
        assert g.restrictable
    for g in (ridge, functions, 2 * ridge + ridge, ridge.on(slice(1)), functions + ridge):
        assert not g.restrictable
        with pytest.raises(TypeError, match=r"has no restrict"):
            g.restrict([0])


def test_a_term_without_examples_stays_whole():
    ridge, w, lam = tb.L2Penalty(0.1), np.ones(6), np.ones(5)
    loss = cases.softmax()
    found = (loss + ridge).restrict([1, 2]).value(w, lam)
    assert found == loss.restrict([1, 2]).value(w, lam) + ridge.value(w, lam)


def test_restrict_must_return_an_objective():
    with pytest.raises(TypeError, match="restrict must return an Objective, got 3"):
        broken(restrict=lambda index: 3).restrict([0])


@pytest.mark.parametrize(
    "block", [slice(1, 3), slice(1, None), slice(-2, None), slice(-2, 3), slice(2, 0, -1)]
)
def test_on_a_block_sees_and_returns_only_that_block(block):
    g, part = tb.Quadratic(G), LAM[block]
    on = g.on(block)
    assert on.value(W, LAM) == g.value(W, part)
    expected = np.zeros(3)
    expected[block] = g.grad_vjp(W, part, V)[1]
    np.testing.assert_array_equal(on.grad_vjp(W, LAM, V)[1], expected)
    tb.testing.assert_objective_derivatives(on, W, LAM)


@pytest.mark.parametrize("block", [slice(0, 1), slice(0, 3), slice(0, 4, 4), slice(2, 2)])
def test_a_block_of_the_wrong_size_is_refused_when_built(block):
    with pytest.raises(ValueError, match="the objective sees 2 entries of lam, slice"):
        tb.Quadratic(G).on(block)


@pytest.mark.parametrize("block", [slice(None), slice(2, None), slice(-1, None), slice(5, 7)])
def test_a_block_that_does_not_fit_lam_is_refused(block):
    for call in CALLS.values():
        with pytest.raises(ValueError, match=r"of lam must have 2 entries, got \d of 3"):
            call(tb.Quadratic(G).on(block))
    with pytest.raises(ValueError, match="of lam must have 2 entries, got 0 of 3"):
        broken().on(slice(5, 7)).value(W, LAM)


def test_a_block_must_be_a_slice():
    with pytest.raises(TypeError, match=r"block must be a slice, .* got 1"):
        tb.Quadratic(G).on(1)


class InPlace(tb.Objective):
    """½‖w − λ‖², whose product of that name writes into its first argument."""

    def __init__(self, name):
        self.name = name

    def _touch(self, name, w):
        if name == self.name:
            w[-1] = 0

    def value(self, w, lam):
        self._touch("value", w)
        return 0.5 * float((w - lam) @ (w - lam))

    def grad(self, w, lam):
        self._touch("grad", w)
        return w - lam

    def grad_lam(self, w, lam):
        self._touch("grad_lam", w)
        return lam - w

    def grad_vjp(self, w, lam, v):
        self._touch("grad_vjp", v)
        return v, -v

    def grad_jvp(self, w, lam, dw, dlam):
        self._touch("grad_jvp", dlam)
        return dw - dlam


@pytest.mark.parametrize("name", ["value", "grad", "grad_lam", "grad_vjp", "grad_jvp"])
def test_a_class_of_the_users_cannot_write_into_its_arguments_either(name):
    descent = tb.GradientDescent(InPlace(name), 0.1, initial=np.ones(2))
    problem = tb.BilevelProblem(descent, InPlace(name), T=3, lam0=[0.3, 0.4])
    method = tb.FMD() if name == "grad_jvp" else tb.RMD()
    with pytest.raises(ValueError, match=rf"^InPlace.{name} wrote into an array that it may only"):
        method(problem)
    clean = replace(
        problem, upper=InPlace(None), transition=tb.GradientDescent(InPlace(None), 0.1, [1, 1])
    )
    plain = tb.BilevelProblem(
        tb.GradientDescent(tb.Quadratic([1.0, 1.0]), 0.1, [1, 1]), tb.Quadratic([1.0, 1.0]), T=3
    )
    np.testing.assert_allclose(method(clean).grad, method(plain, [0.3, 0.4]).grad, rtol=1e-15)


def test_an_objective_prints_as_a_line():
    loss = tb.SoftmaxRegression(np.ones((4, 3)), [0, 1, 1, 0])
    assert repr(loss + 0.5 * tb.L2Penalty(0.1)) == f"1 {loss!r} + 0.5 L2Penalty()"
    assert repr(tb.Quadratic([1.0, 2.0])) == "Quadratic(G (2,))"
    assert "X (4, 3)" in repr(loss)
