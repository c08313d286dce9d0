"""Lets pytest run the tests of a notebook task by task: pytest lab1_recursion.ipynb -m task3.

A task's tests see the cells that set the lab up and the task's own cells, and nothing else: an
error in one task does not turn another one red. Save the notebook before.
"""

import json
import re

import pytest

TASK = re.compile(r"task\d+")


def pytest_configure(config):
    for number in range(1, 20):
        config.addinivalue_line("markers", f"task{number}: the tests of task {number} of a lab")


def pytest_collect_file(file_path, parent):
    if file_path.suffix == ".ipynb":
        return Notebook.from_parent(parent, path=file_path)
    return None


class Notebook(pytest.File):
    def collect(self):
        for name, cells in tasks(json.loads(self.path.read_text("utf-8"))["cells"]).items():
            item = Task.from_parent(self, name=name)
            item.cells = cells
            item.add_marker(name)
            yield item


class Task(pytest.Item):
    def runtest(self):
        run(self.cells)

    def reportinfo(self):
        return self.path, 0, self.name

    def repr_failure(self, excinfo):
        hint = str(excinfo.value)
        if excinfo.errisinstance(AssertionError) and hint:
            return hint
        if excinfo.errisinstance(NotImplementedError):
            return "not written yet: raise NotImplementedError() is still there"
        return super().repr_failure(excinfo)


def tasks(cells):
    """Return each task's cells of code, after those that set the lab up."""
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    of = {cell["id"]: task_of(cell) for cell in code}
    setup = [cell for cell in code if not of[cell["id"]] and is_setup(cell)]
    names = sorted({of[c["id"]] for c in code if is_tests(c)}, key=lambda name: int(name[4:]))
    return {name: setup + [cell for cell in code if of[cell["id"]] == name] for name in names}


def task_of(cell):
    return next(filter(TASK.fullmatch, cell["metadata"].get("tags", [])), None)


def is_setup(cell):
    grading = cell["metadata"].get("nbgrader", {})
    return grading.get("locked", False) and not grading["grade"]


def is_tests(cell):
    grading = cell["metadata"].get("nbgrader", {})
    return grading.get("grade", False) and not grading["solution"]


def run(cells):
    """Run cells one after the other, in one namespace."""
    namespace = {"__name__": "__main__"}
    for cell in cells:
        code = compile("".join(cell["source"]), f"<cell {cell['id']}>", "exec")
        exec(code, namespace)
    return namespace
