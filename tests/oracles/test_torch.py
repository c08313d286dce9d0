"""Transitions against torch's double backward, in float64."""

import cases
import numpy as np
import pytest

import tinybilevel as tb
from tinybilevel.testing import relative_error

torch = pytest.importorskip("torch", reason="the oracle torch is not installed")
pytestmark = pytest.mark.oracle
T, STEP = 12, 0.2
RNG = np.random.default_rng(0)
X, Y, TARGET = RNG.standard_normal((5, 2)), RNG.integers(0, 3, 5), RNG.standard_normal(6)


def descent(w, grad, buffers, t):
    return w - STEP * grad(w), buffers


def heavy_ball(w, grad, v, t):
    v = 0.8 * v - STEP * grad(w)
    return w + v, v


def nesterov(w, grad, v, t):
    v = 0.8 * v - STEP * grad(w + 0.8 * v)
    return w + v, v


def adam(w, grad, moments, t):
    g = grad(w)
    m, s = 0.9 * moments[0] + 0.1 * g, 0.999 * moments[1] + 0.001 * g**2
    m_hat, s_hat = m / (1 - 0.9 ** (t + 1)), s / (1 - 0.999 ** (t + 1))
    return w - STEP * m_hat / (s_hat.sqrt() + 1e-8), torch.stack([m, s])


def proximal(w, grad, buffers, t):
    return torch.nn.functional.softshrink(w - STEP * grad(w), STEP * 0.5), buffers


START = cases.normal(1, 6)
MOVES = {
    descent: lambda g: tb.GradientDescent(g, STEP, START),
    heavy_ball: lambda g: tb.HeavyBall(g, STEP, START, momentum=0.8),
    nesterov: lambda g: tb.Nesterov(g, STEP, START, momentum=0.8),
    adam: lambda g: tb.AdamTransition(g, STEP, START),
    proximal: lambda g: tb.ProximalGradient(g, STEP, START, l1=0.5),
}


@pytest.mark.parametrize("move", MOVES, ids=lambda move: move.__name__)
@pytest.mark.parametrize("K", [1, 5, T])
def test_truncated_hypergradient(move, K):
    g = tb.SoftmaxRegression(X, Y, 3) + 0.1 * tb.L2Penalty(1.0)
    f = tb.Objective.from_functions(
        value=lambda w, lam: float(((w - TARGET) ** 2).sum()), grad=lambda w, lam: 2 * (w - TARGET)
    )
    problem = tb.BilevelProblem(MOVES[move](g), f, T=T, hyper_map=tb.Sigmoid())
    lam = np.random.default_rng(1).standard_normal(5)
    r = tb.KRMD(K=K)(problem, lam)

    weights = torch.tensor(lam, requires_grad=True)
    inputs, labels = torch.tensor(X), torch.tensor(Y)

    def grad(w):
        scores = inputs @ w.reshape(3, 2).T
        losses = torch.nn.functional.cross_entropy(scores, labels, reduction="none")
        value = (torch.sigmoid(weights) * losses).mean() + 0.1 * (w**2).sum()
        return torch.autograd.grad(value, w, create_graph=True)[0]

    w = torch.tensor(np.array(START), requires_grad=True)
    buffers = torch.zeros(2, 6, dtype=torch.float64) if move is adam else torch.zeros_like(w)
    for t in range(T):
        if t == T - K:
            w, buffers = w.detach().requires_grad_(), buffers.detach()
        w, buffers = move(w, grad, buffers, t)
    expected = torch.autograd.grad(((w - torch.tensor(TARGET)) ** 2).sum(), weights)[0]
    assert relative_error(r.grad, expected.numpy()) <= 1e-12
