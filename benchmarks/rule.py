"""Is a compiled problem ever slower than the plain one? ``python -m benchmarks.rule`` says so.

Each row is a problem at a size; its two forms take turns, and the best time of each counts. Where
`compile` returns the problem as it is, the ratio is 1 by definition and no time is taken. Words
after the command choose rows that have them all. Times are the processor's with one thread, to
which other work on the machine does little, and otherwise the clock's.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from scipy.sparse import csr_array

import tinybilevel as tb
from benchmarks.minibatches import best, text

LIMIT = 1.05
#: Steps.
T = 20


def cases(dtype: Any) -> Iterator[tuple[str, tb.BilevelProblem]]:
    """Yield problems on both sides of every limit in ``compiled/forms.py``, and up to MNIST."""
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(dtype)

    def problem(g: tb.Objective, M: int, N: int, f: tb.Objective | None = None) -> Any:
        descent = tb.GradientDescent(g, 0.01, normal(M))
        return tb.BilevelProblem(descent, f or tb.L2Penalty(0.1), T=T, lam0=np.abs(normal(N)))

    for n, d, C in (
        (5, 2, 3),
        (50, 10, 3),
        (100, 20, 5),
        (200, 20, 10),
        (2000, 5, 2),
        (500, 50, 10),
        (1000, 65, 10),
        (5000, 101, 2),
        (2500, 785, 10),
    ):
        X, y = normal(n, d), rng.integers(C, size=n)
        loss = tb.SoftmaxRegression(X, y, C)
        f = tb.SoftmaxRegression(X[: n // 4 + 1], y[: n // 4 + 1], C, weighted=False)
        yield f"hypercleaning {n} × {d} × {C}", problem(loss + tb.L2Penalty(1e-3), C * d, n, f)
        plain = tb.SoftmaxRegression(X, y, C, weighted=False)
        yield f"unweighted {n} × {d} × {C}", problem(plain, C * d, 1)
        if C == 2:
            logistic = tb.LogisticRegression(X, y)
            yield f"logistic {n} × {d}", problem(logistic, d, n)
    for n, d in ((100, 10), (1000, 10), (300, 100), (1000, 30)):
        X, y = normal(n, d), rng.integers(2, size=n)
        yield f"logistic {n} × {d}", problem(tb.LogisticRegression(X, y), d, n)
        yield f"least squares {n} × {d}", problem(tb.LeastSquares(X, normal(n)), d, n)
    yield from _algorithms(dtype)
    yield from _minibatches(dtype)
    ridge = tb.L2Penalty(0.1)
    for M in (10, 100, 300, 440, 500, 1000):
        A = normal(M, M) / M
        yield f"quadratic {M} × {M}", problem(tb.Quadratic(A @ A.T), M, M)
        yield f"quadratic {M} × {M} and ridge", problem(tb.Quadratic(A @ A.T) + ridge, M, M)
    for M in (100, 400, 10_000, 100_000):
        G = rng.random(M).astype(dtype)
        yield f"diagonal {M}", problem(tb.Quadratic(G), M, M)
        yield f"diagonal {M} and ridge", problem(tb.Quadratic(G) + ridge, M, M)
    for n, d, V in (
        (4, 2, 2),
        (50, 24, 10),
        (50, 64, 10),
        (200, 99, 2),
        (500, 512, 10),
        (1000, 499, 10),
        (300, 1280, 100),
        (51, 24, 10),
    ):
        (X, y), (X_val, y_val) = ((normal(n, d), rng.integers(V, size=n)) for _ in range(2))
        tasks = tb.problems.task_interaction(X, y, X_val, y_val, T=T, n_classes=V, step_size=0.01)
        lam0 = np.full_like(tasks.lam0, 0.1 / V)
        yield f"task interaction {n} × {d} × {V}", replace(tasks, lam0=lam0)
    for M in (100, 4000, 100_000):
        yield f"learned penalty {M}", problem(tb.L2Penalty(groups=np.arange(M) % 10) + ridge, M, 10)


def _scheduled(g: tb.Objective, step_size: float, start: np.ndarray, **options: Any) -> Any:
    return tb.GradientDescent(g, tb.PerStep([step_size] * T), start, **options)


#: What takes an objective, a step size and w_0.
ALGORITHMS: dict[str, Callable[..., tb.Transition]] = {
    "heavy ball": tb.HeavyBall,
    "Nesterov": tb.Nesterov,
    "Adam": tb.AdamTransition,
    "proximal": partial(tb.ProximalGradient, l1=1e-4),
    "scheduled": _scheduled,
}


def _algorithms(dtype: Any) -> Iterator[tuple[str, tb.BilevelProblem]]:
    """Yield problems by every algorithm but plain gradient descent."""
    rng = np.random.default_rng(1)
    for n, d, C in ((100, 10, 3), (500, 50, 10), (5000, 101, 2), (2500, 785, 10)):
        X, y = rng.standard_normal((n, d)).astype(dtype), rng.integers(C, size=n)
        f = tb.SoftmaxRegression(X[: n // 4], y[: n // 4], C, weighted=False)
        levels = [(f"softmax {n} × {d} × {C}", tb.SoftmaxRegression(X, y, C), f, C * d)]
        if d < 500:
            logistic = tb.LogisticRegression(X, y % 2)
            levels.append((f"logistic {n} × {d}", logistic, tb.L2Penalty(0.1), d))
        for level, loss, upper, M in levels:
            for name, make in ALGORITHMS.items():
                moves = make(loss + tb.L2Penalty(1e-3), 0.001, np.zeros(M, dtype))
                lam0 = rng.random(n).astype(dtype) / n
                yield f"{level}, {name}", tb.BilevelProblem(moves, upper, T=T, lam0=lam0)


def _minibatches(dtype: Any) -> Iterator[tuple[str, tb.BilevelProblem]]:
    """Yield problems on minibatches of a dense and of a sparse X, by every algorithm."""
    rng = np.random.default_rng(2)
    for n, d, C, size in ((200, 10, 2, 20), (2000, 100, 3, 50), (2500, 785, 10, 100)):
        dense, y = rng.standard_normal((n, d)).astype(dtype), rng.integers(C, size=n)
        sparse = csr_array(dense * (rng.random((n, d)) < 0.1))
        f = tb.SoftmaxRegression(dense[:100], y[:100], C, weighted=False)
        lam0, batches = rng.random(n).astype(dtype) / n, tb.minibatches(n, size, T, seed=0)
        for kind, X in (("", dense), ("sparse ", sparse)):
            g = tb.SoftmaxRegression(X, y, C) + tb.L2Penalty(1e-3)
            for name, make in ({"descent": tb.GradientDescent} | ALGORITHMS).items():
                moves = make(g, 0.001, np.zeros(C * d, dtype), batches=batches)
                at = f"{kind}batches of {size}, {n} × {d} × {C}, {name}"
                yield at, tb.BilevelProblem(moves, f, T=T, lam0=lam0)
    for n, d, C, size in ((5000, 785, 10, 1000), (2000, 3072, 100, 300), (20_000, 30, 3, 10_000)):
        X, y = rng.standard_normal((n, d)).astype(dtype) / 9, rng.integers(C, size=n)
        f = tb.SoftmaxRegression(X[:100], y[:100], C, weighted=False)
        g, w0 = tb.SoftmaxRegression(X, y, C) + tb.L2Penalty(1e-3), np.zeros(C * d, dtype)
        moves = tb.GradientDescent(g, 0.01, w0, batches=tb.minibatches(n, size, T, seed=0))
        at = f"large batches of {size}, {n} × {d} × {C}"
        yield at, tb.BilevelProblem(moves, f, T=T, lam0=np.ones(n, dtype))
    X, y = text(30_000, 20_000, 100)
    X = X.astype(dtype)
    f = tb.LogisticRegression(X[:100], y[:100] % 2, weighted=False)
    g, w0 = tb.LogisticRegression(X, y % 2) + tb.L2Penalty(1e-3), np.zeros(20_000, dtype)
    for size in (100, 5000, None):
        batches = None if size is None else tb.minibatches(30_000, size, T, seed=0)
        for name, make in ({"descent": tb.GradientDescent} | ALGORITHMS).items():
            moves = make(g, 0.01, w0, batches=batches)
            at = f"logistic, text 30,000 × 20,000, batches of {size or 'all'}, {name}"
            yield at, tb.BilevelProblem(moves, f, T=T, lam0=np.ones(30_000, dtype))


def ratio(
    plain: tb.BilevelProblem, fast: tb.BilevelProblem, method: tb.Method
) -> tuple[float, float]:
    """Return the best time of the plain problem in ms, and that of the compiled one over it.

    Without a look at the step size, which takes either the same.
    """
    calls = {"plain": partial(method.unwatched, plain), "fast": partial(method.unwatched, fast)}
    start = time.perf_counter()
    calls["plain"]()
    rounds = int(min(max(0.3 / (time.perf_counter() - start), 15), 50))
    found = best(calls, rounds)
    return found["plain"], found["fast"] / found["plain"]


def main() -> int:
    worst = 0.0
    print(f"| problem, T = {T} | dtype | plain, ms | K = 1 | K = {T} |\n|---|---|--:|--:|--:|")
    for dtype in (np.float64, np.float32):
        for name, plain in cases(dtype):
            if not all(word in name for word in sys.argv[1:]):
                continue
            fast = tb.compile(plain)
            if fast is plain:
                print(f"| {name} | {dtype.__name__} | | plain | plain |", flush=True)
                continue
            (one, first), (_, last) = (ratio(plain, fast, tb.KRMD(K=K)) for K in (1, T))
            worst = max(worst, first, last)
            row = f"| {name} | {dtype.__name__} | {one:.3g} | {first:.2f} | {last:.2f} |"
            print(row, flush=True)
    print(f"\nworst: {worst:.2f}, allowed: {LIMIT}")
    return int(worst > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
