"""``tinybilevel reproduce``: Table 2 and Figure 5 of the paper, from one set of runs."""

from __future__ import annotations

import json
import multiprocessing
import signal
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from tinybilevel.cli import figures
from tinybilevel.cli.folder import finished, table, write_json
from tinybilevel.cli.hypercleaning import Config, Result, run

__all__ = ["PAPER", "all_runs", "figure5", "in_processes", "table2"]

Runs = dict[tuple[int, int], Result]

#: The paper's Table 2, on MNIST: test accuracy (%), validation accuracy (%), validation loss, F1.
PAPER = {
    1: (87.50, 89.32, 0.413, 0.85),
    5: (88.05, 89.90, 0.383, 0.89),
    25: (88.12, 89.94, 0.382, 0.89),
    50: (88.17, 90.18, 0.381, 0.89),
    100: (88.33, 90.24, 0.380, 0.88),
}
_EXACT_EVERY = 20


def all_runs(
    out: Path,
    Ks: Sequence[int],
    seeds: Sequence[int],
    iterations: int,
    lr: float,
    *,
    data: str = "mnist",
    step_size: float | str = 1.0,
    device: str = "cpu",
    data_dir: Path | None = None,
    jobs: int = 1,
) -> Runs:
    """Run hypercleaning for every K and seed that `out` does not hold yet.

    Parameters
    ----------
    out : Path
        Folder with one folder per run; unfinished ones are resumed.
    Ks, seeds : sequence of int
        What to run; the same outer optimizer and rate for all.
    iterations : int
        Updates of λ in each run.
    lr : float
        Rate of the outer Adam.
    data : {"mnist", "fashion"}
        What to clean.
    step_size : float or "auto"
        γ of the lower level; Fashion-MNIST does not settle at 1.
    device : {"cpu", "gpu"}
        Where to compute.
    data_dir : Path, optional
        Where the data set lies.
    jobs : int
        Runs at a time, each in a process of its own.

    Returns
    -------
    dict of (int, int) to Result
        By (K, seed).
    """
    tasks = {
        (K, seed): (
            Config(
                data,
                K,
                iterations=iterations,
                seed=seed,
                lr=lr,
                step_size=step_size,
                exact_every=_EXACT_EVERY,
                device=device,
            ),
            _folder(out, K, seed),
            data_dir,
            jobs == 1,
        )
        for seed in seeds
        for K in Ks
    }
    return in_processes(_one, tasks, jobs)


def in_processes(one: Callable[..., Any], tasks: Mapping[Any, Any], jobs: int) -> dict[Any, Any]:
    """Return ``one(*task)`` for each task, some at a time, each in a process of its own.

    Parameters
    ----------
    one : callable
        A function of a module.
    tasks : mapping of any key to tuple
        Its arguments.
    jobs : int
        How many at a time; 1 is in this process.

    Returns
    -------
    dict
        By the same keys.
    """
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1, got {jobs}")
    if jobs == 1:
        return {key: one(*task) for key, task in tasks.items()}
    # A process per run, so that each reports its own peak memory.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(
        jobs,
        mp_context=context,
        max_tasks_per_child=1,
        initializer=signal.signal,
        initargs=(signal.SIGTERM, signal.default_int_handler),
    ) as pool:
        futures = {key: pool.submit(one, *task) for key, task in tasks.items()}
        try:
            return {key: future.result() for key, future in futures.items()}
        except BaseException:
            # The runs that are under way save their work; the others do not begin.
            pool.shutdown(wait=False, cancel_futures=True)
            for process in multiprocessing.active_children():
                process.terminate()
            raise


def _one(config: Config, out: Path, data_dir: Path | None, progress: bool) -> Result:
    # What an older version has written may lack a number: a resume without updates adds it.
    result = finished(out, config)
    if result is not None and set(result) == set(Result.__dataclass_fields__):
        return Result(**result)
    resume = (out / "config.json").exists()
    return run(config, out, data_dir=data_dir, resume=resume, progress=progress)


def table2(runs: Runs, out: Path, data: str = "mnist") -> None:
    """Print and save Table 2, mean ± standard deviation over the seeds; on MNIST above the paper's.

    Parameters
    ----------
    runs : dict of (int, int) to Result
        By (K, seed).
    out : Path
        Folder for ``table2.txt`` and ``table2.json``.
    data : {"mnist", "fashion"}
        What they have cleaned.
    """
    rows = []
    for K in sorted({K for K, _ in runs}):
        results = [r for (k, _), r in runs.items() if k == K]

        def cell(name: str, scale: float, digits: int) -> str:
            x = scale * np.array([getattr(r, name) for r in results])  # noqa: B023
            spread = f" ± {x.std(ddof=1):.{digits}f}" if len(x) > 1 else ""
            return f"{x.mean():.{digits}f}{spread}"

        rows.append(
            (
                f"{K}",
                cell("test_accuracy", 100, 2),
                cell("validation_accuracy", 100, 2),
                cell("validation_loss", 1, 4),
                cell("f1", 1, 3),
                cell("seconds", 1, 0),
                cell("peak_memory_mb", 1, 0),
            )
        )
        if data == "mnist" and K in PAPER:
            test, validation, loss, f1 = PAPER[K]
            rows.append(
                ("  paper", f"{test:.2f}", f"{validation:.2f}", f"{loss:.3f}", f"{f1:.2f}", "", "")
            )
    header = (
        "K",
        "test acc. %",
        "val. acc. %",
        "val. loss",
        "F1 (corrupted)",
        "seconds",
        "peak MB",
    )
    text = table(header, rows)
    updates = sorted({r.iterations for r in runs.values()})
    gammas = sorted({f"{r.step_size:.3g}" for r in runs.values()})
    ways = sorted({"compiled" if r.compiled else "step by step" for r in runs.values()})
    text += (
        f"\n\n{data}; {_either(updates)} updates of λ in each run, γ = {_either(gammas)}; "
        f"run {_either(ways)}"
    )
    print(text)
    (out / "table2.txt").write_text(text + "\n")
    write_json(out / "table2.json", {f"K{K}-seed{seed}": vars(r) for (K, seed), r in runs.items()})


def figure5(runs: Runs, out: Path) -> None:
    """Draw Figure 5 for the first seed: ‖d_λ f‖ along the K-RMD iterates; save its data."""
    seed = min(seed for _, seed in runs)
    lines = {
        K: [
            json.loads(line)
            for line in (_folder(out, K, seed) / "metrics.jsonl").read_text().splitlines()
        ]
        for K, s in sorted(runs)
        if s == seed
    }
    figures.exact_gradient_norms(out / "figure5.png", lines)
    rows = [
        f"{K},{line['iteration']},{line['exact_grad_norm']!r}"
        for K, entries in lines.items()
        for line in entries
        if "exact_grad_norm" in line
    ]
    (out / "figure5.csv").write_text("\n".join(["K,iteration,exact_grad_norm", *rows]) + "\n")
    print(f"written to {out / 'figure5.png'} and {out / 'figure5.csv'}")


def _either(values: Sequence[Any]) -> str:
    return " or ".join(map(str, values))


def _folder(out: Path, K: int, seed: int) -> Path:
    return out / f"K{K}-seed{seed}"
