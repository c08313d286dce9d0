"""``tinybilevel reproduce figure7``: how much K-RMD leaves out of a one-shot hypergradient."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array
from tinybilevel.cli import figures
from tinybilevel.cli.folder import write_text
from tinybilevel.cli.one_shot import Config, characters, family
from tinybilevel.methods.unrolled import RMD
from tinybilevel.outer.checkpoint import load_arrays
from tinybilevel.problems import OneShot

__all__ = ["errors", "figure7", "slope"]

#: log ρ that stands for ρ = 0: λ holds logarithms.
_LOG_0 = -60.0

Curves = dict[str, Array]


def errors(problems: OneShot, lam: Array, tasks: list[Any]) -> dict[str, Curves]:
    """Return the relative error of K-RMD for K = 0 … T, the mean over tasks.

    Parameters
    ----------
    problems : OneShot
        The family.
    lam : ndarray
        λ, float64.
    tasks : list of Task
        Some tasks.

    Returns
    -------
    dict of str to dict of str to ndarray (T + 1,)
        By what is taken for right, ``"h_0"`` (K = T) or ``"exact"`` (h_{−1}, which also sees
        w_0 = c), and by block of λ; ``"all"`` is the whole. NaN where what is right is 0.
    """
    at: dict[str, slice] = {"all": slice(None)}
    at |= {name: problems.layout[name] for name in problems.layout}
    found: dict[str, dict[str, list[Array]]] = {r: {b: [] for b in at} for r in ("h_0", "exact")}
    for task in tasks:
        problem = problems.problem(task.X, task.y, task.X_query, task.y_query)
        *truncated, exact = RMD().truncations(problem, lam)
        h = np.array(truncated)
        for name, right in (("h_0", h[-1]), ("exact", exact)):
            for block, where in at.items():
                size = np.linalg.norm(right[where])
                error = np.linalg.norm(h[:, where] - right[where], axis=1)
                found[name][block].append(error / size if size else np.full(len(h), np.nan))
    return {
        name: {block: np.mean(each, axis=0) for block, each in blocks.items()}
        for name, blocks in found.items()
    }


def slope(error: Array, last: float = 0.8) -> tuple[float, float]:
    """Return the slope of log(error) against K = 1 … `last`·T, and R² of that line."""
    K = np.arange(1, int(last * (len(error) - 1)) + 1)
    y = np.log(error[K])
    line = np.polynomial.Polynomial.fit(K, y, 1).convert()
    residual, spread = y - line(K), y - y.mean()
    return float(line.coef[1]), float(1 - (residual @ residual) / (spread @ spread))


def figure7(
    run: Path, out: Path, *, tasks: int = 5, data_dir: Path | None = None
) -> dict[str, tuple[float, float]]:
    """Draw plot 4: the relative error of K-RMD against K at a run's λ, with ρ > 0 and with ρ = 0.

    Parameters
    ----------
    run : Path
        Folder of a run of ``tinybilevel run one-shot``.
    out : Path
        Folder for ``figure7.png``, ``figure7.svg`` and ``figure7.csv``.
    tasks : int
        Test tasks to average over.
    data_dir : Path, optional
        Where Omniglot lies.

    Returns
    -------
    dict of str to (float, float)
        Slope and R² of log(error) against K, by curve.
    """
    figures.require_matplotlib()
    config = Config(**json.loads((run / "config.json").read_text())["settings"])
    _, test = characters(config, data_dir)
    problems = family(config, test.images.shape[-1])
    lam = load_arrays(run / "lam.npz")["lam"].astype(np.float64)
    rng = np.random.default_rng(config.seed)
    ways, shots, queries = config.ways, config.shots, config.queries
    drawn = [test.draw(ways, shots, queries, seed=rng, dtype=np.float64) for _ in range(tasks)]
    without = lam.copy()
    without[problems.layout["log_rho"]] = _LOG_0
    pulled, free = errors(problems, lam, drawn), errors(problems, without, drawn)
    curves = {
        "ρ > 0, against h₀": pulled["h_0"]["all"],
        "ρ = 0, against h₀": free["h_0"]["all"],
        "ρ > 0, against the exact": pulled["exact"]["all"],
    }
    blocks = {name: pulled["h_0"][name] for name in problems.layout}
    paths = figures.truncation_errors(out / "figure7", curves, blocks)
    rows = ["rho,right,block,K,relative_error"]
    for rho, found in (("learned", pulled), ("0", free)):
        for right, by_block in found.items():
            for block, error in by_block.items():
                rows += [f"{rho},{right},{block},{K},{e!r}" for K, e in enumerate(error.tolist())]
    write_text(out / "figure7.csv", "\n".join(rows) + "\n")
    slopes = {name: slope(error) for name, error in curves.items()}
    for name, (each, R2) in slopes.items():
        print(f"{name}: slope of log(error) {each:.4f}, R² {R2:.4f}")
    print(f"written to {', '.join(map(str, paths))} and {out / 'figure7.csv'}")
    return slopes
