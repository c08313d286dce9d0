"""The folder that a run writes: config, metrics as JSON lines, λ, a checkpoint."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tinybilevel
from tinybilevel.outer.checkpoint import load_arrays

__all__ = ["Folder", "finished", "peak_memory_mb", "table", "write_json"]


class Folder:
    """A run's folder; opening it refuses to mix two runs.

    Parameters
    ----------
    path : Path
        The folder; made if it is not there.
    config : dataclass instance
        Settings of the run, kept in ``config.json``. ``iterations`` may grow on a resume.
    resume : bool
        Continue the run that the folder holds.

    Raises
    ------
    FileExistsError
        If the folder holds a run and `resume` is False.
    ValueError
        If it holds a run with other settings.
    """

    def __init__(self, path: Path, config: Any, *, resume: bool) -> None:
        self.path = path
        settings = dataclasses.asdict(config)
        file = path / "config.json"
        if file.exists():
            if not resume:
                raise FileExistsError(
                    f"{path} holds a run already: --resume continues it, another --out keeps it"
                )
            was = _settings(file, config)
            changed = {
                k: (was.get(k), v)
                for k, v in settings.items()
                if was.get(k) != v and k != "iterations"
            }
            if changed:
                raise ValueError(f"{path} holds a run with other settings (was, now): {changed}")
        path.mkdir(parents=True, exist_ok=True)
        write_json(file, {"version": tinybilevel.__version__, "settings": settings})
        self._trim()

    @property
    def checkpoint(self) -> Path:
        return self.path / "checkpoint.npz"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    def log(self, entry: Mapping[str, Any]) -> None:
        """Append one line of metrics."""
        with self.metrics.open("a") as file:
            file.write(json.dumps(entry) + "\n")

    def lines(self) -> list[dict[str, Any]]:
        """Read the metrics back."""
        if not self.metrics.exists():
            return []
        return [
            json.loads(line) for line in self.metrics.read_text().splitlines() if line.endswith("}")
        ]

    def _trim(self) -> None:
        # A killed run may have logged past its last checkpoint; a resume logs those again.
        done = int(load_arrays(self.checkpoint)["iteration"]) if self.checkpoint.exists() else 0
        kept = [line for line in self.lines() if line["iteration"] <= done]
        write_text(self.metrics, "".join(json.dumps(line) + "\n" for line in kept))


def finished(path: Path, config: Any) -> dict[str, Any] | None:
    """Return the result that a folder holds of a run with just these settings, if it does."""
    settings, result = path / "config.json", path / "result.json"
    if not (settings.exists() and result.exists()):
        return None
    same = _settings(settings, config) == dataclasses.asdict(config)
    return json.loads(result.read_text()) if same else None


def _settings(file: Path, config: Any) -> dict[str, Any]:
    """Read settings; those that the file is too old to know were what is the default now."""
    return dataclasses.asdict(type(config)()) | json.loads(file.read_text())["settings"]


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    temporary = path.with_name(f".{path.name}.part")
    temporary.write_text(text)
    os.replace(temporary, path)


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file whole or not at all."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out a table in plain text, first column to the left."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]

    def line(row: Sequence[str]) -> str:
        return "  ".join(
            c.ljust(w) if i == 0 else c.rjust(w)
            for i, (c, w) in enumerate(zip(row, widths, strict=True))
        )

    return "\n".join([line(header), "  ".join("-" * w for w in widths), *map(line, rows)])


def peak_memory_mb() -> float:
    """Return the process's peak resident memory in MB; NaN where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak / 1e3
