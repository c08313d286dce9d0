"""Submissions with known marks: right ones that differ from our solution, and wrong ones.

Each lab's are in its own file, `RIGHT` and `WRONG`; a submission is our solution with the cells of
some holes changed. They test the labs: a right one must get all marks, and a wrong one must lose
those of its task, with a hint that helps.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import build

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Wrong:
    """A mistake: `old`, which the solution of `hole` has once, is `new`.

    `hint` are words of the message that the student gets; `hidden` says that the tests that a
    student has do not see the mistake.
    """

    name: str
    hole: str
    old: str
    new: str
    hint: str
    hidden: bool = False


@dataclass(frozen=True)
class Submission:
    """A student's work: what is in each hole, and the holes that must lose their marks."""

    name: str
    answers: dict[str, str]
    loses: frozenset[str] = frozenset()


def solved(lab: str) -> dict[str, str]:
    """Return our solution's text of each hole."""
    return {
        cell.name: cell.source for cell in build.solution(build.read(lab)) if cell.role == "hole"
    }


def of(lab: str) -> tuple[dict[str, dict[str, str]], list[Wrong]]:
    """Return a lab's `RIGHT` and `WRONG`."""
    path = FOLDER / f"{lab.partition('_')[0]}_submissions.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.RIGHT, module.WRONG


def submissions(lab: str) -> list[Submission]:
    """Return them all: ours, the other right ones, an empty one and each wrong one."""
    right, wrong = of(lab)
    ours = solved(lab)
    out = [Submission("ours", ours), Submission("empty", {}, frozenset(ours))]
    out += [Submission(name, ours | answers) for name, answers in right.items()]
    for each in wrong:
        text = ours[each.hole]
        assert text.count(each.old) == 1, f"{each.name}: {each.old!r} must be there once"
        answers = ours | {each.hole: text.replace(each.old, each.new)}
        out.append(Submission(each.name, answers, frozenset({each.hole})))
    return out
