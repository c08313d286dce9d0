"""How the cost grows, and what a busy neighbour costs: ``python -m benchmarks.scaling``.

Time against T, K and rows on log-log, whose slope ought to be 1 once out of the overhead; and
hypercleaning beside a process that keeps one core busy, over its own idle time.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from statistics import median

import numpy as np

import tinybilevel as tb
from benchmarks.cases import Case, problem


def seconds(calls: dict[int, Callable[[], object]], rounds: int = 7) -> dict[int, float]:
    """Return the median of interleaved rounds."""
    samples: dict[int, list[float]] = {size: [] for size in calls}
    for call in calls.values():
        call()
    for _ in range(rounds):
        for size, call in calls.items():
            start = time.perf_counter()
            call()
            samples[size].append(time.perf_counter() - start)
    return {size: median(taken) for size, taken in samples.items()}


def mean(call: Callable[[], object], times: int = 8) -> float:
    """Return the mean time of calls one after the other, as the scheduler treats them unequally."""
    start = time.perf_counter()
    for _ in range(times):
        call()
    return (time.perf_counter() - start) / times


def call(case: Case, who: str) -> Callable[[], object]:
    """Return one hypergradient of tinybilevel: ``numpy``, ``numba`` or ``compiled``."""
    compiled = who == "compiled"
    at, method = problem(case, "numba" if compiled else who), tb.KRMD(K=case.K)
    at = tb.compile(at) if compiled else at
    return lambda: method(at)


def slopes(who: str) -> None:
    """Print the slope against each size."""
    base = Case("hypercleaning", K=1, dtype="float32")
    deep = base.at(T=400, K=400)
    lengths = 100, 200, 400, 800, 1600
    series = {
        "T = 100 … 1600, K = 1": {T: call(base.at(T=T), who) for T in lengths},
        "T = K = 100 … 1600": {T: call(base.at(T=T, K=T), who) for T in lengths},
        # Rows that lie in the third-level cache, as some 5000 may, take less each.
        "rows = 20,000 … 160,000, T = K = 10": {
            n: call(deep.at(T=10, K=10, rows=n), who) for n in (20_000, 40_000, 80_000, 160_000)
        },
    }
    for name, calls in series.items():
        found = seconds(calls)
        slope = np.polyfit(np.log(list(found)), np.log(list(found.values())), 1)[0]
        times = ", ".join(f"{1e3 * t:.3g}" for t in found.values())
        print(f"| {who} | {name} | {times} ms | {slope:.3f} |", flush=True)


def spin() -> None:
    """Keep a core busy."""
    while True:
        pass


def busy(who: str) -> None:
    """Print the time beside a busy process over the idle time, in interleaved rounds."""
    one = call(Case("hypercleaning", K=5, dtype="float32"), who)
    one()
    idle, loaded = [], []
    for _ in range(9):
        idle.append(mean(one))
        neighbour = multiprocessing.get_context("spawn").Process(target=spin, daemon=True)
        neighbour.start()
        time.sleep(0.5)
        loaded.append(mean(one))
        neighbour.terminate()
        neighbour.join()
    one_ms, two_ms = 1e3 * median(idle), 1e3 * median(loaded)
    print(f"| {who} | one busy core | {one_ms:.3g}, {two_ms:.3g} ms | {two_ms / one_ms:.2f} |")


def main() -> None:
    """Print the table."""
    print("| | | | slope, or ratio |\n|---|---|--:|--:|")
    for who in ("compiled", "numba", "numpy"):
        slopes(who)
        busy(who)


if __name__ == "__main__":
    main()
