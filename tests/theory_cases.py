"""Problems for the tests of the theory: random ones that satisfy it, and ones made to break it."""

import numpy as np
import pytest
from hypothesis import strategies as st

import tinybilevel as tb


def smooth_upper():
    """Return f(w, λ) = Σ sin w + Σ cos λ."""
    return tb.Objective.from_functions(
        value=lambda w, lam: float(np.sin(w).sum() + np.cos(lam).sum()),
        grad=lambda w, lam: np.cos(w),
        grad_lam=lambda w, lam: -np.sin(lam),
    )


def linear_upper(c):
    """Return f(w) = cᵀw, so that ∇f = c and ∇_λ f = 0."""
    return tb.Objective.from_functions(value=lambda w, lam: float(c @ w), grad=lambda w, lam: c)


def quadratic(M=4, N=3, T=10, seed=0, kappa=10.0, share=1.0, spacing=np.geomspace):
    """Return a strongly convex quadratic with β = 1, α = 1/κ; γ = share/β, and w_0 by λ."""
    rng = np.random.default_rng(seed)
    Q, _ = np.linalg.qr(rng.standard_normal((M, M)))
    G = (Q * spacing(1 / kappa, 1, M)) @ Q.T if M > 1 else np.array([[1.0]])
    start = rng.standard_normal((M, N))
    moves = tb.GradientDescent(
        tb.Quadratic(G, rng.standard_normal((M, N))),
        share,
        initial=(lambda lam: start @ lam, lambda lam, a: start.T @ a, lambda lam, d: start @ d),
    )
    return tb.BilevelProblem(moves, smooth_upper(), T=T, lam0=rng.standard_normal(N))


def softmax(n=6, d=3, C=2, T=10, seed=0, share=1.0, l2=0.1, hyper_map=None):
    """Return regularised softmax regression with weighted examples, γ = share/β by a safe β."""
    rng = np.random.default_rng(seed)
    X, y = rng.standard_normal((n, d)), rng.integers(C, size=n)
    g = tb.SoftmaxRegression(X, y, C) + l2 * tb.L2Penalty(1.0)
    # ∇²ℓ_i ≼ x_i x_iᵀ, the weights are below 1, and the penalty's own curvature is 2 l2.
    beta = np.linalg.eigvalsh(X.T @ X / n)[-1] + 2 * l2
    moves = tb.GradientDescent(g, share / beta, initial=rng.standard_normal(C * d))
    return tb.BilevelProblem(
        moves,
        smooth_upper(),
        T=T,
        hyper_map=tb.Sigmoid() if hyper_map is None else hyper_map,
        lam0=rng.standard_normal(n),
    )


@st.composite
def problems(draw):
    """Draw a problem that satisfies Proposition 3.1, of size 1 to 30, and a depth."""
    seed, T = draw(st.integers(0, 2**32 - 1)), draw(st.integers(0, 25))
    share = draw(st.floats(0.05, 1.0))
    size, other = draw(st.integers(1, 30)), draw(st.integers(1, 30))
    if draw(st.booleans()):
        kappa = draw(st.floats(1.0, 200.0))
        problem = quadratic(size, other, T, seed, kappa, share)
    else:
        C = draw(st.integers(1, min(size, 4)))
        problem = softmax(other, max(size // C, 1), C, T, seed, share, draw(st.floats(0.01, 2.0)))
    return problem, draw(st.integers(0, T))


def kinked(T, doublings, *, slope=0.01, coupling=0.5):
    """Return a scalar problem at λ = 0, concave (−β = −1) for w < 1 and convex (slope) above.

    With γ = 1 = 1/β the state doubles from w_0 = 2^−doublings until it is 1, and then moves on;
    ‖B_t‖ = coupling for every t, B_0 included. f(w) = w.
    """

    def curvature(w):
        return np.where(w < 1, -1.0, slope)

    g = tb.Objective.from_functions(
        value=lambda w, lam: float(
            np.where(w < 1, -(w**2) / 2, slope * (w - 1) ** 2 / 2 - w).sum() - coupling * (lam @ w)
        ),
        grad=lambda w, lam: np.where(w < 1, -w, slope * (w - 1) - 1) - coupling * lam,
        grad_vjp=lambda w, lam, v: (curvature(w) * v, -coupling * v),
        grad_jvp=lambda w, lam, dw, dlam: curvature(w) * dw - coupling * dlam,
    )
    start = (lambda lam: 2.0**-doublings + coupling * lam, lambda lam, alpha: coupling * alpha)
    moves = tb.GradientDescent(g, 1.0, initial=start)
    return tb.BilevelProblem(moves, linear_upper(np.ones(1)), T=T, lam0=np.zeros(1))


def digits(T=400, batch=100):
    """Return softmax regression on handwritten digits by minibatches, with weighted examples."""
    datasets = pytest.importorskip("sklearn.datasets", reason="scikit-learn has the digits")
    data = datasets.load_digits()
    X = np.hstack([data.data / 16, np.ones((len(data.data), 1))])
    g = tb.SoftmaxRegression(X[:200], data.target[:200], 10) + 0.02 * tb.L2Penalty(1.0)
    f = tb.SoftmaxRegression(X[500:800], data.target[500:800], 10, weighted=False)
    moves = tb.GradientDescent(
        g, 0.5, np.zeros(f.size), batches=tb.minibatches(200, batch, T, seed=0)
    )
    lam = np.random.default_rng(0).standard_normal(200)
    return tb.BilevelProblem(moves, f, T=T, hyper_map=tb.Sigmoid(), lam0=lam)
