"""Softmax regression on data of many shapes: ``python -m benchmarks grid``.

Drawn dense data, and besides them MNIST and a sparse set. Each contender is one process, which all
cases come to in turn; each case is written as it is found, and a run goes on where the last one
ended. `benchmarks.heatmap` makes pictures and pages of it.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

from benchmarks import limits
from benchmarks.cases import Case, nonzeros
from benchmarks.contenders import GRID, available
from benchmarks.report import machine
from benchmarks.rounds import Worker, compare, measure_some

__all__ = ["COMPILED", "JAX", "OTHERS", "cases", "ratio", "resume", "run"]

ROWS, FEATURES, CLASSES = (200, 2000, 20_000), (5, 30, 100, 513, 785, 3072), (2, 3, 10, 100)
JAX, COMPILED = "JAX jit", "tinybilevel, Numba"
OTHERS = ("tinybilevel, NumPy", "tinybilevel, Numba, step by step")
#: Multiply-adds of a product with X beyond which the horizon is T.
_LONG = ((0, 100), (100_000_000, 20), (1_000_000_000, 5))
#: Seconds for the rounds of a case.
_ROUNDS = 3.0
#: A case of each form of the kernels.
_SMALL = [
    Case(kind, 1, 2, dtype, rows=1000, features=d, classes=C)
    for kind, d, C in (("grid", 513, 10), ("grid", 20, 3), ("grid", 20, 2), ("csr", 513, 10))
    for dtype in ("float32", "float64")
]


def cases() -> Iterator[Case]:
    """Yield the whole grid so that any part of it from the first on has all shapes alike."""
    shapes = [_ways("grid", n, d, C) for n, d, C in product(ROWS, FEATURES, CLASSES)]
    shapes += [_ways("hypercleaning", 5000, 785, 10), _ways("csr", 5000, 20_000, 10)]
    # A stride that shares no factor with their number comes to each once, far from the last.
    stride = next(
        k for k in range(round(0.618 * len(shapes)), 0, -1) if math.gcd(k, len(shapes)) == 1
    )
    order = [shapes[k * stride % len(shapes)] for k in range(len(shapes))]
    for turn in range(max(map(len, shapes))):
        for k, ways in enumerate(order):
            if turn < len(ways):
                yield ways[(turn + k) % len(ways)]


def _ways(kind: str, n: int, d: int, C: int) -> list[Case]:
    work = 0 if kind != "grid" else n * d * C
    T = next(T for more, T in reversed(_LONG) if work >= more)
    depths = [K for K in (1, 25, T) if K <= T]
    return [
        Case(kind, K, T, dtype, rows=n, features=d, classes=C)
        for K, dtype in product(depths, ("float32", "float64"))
    ]


def run(out: Path, only: str, budget: float, most: int, cpu: bool = False) -> list[dict[str, Any]]:
    """Measure what is missing in a folder, for so many seconds and at most so many rounds.

    Times are by the clock, or the processor's, which other work on the machine changes less.
    """
    clock = "process_time" if cpu else "perf_counter"
    here = {"machine": machine(None) | {"clock": clock}, "limits": limits.measured()}
    print(json.dumps(here, indent=1), flush=True)
    workers: dict[str, Worker] = {}

    def start(case: Case) -> None:
        for name in available(GRID):
            if name not in workers or not workers[name].process.is_alive():
                workers[name] = Worker(case, name, clock)

    def one(case: Case) -> dict[str, Any]:
        start(case)
        found = measure_some(workers, case, _ROUNDS, most=most)
        compare(found, case.dtype, OTHERS[0] if "grad" in found[OTHERS[0]] else JAX)
        shape = {"rows": case.rows, "features": case.features, "classes": case.classes}
        about = {"kind": case.kind, "dtype": case.dtype, "K": case.K, "T": case.T, **shape}
        about["nonzeros"] = nonzeros(case)
        return {"case": case.name, **about, "who": found, **here}

    try:
        for case in _SMALL:  # Numba keeps what it compiles for them, before the budget runs
            start(case)
            for name in workers.keys() & {COMPILED, OTHERS[1]}:
                workers[name].ask(case)
        return resume(out, one, only, budget)
    finally:
        for worker in workers.values():
            worker.close()


def resume(
    out: Path,
    one: Callable[[Case], dict[str, Any]],
    only: str = "",
    budget: float = math.inf,
) -> list[dict[str, Any]]:
    """Measure what ``grid.jsonl`` in `out` does not hold yet; return all of it.

    Parameters
    ----------
    out : Path
        A folder.
    one : callable
        Measures a case.
    only : str
        What the names of the cases must contain, such as ``"2000 × 100, 2 classes"``.
    budget : float
        Seconds after which no other case is begun.
    """
    out.mkdir(parents=True, exist_ok=True)
    path, end = out / "grid.jsonl", time.perf_counter() + budget
    lines = path.read_text().splitlines() if path.exists() else []
    found = {r["case"]: r for r in map(json.loads, lines)}
    left = [case for case in cases() if only in case.name and case.name not in found]
    with path.open("a") as file:
        for k, case in enumerate(left):
            if time.perf_counter() > end:
                print(f"{len(left) - k} cases are left; the same command goes on", flush=True)
                break
            result = found[case.name] = one(case)
            file.write(json.dumps(result) + "\n")
            file.flush()
            over = [ratio(result, JAX), ratio(result, *OTHERS)]
            texts = (f"{x:.2f}" if x is not None else "?" for x in over)
            print(f"{case.name}: over JAX and our others {', '.join(texts)}", flush=True)
    return list(found.values())


def ratio(result: dict[str, Any], *others: str) -> float | None:
    """Return the time of what is compiled over the least of others', or None if one is missing."""
    times = {name: r["seconds"] for name, r in result["who"].items() if "seconds" in r}
    beside = [times[name] for name in others if name in times]
    return times[COMPILED] / min(beside) if COMPILED in times and beside else None
