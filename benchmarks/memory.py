"""Table 1, measured: how the memory of one hypergradient grows with K and T.

Run ``python -m benchmarks.memory``. Memory is what Python's tracemalloc sees NumPy allocate at the
peak of a call, above what was allocated before it, in units of one M-vector of float64; beside it
what ``method.cost`` predicts is held.
"""

import tracemalloc
from math import ceil, log2

import numpy as np

import tinybilevel as tb

M, N = 100_000, 4


def problem(T: int) -> tb.BilevelProblem:
    """Return a cheap problem with a large state: w_j is drawn to c_j(λ) with its own curvature."""
    rng = np.random.default_rng(0)
    g = tb.Quadratic(rng.uniform(0.5, 1.0, M), C=rng.standard_normal((M, N)))
    f = tb.Objective.from_functions(value=lambda w, lam: float(w @ w), grad=lambda w, lam: 2 * w)
    descent = tb.GradientDescent(g, 0.5, initial=np.zeros(M))
    return tb.BilevelProblem(descent, upper=f, T=T, lam0=np.ones(N))


def peak(method: tb.Method, problem: tb.BilevelProblem) -> float:
    """Return the peak of one call in M-vectors."""
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    method(problem)
    _, top = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return (top - before) / (8 * M)


def main() -> None:
    """Print the table."""
    rows = [("K-RMD", f"T = 256, K = {K}", 256, tb.KRMD(K=K)) for K in (1, 4, 16, 64, 256)]
    for T in (16, 64, 256, 1024):
        rows.append(("RMD, checkpoints every √T", f"T = {T}", T, tb.RMD(tb.Checkpoint())))
    for T in (16, 64, 256, 1024):
        slots = ceil(log2(T))
        rows.append((f"RMD, binomial, {slots} slots", f"T = {T}", T, tb.RMD(tb.Binomial(slots))))
    for T in (16, 64, 256):
        rows.append((f"FMD, N = {N}", f"T = {T}", T, tb.FMD()))
    print("| method | | measured peak, M-vectors | held by prediction | transitions | products |")
    print("|---|---|--:|--:|--:|--:|")
    for name, size, T, method in rows:
        at = problem(T)
        cost = method.cost(at)
        print(
            f"| {name} | {size} | {peak(method, at):.1f} | {cost.bytes / (8 * M):.0f} "
            f"| {cost.transitions} | {cost.products} |"
        )


if __name__ == "__main__":
    main()
