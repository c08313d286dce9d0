import cases
import numpy as np
import pytest

import tinybilevel as tb
from tinybilevel.measure.convexity import strong_convexity

RNG = np.random.default_rng(0)
KNOWN = {
    "diagonal": (tb.Quadratic([2.0, -0.5]), 2, np.zeros(2), -0.5),
    "softmax": (cases.softmax(), 6, np.ones(5), 0.0),
    "logistic": (tb.LogisticRegression(RNG.standard_normal((2, 3)), [0, 1]), 3, np.ones(2), 0.0),
    "least squares": (tb.LeastSquares(RNG.standard_normal((2, 3)), [0.0, 1.0]), 3, np.ones(2), 0.0),
    "fixed penalty": (tb.L2Penalty([0.5, 0.25], groups=[0, 1, 1]), 3, np.zeros(1), 0.5),
    "an entry without a penalty": (tb.L2Penalty(0.5, groups=[0, -1]), 2, np.zeros(1), 0.0),
    "learned penalty": (tb.L2Penalty(groups=[0, 1]), 2, np.array([3.0, 0.1]), 0.2),
    "sum": (cases.softmax() + 0.1 * tb.L2Penalty(2.0), 6, np.ones(5), 0.4),
    "block": (tb.L2Penalty().on(slice(1, 2)), 3, np.array([5.0, 0.5]), 1.0),
}


@pytest.mark.parametrize("name", KNOWN)
def test_no_curvature_lies_below_what_is_known(name):
    g, M, lam, alpha = KNOWN[name]
    assert strong_convexity(g, lam) == pytest.approx(alpha, abs=1e-15)
    for _ in range(5):
        w = RNG.standard_normal(M)
        H = np.array([g.grad_vjp(w, lam, e)[0] for e in np.eye(M)])
        assert np.linalg.eigvalsh(H)[0] == pytest.approx(alpha, abs=1e-12)


@pytest.mark.parametrize(
    ("g", "lam"),
    [
        (cases.softmax(), -np.ones(5)),
        (tb.Quadratic(np.eye(2)), np.zeros(2)),
        (-1.0 * tb.L2Penalty(1.0), np.zeros(1)),
        (cases.softmax() + tb.Quadratic(np.eye(6), np.zeros((6, 5))), np.ones(5)),
        (tb.Objective.from_functions(lambda w, lam: 0.0, lambda w, lam: 0 * w), np.zeros(1)),
    ],
)
def test_where_nothing_is_known_nothing_is_said(g, lam):
    assert strong_convexity(g, lam) is None
