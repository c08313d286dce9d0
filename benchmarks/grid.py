"""Softmax regression on drawn dense data of many shapes: ``python -m benchmarks grid``.

Each case is written as it is found, and a run goes on where the last one ended. The limit is the
longer of reading X once per product and of the multiply-adds by BLAS, on this machine.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.cases import Case
from benchmarks.report import FLOORS, machine

ROWS, FEATURES, CLASSES = (200, 2000, 20_000), (5, 30, 100, 513, 785, 3072), (2, 3, 10, 100)
JAX, COMPILED = "JAX jit", "tinybilevel, Numba"
OTHERS = ("tinybilevel, NumPy", "tinybilevel, Numba, step by step")
#: Multiply-adds of a product with X beyond which the horizon is shorter.
_LONG = 100_000_000


def cases() -> Iterator[Case]:
    """Yield the whole grid, small ones first."""
    for n, d, C in sorted(product(ROWS, FEATURES, CLASSES), key=lambda of: of[0] * of[1] * of[2]):
        T = 100 if n * d * C <= _LONG else 20
        for dtype, K in product(("float32", "float64"), (1, 25, T)):
            if K <= T:
                yield Case("grid", K, T, dtype, rows=n, features=d, classes=C)


def resume(
    out: Path, run: Callable[[Case], dict[str, Any]], only: str = ""
) -> list[dict[str, Any]]:
    """Measure what ``grid.jsonl`` in `out` does not hold yet; return all of it.

    Parameters
    ----------
    out : Path
        A folder.
    run : callable
        Measures a case.
    only : str
        What the names of the cases must contain, such as ``"2000 × 100, 2 classes"``.
    """
    out.mkdir(parents=True, exist_ok=True)
    path = out / "grid.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    found = {r["case"]: r for r in map(json.loads, lines)}
    with path.open("a") as file:
        for case in cases():
            if only in case.name and case.name not in found:
                result = found[case.name] = {**run(case), "machine": machine([])}
                file.write(json.dumps(result) + "\n")
                file.flush()
                print(f"{case.name}: {ratio(result, JAX) or math.nan:.2f} of JAX", flush=True)
    return list(found.values())


def ratio(result: dict[str, Any], *others: str) -> float | None:
    """Return the time of what is compiled over the least of others', or None if one is missing."""
    times = {name: r["seconds"] for name, r in result["who"].items() if "seconds" in r}
    beside = [times[name] for name in others if name in times]
    return times[COMPILED] / min(beside) if COMPILED in times and beside else None


def over_limit(result: dict[str, Any]) -> float | None:
    """Return the time of what is compiled over the longer of the limits."""
    known = [r for name in FLOORS if (r := ratio(result, name)) is not None]
    return min(known, default=None)


def table(results: list[dict[str, Any]]) -> str:
    """Return a heat map in numbers: per shape and precision the worst over K, compiled over JAX."""
    cells: dict[tuple[Any, ...], list[float]] = {}
    for r in results:
        if (over := ratio(r, JAX)) is not None:
            cells.setdefault((r["rows"], r["features"], r["dtype"], r["classes"]), []).append(over)
    columns = [(dtype, C) for dtype in ("float32", "float64") for C in CLASSES]
    lines = [
        "\n| n × d | " + " | ".join(f"{dtype}, C = {C}" for dtype, C in columns) + " |",
        "|---|" + "--:|" * len(columns),
    ]
    for n, d in sorted({key[:2] for key in cells}):
        worst = (cells.get((n, d, *column)) for column in columns)
        texts = (f"{max(of):.2f}" if of else "" for of in worst)
        lines.append(f"| {n} × {d} | " + " | ".join(texts) + " |")
    for what, values in (
        ("over JAX", [ratio(r, JAX) for r in results]),
        ("over the best of our other ways", [ratio(r, *OTHERS) for r in results]),
        ("over the limit", [over_limit(r) for r in results]),
    ):
        if known := [v for v in values if v is not None]:
            lines.append(f"\n{what}: median {median(known):.2f}, worst {max(known):.2f}")
    return "\n".join(lines)
