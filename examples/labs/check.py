"""Publish each lab with nbgrader, hand in every submission, and compare the marks with what is due.

    python examples/labs/check.py                 # all labs, two at a time
    python examples/labs/check.py lab1_recursion --keep course

Needs the extra ``labs``. For each lab it runs `nbgrader generate_assignment`, `nbgrader validate`
on every submission and `nbgrader autograde` on all of them, and prints a table; its exit status is
1 where a mark, or what `validate` says, is not what it must be.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import build
import submissions


def nbgrader(course: Path, *args: str, quick: bool = True) -> str:
    """Run an nbgrader command in a course, and return what it prints."""
    command = [sys.executable, "-m", "nbgrader", *args]
    env = os.environ | {"TINYBILEVEL_LABS": "quick" if quick else ""}
    for _ in range(2):
        run = subprocess.run(command, cwd=course, env=env, capture_output=True, text=True)
        # Jupyter looks for free ports some time before its kernels take them, and labs are checked
        # side by side: what is not done yet is done by the same command again.
        if "Address already in use" not in run.stderr:
            break
    if run.returncode and args[0] != "validate":
        raise SystemExit(f"{' '.join(command)} failed:\n{run.stdout}{run.stderr}")
    return run.stdout


def publish(course: Path, lab: str) -> dict:
    """Lay a lab into a course directory and return the notebook that nbgrader releases."""
    build.course(course, [lab])
    nbgrader(course, "generate_assignment", lab, "--create", "--force")
    return json.loads((course / "release" / lab / f"{lab}.ipynb").read_text("utf-8"))


def hand_in(path: Path, released: dict, answers: dict[str, str], whole: bool) -> Path:
    """Write a student's notebook: the released one with `answers` in the cells of these names.

    One that is not whole leaves the demonstrations out, as a student may: nothing of them is
    marked.
    """
    cells = []
    for cell in released["cells"]:
        name = cell["metadata"].get("nbgrader", {}).get("grade_id")
        if name or whole:
            cells.append(cell | {"source": answers.get(name, cell["source"])})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(released | {"cells": cells}), "utf-8")
    return path


def marks(course: Path, lab: str, student: str) -> tuple[dict[str, float], float]:
    """Return a submission's marks of each cell of tests, and the most that is left to mark."""
    from nbgrader.api import Gradebook

    with Gradebook(f"sqlite:///{course}/gradebook.db", "tinybilevel") as book:
        grades = book.find_submission_notebook(lab, lab, student).grades
        auto = {g.name: g.auto_score for g in grades if g.cell.cell_type == "code"}
        return auto, sum(g.max_score for g in grades if g.needs_manual_grade)


def check(course: Path, lab: str) -> tuple[list[str], bool]:
    """Return the lines of a lab's table, and whether all of it is as it must be."""
    begin = time.perf_counter()
    cells = build.read(lab)
    released = publish(course, lab)
    ours = [cell.source for cell in build.release(cells)]
    good = ours == ["".join(cell["source"]) for cell in released["cells"]]
    lines = [f"{lab}: nbgrader releases {'the same notebook' if good else 'ANOTHER notebook'}"]
    points = {cell.name: cell.points for cell in cells if cell.role == "tests"}
    written = {c.name: c for c in build.solution(cells) if c.role == "answer"}
    to_mark = sum(cell.points for cell in written.values())
    hidden = {wrong.name for wrong in submissions.of(lab)[1] if wrong.hidden}
    work = {f"student{i:02}": s for i, s in enumerate(submissions.submissions(lab))}
    paths = {}
    for student, s in work.items():
        path = course / "submitted" / student / lab / f"{lab}.ipynb"
        answers = s.answers and s.answers | {name: c.source for name, c in written.items()}
        paths[student] = hand_in(path, released, answers, whole=not s.loses)
    first, *rest = work
    start = time.perf_counter()
    said = validated(course, {first: paths[first]}, "--Validator.validate_all=True", quick=False)
    lines.append(f"  from top to bottom in {time.perf_counter() - start:.0f} s")
    said |= validated(course, {student: paths[student] for student in rest})
    nbgrader(course, "autograde", lab)
    task = {cell.name: cell.task for cell in cells}
    lines.append(f"  {'submission':<46} {'due':>4} {'given':>5} {'to mark':>7}  validate")
    for student, s in work.items():
        lost = {task[hole] for hole in s.loses}
        due = {name: 0.0 if task[name] in lost else float(n) for name, n in points.items()}
        given, left = marks(course, lab, student)
        passes = not s.loses or s.name in hidden
        ok = given == due and said[student] == passes and left == (to_mark if s.answers else 0)
        good &= ok
        totals = f"{sum(due.values()):>4g} {sum(given.values()):>5g} {left:>7g}"
        verdict = "passes" if said[student] else "fails"
        note = "" if ok else f"   WRONG: due {due}, given {given}"
        lines.append(f"  {s.name:<46} {totals}  {verdict}{note}")
    lines.append(f"  {len(work)} submissions in {time.perf_counter() - begin:.0f} s")
    return lines, good


def validated(
    course: Path, paths: dict[str, Path], *options: str, quick: bool = True
) -> dict[str, bool]:
    """Return whether `nbgrader validate` finds that each notebook passes its tests."""
    out = nbgrader(course, "validate", *options, *map(str, paths.values()), quick=quick)
    verdicts = re.findall(r"(Success! Your notebook passes|VALIDATION FAILED)", out)
    if len(verdicts) != len(paths):
        raise SystemExit(f"nbgrader validate said {len(verdicts)} things of {len(paths)}:\n{out}")
    return {s: v.startswith("Success") for s, v in zip(paths, verdicts, strict=True)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("labs", nargs="*", choices=[*build.LABS, []], help="by default all")
    parser.add_argument("--keep", type=Path, help="keep the courses in this folder")
    args = parser.parse_args()
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch, ThreadPoolExecutor(2) as pool:
        folder = (args.keep or Path(scratch)).resolve()
        labs = args.labs or build.LABS
        good = True
        for lines, ok in pool.map(lambda lab: check(folder / lab, lab), labs):
            print("\n".join(lines), flush=True)
            good &= ok
    print("all marks as they must be" if good else "SOME MARKS ARE NOT AS THEY MUST BE", end="")
    print(f", in {time.perf_counter() - begin:.0f} s")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
