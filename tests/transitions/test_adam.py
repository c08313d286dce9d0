import cases
import numpy as np
import pytest

import tinybilevel as tb

G = tb.Quadratic([1.0, 0.5])
LAM, START = np.array([0.5, 0.1]), np.array([1.0, -2.0])


def test_as_kingma_and_ba_write_it():
    adam = tb.AdamTransition(G, 0.1, START, beta1=0.8, beta2=0.9, eps=1e-3)
    state, x, m, s = adam.initial(LAM), START, 0, 0
    for t in range(1, 6):
        g = G.grad(x, LAM)
        m, s = 0.8 * m + 0.2 * g, 0.9 * s + 0.1 * g**2
        x = x - 0.1 * (m / (1 - 0.8**t)) / (np.sqrt(s / (1 - 0.9**t)) + 1e-3)
        state = adam.step(t - 1, state, LAM)
    np.testing.assert_allclose(state, np.concatenate([x, m, s]), rtol=1e-13)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("t", [0, 5])
def test_finite_where_the_second_moment_is_zero(t, dtype):
    # w = λ: the gradient is exactly 0, as it is at every unused feature.
    center = cases.frozen([0.5, -1.0], dtype)
    adam = tb.AdamTransition(tb.Quadratic(np.array([1.0, 0.5], dtype)), 0.1, center)
    state = adam.initial(center)
    np.testing.assert_array_equal(adam.step(t, state, center), state)
    alpha = cases.frozen(np.arange(1.0, 7.0), dtype)
    A, B = adam.vjp(t, state, center, alpha)
    moved = adam.jvp(t, state, center, alpha, center)
    assert np.isfinite(np.concatenate([A, B, moved])).all()
    assert A.dtype == B.dtype == moved.dtype == dtype


def test_the_derivative_at_zero_is_that_of_the_limit():
    # With ŝ = 0 to first order, w' = w − γ m̂/ε is what remains.
    eps, t = 0.5, 2
    adam = tb.AdamTransition(G, 0.1, START, eps=eps)
    state = np.concatenate([LAM, np.zeros(4)])
    rng = np.random.default_rng(0)
    dw, dlam, alpha = rng.standard_normal(6), rng.standard_normal(2), rng.standard_normal(6)
    dw[4:] = 0  # √ŝ has no derivative along ŝ itself
    A, B = adam.vjp(t, state, LAM, alpha)
    moved = adam.jvp(t, state, LAM, dw, dlam)
    np.testing.assert_allclose(moved @ alpha, dw @ A + dlam @ B, rtol=1e-13)
    h = 1e-6
    ahead = adam.step(t, state + h * dw, LAM + h * dlam)
    np.testing.assert_allclose((ahead - state) / h, moved, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e12])
def test_finite_at_extreme_gradients(scale):
    adam = tb.AdamTransition(G, 0.1, START)
    state = np.concatenate([LAM + scale * np.ones(2), np.zeros(4)])
    for part in cases.arrays(adam.vjp(0, state, LAM, np.ones(6))):
        assert np.isfinite(part).all()


def test_no_memory_of_the_gradients_is_allowed():
    adam = tb.AdamTransition(G, 0.1, START, beta1=0.0, beta2=0.0, eps=0.1)
    tb.testing.assert_transition_adjoints(adam, cases.state(adam)[[0, 1, 6, 7, 12, 13]], LAM)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (dict(beta1=1.0), r"beta1 must lie in \[0, 1\), got 1.0"),
        (dict(beta1=-0.1), r"beta1 must lie in \[0, 1\), got -0.1"),
        (dict(beta2=np.nan), r"beta2 must lie in \[0, 1\), got nan"),
        (dict(beta1="0.9"), r"beta1 must lie in \[0, 1\), got '0.9'"),
        (dict(beta2=False), r"beta2 must lie in \[0, 1\), got False"),
        (dict(beta1=np.array([0.9])), r"beta1 must lie in \[0, 1\), got array"),
        (dict(eps=None), "eps must be greater than 0, got None"),
        (dict(eps=0.0), "eps must be greater than 0, got 0.0"),
        (dict(eps=np.nan), "eps must be greater than 0, got nan"),
    ],
)
def test_refused(option, message):
    with pytest.raises(ValueError, match=message):
        tb.AdamTransition(G, 0.1, START, **option)


def test_the_count_of_steps_goes_on_in_the_adjoint():
    state = cases.state(tb.AdamTransition(G, 0.1, START))[[0, 1, 6, 7, 12, 13]]
    adam = tb.AdamTransition(G, 0.1, START)
    cases.assert_same(
        cases.transition_calls(adam.starting_at(START).continuing(state, 4), state, LAM, t=1)
        | {"initial": START},
        cases.transition_calls(adam.starting_at(START), state, LAM, t=5) | {"initial": START},
    )


@pytest.mark.parametrize(
    ("state", "steps", "error", "message"),
    [
        (np.ones(4), 1, ValueError, "state must hold 3 vectors of one size, .* got 4 entries"),
        (np.ones((3, 2)), 1, ValueError, r"state must have 1 dimension.* got shape \(3, 2\)"),
        (np.ones(6), -1, ValueError, "steps_before must be at least 0, got -1"),
        (np.ones(6), 2.0, TypeError, "steps_before must be an integer, got 2.0"),
    ],
)
def test_a_state_that_cannot_be_continued_is_refused(state, steps, error, message):
    with pytest.raises(error, match=message):
        tb.AdamTransition(G, 0.1, START).continuing(state, steps)


def test_a_new_start_counts_its_steps_anew():
    g, lam = tb.Quadratic([1.0, 0.5]), np.ones(2)
    adam = tb.AdamTransition(g, 0.1, initial=[2.0, 2.0])
    later = adam.continuing(adam.initial(lam), 5).starting_at(np.array([2.0, 2.0]))
    found, right = (move.step(0, move.initial(lam), lam) for move in (later, adam))
    np.testing.assert_array_equal(found, right)
