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
    series = {
        "T = 50 … 800, K = 1": {T: call(base.at(T=T), who) for T in (50, 100, 200, 400, 800)},
        "T = K = 50 … 800": {T: call(base.at(T=T, K=T), who) for T in (50, 100, 200, 400, 800)},
        "rows = 5,000 … 40,000, T = K = 10": {
            n: call(deep.at(T=10, K=10, rows=n), who) for n in (5000, 10_000, 20_000, 40_000)
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
        idle.append(seconds({0: one}, 1)[0])
        neighbour = multiprocessing.get_context("spawn").Process(target=spin, daemon=True)
        neighbour.start()
        time.sleep(0.5)
        loaded.append(seconds({0: one}, 1)[0])
        neighbour.terminate()
        neighbour.join()
    ratio = median(loaded) / median(idle)
    print(f"| {who} | one busy core | {1e3 * median(idle):.3g} ms idle | {ratio:.2f} |")


def main() -> None:
    """Print the table."""
    print("| | | | slope, or ratio |\n|---|---|--:|--:|")
    for who in ("compiled", "numba", "numpy"):
        slopes(who)
        busy(who)


if __name__ == "__main__":
    main()
