"""Each lower-level algorithm, entry by entry, is the transition of its name."""

import cases
import numpy as np
import pytest

import tinybilevel as tb
from tinybilevel.testing import relative_error

pytest.importorskip("numba")

from tinybilevel.kernels import updates

M, T = 7, 4
G = cases.normal(0, M, M) @ cases.normal(0, M, M).T / M
STEP, SECOND = tb.Learned(slice(7, 9), [3, 4]), tb.Learned(slice(9, 11), [5, 2])
LAM = np.concatenate([cases.normal(1, M), [0.3, 0.2, 0.8, 0.4]])
PATHS = {
    updates.DESCENT: (tb.GradientDescent, None, {}),
    updates.HEAVY_BALL: (tb.HeavyBall, "momentum", {}),
    updates.NESTEROV: (tb.Nesterov, "momentum", {}),
    updates.ADAM: (tb.AdamTransition, None, {"beta1": 0.8, "beta2": 0.95, "eps": 0.01}),
    updates.PROXIMAL: (tb.ProximalGradient, "l1", {}),
}


def transition(kind, learned, dtype):
    """Return the transition with the numbers that `updates` calls c and each."""
    make, second, options = PATHS[kind]
    g = tb.Quadratic(G.astype(dtype), np.eye(M, dtype=dtype)).on(slice(0, M))
    step = STEP if learned else 0.25
    if second:
        options = {second: SECOND if learned else 0.6}
    each = np.ones((2, M))
    if learned:
        each[0] = STEP(0, LAM)
        each[1] = SECOND(0, LAM) if second else 1
    c = np.array([1.0, 1.0] if learned else [0.25, 0.6])
    if kind == updates.ADAM:
        b1, b2, eps = options.values()
        c = updates.adam_numbers([c[0]] * T, b1, b2, eps, before=2)[T - 1]
    made = make(g, step, np.zeros(M, dtype), **options)
    made._steps_before = 2
    return made, c.astype(dtype), each.astype(dtype)


def state(kind, seed, dtype, steady=False):
    x = np.array(cases.normal(seed, 1 + updates.BUFFERS[kind], M), dtype)
    if kind == updates.ADAM and not steady:
        x[2] = abs(x[2])
    return x


def pieces(function, *args):
    """Call it for two pieces of w, as threads do."""
    function(*args, 3, M)
    function(*args, 0, 3)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("kind", PATHS)
def test_a_step_and_its_products_are_the_transition_s(kind, learned, dtype):
    made, c, each = transition(kind, learned, dtype)
    lam, tol = LAM.astype(dtype), 1e-14 if dtype == np.float64 else 2e-6
    w, alpha = state(kind, 2, dtype), state(kind, 3, dtype, steady=True)
    want, (A_alpha, B_alpha) = (
        made.step(T - 1, w.ravel(), lam),
        made.vjp(T - 1, w.ravel(), lam, alpha.ravel()),
    )

    y, u, new = np.empty(M, dtype), np.empty(M, dtype), np.empty_like(w)
    along = np.zeros((2, M if learned else 0), dtype)
    pieces(updates.point, kind, c, each, w, y)
    g = made.objective.grad(y, lam)
    pieces(updates.advance, kind, c, each, g, w, new)
    assert relative_error(new.ravel(), want) < tol

    kept = g if updates.keeps_gradient(kind, learned) else g[:0]
    pieces(updates.direction, kind, c, each, kept, w, alpha, u, along)
    Hu, mixed = made.objective.grad_vjp(y, lam, u)
    pieces(updates.retreat, kind, c, each, Hu, w, alpha, along)
    h = -mixed
    if learned:
        h = h + STEP.pull(along[0], lam)
        h = h + SECOND.pull(along[1], lam) * (PATHS[kind][1] is not None)
    assert relative_error(alpha.ravel(), A_alpha) < tol
    assert relative_error(h, B_alpha) < tol


def test_adam_passes_where_no_gradient_ever_was():
    c = updates.adam_numbers([0.1], 0.9, 0.999, 1e-8)[0]
    each, g, w, alpha = np.ones((2, 1)), np.zeros(1), np.zeros((3, 1)), np.ones((3, 1))
    u, along, new = np.empty(1), np.zeros((2, 1)), np.empty((3, 1))
    updates.advance(updates.ADAM, c, each, g, w, new, 0, 1)
    updates.direction(updates.ADAM, c, each, g, w, alpha, u, along, 0, 1)
    assert not new.any()
    assert alpha[2] == 1
    assert np.isfinite(u).all()
    assert along[0] == 0


def test_a_threshold_of_0_passes_what_lies_at_0():
    each, zero, alpha = np.ones((2, 1)), np.zeros((1, 1)), np.ones((1, 1))
    u, along = np.empty(1), np.zeros((2, 0))
    for tau, passed in ((0.0, 1), (0.1, 0)):
        c = np.array([0.5, tau])
        updates.direction(updates.PROXIMAL, c, each, zero[0], zero, alpha, u, along, 0, 1)
        assert alpha[0, 0] == passed
        assert u[0] == 0.5 * passed
