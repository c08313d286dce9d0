"""Every checker passes on what is right, and fails on each way to be wrong.

A sabotage replaces methods of a copy of a right object: name → function of (right object) that
returns the replacement.
"""

import copy

import cases
import numpy as np
import pytest

import tinybilevel as tb

check_objective = tb.testing.assert_objective_derivatives
check_transition = tb.testing.assert_transition_adjoints


def sabotaged(right, **methods):
    wrong = copy.copy(right)
    vars(wrong).update({name: make(right) for name, make in methods.items()})
    return wrong


def scaled(name, *factors):
    """Multiply what a method returns, part by part."""

    def make(right):
        def method(*args, **kwargs):
            result = getattr(right, name)(*args, **kwargs)
            if len(factors) == 1:
                return factors[0] * result
            return tuple(c * part for c, part in zip(factors, result, strict=True))

        return method

    return make


def changed(name, change):
    """Pass what a method returns through `change`."""

    def make(right):
        return lambda *args, **kwargs: change(getattr(right, name)(*args, **kwargs))

    return make


def shift(x):
    return np.roll(x, 1)


def without(name, position):
    """Call a method with one argument, a direction, set to zero."""

    def make(right):
        def method(*args):
            args = list(args)
            args[position] = 0 * args[position]
            return getattr(right, name)(*args)

        return method

    return make


# A lower level with all products nonzero, λ = (5 weights, 1 strength), M = 6.
OBJECTIVE = cases.softmax().on(slice(0, 5)) + 0.1 * tb.L2Penalty().on(slice(5, 6))
W, LAM = cases.normal(1, 6), cases.normal(2, 6)


def first_term(name):
    return lambda g: getattr(g.terms[0][1], name)


OBJECTIVE_SABOTAGES = {
    "value: sign": dict(value=scaled("value", -1)),
    "value: missing ½": dict(value=scaled("value", 2)),
    "value: term dropped": dict(value=first_term("value")),
    "value: nan": dict(value=scaled("value", np.nan)),
    "grad: sign": dict(grad=scaled("grad", -1)),
    "grad: missing ½": dict(grad=scaled("grad", 2)),
    "grad: term dropped": dict(grad=first_term("grad")),
    "grad: index shifted": dict(grad=changed("grad", shift)),
    "grad: nan": dict(grad=scaled("grad", np.nan)),
    "vjp: Hessian sign": dict(grad_vjp=scaled("grad_vjp", -1, 1)),
    "vjp: Hessian missing ½": dict(grad_vjp=scaled("grad_vjp", 2, 1)),
    "vjp: Hessian index shifted": dict(grad_vjp=changed("grad_vjp", lambda r: (shift(r[0]), r[1]))),
    "vjp: mixed sign": dict(grad_vjp=scaled("grad_vjp", 1, -1)),
    "vjp: mixed zero": dict(grad_vjp=scaled("grad_vjp", 1, 0)),
    "vjp: mixed index shifted": dict(grad_vjp=changed("grad_vjp", lambda r: (r[0], shift(r[1])))),
    "vjp: mixed nan": dict(grad_vjp=scaled("grad_vjp", 1, np.nan)),
    "vjp: term dropped": dict(grad_vjp=first_term("grad_vjp")),
    "vjp: parts confused": dict(grad_vjp=changed("grad_vjp", lambda r: r[::-1])),
    "jvp: sign": dict(grad_jvp=scaled("grad_jvp", -1)),
    "jvp: dlam ignored": dict(grad_jvp=without("grad_jvp", 3)),
    "jvp: dw ignored": dict(grad_jvp=without("grad_jvp", 2)),
    "jvp: term dropped": dict(grad_jvp=first_term("grad_jvp")),
    "jvp: index shifted": dict(grad_jvp=changed("grad_jvp", shift)),
    # wrong in both directions alike, so that the dot tests pass
    "both: mixed zero": dict(grad_vjp=scaled("grad_vjp", 1, 0), grad_jvp=without("grad_jvp", 3)),
    "both: Hessian zero": dict(grad_vjp=scaled("grad_vjp", 0, 1), grad_jvp=without("grad_jvp", 2)),
    "both: missing ½": dict(grad_vjp=scaled("grad_vjp", 2, 2), grad_jvp=scaled("grad_jvp", 2)),
    "both: sign": dict(grad_vjp=scaled("grad_vjp", -1, -1), grad_jvp=scaled("grad_jvp", -1)),
    "both: term dropped": dict(grad_vjp=first_term("grad_vjp"), grad_jvp=first_term("grad_jvp")),
    "all but value: missing ½": dict(
        grad=scaled("grad", 2),
        grad_vjp=scaled("grad_vjp", 2, 2),
        grad_jvp=scaled("grad_jvp", 2),
    ),
    "all but value: sign": dict(
        grad=scaled("grad", -1),
        grad_vjp=scaled("grad_vjp", -1, -1),
        grad_jvp=scaled("grad_jvp", -1),
    ),
}


def test_right_objective():
    found = check_objective(OBJECTIVE, W, LAM)
    assert max(found[key] for key in ("symmetry", "hessian", "mixed")) <= 1e-12
    assert all(abs(found[key] - 2) < 0.1 for key in ("grad_slope", "grad_jvp_slope"))
    assert abs(found["hessian_slope"] - 3) < 0.1


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", OBJECTIVE_SABOTAGES)
def test_wrong_objective(name, seed):
    wrong = sabotaged(OBJECTIVE, **OBJECTIVE_SABOTAGES[name])
    with pytest.raises(AssertionError, match=r"Sum: (adjoint and forward|Taylor slopes)"):
        check_objective(wrong, W, LAM, seed=seed)


def test_transpose_confused():
    G = cases.normal(3, 4, 4)  # a "Hessian" that is not symmetric
    for grad_vjp, key in (
        (lambda w, lam, v: (G.T @ v, 0 * lam), "symmetry"),
        (lambda w, lam, v: (G @ v, 0 * lam), "hessian"),
    ):
        wrong = tb.Objective.from_functions(
            value=lambda w, lam: 0.5 * w @ G @ w,
            grad=lambda w, lam: G @ w,
            grad_vjp=grad_vjp,
            grad_jvp=lambda w, lam, dw, dlam: G @ dw,
        )
        with pytest.raises(AssertionError, match=f"disagree by .*{key}"):
            check_objective(wrong, cases.normal(4, 4), cases.normal(5, 2))


UPPER, UPPER_W = cases.cosine(), cases.normal(1, 3)
UPPER_SABOTAGES = {
    "value: missing ½": dict(value=scaled("value", 2)),
    "grad: sign": dict(grad=scaled("grad", -1)),
    "grad: missing ½": dict(grad=scaled("grad", 2)),
    "grad: index shifted": dict(grad=changed("grad", shift)),
    "grad: nan": dict(grad=scaled("grad", np.nan)),
    "grad_lam: sign": dict(grad_lam=scaled("grad_lam", -1)),
    "grad_lam: dropped": dict(grad_lam=scaled("grad_lam", 0)),
    "grad_lam: missing ½": dict(grad_lam=scaled("grad_lam", 2)),
    "grad_lam: index shifted": dict(grad_lam=changed("grad_lam", shift)),
    "both confused": dict(grad=lambda f: f.grad_lam, grad_lam=lambda f: f.grad),
}


def test_right_upper_objective():
    found = tb.testing.assert_upper_gradients(UPPER, UPPER_W, cases.normal(2, 3))
    assert all(abs(slope - 2) < 0.1 for slope in found.values())


@pytest.mark.parametrize("name", UPPER_SABOTAGES)
def test_wrong_upper_objective(name):
    wrong = sabotaged(UPPER, **UPPER_SABOTAGES[name])
    with pytest.raises(AssertionError, match=r"FunctionObjective: Taylor slopes"):
        tb.testing.assert_upper_gradients(wrong, UPPER_W, cases.normal(2, 3))


class MapOf(tb.HyperMap):
    """A map from three functions, to be got wrong."""

    def __init__(self, call, vjp, jvp):
        self.call, self.vjp, self.jvp = call, vjp, jvp

    def __call__(self, lam):
        return self.call(lam)


A = cases.normal(4, 3, 3)


def right_map(x):
    return A @ np.exp(x)


def right_vjp(x, h):
    return np.exp(x) * (h @ A)


def right_jvp(x, d):
    return A @ (np.exp(x) * d)


MAPS = {  # vjp, jvp
    "vjp: transpose confused": (lambda x, h: np.exp(x) * (A @ h), right_jvp),
    "vjp: sign": (lambda x, h: -right_vjp(x, h), right_jvp),
    "vjp: missing ½": (lambda x, h: 2 * right_vjp(x, h), right_jvp),
    "vjp: inner derivative dropped": (lambda x, h: h @ A, right_jvp),
    "vjp: order confused": (lambda x, h: (np.exp(x) * h) @ A, right_jvp),
    "vjp: index shifted": (lambda x, h: shift(right_vjp(x, h)), right_jvp),
    "vjp: nan": (lambda x, h: np.nan * h, right_jvp),
    "jvp: sign": (right_vjp, lambda x, d: -right_jvp(x, d)),
    "both: zero": (lambda x, h: 0 * h, lambda x, d: 0 * d),
    "both: missing ½": (lambda x, h: 2 * right_vjp(x, h), lambda x, d: 2 * right_jvp(x, d)),
    "both: inner derivative dropped": (lambda x, h: h @ A, lambda x, d: A @ d),
    "both: nan where zero is due": (lambda x, h: np.nan * h, lambda x, d: 0 * d),
}


def test_right_map():
    phi = MapOf(right_map, right_vjp, right_jvp)
    found = tb.testing.assert_map_adjoints(phi, cases.normal(1, 3))
    assert found["vjp"] <= 1e-12
    assert abs(found["jvp_slope"] - 2) < 0.1


@pytest.mark.parametrize("name", MAPS)
def test_wrong_map(name):
    with pytest.raises(AssertionError, match=r"MapOf: (adjoint and forward|Taylor slopes)"):
        tb.testing.assert_map_adjoints(MapOf(right_map, *MAPS[name]), cases.normal(1, 3))


# All that a transition may depend on: a buffer, learned coefficients, batches, Ξ_0(λ).
TRANSITION = tb.Nesterov(
    cases.lower(),
    cases.STEP_SIZES["per-block"],
    initial=cases.LAYOUT["w0"],
    momentum=cases.LAYOUT["momentum"],
    batches=cases.BATCHES,
)
STATE, THETA = cases.state(TRANSITION), cases.hyperparameters()


def earlier(name):
    """Call a method with t − 1: a stale batch, a schedule read one late."""
    return lambda right: lambda t, *args: getattr(right, name)(t - 1, *args)


def halves_swapped(x):
    return np.concatenate([x[6:], x[:6]])


def first_half(x):
    return np.where(np.arange(12) < 6, x, 0)


def of_A(change):
    return changed("vjp", lambda r: (change(r[0]), r[1]))


def of_B(change):
    return changed("vjp", lambda r: (r[0], change(r[1])))


def vjp_with(A):
    """Return a vjp whose first part is A(right, t, w, lam, alpha)."""
    return lambda right: lambda t, w, lam, a: (A(right, t, w, lam, a), right.vjp(t, w, lam, a)[1])


def with_last(name, change):
    """Pass a method's last argument through `change`."""
    return lambda right: lambda *args: getattr(right, name)(*args[:-1], change(args[-1]))


def both_initial(c):
    return {name: scaled(name, c) for name in ("initial_vjp", "initial_jvp")}


def drop(block):
    """Set a block of θ's space to zero."""

    def change(h):
        h = h.copy()
        h[cases.LAYOUT[block]] = 0
        return h

    return change


TRANSITION_SABOTAGES = {
    "A: sign": dict(vjp=of_A(np.negative)),
    "A: missing ½": dict(vjp=of_A(lambda x: 2 * x)),
    "A: identity": dict(vjp=vjp_with(lambda right, t, w, lam, a: a)),
    "A: index shifted": dict(vjp=of_A(shift)),
    "A: momentum's cotangent lost": dict(vjp=of_A(first_half)),
    "A: wrong state block": dict(vjp=of_A(halves_swapped)),
    "A: transposed": dict(
        vjp=vjp_with(lambda right, t, w, lam, a: right.jvp(t, w, lam, a, 0 * lam))
    ),
    "A: nan": dict(vjp=scaled("vjp", np.nan, 1)),
    "α: momentum's cotangent not seen": dict(vjp=with_last("vjp", first_half)),
    "B: sign": dict(vjp=of_B(np.negative)),
    "B: zero": dict(vjp=of_B(lambda h: 0 * h)),
    "B: index shifted": dict(vjp=of_B(shift)),
    "B: weights dropped": dict(vjp=of_B(drop("weights"))),
    "B: penalty dropped": dict(vjp=of_B(drop("l2"))),
    "B: step sizes dropped": dict(vjp=of_B(drop("steps"))),
    "B: momentum dropped": dict(vjp=of_B(drop("momentum"))),
    "B: nan": dict(vjp=scaled("vjp", 1, np.nan)),
    "jvp: sign": dict(jvp=scaled("jvp", -1)),
    "jvp: dlam ignored": dict(jvp=without("jvp", 4)),
    "jvp: dw ignored": dict(jvp=without("jvp", 3)),
    "jvp: wrong state block": dict(jvp=changed("jvp", halves_swapped)),
    "vjp: stale batch": dict(vjp=earlier("vjp")),
    "jvp: stale batch": dict(jvp=earlier("jvp")),
    "both: stale batch": dict(vjp=earlier("vjp"), jvp=earlier("jvp")),
    "step: stale batch": dict(step=earlier("step")),
    "both: B zero": dict(vjp=of_B(lambda h: 0 * h), jvp=without("jvp", 4)),
    "both: sign": dict(vjp=scaled("vjp", -1, -1), jvp=scaled("jvp", -1)),
    "step: sign": dict(step=scaled("step", -1)),
    "B0: sign": dict(initial_vjp=scaled("initial_vjp", -1)),
    "B0: zero": dict(initial_vjp=scaled("initial_vjp", 0)),
    "B0: index shifted": dict(initial_vjp=changed("initial_vjp", shift)),
    "B0: nan": dict(initial_vjp=scaled("initial_vjp", np.nan)),
    "B0: wrong state block": dict(initial_vjp=with_last("initial_vjp", halves_swapped)),
    "B0: jvp sign": dict(initial_jvp=scaled("initial_jvp", -1)),
    "B0: jvp wrong state block": dict(initial_jvp=changed("initial_jvp", halves_swapped)),
    "B0: both zero": both_initial(0),
    "B0: both missing ½": both_initial(2),
    "readout: wrong state block": dict(readout_vjp=changed("readout_vjp", halves_swapped)),
    "readout: sign": dict(readout_vjp=scaled("readout_vjp", -1)),
}


def test_right_transition():
    for t in range(4):
        found = check_transition(TRANSITION, STATE, THETA, t=t)
        assert max(found[key] for key in ("A", "B", "B0", "readout")) <= 1e-12
        assert abs(found["step_slope"] - 2) < 0.1
        assert found["initial_slope"] == np.inf  # w_0 is a block of λ


@pytest.mark.parametrize("t", [1, 2])
@pytest.mark.parametrize("name", TRANSITION_SABOTAGES)
def test_wrong_transition(name, t):
    wrong = sabotaged(TRANSITION, **TRANSITION_SABOTAGES[name])
    with pytest.raises(AssertionError, match=r"Nesterov: (adjoint|Taylor slopes)"):
        check_transition(wrong, STATE, THETA, t=t)


def test_adjoint_that_is_nan_where_the_second_moment_is_zero():
    def vjp(right):
        return lambda t, w, lam, a: tuple(p / w[4] * w[4] for p in right.vjp(t, w, lam, a))

    adam = tb.AdamTransition(tb.Quadratic([1.0, 0.5]), 0.1, np.ones(2))
    lam = np.array([0.5, 0.1])
    with (
        np.errstate(divide="ignore", invalid="ignore"),
        pytest.raises(AssertionError, match="AdamTransition: adjoint and forward"),
    ):
        check_transition(sabotaged(adam, vjp=vjp), np.concatenate([lam, np.zeros(4)]), lam)


@pytest.mark.parametrize("argument", [1, 2, 3])
def test_a_method_that_writes_into_its_inputs_is_found(argument):
    def vjp(right):
        def method(*args):
            args[argument][:] = 1.0
            return right.vjp(*args)

        return method

    with pytest.raises(ValueError, match="read-only"):
        check_transition(sabotaged(TRANSITION, vjp=vjp), STATE, THETA)


@pytest.mark.parametrize("point", [([[1.0]], [1.0]), ([np.nan], [1.0]), ([1.0], [np.inf])])
def test_the_point_is_checked(point):
    with pytest.raises(ValueError, match=r"(w|lam) must"):
        check_objective(tb.Quadratic([1.0]), *point)


# What is not written out


def reverse_only(**changes):
    """Return a lower level without `grad_jvp`: ½‖w‖⁴/2 − λᵀw², neither product zero."""
    functions = dict(
        value=lambda w, lam: (w @ w) ** 2 / 4 - float(lam @ w**2),
        grad=lambda w, lam: (w @ w) * w - 2 * lam * w,
        grad_vjp=lambda w, lam, v: (
            (w @ w) * v + 2 * (w @ v) * w - 2 * lam * v,
            -2 * w * v,
        ),
    )
    return tb.Objective.from_functions(**functions | changes)


def test_an_objective_for_reverse_mode_alone():
    w, lam = cases.normal(1, 3), cases.normal(2, 3)
    found = check_objective(reverse_only(), w, lam)
    assert found["symmetry"] <= 1e-12
    assert all(
        abs(found[k] - 2) < 0.1 or found[k] == np.inf for k in ("grad_vjp_slope", "mixed_slope")
    )
    assert found.unchecked == (
        "grad_jvp is not written out: FMD cannot run, nor a measurement of more than 100 variables",
    )
    assert "not checked: grad_jvp" in repr(found)
    assert check_objective(OBJECTIVE, W, LAM).unchecked == ()


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("part", [0, 1])
@pytest.mark.parametrize("change", [np.negative, lambda x: 2 * x, lambda x: 0 * x, shift])
def test_a_wrong_vjp_is_seen_without_a_jvp(part, change, seed):
    def wrong(w, lam, v):
        both = list(reverse_only().grad_vjp(w, lam, v))
        both[part] = change(both[part])
        return tuple(both)

    with pytest.raises(AssertionError, match=r"FunctionObjective: (adjoint|Taylor slopes)"):
        check_objective(
            reverse_only(grad_vjp=wrong), cases.normal(1, 3), cases.normal(2, 3), seed=seed
        )


def test_an_objective_for_forward_mode_alone():
    right = reverse_only()

    def grad_jvp(w, lam, dw, dlam):
        return right.grad_vjp(w, lam, dw)[0] - 2 * w * dlam

    g = reverse_only(grad_vjp=None, grad_jvp=grad_jvp)
    found = check_objective(g, cases.normal(1, 3), cases.normal(2, 3))
    assert found.unchecked[0].startswith("grad_vjp is not written out: reverse mode")
    assert abs(found["hessian_slope"] - 3) < 0.1
    wrong = reverse_only(grad_vjp=None, grad_jvp=lambda *a: 2 * grad_jvp(*a))
    with pytest.raises(AssertionError, match=r"grad_jvp_slope: .* a factor of 2 is wrong"):
        check_objective(wrong, cases.normal(1, 3), cases.normal(2, 3))


def test_nothing_to_check_is_no_pass():
    bare = tb.Objective.from_functions(lambda w, lam: 0.0, lambda w, lam: 0 * w)
    with pytest.raises(TypeError, match="has neither grad_vjp nor grad_jvp to check"):
        check_objective(bare, [1.0], [1.0])


def decay(**changes):
    functions = dict(
        step=lambda t, w, lam: lam * np.sin(w),
        vjp=lambda t, w, lam, alpha: (lam * np.cos(w) * alpha, np.sin(w) * alpha),
    )
    return tb.Transition.from_functions(**functions | changes, initial=np.ones(3))


def test_a_transition_for_reverse_mode_alone():
    w, lam = cases.normal(1, 3), cases.normal(2, 3)
    found = check_transition(decay(), w, lam)
    assert found.unchecked[0].startswith("jvp is not written out: FMD cannot run")
    assert abs(found["A_slope"] - 2) < 0.1
    assert found["B_slope"] == np.inf  # linear in λ
    for part, key in ((0, "A_slope"), (1, "B_slope")):

        def wrong(t, w, lam, alpha, part=part):
            both = list(decay().vjp(t, w, lam, alpha))
            both[part] = -both[part]
            return tuple(both)

        with pytest.raises(AssertionError, match=f"{key}: .* a sign is wrong"):
            check_transition(decay(vjp=wrong), w, lam)


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (np.negative, "a sign is wrong in one of them"),
        (lambda x: 2 * x, "a factor of ½ is wrong in one of them"),
        (lambda x: 0 * x, "one is 0; a term left out"),
        (lambda x: np.nan * x, "not finite"),
        (shift, "a term, an index or a transpose"),
    ],
)
def test_a_failure_names_the_product_the_numbers_and_a_cause(change, cause):
    wrong = sabotaged(
        OBJECTIVE, grad_vjp=changed("grad_vjp", lambda both: (both[0], change(both[1])))
    )
    with pytest.raises(
        AssertionError,
        match=rf"mixed: along grad_jvp\(0, dlam\) -?\d.*, back along grad_vjp\[1\] .*: {cause}",
    ):
        check_objective(wrong, W, LAM)


def test_a_missing_grad_lam_is_named():
    f = tb.Objective.from_functions(
        value=lambda w, lam: float(w @ w + lam @ lam), grad=lambda w, lam: 2 * w
    )
    with pytest.raises(
        AssertionError, match=r"differences of value show .*, grad_lam says 0: one is 0"
    ):
        tb.testing.assert_upper_gradients(f, [1.0, 2.0], [0.5, -3.0])


def test_a_slope_that_is_all_but_right_may_be_the_point_s_fault():
    def grad(w, lam):
        return 2.85 * np.sign(w) * abs(w) ** 1.85  # of Hölder exponent 0.85 at 0, and right

    g = tb.Objective.from_functions(
        value=lambda w, lam: float((abs(w) ** 2.85).sum()),
        grad=grad,
        grad_jvp=lambda w, lam, dw, dlam: 2.85 * 1.85 * abs(w) ** 0.85 * dw,
    )
    with pytest.raises(AssertionError, match="the point is too wild for a slope: try one nearer"):
        check_objective(g, np.zeros(2), np.zeros(1))
    assert check_objective(g, np.ones(2), np.zeros(1))


def test_a_state_without_its_buffers_is_refused():
    ball, whole = tb.HeavyBall(tb.L2Penalty(1.0), 0.1, momentum=0.5, initial=np.ones(3)), np.ones(6)
    lam = np.zeros(1)
    assert tb.testing.assert_transition_adjoints(ball, whole, lam)
    for w in (np.ones(3), np.ones(12)):
        with pytest.raises(ValueError, match=rf"w must be a whole state.* 6 entries.*got {w.size}"):
            tb.testing.assert_transition_adjoints(ball, w, lam)
