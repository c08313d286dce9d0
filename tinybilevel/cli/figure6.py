"""``tinybilevel reproduce figure6``: how task interaction converges by K, and what C it learns."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tinybilevel.cli import figures
from tinybilevel.cli.draws import SETTINGS, draw
from tinybilevel.cli.folder import write_json, write_text
from tinybilevel.cli.interaction import Trial, relations
from tinybilevel.cli.table3 import KS, Trials
from tinybilevel.problems import interactions

__all__ = ["figure6", "mean_curve"]

_COLUMNS = ("loss", "projected_norm", "cosine_free", "cosine")


def figure6(found: Trials, out: Path, data_dir: Path | None = None) -> None:
    """Draw Figure 6, a row for each setting, and the mean over trials of C as a heat map.

    Parameters
    ----------
    found : dict
        Trials of each setting, as of `all_trials`.
    out : Path
        Folder for ``figure6.png``, ``.svg`` and ``.csv``; for each setting whose trials share
        their classes, ``interaction_NAME.png``, ``.svg``, and which pairs got weight as ``.json``.
    data_dir : Path, optional
        Where the data lie.
    """
    panels = {
        _title(name): {_label(K): mean_curve([r[f"K{K}"] for r in results]) for K in KS}
        for name, results in found.items()
    }
    written = figures.interaction_curves(out / "figure6", panels)
    csv = [",".join(["data", "K", "iteration", *_COLUMNS])]
    for name, K in ((name, K) for name in found for K in KS):
        for line in panels[_title(name)][_label(K)]:
            numbers = ["" if line[c] is None else repr(line[c]) for c in _COLUMNS]
            csv.append(",".join([name, str(K), str(line["iteration"]), *numbers]))
    write_text(out / "figure6.csv", "\n".join(csv) + "\n")
    written.append(out / "figure6.csv")
    for name, results in found.items():
        if SETTINGS[name].data == "omniglot":
            continue  # other characters in each trial
        pool = draw(SETTINGS[name], 0, data_dir)[1]
        C = np.mean([interactions(np.array(r[f"K{max(KS)}"].lam)) for r in results], axis=0)
        stem = out / f"interaction_{name}"
        title = f"Learned C, {_title(name)}, full gradient, mean of {len(results)} trials"
        written += figures.interaction(stem, C, pool.class_names, pool.superclasses, title)
        write_json(stem.with_suffix(".json"), relations(C, pool, top=20))
        written.append(stem.with_suffix(".json"))
    for path in written:
        print(f"written {path}")


def mean_curve(trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """Return the trial means at each update, None where no trial has a number.

    The last line is that after all updates, where trials have a projected norm alone.
    """
    lines: list[dict[str, Any]] = []
    for entries in zip(*(trial.curve for trial in trials), strict=True):
        line: dict[str, Any] = {"iteration": entries[0]["iteration"]}
        for column in _COLUMNS:
            numbers = np.array([entry.get(column, np.nan) for entry in entries])
            known = numbers[~np.isnan(numbers)]
            line[column] = float(known.mean()) if known.size else None
        lines.append(line)
    norm = float(np.mean([trial.projected_norm for trial in trials]))
    last = dict.fromkeys(_COLUMNS) | {"projected_norm": norm}
    return [*lines, {"iteration": lines[-1]["iteration"] + 1, **last}]


def _title(name: str) -> str:
    return name.replace("cifar", "CIFAR-")


def _label(K: int) -> str:
    return "full" if max(KS) == K else f"K = {K}"
