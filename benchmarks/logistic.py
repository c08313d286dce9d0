"""Logistic regression with a learned strength per feature, by Nesterov, as it is timed."""

from __future__ import annotations

import numpy as np

import tinybilevel as tb
from benchmarks.cases import Case

__all__ = ["MOMENTUM", "STEP_SIZE", "data", "problem"]

STEP_SIZE, MOMENTUM = 0.1, 0.9


def data(case: Case) -> tuple[np.ndarray, ...]:
    """Return X (569, 31), labels and λ: scikit-learn's breast cancer data, standardised; a bias.

    Both levels see all of it, since it is the whole set that is timed.
    """
    from sklearn.datasets import load_breast_cancer

    X, y = load_breast_cancer(return_X_y=True)
    X = tb.problems.append_bias((X - X.mean(axis=0)) / X.std(axis=0)).astype(case.dtype)
    lam = -5 + np.random.default_rng(0).standard_normal(30)
    return X, y, lam.astype(case.dtype)


def problem(case: Case, backend: str) -> tb.BilevelProblem:
    """Return the case as a user of tinybilevel writes it; the bias has no penalty."""
    X, y, lam = data(case)
    loss = tb.LogisticRegression(X, y, weighted=False, backend=backend)
    g = loss + tb.L2Penalty(groups=np.append(np.arange(30), -1))
    start = np.zeros(31, case.dtype)
    dynamics = tb.Nesterov(g, STEP_SIZE, start, momentum=MOMENTUM)
    return tb.BilevelProblem(dynamics, loss, T=case.T, hyper_map=tb.Exp(), lam0=lam)
