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

__all__ = [
    "Folder",
    "default_folder",
    "finished",
    "peak_memory_mb",
    "table",
    "updates",
    "write_json",
    "write_text",
]


#: The files by which a folder of ours is known.
_OURS = ("checkpoint.npz", "lam.npz", "metrics.jsonl", "result.json")


class Folder:
    """A run's folder; opening it refuses to mix two runs.

    Parameters
    ----------
    path : Path
        The folder; made if it is not there.
    config : dataclass instance
        Settings of the run, kept in ``config.json``. ``iterations`` may change on a resume.
    resume : bool
        Continue the run that the folder holds.
    compiled : bool, optional
        How the run is computed, kept in ``config.json`` too. It is no setting: both ways find the
        same but for rounding, so that a resume on the other one says so and goes on.

    Raises
    ------
    FileExistsError
        If the folder holds a run and `resume` is False, or files called like a run's.
    ValueError
        If it holds a run with other settings.
    """

    def __init__(
        self, path: Path, config: Any, *, resume: bool, compiled: bool | None = None
    ) -> None:
        self.path = path
        settings = dataclasses.asdict(config)
        file = path / "config.json"
        if file.exists():
            if changed := _changes(_settings(file, config), settings):
                raise ValueError(f"{path} holds a run with other settings: {'; '.join(changed)}")
            if not resume:
                raise FileExistsError(
                    f"{path} holds a run already: --resume continues it, another --out keeps it"
                )
        elif found := [name for name in _OURS if (path / name).exists()]:
            raise FileExistsError(
                f"{path} holds no run, but {found[0]}, which a run would write over: "
                "choose another --out"
            )
        elif resume:
            _say(f"no run in {path} yet: this one starts from the beginning")
        if path.exists() and not path.is_dir():
            raise FileExistsError(f"--out {path} is a file: name a folder")
        path.mkdir(parents=True, exist_ok=True)
        done = updates(path)
        if done > settings["iterations"]:
            _say(f"{path} holds {done} updates of λ: {settings['iterations']} in all adds none")
            settings["iterations"] = done
        how = {} if compiled is None else {"compiled": compiled}
        was = _read_json(file).get("compiled", compiled) if file.exists() else compiled
        if was != compiled and done < settings["iterations"]:
            a, b = ("compiled" if of else "step by step" for of in (was, compiled))
            _say(f"{path} was run {a} so far, and goes on {b}: the same but for rounding")
        write_json(file, {"version": tinybilevel.__version__, **how, "settings": settings})
        if done < settings["iterations"]:
            # What an earlier, shorter run found must not pass for what this one will.
            (path / "result.json").unlink(missing_ok=True)
        self._trim(done)
        #: Updates to reach in all: what the file holds already, or more.
        self.iterations: int = settings["iterations"]

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

    def _trim(self, done: int) -> None:
        # A killed run may have logged past its last checkpoint; a resume logs those again.
        kept = [line for line in self.lines() if line["iteration"] <= done]
        write_text(self.metrics, "".join(json.dumps(line) + "\n" for line in kept))


def updates(path: Path) -> int:
    """Return how many updates of λ the checkpoint in a folder holds."""
    file = path / "checkpoint.npz"
    return int(load_arrays(file)["iteration"]) if file.exists() else 0


def default_folder(name: str, config: Any, *always: str, usual: Any = None) -> Path:
    """Return a folder named by what tells a run from others: `always`, and what is not `usual`.

    `usual` is a config as well, by default that of all defaults.

    Examples
    --------
    >>> from tinybilevel.cli.toy import Config
    >>> default_folder("toy", Config(K=5, T=50), "K").as_posix()
    'runs/toy-K5-T50'
    """
    parts, usual = [name], type(config)() if usual is None else usual
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        other = value != getattr(usual, field.name)
        if field.name in always and isinstance(value, str):
            parts.append(value)
        elif field.name in always or (other and field.name != "iterations"):
            parts.append(f"{field.name}{'' if value is True else value}")
    return Path("runs") / "-".join(parts)


def finished(path: Path, config: Any) -> dict[str, Any] | None:
    """Return the result that a folder holds of a run with just these settings, if it does."""
    settings, result = path / "config.json", path / "result.json"
    if not (settings.exists() and result.exists()):
        return None
    same = _settings(settings, config) == dataclasses.asdict(config)
    return _read_json(result) if same else None


def _changes(was: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    names = [name for name in {**was, **now} if name != "iterations"]
    return [
        f"{name} was {was.get(name, 'absent')}, is now {now.get(name, 'absent')}"
        for name in names
        if was.get(name, "absent") != now.get(name, "absent")
    ]


def _settings(file: Path, config: Any) -> dict[str, Any]:
    """Read settings; those that the file is too old to know were what is the default now."""
    return dataclasses.asdict(type(config)()) | _read_json(file)["settings"]


def _read_json(file: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(file.read_text()))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{file} is damaged: {error}") from error


def _say(text: str) -> None:
    print(f"tinybilevel: {text}", file=sys.stderr)


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
