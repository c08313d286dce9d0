"""Many hypergradients at once beside one after the other: ``python -m benchmarks.batches``.

Eight λ of one compiled problem, and eight problems (seeds) on one X with a λ each, float32, by
`Method.batch` over as many calls that have all threads to themselves; by the clock.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

import numpy as np

import tinybilevel as tb
from benchmarks.cases import Case, numbers, problem
from benchmarks.report import machine
from benchmarks.scaling import seconds

MANY = 8
CASES = [
    Case("grid", 25, dtype="float32", rows=200, features=100, classes=3),
    Case("grid", 25, dtype="float32", rows=2000, features=30, classes=10),
    Case("grid", 25, dtype="float32", rows=5000, features=101, classes=2),
    Case("hypercleaning", 25, dtype="float32"),
]


def seeds(case: Case) -> list[tb.BilevelProblem]:
    """Return problems with labels of their own on one X, compiled."""
    n = numbers(case)
    X, y = n.data["X"], n.data["y"]
    X.flags.writeable = False  # so that it is laid out for the kernels once
    first, found = problem(case, "numba"), []
    for seed in range(MANY):
        labels = np.random.default_rng(seed).permutation(y)
        loss = tb.SoftmaxRegression(X, labels, case.classes, backend="numba")
        lower = loss + (1.0 / case.rows) * tb.L2Penalty(1e-3)
        descent = tb.GradientDescent(lower, n.step_size / 2, n.w0)  # stable on MNIST too
        found.append(tb.compile(replace(first, transition=descent)))
    return found


def row(case: Case, rounds: int) -> str:
    """Return a row of the table: the ratio of each kind."""
    many, method = seeds(case), tb.KRMD(K=case.K)
    lams = np.stack([np.roll(numbers(case).lam, k) for k in range(MANY)])
    ratios = []
    for problems in ([many[0]] * MANY, many):
        one: Any = problems[0] if problems[0] is problems[1] else problems
        calls = {
            0: lambda one=one: method.batch(one, lams),
            1: lambda ps=problems: [method(p, lam) for p, lam in zip(ps, lams, strict=True)],
        }
        times = seconds(calls, rounds)
        ratios.append(f"{times[0] / times[1]:.2f}")
    kind = "MNIST, 5000 × 785 × 10" if case.kind == "hypercleaning" else ""
    return f"| {kind or f'{case.rows} × {case.features} × {case.classes}'} | {' | '.join(ratios)} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.batches", description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="interleaved rounds (9)")
    rounds = parser.parse_args().rounds
    print(machine(None))
    print(f"| | {MANY} λ of one problem | {MANY} problems on one X |\n|---|--:|--:|")
    for case in CASES:
        print(row(case, rounds), flush=True)


if __name__ == "__main__":
    main()
