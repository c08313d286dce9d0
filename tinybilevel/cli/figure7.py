"""``tinybilevel reproduce figure7``: one-shot runs as they go, and what K-RMD leaves out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tinybilevel import data
from tinybilevel.arrays.backend import Array
from tinybilevel.cli import figures
from tinybilevel.cli.folder import write_text
from tinybilevel.cli.one_shot import Config, characters, family
from tinybilevel.methods.unrolled import RMD
from tinybilevel.outer.checkpoint import load_arrays
from tinybilevel.problems import OneShot

__all__ = ["along", "errors", "figure7", "slope"]

#: log ρ that stands for ρ = 0: λ holds logarithms.
_LOG_0 = -60.0
#: Updates over which the loss on training tasks is averaged.
_WINDOW = 100

Curves = dict[str, Array]


@dataclass(frozen=True)
class _Run:
    """What the folder of a run holds, and test tasks for it, float64."""

    config: Config
    problems: OneShot
    saved: dict[str, Array]
    loss: Array
    tasks: list[data.Task]

    @classmethod
    def of(cls, path: Path, tasks: int, data_dir: Path | None) -> _Run:
        config = Config(**json.loads((path / "config.json").read_text())["settings"])
        _, test = characters(config, data_dir)
        lines = (path / "metrics.jsonl").read_text().splitlines()
        rng = np.random.default_rng(0)  # the same tasks for every run
        ways, shots, queries = config.ways, config.shots, config.queries
        return cls(
            config,
            family(config, test.images.shape[-1]),
            load_arrays(path / "lam.npz"),
            np.array([json.loads(line)["loss"] for line in lines]),
            [test.draw(ways, shots, queries, seed=rng, dtype=np.float64) for _ in range(tasks)],
        )

    @property
    def depth(self) -> int:
        """K, or T + 1 where what comes through w_0 counts as well."""
        K = self.config.K
        return K if isinstance(K, int) else self.config.T + 1

    def truncations(self, lam: Array, task: data.Task) -> tuple[Array, Array]:
        """Return h_T … h_0, (T + 1, N), and the exact hypergradient."""
        problem = self.problems.problem(task.X, task.y, task.X_query, task.y_query)
        *truncated, exact = RMD().truncations(problem, lam.astype(np.float64))
        return np.array(truncated), exact


def errors(run: _Run, lam: Array, tasks: Sequence[data.Task]) -> dict[str, Curves]:
    """Return the relative error of K-RMD for K = 0 … T, the mean over tasks.

    Parameters
    ----------
    run : _Run
        A run's network.
    lam : ndarray
        λ.
    tasks : sequence of Task
        Some tasks.

    Returns
    -------
    dict of str to dict of str to ndarray (T + 1,)
        By what is taken for right, ``"h_0"`` (K = T) or ``"exact"`` (h_{−1}, which also sees
        w_0 = c), and by block of λ; ``"all"`` is the whole. NaN where what is right is 0.
    """
    layout = run.problems.layout
    at = {"all": slice(None)} | {name: layout[name] for name in layout}
    found: dict[str, dict[str, list[Array]]] = {r: {b: [] for b in at} for r in ("h_0", "exact")}
    for task in tasks:
        h, exact = run.truncations(lam, task)
        for name, right in (("h_0", h[-1]), ("exact", exact)):
            for block, where in at.items():
                size = np.linalg.norm(right[where])
                error = np.linalg.norm(h[:, where] - right[where], axis=1)
                found[name][block].append(error / size if size else np.full(len(h), np.nan))
    return {
        name: {block: np.mean(each, axis=0) for block, each in blocks.items()}
        for name, blocks in found.items()
    }


def along(run: _Run, tasks: int = 5) -> dict[str, Array]:
    """Return what a run was at each λ that it kept.

    Parameters
    ----------
    run : _Run
        A run.
    tasks : int
        Test tasks that the cosine is averaged over; the accuracy is over all.

    Returns
    -------
    dict of str to ndarray
        ``iteration``, test ``accuracy`` in per cent, mean ``cosine`` of K-RMD with the exact
        hypergradient, and ``least_cosine``, of a single task.
    """
    depth, kept = run.depth, run.saved["kept"]
    accuracy, cosines = [], []
    for lam in kept:
        accuracy.append(100 * run.problems.evaluate(lam, run.tasks)["query"].mean)
        each = (run.truncations(lam, task) for task in run.tasks[:tasks])
        cosines.append([_cosine([*h, exact][depth], exact) for h, exact in each])
    return {
        "iteration": run.saved["kept_iterations"],
        "accuracy": np.array(accuracy),
        "cosine": np.mean(cosines, axis=1),
        "least_cosine": np.min(cosines, axis=1),
    }


def _cosine(a: Array, b: Array) -> float:
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def slope(error: Array, last: float = 0.8) -> tuple[float, float]:
    """Return the slope of log(error) against K = 1 … `last`·T, and R² of that line."""
    K = np.arange(1, int(last * (len(error) - 1)) + 1)
    y = np.log(error[K])
    line = np.polynomial.Polynomial.fit(K, y, 1).convert()
    residual, spread = y - line(K), y - y.mean()
    return float(line.coef[1]), float(1 - (residual @ residual) / (spread @ spread))


def figure7(
    runs: Mapping[tuple[int | str, int], Path],
    out: Path,
    *,
    tasks: int = 20,
    data_dir: Path | None = None,
) -> dict[str, tuple[float, float]]:
    """Draw the four plots for the first seed; the last at the λ of the run whose K is nearest 10.

    Parameters
    ----------
    runs : mapping of (int or str, int) to Path
        The folder of each run, by (K, seed).
    out : Path
        Folder for ``figure7.png`` and ``.svg``, ``figure7_runs.csv`` and ``figure7_errors.csv``.
    tasks : int
        Test tasks along the runs; hypergradients are compared on the first five.
    data_dir : Path, optional
        Where Omniglot lies.

    Returns
    -------
    dict of str to (float, float)
        Slope and R² of log(error) against K, by curve of the fourth plot.
    """
    figures.require_matplotlib()
    first = min(seed for _, seed in runs)
    chosen = {K: _Run.of(path, tasks, data_dir) for (K, s), path in runs.items() if s == first}
    seen = {K: along(run) for K, run in chosen.items()}
    losses = {K: _smooth(run.loss) for K, run in chosen.items()}
    of = min(chosen, key=lambda K: abs(chosen[K].depth - 10))
    curves, rows = _errors(chosen[of])
    paths = figures.one_shot_runs(out / "figure7", seen, losses, curves, f"λ of K = {of}")
    lines = ["K,iteration,test_accuracy,cosine,least_cosine"]
    for K, found in seen.items():
        columns = (found[n].tolist() for n in ("iteration", "accuracy", "cosine", "least_cosine"))
        lines += [f"{K},{i},{a!r},{c!r},{m!r}" for i, a, c, m in zip(*columns, strict=True)]
    write_text(out / "figure7_runs.csv", "\n".join(lines) + "\n")
    write_text(out / "figure7_errors.csv", "\n".join(rows) + "\n")
    slopes = {name: slope(error) for name, error in curves.items()}
    for name, (each, R2) in slopes.items():
        print(f"{name}: slope of log(error) {each:.4f}, R² {R2:.4f}")
    print(f"written to {', '.join(map(str, paths))} and figure7_*.csv beside them")
    return slopes


def _smooth(loss: Array) -> Array:
    """Return iterations and means over some updates up to each, (2, n)."""
    window = max(1, min(_WINDOW, len(loss) // 4))
    means = np.convolve(loss, np.full(window, 1 / window), "valid")
    return np.stack([window + np.arange(len(means)), means])


def _errors(run: _Run) -> tuple[Curves, list[str]]:
    """Return the curves of the fourth plot, and all of them as lines of CSV."""
    lam, layout = run.saved["lam"], run.problems.layout
    without = lam.copy()
    without[layout["log_rho"]] = _LOG_0
    pulled, free = (errors(run, each, run.tasks[:5]) for each in (lam, without))
    rows = ["rho,right,block,K,relative_error"]
    for rho, found in (("learned", pulled), ("0", free)):
        for right, by_block in found.items():
            for block, error in by_block.items():
                rows += [f"{rho},{right},{block},{K},{e!r}" for K, e in enumerate(error.tolist())]
    curves = {
        "ρ > 0, against h₀": pulled["h_0"]["all"],
        "ρ = 0, against h₀": free["h_0"]["all"],
        "ρ > 0, against the exact": pulled["exact"]["all"],
    }
    return curves | {f"{name}, against h₀": pulled["h_0"][name] for name in layout}, rows
