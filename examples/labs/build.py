"""Make the labs' notebooks from their sources, each one file of text.

    python examples/labs/build.py course    # an nbgrader course in the folder course/
    python examples/labs/build.py           # renews examples/labs/release, which is kept here

A source is a Python file in the "percent" format that Jupytext and most editors read: a line
``# %%`` begins a cell of code, ``# %% [markdown]`` one of text, and what follows says what the cell
is for: ``setup``, ``hole=NAME``, ``tests=NAME points=3`` or ``answer=NAME points=2``, with
``task=2`` where it belongs to a task. ``include=FILE`` is replaced by the cells of that file.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

FOLDER = Path(__file__).parent
LABS = sorted(path.stem for path in FOLDER.glob("lab*_*.py") if "submissions" not in path.stem)
STUB = {
    "code": ("# YOUR CODE HERE", "raise NotImplementedError()"),
    "markdown": ("YOUR ANSWER HERE",),
}
#: What nbgrader is told of each role: whether a cell is graded, a solution, locked.
ROLES = {
    "setup": (False, False, True),
    "hole": (False, True, False),
    "tests": (True, False, True),
    "answer": (True, True, False),
}


CONFIG = """\
c = get_config()
c.CourseDirectory.course_id = "tinybilevel"
c.Execute.timeout = 300  # seconds that one cell may take
"""
HIDDEN = re.compile(r"^ *### BEGIN HIDDEN TESTS.*?### END HIDDEN TESTS\n", re.M | re.S)
SOLUTION = re.compile(r"^( *)### BEGIN SOLUTION.*?### END SOLUTION$", re.M | re.S)


@dataclass(frozen=True)
class Cell:
    """One cell: "code" or "markdown", its text, and its part in a task."""

    kind: str
    source: str
    name: str
    role: str = ""
    task: int = 0
    points: int = 0


def read(lab: str) -> list[Cell]:
    """Return the cells of a source, its includes put in."""
    cells: list[Cell] = []
    last, count = "start", 0
    for options, body in _parts(lab):
        kind = "markdown" if options.pop("[markdown]", None) is not None else "code"
        if kind == "markdown":
            body = re.sub(r"^# ?", "", body, flags=re.M)
        role = next((role for role in ROLES if role in options), "")
        if role:
            last, count = options[role] + ("-tests" if role == "tests" else ""), 0
        else:
            count += 1
        # Named after the last cell that has a name, so that a new cell renames few.
        name = last if role else f"after-{last}-{count}"
        task, points = (int(options.get(key, 0)) for key in ("task", "points"))
        cells.append(Cell(kind, body, name, role, task, points))
    return cells


def _parts(name: str) -> Iterator[tuple[dict[str, str], str]]:
    """Yield each cell's options and text."""
    for part in re.split(r"^# %%", (FOLDER / f"{name}.py").read_text("utf-8"), flags=re.M)[1:]:
        head, _, body = part.partition("\n")
        options = dict(word.partition("=")[::2] for word in shlex.split(head))
        if "include" in options:
            yield from _parts(options["include"])
        else:
            yield options, body.strip("\n")


def release(cells: list[Cell]) -> list[Cell]:
    """Return what a student gets: solutions cleared and hidden tests left out, as by nbgrader."""
    return [replace(cell, source=_release(cell)) for cell in cells]


def _release(cell: Cell) -> str:
    text = HIDDEN.sub("", cell.source)
    if cell.role not in ("hole", "answer"):
        return text

    def stub(match: re.Match[str]) -> str:
        return "\n".join(match[1] + line for line in STUB[cell.kind])

    return SOLUTION.sub(stub, text)


def solution(cells: list[Cell]) -> list[Cell]:
    """Return what an instructor reads: solutions and hidden tests, with no markers."""
    out = []
    for cell in cells:
        text = re.sub(
            r"^ *### ((BEGIN|END) SOLUTION|END HIDDEN TESTS)\n?", "", cell.source, flags=re.M
        )
        text = text.replace("### BEGIN HIDDEN TESTS", "# Hidden from students:")
        out.append(replace(cell, source=text.rstrip("\n")))
    return out


def filled(cells: list[Cell], answers: dict[str, str]) -> list[Cell]:
    """Return the notebook of a student who has written `answers` into the cells of these names."""
    assert answers.keys() <= {cell.name for cell in cells}
    return [replace(cell, source=answers.get(cell.name, cell.source)) for cell in cells]


def as_notebook(cells: list[Cell]) -> str:
    """Return a notebook's text; the same cells give the same bytes."""
    notebook = {
        "cells": [_as_json(cell) for cell in cells],
        "metadata": {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def _as_json(cell: Cell) -> dict:
    metadata: dict = {}
    if cell.role:
        graded, solved, locked = ROLES[cell.role]
        metadata["nbgrader"] = {
            "schema_version": 3,
            "grade_id": cell.name,
            "cell_type": cell.kind,
            "grade": graded,
            "solution": solved,
            "locked": locked,
            "task": False,
        }
        if graded:
            metadata["nbgrader"]["points"] = cell.points
    if cell.name == "checks":
        metadata["jupyter"] = {"source_hidden": True}  # folded away
    if cell.task:
        metadata["tags"] = [f"task{cell.task}"]
    out = {"cell_type": cell.kind, "id": cell.name, "metadata": metadata}
    if cell.kind == "code":
        out |= {"execution_count": None, "outputs": []}
    return out | {"source": cell.source.splitlines(keepends=True)}


def write(path: Path, cells: list[Cell]) -> None:
    """Write a notebook, and beside it what lets pytest run one task of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(as_notebook(cells), "utf-8")
    shutil.copy(FOLDER / "conftest.py", path.parent)


def course(folder: Path, labs: list[str]) -> None:
    """Lay out an nbgrader course, with the solutions to read beside its sources."""
    for lab in labs:
        cells = read(lab)
        write(folder / "source" / lab / f"{lab}.ipynb", cells)
        write(folder / "solution" / f"{lab}.ipynb", solution(cells))
    (folder / "nbgrader_config.py").write_text(CONFIG, "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("course", nargs="?", type=Path, help="folder for an nbgrader course")
    folder = parser.parse_args().course
    if folder:
        course(folder, LABS)
        return
    for lab in LABS:
        write(FOLDER / "release" / f"{lab}.ipynb", release(read(lab)))


if __name__ == "__main__":
    main()
