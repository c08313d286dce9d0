import cases
import numpy as np
import pytest

import tinybilevel as tb

G = tb.Quadratic([1.0, 0.5])
LAM, START = np.array([0.5, 0.1]), np.array([1.0, -2.0])


def run(transition, T):
    w = transition.initial(LAM)
    for t in range(T):
        w = transition.step(t, w, LAM)
    return w


def test_heavy_ball_as_polyak_writes_it():
    x, before = START, START
    for _ in range(5):
        x, before = x - 0.1 * G.grad(x, LAM) + 0.9 * (x - before), x
    np.testing.assert_allclose(run(tb.HeavyBall(G, 0.1, START), 5)[:2], x, rtol=1e-13)


def test_nesterov_takes_the_gradient_ahead():
    x, before = START, START
    for _ in range(5):
        y = x + 0.9 * (x - before)
        x, before = y - 0.1 * G.grad(y, LAM), x
    np.testing.assert_allclose(run(tb.Nesterov(G, 0.1, START), 5)[:2], x, rtol=1e-13)


@pytest.mark.parametrize("kind", [tb.HeavyBall, tb.Nesterov])
def test_no_momentum_is_gradient_descent(kind):
    state = run(kind(G, 0.1, START, momentum=0.0), 4)
    np.testing.assert_allclose(state[:2], run(tb.GradientDescent(G, 0.1, START), 4), rtol=1e-14)


@pytest.mark.parametrize("kind", [tb.HeavyBall, tb.Nesterov])
def test_both_learned_may_share_one_block(kind):
    layout = tb.Layout(center=2, both=1)
    transition = kind(G.on(layout["center"]), layout["both"], START, momentum=layout["both"])
    lam, state = cases.normal(1, 3), cases.normal(2, 4)
    tb.testing.assert_transition_adjoints(transition, state, lam)


@pytest.mark.parametrize("momentum", [-0.1, np.nan, [0.5, -1.0]])
def test_bad_momentum(momentum):
    with pytest.raises(ValueError, match="momentum must be finite and at least 0, got"):
        tb.HeavyBall(G, 0.1, START, momentum=momentum)


def test_too_short_momentum():
    transition = tb.Nesterov(G, 0.1, START, momentum=[0.9])
    with pytest.raises(ValueError, match="momentum has 1 entries; step t=1 needs one more"):
        transition.vjp(1, np.ones(4), LAM, np.ones(4))
