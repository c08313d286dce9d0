"""The grid as a picture, a table and a sentence: ``python -m benchmarks.heatmap FOLDER``.

FOLDER holds the ``grid.jsonl`` of ``python -m benchmarks grid``. What is needed of it goes to
``benchmarks/grid.json``, from which ``python -m benchmarks.heatmap`` makes the same again: the
picture in ``docs/images``, the part of ``docs/speed.md`` between its two comments, and a sentence
for the README on the standard output.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from textwrap import fill
from typing import Any

import numpy as np

from benchmarks import limits
from benchmarks.grid import CLASSES, COMPILED, FEATURES, JAX, OTHERS, ROWS, cases

FILE, PICTURE = Path("benchmarks/grid.json"), Path("docs/images/grid.png")
PAGE, BEGIN, END = Path("docs/speed.md"), "<!-- grid -->\n", "<!-- end of grid -->\n"
#: Multiply-adds of a product from which the limit says something.
_LARGE = 1_000_000
#: The darkest colours, and what lies beyond.
_FARTHEST = 8.0
DTYPES = ("float32", "float64")

Result = dict[str, Any]


def kept(path: Path) -> dict[str, Any]:
    """Return what pictures and pages need of a ``grid.jsonl``."""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    names = ("kind", "dtype", "K", "T", "rows", "features", "classes", "nonzeros")
    results = []
    for line in lines:
        seconds = {
            name: float(f"{r['seconds']:.4g}") for name, r in line["who"].items() if "seconds" in r
        }
        why = {name: r["error"] for name, r in line["who"].items() if "error" in r}
        results.append({name: line[name] for name in names} | {"seconds": seconds, "without": why})
    machines = [line["machine"] for line in lines]
    parts = {name: sorted({m[name] for m in machines if name in m}) for name in machines[-1]}
    return {
        "machine": {name: " or ".join(values) for name, values in parts.items()},
        "limits": limits.best([line["limits"] for line in lines]),
        "results": results,
    }


def over(result: Result, *others: str) -> float | None:
    """Return the time of what is compiled over the least of others'; None if one is missing."""
    times = result["seconds"]
    beside = [times[name] for name in others if name in times]
    return times[COMPILED] / min(beside) if COMPILED in times and beside else None


def name(r: Result) -> str:
    """Return what a case is, in words."""
    kind = {"hypercleaning": "MNIST ", "csr": "sparse "}.get(r["kind"], "")
    return f"{kind}{r['rows']} × {r['features']} × {r['classes']}, {r['dtype']}, K = {r['K']}"


def figures(written: dict[str, Any]) -> dict[str, list[tuple[float, Result]]]:
    """Return each ratio of each case that has it, the smallest first."""
    results, machine = written["results"], written["limits"]

    def of(
        ratio: Callable[[Result], float | None], some: list[Result]
    ) -> list[tuple[float, Result]]:
        found = [(x, r) for r in some if (x := ratio(r)) is not None]
        return sorted(found, key=lambda pair: pair[0])

    def limit(r: Result, who: str = COMPILED) -> float | None:
        return r["seconds"][who] / limits.least(r, machine) if who in r["seconds"] else None

    large = [r for r in results if r["nonzeros"] * r["classes"] >= _LARGE and r["kind"] != "csr"]
    sparse = [r for r in results if r["kind"] == "csr"]
    close = [r for r in results if (x := limit(r, JAX)) is not None and x <= 1.5]
    jax = lambda r: over(r, JAX)  # noqa: E731
    return {
        "JAX": of(jax, results),
        "JAX, up to 3 classes": of(jax, [r for r in results if r["classes"] <= 3]),
        "JAX, where it is within 1.5 of the limit": of(jax, close),
        "the best of our other ways": of(lambda r: over(r, *OTHERS), results),
        f"the limit, from {_LARGE:,} multiply-adds on": of(limit, large),
        "the limit, of sparse data": of(limit, sparse),
    }


def table(written: dict[str, Any]) -> str:
    """Return median and worst of each ratio, and how many cases exceed what they should."""
    most = (1.0, 0.4, 1.1, 1.05, 2.0, 2.0)
    lines = [
        "| compiled over | cases | median | worst | in | above |",
        "|---|--:|--:|--:|---|--:|",
    ]
    for (what, found), bound in zip(figures(written).items(), most, strict=True):
        if not found:
            continue
        worst, where = found[-1]
        above = sum(x > bound for x, _ in found)
        middle = median(x for x, _ in found)
        lines.append(
            f"| {what} | {len(found)} | {middle:.2f} | {worst:.2f} | {name(where)} "
            f"| {bound:g}: {above} |"
        )
    return "\n".join(lines)


def section(written: dict[str, Any]) -> str:
    """Return what docs/speed.md says of the grid."""
    m, found = written["machine"], figures(written)["JAX"]
    peaks = " and ".join(f"{written['limits']['peak'][of] / 1e9:.0f}" for of in DTYPES)
    speeds = {int(size): speed / 1e9 for size, speed in written["limits"]["bandwidth"].items()}
    left_out = sum("left out" in why for r in written["results"] for why in r["without"].values())
    whole = sum(1 for _ in cases())
    count = f"{len(found)} cases"
    if len(found) < whole:
        count = f"{len(found)} of {whole} cases, which come to every shape once before any twice"
    parts = [
        "One hypergradient of hypercleaning, compiled over JAX jit, on drawn dense data of 72 "
        "shapes in both precisions, on MNIST, and on a sparse set (5000 × 20,000, 100 nonzeros a "
        f"row, in columns drawn by Zipf's law, like words): {count}. $T = 100$; 20 "
        "above 10⁸ multiply-adds a product, and 5 above 10⁹.",
        f"![Compiled over JAX, for each number of classes and precision](images/{PICTURE.name})",
        table(written),
        f"Taken on {m['date']}: {m['cpu']}; OpenBLAS {m['openblas']}; threads: {m['threads']}; "
        f"Python {m['python']}, NumPy {m['numpy']}, Numba {m['numba']}, JAX {m['jax']}. Each "
        "contender is a process of its own, which is stopped between its turns; the least of "
        f"3 to {_rounds(m['command'])} interleaved rounds, by the "
        f"{'processor' if 'process' in m['clock'] else 'clock'}; all agree, to 10⁻³ in float32 and "
        "10⁻⁹ in float64. JAX multiplies a sparse X by gathering $W$ at its columns, in 0.8 of the "
        "time of its BCOO. Our other ways are plain NumPy and the kernels step by step"
        + (f", left out {left_out} times where they took five times as long" if left_out else "")
        + ". The limit, measured in the same run, is the longer of reading X once in each of the "
        f"$T + K$ steps ({speeds[min(speeds)]:.0f} Gbyte/s from a core's own cache to "
        f"{speeds[max(speeds)]:.0f} from memory) and of the multiply-adds with its nonzeros: two "
        f"products a step, one score for two classes, at {peaks} G/s in float32 and float64.",
    ]
    if slower := [f"{name(r)}: {x:.2f}" for x, r in reversed(found) if x > 1]:
        parts.append(f"Slower than JAX: {'; '.join(slower)}.")
    pages = (p if p[0] in "|!" else fill(p, 118, break_long_words=False) for p in parts)
    return "\n\n".join(pages) + "\n"


def _rounds(command: str) -> str:
    words = command.split()
    return words[words.index("--rounds") + 1] if "--rounds" in words else "15"


def sentence(written: dict[str, Any]) -> str:
    """Return what the README says."""
    found = figures(written)["JAX"]
    grid = [(x, r) for x, r in found if r["kind"] == "grid"]
    mnist = {
        dtype: [x for x, r in found if (r["kind"], r["dtype"]) == ("hypercleaning", dtype)]
        for dtype in DTYPES
    }
    spans = [f"{min(xs):.2f} to {max(xs):.2f} in {dtype}" for dtype, xs in mnist.items() if xs]
    own = f"on MNIST (5000 × 785, 10 classes) {' and '.join(spans)}; " if spans else ""
    worst, where = grid[-1]
    return fill(
        f"Compiled, a hypergradient takes, of the time of JAX's jit, {own}over {len(grid)} cases "
        "of drawn dense data (200 to 20,000 rows, 5 to 3072 columns, 2 to 100 classes, both "
        f"precisions) {median(x for x, _ in grid):.2f} in the median and {worst:.2f} at worst "
        f"({name(where)}).",
        118,
    )


def picture(written: dict[str, Any], path: Path) -> None:
    """Draw compiled over JAX: a panel for each number of classes and precision."""
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    look = {"cmap": "RdBu_r", "norm": LogNorm(1 / _FARTHEST, _FARTHEST)}
    figure = Figure(figsize=(8, 11.6), layout="constrained", facecolor="white")
    panels = figure.subplots(
        len(CLASSES) + 1, 2, gridspec_kw={"height_ratios": [9] * len(CLASSES) + [2]}
    )
    depths = ("K = 1", "25", "T")
    for column, dtype in enumerate(DTYPES):
        for row, C in enumerate(CLASSES):
            some = [
                r
                for r in written["results"]
                if (r["kind"], r["dtype"], r["classes"]) == ("grid", dtype, C)
            ]
            values = np.full((3 * len(ROWS), len(FEATURES)), np.nan)
            for r in some:
                for k in _depths(r):
                    at = 3 * ROWS.index(r["rows"]) + k, FEATURES.index(r["features"])
                    values[at] = over(r, JAX) or np.nan
            ax = panels[row, column]
            _panel(ax, values, look)
            ax.set_title(f"{dtype}, {C} classes", fontsize=10)
            ax.set_xticks(range(len(FEATURES)), FEATURES)
            labels = [f"n = {n:,}, {k}" if not i else k for n in ROWS for i, k in enumerate(depths)]
            ax.set_yticks(range(len(labels)), labels if column == 0 else [""] * len(labels))
            for line in (2.5, 5.5):
                ax.axhline(line, color="white", lw=3)
            if row == len(CLASSES) - 1:
                ax.set_xlabel("features", fontsize=9)
        values = np.full((2, 3), np.nan)
        for r in written["results"]:
            if r["kind"] != "grid" and r["dtype"] == dtype:
                for k in _depths(r):
                    values[("hypercleaning", "csr").index(r["kind"]), k] = over(r, JAX) or np.nan
        ax = panels[-1, column]
        drawn = _panel(ax, values, look)
        ax.set_xticks(range(3), depths)
        names = ["MNIST, 5000 × 785 × 10", "sparse, 5000 × 20,000 × 10"]
        ax.set_yticks(range(2), names if column == 0 else ["", ""])
    ticks = [1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8]
    bar = figure.colorbar(drawn, ax=panels, location="bottom", shrink=0.6, aspect=40, pad=0.01)
    bar.set_ticks(ticks, labels=[f"{x:g}" for x in ticks], fontsize=9)
    bar.ax.minorticks_off()
    bar.set_label("time of one hypergradient, compiled over JAX jit", fontsize=9)
    figure.savefig(path, dpi=100)


def _depths(r: Result) -> Sequence[int]:
    return [k for k, K in enumerate((1, 25, r["T"])) if r["K"] == K]


def _panel(ax: Any, values: np.ndarray, look: dict[str, Any]) -> Any:
    ax.set_facecolor("0.9")
    drawn = ax.imshow(np.clip(values, 1 / _FARTHEST, _FARTHEST), aspect="auto", **look)
    for (i, j), x in np.ndenumerate(values):
        if np.isfinite(x):
            colour = "white" if abs(np.log(x)) > np.log(3.2) else "black"
            ax.text(
                j,
                i,
                f"{x:.2f}" if x < 10 else f"{x:.0f}",
                ha="center",
                va="center",
                fontsize=8,
                color=colour,
            )
    ax.tick_params(length=0, labelsize=8)
    for side in ax.spines.values():
        side.set_visible(False)
    return drawn


def main(argv: list[str] | None = None) -> int:
    """Write the file, the picture and the page; print the sentence."""
    folders = sys.argv[1:] if argv is None else argv
    if folders:
        written = kept(Path(folders[0]) / "grid.jsonl")
        lines = [json.dumps(r, ensure_ascii=False) for r in written["results"]]
        head = json.dumps(
            {k: written[k] for k in ("machine", "limits")}, indent=1, ensure_ascii=False
        )
        FILE.write_text(f'{head[:-2]},\n "results": [\n' + ",\n".join(lines) + "\n]}\n")
    written = json.loads(FILE.read_text())
    picture(written, PICTURE)
    page = PAGE.read_text()
    before, _, rest = page.partition(BEGIN)
    PAGE.write_text(before + BEGIN + section(written) + END + rest.partition(END)[2])
    print(section(written))
    print(f"For the README:\n{sentence(written)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
