"""Time tinybilevel beside the autodiff frameworks: ``python -m benchmarks``.

Nothing is installed: who is not there is left out. Hypergradients are compared first.
"""

from __future__ import annotations

import argparse
import json
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks import company, goals, grid, report
from benchmarks.cases import Case
from benchmarks.contenders import GPU_LIMITS, LIMITS, contenders
from benchmarks.first import first_calls, first_hypergradients
from benchmarks.rounds import compare, measure

TOY = [Case("toy", K) for K in (1, 10, 100)]
CLEANING = [
    Case("hypercleaning", K, dtype=dtype)
    for dtype in ("float32", "float64")
    for K in (1, 5, 25, 50, 100)
]
ROWS = [Case("hypercleaning", 5, dtype="float32", T=20, rows=50_000)]
MANY = [Case("hypercleaning", 5, dtype="float32", T=20, rows=500_000)]
QUADRATIC = [Case("quadratic", 10, M=10**k) for k in range(1, 7)]
BATCH = [Case("toy", 100, many=10_000)]
TASKS = [
    Case("tasks", K, dtype="float32", rows=rows, features=features, classes=classes)
    for rows, features, classes, depths in (
        (500, 512, 10, (1, 10, 50, 100)),
        (300, 1280, 10, (1, 10, 50, 100)),
        (300, 1280, 100, (1, 100)),
    )
    for K in depths
]
GPU = [
    *(
        Case("hypercleaning", K, dtype=dtype, device="gpu")
        for dtype in ("float32", "float64")
        for K in (1, 5, 25, 50, 100)
    ),
    *(
        Case("hypercleaning", 5, dtype="float32", T=20, rows=rows, device="gpu")
        for rows in (50_000, 500_000)
    ),
    Case("toy", 10, device="gpu"),
    Case("toy", 100, many=1_000_000, device="gpu"),
    *(Case("quadratic", 10, M=10**k, dtype="float32", device="gpu") for k in (3, 5, 6)),
]
NETWORKS = [
    Case("one-shot", K, dtype="float32", T=50, filters=filters, stride=stride, query=query)
    for filters, stride, query in ((32, 1, 5), (64, 1, 5), (64, 2, 15))
    for K in (1, 10, 25, 50)
]
LOGISTIC = [Case("logistic", K, dtype=dtype) for dtype in ("float32", "float64") for K in (5, 100)]
SUITES = {
    "toy": TOY,
    "batch": BATCH,
    "hypercleaning": CLEANING,
    "rows": ROWS,
    "quadratic": QUADRATIC,
    "tasks": TASKS,
    "logistic": LOGISTIC,
    "many": MANY,
    "networks": NETWORKS,
    "gpu": GPU,
}
OTHERS = ("first", "grid", "company")
#: Half a million rows take a process of 6 GB for each contender; networks and logistic have
#: one thread; the grid takes hours; processes beside each other are another question; a GPU is
#: not everywhere.
ONLY_IF_ASKED = {"many", "networks", "grid", "company", "gpu"}


def run(case: Case, rounds: int) -> dict[str, Any]:
    """Measure one case; print how far each contender is from the plain body."""
    found = measure(case, contenders(case), rounds)
    for name in (*LIMITS, *GPU_LIMITS):
        found.get(name, {}).pop("grad", None)
    compare(found, case.dtype, next(iter(found)))  # the plain bodies'
    about: dict[str, Any] = {"kind": case.kind, "dtype": case.dtype, "K": case.K, "many": case.many}
    if case.kind in ("hypercleaning", "tasks"):
        about["rows"] = case.rows
    return {"case": case.name, **about, "who": found}


def main(argv: list[str] | None = None) -> int:
    """Run the suites, and write JSON, Markdown and a plot."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("suites", nargs="*", help=f"of {', '.join([*SUITES, *OTHERS])}")
    parser.add_argument(
        "--only", default="", help="what names of cases must have, of grid or company"
    )
    parser.add_argument(
        "--budget", type=float, default=float("inf"), help="seconds for the grid (no limit)"
    )
    parser.add_argument(
        "--cpu", action="store_true", help="the grid's times are the processor's, not the clock's"
    )
    parser.add_argument("--rounds", type=int, default=15, help="interleaved rounds (15)")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"), help="a folder")
    parser.add_argument("--quick", action="store_true", help="one case of each suite, 3 rounds")
    args = parser.parse_args(argv)
    if unknown := set(args.suites) - {*SUITES, *OTHERS}:
        parser.error(f"no such suite: {', '.join(sorted(unknown))}")
    wanted = args.suites or [s for s in [*SUITES, "first"] if s not in ONLY_IF_ASKED]
    if "gpu" in wanted and find_spec("cupy") is None:
        parser.error("the suite gpu needs CuPy, and a GPU")
    rounds = 3 if args.quick else args.rounds
    results: list[dict[str, Any]] = []
    for suite in wanted:
        if suite == "first":
            for measured in (first_hypergradients, first_calls)[: 1 + bool(find_spec("numba"))]:
                results.append(measured(rounds))
                print(report.table(results[-1]), flush=True)
            continue
        if suite == "grid":
            grid.run(args.out, args.only, args.budget, rounds, args.cpu)
            continue
        if suite == "company":
            print(company.table(company.resume(args.out, rounds, args.only)))
            continue
        for case in SUITES[suite][:1] if args.quick else SUITES[suite]:
            results.append(run(case, rounds))
            print(report.table(results[-1]), flush=True)
    judged = goals.judge(results)
    print(report.verdicts(judged))
    args.out.mkdir(parents=True, exist_ok=True)
    written = {"machine": report.machine(argv), "results": results, "goals": judged}
    (args.out / "results.json").write_text(json.dumps(written, indent=1) + "\n")
    (args.out / "results.md").write_text(report.page(written))
    report.plot(results, args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
