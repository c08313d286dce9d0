"""A problem of each kind that `compile` knows, small enough that a call takes no time."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

import tinybilevel as tb

__all__ = ["FORMS"]


def _softmax(
    n: int, d: int, C: int, *, sparse: bool = False, batches: bool = False
) -> tb.BilevelProblem:
    rng = np.random.default_rng(0)
    X = rng.standard_normal((n, d)).astype(np.float32) / np.float32(d**0.5)
    y = rng.integers(C, size=n)
    if sparse:
        from scipy.sparse import csr_matrix

        X[rng.random(X.shape) > 0.1] = 0
        X = csr_matrix(X)
    if not batches:
        return tb.problems.hypercleaning(X, y, X, y, T=10, n_classes=C)
    g = tb.SoftmaxRegression(X, y, C) + tb.L2Penalty(1e-3)
    descent = tb.GradientDescent(
        g, 0.1, np.zeros(C * d, np.float32), batches=tb.minibatches(n, 32, T=10, seed=0)
    )
    upper = tb.SoftmaxRegression(X, y, C, weighted=False)
    return tb.BilevelProblem(
        descent, upper, T=10, hyper_map=tb.Sigmoid(), lam0=np.zeros(n, np.float32)
    )


def _under_l2(g: tb.Objective, M: int, N: int) -> tb.BilevelProblem:
    descent = tb.GradientDescent(g, 0.01, np.zeros(M))
    return tb.BilevelProblem(descent, tb.L2Penalty(0.5), T=10, lam0=np.full(N, 0.1))


def _linear(kind: type, n: int, d: int) -> tb.BilevelProblem:
    rng = np.random.default_rng(0)
    return _under_l2(kind(rng.standard_normal((n, d)), rng.integers(2, size=n)), d, n)


def _tasks() -> tb.BilevelProblem:
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((50, 64)), np.arange(50) % 10
    return tb.problems.task_interaction(X, y, X, y, T=10, step_size=0.01, n_classes=10)


def _one_shot() -> tb.BilevelProblem:
    from benchmarks.cases import Case
    from benchmarks.one_shot import problem

    return problem(Case("one-shot", 5, T=10, dtype="float32"), "numba")


#: By what they are called in a table.
FORMS: dict[str, Callable[[], tb.BilevelProblem]] = {
    "quadratic, the toy problem": tb.problems.toy,
    "softmax, 300 × 513 × 10": lambda: _softmax(300, 513, 10),
    "softmax across the vectors, 2000 × 20 × 3": lambda: _softmax(2000, 20, 3),
    "softmax of two classes, 2000 × 20": lambda: _softmax(2000, 20, 2),
    "softmax, sparse": lambda: _softmax(500, 200, 10, sparse=True),
    "softmax, minibatches": lambda: _softmax(2000, 20, 3, batches=True),
    "task interaction": _tasks,
    "one-shot learning": _one_shot,
    "small: softmax, 20 × 5 × 3": lambda: _softmax(20, 5, 3),
    "small: logistic regression, 50 × 5": lambda: _linear(tb.LogisticRegression, 50, 5),
    "small: least squares, 50 × 5": lambda: _linear(tb.LeastSquares, 50, 5),
    "small: learned penalty": lambda: _under_l2(tb.L2Penalty() + tb.L2Penalty(0.1), 50, 1),
}
