"""``tinybilevel reproduce table4``: one-shot accuracy by K, and what a hyper-iteration takes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from tinybilevel.cli.folder import finished, table, write_json, write_text
from tinybilevel.cli.one_shot import Config, defaults, run
from tinybilevel.cli.reproduce import in_processes
from tinybilevel.outer.checkpoint import load_arrays

__all__ = ["PAPER", "SECONDS", "all_runs", "folder_of", "rows", "table4"]

#: The paper's test accuracy in per cent, by T, K and updates; five classes of one image each.
PAPER: dict[tuple[int, int | str, int], float] = {
    (50, 1, 5000): 95.6,
    (50, 10, 5000): 96.3,
    (50, 25, 5000): 96.1,
    (50, 50, 5000): 95.8,
    (50, "full", 5000): 95.8,
    (50, 1, 15000): 97.7,
    (50, 10, 15000): 97.8,
    (1, "full", 15000): 96.6,
}
#: The paper's seconds for a hyper-iteration, by T and K.
SECONDS: dict[tuple[int, int | str], float] = {
    (50, 1): 0.4,
    (50, 10): 0.7,
    (50, 25): 1.3,
    (50, 50): 2.2,
    (50, "full"): 2.2,
    (1, "full"): 0.1,
}
#: Test tasks of the paper.
PAPER_TASKS = 120


def all_runs(
    out: Path,
    config: Config,
    Ks: Sequence[int | str],
    seeds: Sequence[int],
    *,
    data_dir: Path | None = None,
    jobs: int = 1,
) -> dict[tuple[int | str, int], Path]:
    """Run `config` for every K and seed that `out` does not hold yet; unfinished runs go on.

    Parameters
    ----------
    out : Path
        Folder with one folder per run.
    config : Config
        All settings but K and the seed.
    Ks : sequence of int or "full"
    seeds : sequence of int
        What to run.
    data_dir : Path, optional
        Where Omniglot lies.
    jobs : int
        Runs at a time, each in a process of its own.

    Returns
    -------
    dict of (int or str, int) to Path
        The folder of each run, by (K, seed).
    """
    tasks = {}
    for seed in seeds:
        for K in Ks:
            each = replace(config, K=K, seed=seed)
            tasks[K, seed] = (each, folder_of(out, each), data_dir, jobs == 1)
    return dict(in_processes(_one, tasks, jobs))


def folder_of(out: Path, config: Config) -> Path:
    """Return the folder of a run, named by all that is not the default."""
    usual, parts = Config(), [f"K{config.K}"]
    for name, value in asdict(config).items():
        if name not in ("K", "seed", "schedule") and value != getattr(usual, name):
            parts.append(f"{name}{value}")
    return out / "-".join([*parts, f"seed{config.seed}"])


def _one(config: Config, out: Path, data_dir: Path | None, progress: bool) -> Path:
    if finished(out, config) is None:
        resume = (out / "config.json").exists()
        run(config, out, data_dir=data_dir, resume=resume, progress=progress)
    return out


def rows(out: Path) -> list[dict[str, Any]]:
    """Return what all finished runs in a folder found, a row for each set of settings.

    Parameters
    ----------
    out : Path
        Folder of the runs.

    Returns
    -------
    list of dict
        ``settings`` without the seed, ``seeds``, mean ``accuracy`` in per cent and its ``spread``
        over seeds (NaN for one), the mean 95 % ``interval`` over tasks, ``accuracy_120`` on the
        paper's number of tasks, ``accuracy_support``, ``test_tasks``, ``train_tasks`` and
        ``seconds`` for an update.
    """
    groups: dict[str, list[tuple[dict[str, Any], dict[str, Any], Path]]] = {}
    for file in sorted(out.glob("*/result.json")):
        settings = json.loads((file.parent / "config.json").read_text())["settings"]
        if set(settings) - set(asdict(Config())):
            continue  # a run of another problem
        settings = asdict(Config()) | settings  # of an older run, those that it did not know yet
        key = json.dumps({k: v for k, v in settings.items() if k != "seed"})
        result = json.loads(file.read_text())
        groups.setdefault(key, []).append((settings, result, file.parent))
    found = [_row(json.loads(key), runs) for key, runs in groups.items()]
    return sorted(found, key=lambda row: [*(row["settings"][k] for k in _ORDER), _depth(row)])


_ORDER = ("data", "ways", "shots", "filters", "T", "iterations")


def _depth(row: Mapping[str, Any]) -> float:
    K = row["settings"]["K"]
    return float("inf") if K == "full" else K


def _row(settings: dict[str, Any], runs: list[Any]) -> dict[str, Any]:
    def mean(name: str, scale: float = 100) -> float:
        return float(scale * np.mean([result[name] for _, result, _ in runs]))

    accuracies = np.array([100 * result["test_accuracy"] for _, result, _ in runs])
    first = [np.mean(load_arrays(path / "lam.npz")["shares"][:PAPER_TASKS]) for *_, path in runs]
    return {
        "settings": settings,
        "seeds": [each["seed"] for each, *_ in runs],
        "accuracy": float(accuracies.mean()),
        "spread": float(accuracies.std(ddof=1)) if len(runs) > 1 else float("nan"),
        "interval": mean("interval"),
        "accuracy_120": float(100 * np.mean(first)),
        "accuracy_support": mean("test_accuracy_support"),
        "test_tasks": runs[0][1]["test_tasks"],
        "train_tasks": runs[0][1]["train_tasks"],
        "seconds": mean("seconds_per_iteration", 1),
    }


def _named(settings: Mapping[str, Any]) -> str:
    """Return what tells a row from others: the table's settings, and what is not the default."""
    s, usual = settings, asdict(defaults(settings["data"]))
    shown = {*_ORDER, "K", "schedule", "held_out", "test_tasks", "seed"}
    others = [f"{k} {v:g}" for k, v in s.items() if k not in shown and v != usual[k]]
    held_out = [f"{s['held_out']} classes held out"] if s["held_out"] else []
    first = f"{s['data']}, {s['ways']}-way {s['shots']}-shot, {s['filters']} filters, T = {s['T']}"
    return ", ".join([first, f"K = {s['K']}, {s['iterations']} updates", *others, *held_out])


def table4(out: Path) -> str:
    """Return Table 4 of all finished runs in a folder as text, and write it there."""
    found, lines = rows(out), []
    for row in found:
        s = row["settings"]
        spread = "" if np.isnan(row["spread"]) else f" ± {row['spread']:.2f}"
        lines.append(
            (
                _named(s),
                f"{len(row['seeds'])}",
                f"{row['accuracy']:.2f}{spread}",
                f"± {row['interval']:.2f} ({row['test_tasks']})",
                f"{row['accuracy_120']:.2f}",
                f"{row['accuracy_support']:.2f}",
                f"{row['train_tasks']}",
                f"{row['seconds']:.3f}",
            )
        )
        paper = PAPER.get((s["T"], s["K"], s["iterations"]))
        if paper and [s[k] for k in ("data", "ways", "shots", "held_out")] == ["omniglot", 5, 1, 0]:
            took = f"{SECONDS[s['T'], s['K']]}"
            lines.append(("  paper", "", "", "", f"{paper:.1f}", "", "", took))
    header = (
        "settings",
        "seeds",
        "test acc. %",
        "95 % (tasks)",
        f"on {PAPER_TASKS}",
        "support stat.",
        "train tasks",
        "s/update",
    )
    text = table(header, lines)
    text += (
        "\n\ntest acc.: batch statistics of the whole query set, mean ± standard deviation over "
        "seeds; support stat.: those of the support set"
    )
    write_text(out / "table4.txt", text + "\n")
    write_json(out / "table4.json", found)
    return text
