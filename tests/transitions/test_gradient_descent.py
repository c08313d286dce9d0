import cases
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tinybilevel as tb

G = tb.Quadratic([1.0, 0.5, 2.0])
W, LAM = np.array([1.0, -2.0, 0.5]), np.array([0.5, 0.1, -1.0])


@settings(deadline=None, derandomize=True, max_examples=25)
@given(sizes=st.lists(st.integers(1, 4), min_size=1, max_size=4), seed=st.integers(0, 99))
def test_one_learned_step_size_per_block(sizes, seed):
    M, n = sum(sizes), len(sizes)
    layout = tb.Layout(center=M, steps=n)
    descent = tb.GradientDescent(
        tb.Quadratic(cases.normal(seed, M, M)).on(layout["center"]),
        tb.Learned(layout["steps"], sizes=sizes),
        initial=layout["center"],
    )
    w, lam = cases.normal(seed + 1, M), cases.normal(seed + 2, M + n)
    gamma = np.concatenate([[c] * size for c, size in zip(lam[M:], sizes, strict=True)])
    expected = w - gamma * descent.objective.grad(w, lam)
    np.testing.assert_allclose(descent.step(0, w, lam), expected, rtol=1e-14)
    tb.testing.assert_transition_adjoints(descent, w, lam, seed=seed)


@pytest.mark.parametrize("gamma", [[0.3, 0.2, 0.1], (0.3, 0.2, 0.1), np.array([0.3, 0.2, 0.1])])
def test_a_schedule_is_read_step_by_step(gamma):
    descent = tb.GradientDescent(G, gamma, W)
    for t, c in enumerate([0.3, 0.2, 0.1]):
        expected = W - c * G.grad(W, LAM)
        np.testing.assert_array_equal(descent.step(t, W, LAM), expected)
    with pytest.raises(ValueError, match="step_size has 3 entries; step t=3 needs one more"):
        descent.step(3, W, LAM)


@pytest.mark.parametrize(
    ("step_size", "error", "message"),
    [
        (-0.1, ValueError, "step_size must be finite and at least 0, got -0.1"),
        (np.nan, ValueError, "step_size must be finite and at least 0, got nan"),
        (np.inf, ValueError, "step_size must be finite and at least 0, got inf"),
        ([0.1, -0.2], ValueError, "step_size must be finite and at least 0, got -0.2"),
        (True, TypeError, "step_size must be a number, a sequence, .* got True"),
        (None, TypeError, "step_size must be a number, a sequence, .* got None"),
        ("0.1", TypeError, "step_size must be a number, a sequence, .* got '0.1'"),
        (1j, TypeError, "step_size must be a number, a sequence, .* got 1j"),
        (np.ones((2, 2)), TypeError, "step_size must be a number, a sequence"),
    ],
)
def test_bad_step_sizes(step_size, error, message):
    with pytest.raises(error, match=message):
        tb.GradientDescent(G, step_size, W)


@pytest.mark.parametrize("c", [-1.0, np.nan, np.inf])
def test_a_callable_is_held_to_the_same_rule(c):
    descent = tb.GradientDescent(G, lambda t: c if t else 0.1, W)
    descent.step(0, W, LAM)
    with pytest.raises(ValueError, match=f"step_size must be finite and at least 0, got {c}"):
        descent.step(1, W, LAM)


def test_objective_must_be_one():
    with pytest.raises(TypeError, match="objective must be an Objective, got 3"):
        tb.GradientDescent(3, 0.1, W)


@pytest.mark.parametrize("g", [cases.cosine(), tb.Quadratic(np.ones(3)), 2 * tb.L2Penalty(1.0)])
@pytest.mark.parametrize("make", [tb.GradientDescent, tb.AdamTransition, tb.HeavyBall])
def test_batches_need_an_objective_over_examples(make, g):
    with pytest.raises(TypeError, match=r"batches need an objective over examples, and .* has no"):
        make(g, 0.1, np.ones(3), batches=[[0]])


def test_functions_with_a_restrict_follow_their_batches():
    descent = tb.GradientDescent(
        cases.cosine_of_rows(), 0.1, np.ones(3), batches=np.array([[0, 0], [2, 1]])
    )
    w, lam = np.ones(3), np.zeros(3)
    np.testing.assert_array_equal(descent.step(0, w, lam), w)  # row 0 counts for nothing
    np.testing.assert_allclose(descent.step(1, w, lam), w + 0.15 * np.sin(1), rtol=1e-15)
