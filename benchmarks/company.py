"""What processes at once take from each other: ``python -m benchmarks company``.

1, 2 and 4 processes compute the same number of hypergradients each, at the same time, with their
default threads and with one thread; the ratios are of the times until all are done, and of the
processor's time of all, which counts what is lost by waiting even where others use the cores. Each
case is written as it is found, and a run goes on where the last one ended.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.cases import Case
from benchmarks.report import machine, openblas, threads

TOGETHER = (1, 2, 4)
WAYS = {"compiled": ("numba", True), "step by step": ("numba", False), "NumPy": ("numpy", False)}
#: A round takes about so many seconds of each process.
_SECONDS = 0.15
_ALONE = ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def cases() -> Iterator[tuple[Case, str]]:
    """Yield what is computed, and how."""
    mnist = Case("hypercleaning", 5, dtype="float32")
    for case in (
        mnist,
        Case("grid", 5, dtype="float32", features=101, classes=2),
        Case("grid", 5, dtype="float32", rows=200, features=100, classes=3),
    ):
        for way in WAYS:
            yield case, way
    yield Case("toy", 100), "compiled"


class Crowd:
    """Processes that wait for work."""

    def __init__(self, limited: bool) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipes, self.processes = [], []
        with _one_thread() if limited else _as_it_is():
            for _ in range(max(TOGETHER)):
                mine, theirs = context.Pipe()
                process = context.Process(target=_serve, args=(theirs,), daemon=True)
                process.start()
                self.pipes.append(mine)
                self.processes.append(process)

    def ask(self, count: int, *question: Any) -> list[Any]:
        """Ask the first `count` of them; return their answers."""
        for pipe in self.pipes[:count]:
            pipe.send(question)
        return [pipe.recv() for pipe in self.pipes[:count]]

    def seconds(self, count: int, repeats: int) -> tuple[float, float]:
        """Return how long so many of them take for so many calls each, and the processor's time."""
        start = time.perf_counter()
        busy = self.ask(count, "call", repeats)
        return time.perf_counter() - start, sum(busy)

    def close(self) -> None:
        for process in self.processes:
            process.terminate()
            process.join()


def resume(out: Path, rounds: int, only: str = "") -> list[dict[str, Any]]:
    """Measure what ``company.jsonl`` in `out` does not hold yet; return all of it."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "company.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    found = {r["case"]: r for r in map(json.loads, lines)}
    wanted = {f"{case.name}, {way}": (case, way) for case, way in cases()}
    missing = {name: of for name, of in wanted.items() if only in name and name not in found}
    if missing:
        crowds = Crowd(limited=False), Crowd(limited=True)
        try:
            for name, of in missing.items():
                found[name] = {"case": name, **_measure(crowds, of, rounds), "machine": machine([])}
                with path.open("a") as file:
                    file.write(json.dumps(found[name]) + "\n")
                print(_row(found[name]), flush=True)
        finally:
            for crowd in crowds:
                crowd.close()
    return list(found.values())


def table(results: list[dict[str, Any]]) -> str:
    """Return the ratios, in brackets those of the processor's time, and what one process takes."""
    heads = " | ".join(f"{count} at once" for count in TOGETHER)
    lines = [
        f"\nOpenBLAS: {openblas()}; threads: {threads()}\n",
        f"| default / one thread | {heads} | one process, ms |",
        "|---|" + "--:|" * 4,
    ]
    lines += [_row(r) for r in results]
    if results:
        worst = max(ratio for r in results for ratio, _ in r["ratios"][1:])
        lines.append(f"\nworst of more than one at once: {worst:.2f}, allowed: 1.2")
    return "\n".join(lines)


def _row(r: dict[str, Any]) -> str:
    ratios = " | ".join(f"{wall:.2f} ({busy:.2f})" for wall, busy in r["ratios"])
    return f"| {r['case']} | {ratios} | {1e3 * r['seconds']:.3g} |"


def _measure(crowds: tuple[Crowd, Crowd], of: tuple[Case, str], rounds: int) -> dict[str, Any]:
    most = max(TOGETHER)
    crowds[0].ask(1, "build", *of)  # what it compiles is on disk for the others
    for crowd in crowds:
        crowd.ask(most, "build", *of)
    repeats = 1
    for _ in range(2):
        repeats = max(int(_SECONDS / crowds[1].seconds(1, repeats)[0] * repeats), 1)
    ratios, least = [], float("inf")
    for count in TOGETHER:
        each = max(repeats // count, 1)
        rounds_of = [[crowd.seconds(count, each) for crowd in crowds] for _ in range(rounds)]
        ratios.append([median(mine[k] / one[k] for mine, one in rounds_of) for k in (0, 1)])
        if count == 1:
            least = min(mine[0] for mine, _ in rounds_of) / each
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {"ratios": ratios, "seconds": least, "load": load}


def _serve(pipe: Connection) -> None:
    from benchmarks.rounds import _die_with_parent

    _die_with_parent()
    call: Callable[[], Any] = dict
    while True:
        question, *args = pipe.recv()
        start = time.process_time()
        if question == "build":
            call = _build(*args)
            call()
        else:
            for _ in range(args[0]):
                call()
        pipe.send(time.process_time() - start)


def _build(case: Case, way: str) -> Callable[[], Any]:
    import tinybilevel as tb
    from benchmarks.cases import problem

    backend, compiled = WAYS[way]
    at, method = problem(case, backend), tb.KRMD(K=case.K)
    at = tb.compile(at) if compiled else at
    return lambda: method(at, at.lam0)


@contextmanager
def _as_it_is() -> Iterator[None]:
    yield


@contextmanager
def _one_thread() -> Iterator[None]:
    before = {name: os.environ.get(name) for name in _ALONE}
    os.environ.update(dict.fromkeys(_ALONE, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value
