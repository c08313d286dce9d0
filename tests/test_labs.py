"""The course labs: right work gets all marks, each known mistake loses its task's, with a hint."""

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "examples" / "labs"
sys.path.insert(0, str(FOLDER))
build, submissions = importlib.import_module("build"), importlib.import_module("submissions")
sys.path.remove(str(FOLDER))
spec = importlib.util.spec_from_file_location("lab_pytest", FOLDER / "conftest.py")
runner = importlib.util.module_from_spec(spec)
spec.loader.exec_module(runner)

CELLS = {lab: build.read(lab) for lab in build.LABS}
EVERY = [(lab, s) for lab in build.LABS for s in submissions.submissions(lab)]
WRONG = [(lab, w) for lab in build.LABS for w in submissions.of(lab)[1]]


def named(pairs):
    return pytest.mark.parametrize(
        ("lab", "work"), pairs, ids=[f"{lab.partition('_')[0]}-{w.name}" for lab, w in pairs]
    )


def tasks(cells):
    return runner.tasks(json.loads(build.as_notebook(cells))["cells"])


def failure(cells, hole):
    """Return what the tests of a hole's task say against it; "" where they pass."""
    task = next(cell.task for cell in cells if cell.name == hole)
    try:
        runner.run(tasks(cells)[f"task{task}"])
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


@named([pair for pair in EVERY if not pair[1].loses])
def test_right_work_passes_every_test_hidden_ones_too(lab, work):
    cells = build.filled(CELLS[lab], work.answers)
    assert {hole: failure(cells, hole) for hole in work.answers} == dict.fromkeys(work.answers, "")


@named(WRONG)
def test_wrong_work_is_told_what_is_wrong(lab, work):
    answers = next(s.answers for other, s in EVERY if (other, s.name) == (lab, work.name))
    cells = build.filled(CELLS[lab], answers)
    assert work.hint in failure(cells, work.hole)
    seen = failure(build.filled(build.release(CELLS[lab]), answers), work.hole)
    assert (seen == "") == work.hidden, seen


@pytest.mark.parametrize("lab", build.LABS)
def test_an_empty_notebook_passes_no_test(lab):
    cells = build.release(CELLS[lab])
    for hole in submissions.solved(lab):
        assert failure(cells, hole).startswith("NotImplementedError")


@pytest.mark.parametrize("lab", build.LABS)
def test_a_lab_has_mistakes_enough_in_every_task(lab):
    right, wrong = submissions.of(lab)
    assert right
    assert len(wrong) >= 5
    assert {w.hole for w in wrong} == set(submissions.solved(lab))
    assert len({w.name for w in wrong}) == len(wrong)


@pytest.mark.parametrize("lab", build.LABS)
def test_the_notebook_that_is_kept_is_what_its_source_makes(lab):
    kept = FOLDER / "release" / f"{lab}.ipynb"
    assert kept.read_text("utf-8") == build.as_notebook(build.release(CELLS[lab])), (
        "python examples/labs/build.py renews it"
    )


def test_pytest_gets_the_same_plugin_beside_every_notebook():
    for path in FOLDER.glob("release/conftest.py"):
        assert path.read_text("utf-8") == (FOLDER / "conftest.py").read_text("utf-8")


@pytest.mark.parametrize("lab", build.LABS)
def test_no_solution_and_no_hidden_test_is_handed_out(lab):
    given = "\n".join(cell.source for cell in build.release(CELLS[lab]))
    marked = re.compile(r"### BEGIN (?:SOLUTION|HIDDEN TESTS)\n(.*?)\n *### END", re.S)
    parts = [part for cell in CELLS[lab] for part in marked.findall(cell.source)]
    assert len(parts) >= 2 * len(submissions.solved(lab))
    assert not [part for part in parts if part in given]
    assert "SOLUTION" not in given
    assert "HIDDEN" not in given


@pytest.mark.parametrize("lab", build.LABS)
def test_cells_have_ids_of_their_own_and_graded_ones_points(lab):
    cells = CELLS[lab]
    ids = [cell.name for cell in cells]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[\w-]{1,64}", name, re.A) for name in ids)
    assert all(cell.points > 0 for cell in cells if cell.role in ("tests", "answer"))
    assert all(cell.task > 0 for cell in cells if cell.role in ("tests", "answer", "hole"))


@pytest.mark.parametrize("lab", build.LABS)
def test_a_lab_says_its_goals_its_reading_and_its_time(lab):
    first = CELLS[lab][0].source
    for words in ("**You will**", "**Read before:**", "**Time:**", "eq. ("):
        assert words in first


def test_pytest_runs_the_tests_of_one_task_alone(tmp_path):
    lab = build.LABS[0]
    ours = submissions.solved(lab)
    broken = build.filled(build.release(CELLS[lab]), ours | {"step": "raise TypeError('mine')"})
    build.write(tmp_path / f"{lab}.ipynb", broken)

    def pytest_says(task):
        command = [
            sys.executable,
            "-m",
            "pytest",
            f"{lab}.ipynb",
            "-m",
            task,
            "-p",
            "no:cacheprovider",
        ]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True).stdout

    assert "TypeError: mine" in (first := pytest_says("task1"))
    assert "1 failed" in first
    assert "1 passed" in pytest_says("task3")
