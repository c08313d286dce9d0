"""Tables, a page and a plot of the results."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.contenders import LIMITS

#: What takes its time whoever computes.
FLOORS = ("reading X", "multiply-adds")


def table(result: dict[str, Any]) -> str:
    """Return a case as a Markdown table."""
    who = result["who"]
    timed = {name: r["seconds"] for name, r in who.items() if "seconds" in r}
    ours = min((t for name, t in timed.items() if name.startswith("tinybilevel")), default=None)
    floor = max((timed[name] for name in FLOORS if name in timed), default=None)
    columns: dict[str, Callable[[dict[str, Any]], str]] = {
        "per call": lambda r: duration(r["seconds"]),
        "over the fastest of ours": lambda r: f"{r['seconds'] / ours:.2f}" if ours else "",
        "over the limit": lambda r: f"{r['seconds'] / floor:.2f}" if floor else "",
        "memory, MB": lambda r: f"{r['memory']:.0f}" if "memory" in r else "",
        "installed, MB": lambda r: f"{r['installed']:.0f}" if "installed" in r else "",
        "difference": lambda r: f"{r['disagreement']:.0e}" if "disagreement" in r else "",
    }
    rows = {
        name: [show(r) for show in columns.values()] if "seconds" in r else [r.get("error", "")]
        for name, r in who.items()
    }
    filled = [
        k
        for k in range(len(columns))
        if any(row[k : k + 1] != [""] for row in rows.values() if len(row) > 1)
    ]
    lines = [
        f"\n### {result['case']}\n",
        "| | " + " | ".join(list(columns)[k] for k in filled) + " |",
        "|---|" + "--:|" * len(filled),
    ]
    for name, row in rows.items():
        cells = [row[k] for k in filled] if len(row) > 1 else row + [""] * (len(filled) - 1)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """Return a time with its unit."""
    units = (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6))
    unit, scale = next((u for u in units if seconds >= u[1]), units[-1])
    return f"{seconds / scale:.3g} {unit}"


def verdicts(judged: list[dict[str, Any]]) -> str:
    """Return the goals as a Markdown table."""
    lines = ["\n### Goals\n", "| case | what | found | at most | |", "|---|---|--:|--:|---|"]
    for g in judged:
        met = "met" if g["ratio"] <= g["most"] else "**missed**"
        lines.append(f"| {g['case']} | {g['what']} | {g['ratio']:.2f} | {g['most']:g} | {met} |")
    return "\n".join(lines)


def machine(argv: list[str] | None) -> dict[str, str]:
    """Return where and how the figures were taken."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = names[0].partition(":")[2].strip() if names else cpu
    found = {
        "date": date.today().isoformat(),
        "command": " ".join(["python -m benchmarks", *(sys.argv[1:] if argv is None else argv)]),
        "cpu": f"{cpu}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "digits": "MNIST" if os.environ.get("TINYBILEVEL_DATA") else "drawn, no TINYBILEVEL_DATA",
    }
    found["openblas"], found["threads"] = openblas(), threads()
    for name in ("tinybilevel", "numpy", "numba", "jax", "torch", "higher", "torchopt", "jaxopt"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    try:
        import cupy

        found["gpu"] = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()
    except (ImportError, RuntimeError):
        pass
    return found


def openblas() -> str:
    """Return which of its kernels NumPy's OpenBLAS runs here, and what has been asked of it."""
    asked = {k: v for k, v in sorted(os.environ.items()) if k.startswith("OPENBLAS_")}
    asked.pop("OPENBLAS_NUM_THREADS", None)  # which `threads` has
    said = ", ".join(f"{k}={v}" for k, v in asked.items()) or "its own choice"
    try:
        from threadpoolctl import threadpool_info
    except ImportError:
        return f"kernels not known without threadpoolctl, {said}"
    np.ones((2, 2)) @ np.ones((2, 2))
    found = [of for of in threadpool_info() if of["internal_api"] == "openblas"]
    kernels = sorted({f"{of['architecture']} ({of['version']})" for of in found})
    return f"kernels for {' and '.join(kernels) or 'none'}, {said}"


def threads() -> str:
    """Return the threads that each library may have, where the environment says so."""
    names = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "XLA_FLAGS")
    said = ", ".join(f"{name}={os.environ[name]}" for name in names if name in os.environ)
    return said or "each library's default"


def page(written: dict[str, Any]) -> str:
    """Return all results as one Markdown page."""
    where = ", ".join(f"{name} {value}" for name, value in written["machine"].items())
    tables = "\n".join(table(result) for result in written["results"])
    return f"# Benchmarks\n\n{where}\n{tables}\n{verdicts(written['goals'])}\n"


def plot(results: list[dict[str, Any]], out: Path) -> None:
    """Draw hypercleaning's time against K, if there is such a case and matplotlib is there."""
    cases = [
        r
        for r in results
        if r["kind"] == "hypercleaning" and "5000 rows" in r["case"] and "GPU" not in r["case"]
    ]
    if not cases:
        return
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return
    figure = Figure(figsize=(9, 4), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for ax, dtype in zip(axes, ("float32", "float64"), strict=True):
        lines: dict[str, list[tuple[int, float]]] = {}
        for r in cases:
            for name, who in r["who"].items():
                if r["dtype"] == dtype and "seconds" in who:
                    lines.setdefault(name, []).append((r["K"], 1e3 * who["seconds"]))
        for name, points in lines.items():
            ours = name.startswith("tinybilevel")
            look = dict(ls="-" if ours else "--", lw=2 if ours else 1, marker="o", ms=3)
            if name in LIMITS:
                look = dict(ls=":", color="0.4", marker="x.+"[list(LIMITS).index(name)])
            ax.plot(*zip(*points, strict=True), label=name, **look)
        ax.set(xlabel="K", title=dtype, yscale="log")
    axes[0].set_ylabel("one hypergradient, ms")
    figure.legend(*axes[0].get_legend_handles_labels(), fontsize=7, loc="outside right upper")
    for suffix in ("png", "svg"):
        figure.savefig(out / f"hypercleaning.{suffix}", dpi=150)
