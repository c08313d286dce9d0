"""``tinybilevel reproduce table3``: task interaction on small draws, trial by trial."""

from __future__ import annotations

import dataclasses
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array
from tinybilevel.cli.draws import SETTINGS
from tinybilevel.cli.folder import table, write_json, write_text
from tinybilevel.cli.interaction import CONTROLS, Trial, trial
from tinybilevel.errors import StabilityWarning

__all__ = ["KS", "PAPER", "Trials", "all_trials", "rows", "table3"]

#: Depths of the table; 100 = T is the full gradient.
KS = (1, 5, 25, 100)
#: The paper's Table 3: test accuracy in per cent and its standard deviation, over ten trials.
PAPER = {
    "cifar10": {1: (61.11, 1.23), 5: (61.33, 1.08), 25: (61.31, 1.24), 100: (61.28, 1.21)},
    "cifar100": {1: (34.37, 0.63), 5: (34.34, 0.68), 25: (34.51, 0.69), 100: (34.70, 0.64)},
}
Trials = dict[str, list[dict[str, Trial]]]


def all_trials(
    out: Path,
    settings: Sequence[str],
    trials: int,
    *,
    exact_every: int = 10,
    data_dir: Path | None = None,
    progress: bool = True,
) -> Trials:
    """Run every trial that `out` does not hold yet; each is written when it is done.

    Parameters
    ----------
    out : Path
        Folder for one file of JSON lines per setting, a line per trial.
    settings : sequence of str
        Names of `SETTINGS`.
    trials : int
        Trials of each, seeds 0, 1, ….
    exact_every : int
        Updates between two exact gradients, for Figure 6.
    data_dir : Path, optional
        Where the data lie.
    progress : bool
        Print a line for each trial.

    Returns
    -------
    dict of str to list of dict of str to Trial
        By setting, trial and method.
    """
    out.mkdir(parents=True, exist_ok=True)
    found: Trials = {}
    for name in settings:
        file = out / f"{name}.jsonl"
        found[name] = _read(file)[:trials]
        for seed in range(len(found[name]), trials):
            with warnings.catch_warnings():  # told once below, not at each λ
                warnings.filterwarnings("ignore", "the steps may grow", StabilityWarning)
                results = trial(
                    SETTINGS[name], seed, Ks=KS, exact_every=exact_every, data_dir=data_dir
                )
            found[name].append(results)
            with file.open("a") as lines:
                line = {k: dataclasses.asdict(v) for k, v in results.items()}
                lines.write(json.dumps(line) + "\n")
            if progress:
                scores = "  ".join(f"{k} {100 * v.accuracy:.2f}" for k, v in results.items())
                bound = max(v.row_bound for v in results.values() if v.curve)
                note = f"  (steps may grow: bound {bound:.2f}, not below 2)" if bound >= 2 else ""
                print(f"{name}, trial {seed + 1} of {trials}: {scores}{note}", flush=True)
    return found


def _read(file: Path) -> list[dict[str, Trial]]:
    """Read the whole lines of a file, and leave no half of one in it."""
    if not file.exists():
        return []
    lines = [line for line in file.read_text().splitlines(keepends=True) if line.endswith("}\n")]
    write_text(file, "".join(lines))
    return [{k: Trial(**v) for k, v in json.loads(line).items()} for line in lines]


def rows(results: Sequence[dict[str, Trial]]) -> list[dict[str, Any]]:
    """Return mean and spread of each method over trials, and its paired gains, in per cent.

    Parameters
    ----------
    results : sequence of dict of str to Trial
        One setting's trials.

    Returns
    -------
    list of dict
        ``method``, ``accuracy``, ``std``, and ``gain`` over no interaction, its standard error
        ``gain_se``; ``best_loss`` and ``last`` likewise as means.
    """
    table_rows = []
    for method in results[0]:
        accuracy = _column(results, method, "accuracy")
        gain, error = paired(results, method, "none")
        table_rows.append(
            {
                "method": method,
                "accuracy": float(accuracy.mean()),
                "std": _spread(accuracy),
                "gain": gain,
                "gain_se": error,
                "best_loss_accuracy": float(_column(results, method, "accuracy_best_loss").mean()),
                "last_accuracy": float(_column(results, method, "accuracy_last").mean()),
                "loss": float(np.mean([r[method].best_loss for r in results])),
                "projected_norm": float(np.mean([r[method].projected_norm for r in results])),
                "seconds": float(np.mean([r[method].seconds for r in results])),
                "row_bound": max(r[method].row_bound for r in results),
            }
        )
    return table_rows


def _column(results: Sequence[dict[str, Trial]], method: str, name: str) -> Array:
    return 100 * np.array([getattr(r[method], name) for r in results])


def _spread(x: Array) -> float:
    return float(x.std(ddof=1)) if len(x) > 1 else float("nan")


def table3(found: Trials, out: Path) -> None:
    """Print and save Table 3: ours with all controls, and the paper's under it."""
    header = (
        "data, method",
        "test acc. %",
        "gain over none",
        "at best loss",
        "last",
        "val. loss",
        "proj. norm",
        "s",
    )
    lines: list[tuple[str, ...]] = []
    saved: dict[str, Any] = {}
    for name, results in found.items():
        lines.append(_first(f"{name}, {len(results)} trials", "", len(header)))
        methods = rows(results)
        known = [{k: v for k, v in row.items() if v == v} for row in methods]  # no NaN in JSON
        saved[name] = {"trials": len(results), "methods": known}
        for row in methods:
            lines.append(_line(row))
            K = int(row["method"][1:]) if row["method"][1:].isdigit() else None
            if name in PAPER and K in PAPER[name]:
                paper = f"{PAPER[name][K][0]:.2f} ± {PAPER[name][K][1]:.2f}"
                lines.append(_first("    paper", paper, len(header)))
        for control in ("permuted", "row sums"):
            gain = paired(results, f"K{max(KS)}", control)
            saved[name][f"full over {control}"] = dict(
                zip(("gain", "gain_se") if gain[1] == gain[1] else ("gain",), gain, strict=False)
            )
            lines.append((f"  full − {control}", "", _gain(*gain), *[""] * (len(header) - 3)))
    text = table(header, lines)
    print(text)
    write_text(out / "table3.txt", text + "\n")
    write_json(out / "table3.json", saved)


def paired(results: Sequence[dict[str, Trial]], method: str, base: str) -> tuple[float, float]:
    """Return the mean paired gain in test accuracy over trials, in per cent, and its error."""
    gain = _column(results, method, "accuracy") - _column(results, base, "accuracy")
    return float(gain.mean()), _spread(gain) / len(gain) ** 0.5


def _first(name: str, accuracy: str, columns: int) -> tuple[str, ...]:
    return (name, accuracy, *[""] * (columns - 2))


def _gain(mean: float, error: float) -> str:
    return f"{mean:+.2f}" + ("" if np.isnan(error) else f" ({error:.2f})")


def _line(row: dict[str, Any]) -> tuple[str, ...]:
    def number(x: float, digits: int) -> str:
        return "" if np.isnan(x) else f"{x:.{digits}f}"

    name = {f"K{max(KS)}": "full"}.get(row["method"], row["method"].replace("K", "K = "))
    spread = "" if np.isnan(row["std"]) else f" ± {row['std']:.2f}"
    return (
        f"  {name if row['method'] not in CONTROLS or name == 'none' else f'C {name}'}",
        f"{row['accuracy']:.2f}{spread}",
        "" if name == "none" else _gain(row["gain"], row["gain_se"]),
        number(row["best_loss_accuracy"], 2),
        number(row["last_accuracy"], 2),
        number(row["loss"], 4),
        number(row["projected_norm"], 3),
        number(row["seconds"], 1),
    )
