"""The problems that are timed: the same numbers for everyone."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np

import tinybilevel as tb


@dataclass(frozen=True)
class Case:
    """One hypergradient: of the toy problem, hypercleaning, a random quadratic or tasks.

    Hypercleaning is of images, or, as ``grid``, of drawn data of any shape, or, as ``csr``, of
    drawn rows with 100 nonzeros each. ``logistic`` and ``one-shot`` are in files of their own.
    """

    kind: str
    K: int
    T: int = 100
    dtype: str = "float64"
    rows: int = 5000
    M: int = 2
    features: int = 512
    classes: int = 10
    many: int = 0  # λ at once
    device: str = "cpu"
    filters: int = 32  # of a network's convolutions
    stride: int = 1  # theirs; with 1, max-pooling follows
    query: int = 5  # images per class

    @property
    def name(self) -> str:
        """What it is, for tables."""
        tasks = f", {self.rows} × {self.features}, {self.classes} classes"
        tasks += f", T = {self.T}" if self.kind in ("grid", "csr") else ""
        rows, M = f", {self.rows} rows", f", M = {self.M}"
        net = f", {self.filters} filters, stride {self.stride}, {5 * self.query} query images"
        size = {"hypercleaning": rows, "quadratic": M, "toy": "", "tasks": tasks, "one-shot": net}
        size |= {"grid": tasks, "csr": tasks, "logistic": ", 569 × 31"}
        many = f", {self.many} λ" if self.many else ""
        gpu = ", GPU" if self.device == "gpu" else ""
        return f"{self.kind}{size[self.kind]}{many}, {self.dtype}, K = {self.K}{gpu}"

    def at(self, **changes: Any) -> Case:
        return replace(self, **changes)


@dataclass(frozen=True)
class Numbers:
    """The arrays of a case, in its dtype."""

    step_size: float
    w0: np.ndarray
    lam: np.ndarray
    data: dict[str, np.ndarray] = field(default_factory=dict)


def numbers(case: Case) -> Numbers:
    """Return the arrays of a case; seeded, so that every process has the same."""
    return _numbers(case.at(K=1, T=1))


@lru_cache(maxsize=1)
def _numbers(case: Case) -> Numbers:
    rng = np.random.default_rng(0)
    if case.kind == "toy":
        data = {"curvature": np.array([1.0, 0.5])}
        lam = 2 * rng.random((case.many, 2)) if case.many else np.array([1.0, 1.0])
        return Numbers(0.1, *_cast(case, [np.array([2.0, 2.0]), lam], data))
    if case.kind == "quadratic":
        # Dense while a matrix is small beside the state's other uses, else a diagonal.
        curvature = rng.uniform(0.1, 1.0, case.M)
        if case.M <= 1000:
            Q, _ = np.linalg.qr(rng.standard_normal((case.M, case.M)))
            curvature = (Q * curvature) @ Q.T
            curvature = (curvature + curvature.T) / 2
        arrays = [np.zeros(case.M), rng.standard_normal(case.M)]
        return Numbers(0.5, *_cast(case, arrays, {"curvature": curvature}))
    if case.kind == "tasks":
        return _tasks(case, rng)
    C, count = case.classes, case.rows + 1000
    if case.kind == "hypercleaning":
        X, y = _digits(count, rng)
    else:
        X, y = (_sparse if case.kind == "csr" else _drawn)(case, count, rng)
    data = {"X": X[: case.rows], "X_val": X[case.rows :]}
    labels = y.copy()
    wrong = rng.random(case.rows) < 0.5
    labels[: case.rows][wrong] = rng.integers(0, C, wrong.sum())
    arrays = [np.zeros(C * X.shape[1]), 0.1 * rng.standard_normal(case.rows)]
    found = Numbers(1.0, *_cast(case, arrays, data))
    found.data.update(y=labels[: case.rows], y_val=labels[case.rows :])
    return found


def _tasks(case: Case, rng: np.random.Generator) -> Numbers:
    """Return drawn features, rows of norm 20, as many to validate, and a λ that is stable."""
    n, d, V = case.rows, case.features, case.classes
    y = rng.integers(0, V, 2 * n)
    X = 0.2 * rng.standard_normal((V, d))[y] + rng.standard_normal((2 * n, d))
    X *= 20 / np.linalg.norm(X, axis=1, keepdims=True)
    pairs = 0.1 / V * rng.random(V * (V - 1) // 2)
    arrays = [np.zeros(V * (d + 1)), np.append(pairs, 0.01)]
    found = Numbers(0.1, *_cast(case, arrays, {"X": X[:n], "X_val": X[n:]}))
    found.data.update(y=y[:n], y_val=y[n:])
    return found


def _drawn(case: Case, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return dense rows of norm 1, the last column of ones, and labels of a linear model."""
    X = rng.standard_normal((count, case.features)) / np.sqrt(case.features)
    X[:, -1] = 1
    scores = X @ (5 * rng.standard_normal((case.features, case.classes)))
    return X, np.argmax(scores + rng.gumbel(size=scores.shape), axis=1)


def nonzeros(case: Case) -> int:
    """Return how many X has, without drawing it where the case says so."""
    if case.kind == "csr":
        return case.rows * _words(case)
    dense = case.rows * case.features
    return dense if case.kind == "grid" else int(np.count_nonzero(numbers(case).data["X"]))


def _words(case: Case) -> int:
    return min(100, case.features // 4)


def _sparse(case: Case, count: int, rng: np.random.Generator) -> tuple[Any, np.ndarray]:
    """Return rows of norm 1 with 100 nonzeros each, in columns drawn by Zipf's law, like words."""
    from scipy.sparse import csr_matrix

    d, each = case.features, _words(case)
    often = np.cumsum(1 / np.arange(1, d + 1))
    columns = np.empty((count, each), np.int32)
    for row in columns:
        drawn = np.unique(np.searchsorted(often, often[-1] * rng.random(8 * each)))
        row[...] = np.sort(rng.permutation(drawn)[:each])
    values = rng.random((count, each)) + 0.5
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    X = csr_matrix((values.ravel(), columns.ravel(), each * np.arange(count + 1)), (count, d))
    scores = X @ (5 * rng.standard_normal((d, case.classes)))
    return X, np.argmax(scores + rng.gumbel(size=scores.shape), axis=1)


def _digits(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return MNIST's images with a column of ones; drawn ones where it is not at hand."""
    try:
        # Nothing is downloaded here, by a dozen processes.
        mnist = tb.data.mnist(os.environ["TINYBILEVEL_DATA"])
        order = rng.permutation(len(mnist.X_train))
        rows = np.resize(order, count)
        X, y = mnist.X_train[rows] / np.float32(255), mnist.y_train[rows]
    except (KeyError, tb.data.DataError, OSError):
        y = rng.integers(0, 10, count)
        shapes = rng.random((10, 784)) < 0.19
        seen = shapes[y] ^ (rng.random((count, 784)) < 0.05)
        X = (rng.random((count, 784)) * seen).astype(np.float32)
    return tb.problems.append_bias(X.astype(np.float32)), y


def _cast(case: Case, arrays: list[np.ndarray], data: dict[str, np.ndarray]) -> tuple[Any, ...]:
    dtype = np.dtype(case.dtype)
    return (
        *(a.astype(dtype) for a in arrays),
        {
            name: np.ascontiguousarray(a, dtype) if isinstance(a, np.ndarray) else a.astype(dtype)
            for name, a in data.items()
        },
    )


def problem(case: Case, backend: str, remember: int = 0) -> tb.BilevelProblem:
    """Return the case as a user of tinybilevel writes it."""
    n = numbers(case)
    d = n.data
    if case.kind == "tasks":
        made = tb.problems.task_interaction(
            *(d[name] for name in ("X", "y", "X_val", "y_val")),
            T=case.T,
            step_size=n.step_size,
            n_classes=case.classes,
            backend=backend,
            remember=remember,
        )
        return replace(made, lam0=n.lam)
    if case.kind in ("hypercleaning", "grid", "csr"):
        C = case.classes
        g = tb.SoftmaxRegression(d["X"], d["y"], C, backend=backend, remember=remember)
        lower = g + (1.0 / case.rows) * tb.L2Penalty(1e-3)
        upper: tb.Objective = tb.SoftmaxRegression(
            d["X_val"], d["y_val"], C, weighted=False, backend=backend
        )
        maps: tb.HyperMap = tb.Sigmoid()
    else:
        lower, maps = tb.Quadratic(n.data["curvature"]), tb.Identity()
        upper = tb.problems.toy().upper if case.kind == "toy" else tb.L2Penalty(0.5)
    descent = tb.GradientDescent(lower, n.step_size, n.w0)
    lam0 = n.lam[0] if case.many else n.lam
    return tb.BilevelProblem(descent, upper, T=case.T, hyper_map=maps, lam0=lam0)
