"""Where a transition starts, and transitions from plain functions."""

import cases
import numpy as np
import pytest

import tinybilevel as tb

G = tb.Quadratic([1.0, 0.5])
LAM, W = np.array([0.5, 0.1]), np.array([1.0, -2.0])


def test_the_jvp_of_a_pair_is_formed_from_its_vjp():
    lam, dlam = cases.hyperparameters(), cases.normal(1, cases.LAYOUT.size)
    pair, triple = (
        tb.HeavyBall(cases.lower(), 0.1, cases.STARTS[name]) for name in ("pair", "triple")
    )
    np.testing.assert_allclose(
        pair.initial_jvp(lam, dlam), triple.initial_jvp(lam, dlam), rtol=1e-14
    )


def test_the_caller_may_change_the_array_afterwards():
    w = W.copy()
    descent = tb.GradientDescent(G, 0.1, w)
    w[:] = np.nan
    np.testing.assert_array_equal(descent.initial(LAM), W)


@pytest.mark.parametrize(
    ("initial", "error", "message"),
    [
        (W > 0, TypeError, "initial must be float32 or float64, got dtype bool"),
        (W.astype(np.float16), TypeError, "initial must be .* float16"),
        (W + 1j, TypeError, "initial must be .* complex128"),
        (None, TypeError, "initial must be"),
        ([W], ValueError, r"initial must have 1 dimension.* got shape \(1, 2\)"),
        (1.0, ValueError, r"initial must have 1 dimension.* got shape \(\)"),
        ([np.nan, 0.0], ValueError, "initial must be finite, got 1 NaN or inf"),
        ((), ValueError, r"initial must be \(Ξ_0, vjp\)"),
        ((np.sin,), ValueError, r"initial must be \(Ξ_0, vjp\)"),
        ((np.sin,) * 4, ValueError, r"initial must be \(Ξ_0, vjp\)"),
        (np.sin, TypeError, r"initial must come with its products: \(Ξ_0, vjp\)"),
    ],
)
def test_initial_refused(initial, error, message):
    with pytest.raises(error, match=message):
        tb.GradientDescent(G, 0.1, initial)


def test_what_the_functions_of_initial_return_is_checked():
    descent = tb.GradientDescent(G, 0.1, (lambda lam: np.ones((2, 1)), lambda lam, a: np.ones(3)))
    with pytest.raises(ValueError, match="initial must have 1 dimension"):
        descent.initial(LAM)
    with pytest.raises(ValueError, match=r"the vjp of initial must have shape \(2,\), got \(3,\)"):
        descent.initial_vjp(LAM, W)


def test_a_block_beyond_lam_is_refused():
    with pytest.raises(ValueError, match="of lam must have 3 entries, got 1 of 2"):
        tb.GradientDescent(G, 0.1, slice(1, 4)).initial(LAM)


@pytest.mark.parametrize(
    ("name", "returned", "error", "message"),
    [
        ("step", np.ones(1), ValueError, r"step must have shape \(2,\), got \(1,\)"),
        ("vjp", W, TypeError, "vjp must return a pair of arrays, got ndarray"),
        ("vjp", (W, 0.0), ValueError, r"vjp\[1\] must have shape \(2,\), got \(\)"),
        ("vjp", (np.ones(3), W), ValueError, r"vjp\[0\] must have shape \(2,\), got \(3,\)"),
        ("jvp", np.ones((1, 2)), ValueError, r"jvp must have shape \(2,\), got \(1, 2\)"),
    ],
)
def test_a_function_that_returns_the_wrong_thing_is_named(name, returned, error, message):
    functions = dict(step=cases.decay, vjp=cases.decay_vjp, jvp=cases.decay_jvp, initial=W)
    broken = tb.Transition.from_functions(**(functions | {name: lambda *_: returned}))
    arguments = {"step": (W, LAM), "vjp": (W, LAM, W), "jvp": (W, LAM, W, LAM)}[name]
    with pytest.raises(error, match=message):
        getattr(broken, name)(0, *arguments)


@pytest.mark.parametrize("name", ["step", "vjp"])
def test_step_and_vjp_are_needed(name):
    functions = dict(step=cases.decay, vjp=cases.decay_vjp, initial=W)
    with pytest.raises(TypeError, match=f"{name} must be a function, got None"):
        tb.Transition.from_functions(**(functions | {name: None}))


@pytest.mark.parametrize(
    ("name", "function", "message"),
    [
        ("step", lambda w, lam: w, r"step must take \(t, w, lam\), got a function of \(w, lam\)"),
        ("vjp", lambda t, w, lam: (w, w), r"vjp must take \(t, w, lam, alpha\), got"),
        ("jvp", lambda t, w, lam, dw: dw, r"jvp must take \(t, w, lam, dw, dlam\), got"),
    ],
)
def test_a_function_of_other_arguments_is_named_before_it_is_called(name, function, message):
    functions = dict(step=cases.decay, vjp=cases.decay_vjp, jvp=cases.decay_jvp, initial=W)
    with pytest.raises(TypeError, match=message):
        tb.Transition.from_functions(**(functions | {name: function}))


def test_a_missing_jvp_is_named():
    transition = tb.Transition.from_functions(cases.decay, cases.decay_vjp, initial=W)
    with pytest.raises(TypeError, match="FunctionTransition must define jvp, which forward mode"):
        transition.jvp(0, W, LAM, W, LAM)


def writing(name):
    """Return the functions of a transition, one of which writes into what it is given."""

    def writes(*arguments):
        arguments[-1][-1] = 0

    functions = dict(
        step=cases.decay,
        vjp=cases.decay_vjp,
        jvp=cases.decay_jvp,
        initial=(cases.tanh_start, cases.tanh_start_vjp, cases.tanh_start_jvp),
    )
    parts = ("initial", "the vjp of initial", "the jvp of initial")
    if name in functions and name != "initial":
        return functions | {name: writes}
    start = [
        writes if part == name else f for part, f in zip(parts, functions["initial"], strict=True)
    ]
    return functions | {"initial": tuple(start)}


@pytest.mark.parametrize(
    "name", ["step", "vjp", "jvp", "initial", "the vjp of initial", "the jvp of initial"]
)
def test_a_function_that_writes_into_its_arguments_is_named(name):
    transition = tb.Transition.from_functions(**writing(name))
    w, lam = np.ones(6), np.full(6, 0.5)
    call = {
        "step": lambda: transition.step(0, w, lam),
        "vjp": lambda: transition.vjp(0, w, lam, w),
        "jvp": lambda: transition.jvp(0, w, lam, w, lam),
        "initial": lambda: transition.initial(lam),
        "the vjp of initial": lambda: transition.initial_vjp(lam, w),
        "the jvp of initial": lambda: transition.initial_jvp(lam, lam),
    }[name]
    with pytest.raises(ValueError, match=f"^{name} wrote into an array that it may only read"):
        call()
    assert w.all()
    assert lam.all()


def test_a_jvp_of_initial_of_the_wrong_shape_is_named():
    start = (cases.tanh_start, cases.tanh_start_vjp, lambda lam, dlam: np.ones(2))
    descent = tb.GradientDescent(cases.lower(), 0.1, start)
    with pytest.raises(ValueError, match=r"the jvp of initial must have shape \(6,\), got \(2,\)"):
        descent.initial_jvp(np.ones(6), np.ones(6))


def test_a_read_only_start_is_kept_as_it_is():
    start = cases.frozen([1.0, 2.0])
    assert tb.GradientDescent(G, 0.1, start).fixed_start() is start


def test_a_class_of_the_users_cannot_write_into_the_state():
    class InPlace(tb.Transition):
        def step(self, t, w, lam):
            w -= 0.1 * (w - lam)
            return w

        def vjp(self, t, w, lam, alpha):
            return 0.9 * alpha, 0.1 * alpha

    problem = tb.BilevelProblem(InPlace(np.ones(2)), tb.L2Penalty(1.0), T=3, lam0=[0.3, 0.4])
    with pytest.raises(
        ValueError, match=r"^InPlace.step wrote into an array that it may only read"
    ):
        tb.RMD()(problem)
