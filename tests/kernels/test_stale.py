"""Machine code on disk that is older than its source."""

import os
import subprocess
import sys

import pytest

from tinybilevel.kernels.stale import forget


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "a.py").write_text("x = 1\n")
    (tmp_path / "b.py").write_text("y = 2\n")
    cache = tmp_path / "__pycache__"
    forget(tmp_path)
    for name in ("a.f-1.py311.nbi", "a.f-1.py311.1.nbc", "a.cpython-311.pyc"):
        (cache / name).write_text("code")
    return tmp_path


def kept(folder):
    return {file.suffix for file in (folder / "__pycache__").iterdir()} - {".txt"}


def test_code_stays_while_no_file_changes(folder):
    assert not forget(folder)
    assert kept(folder) == {".nbi", ".nbc", ".pyc"}


@pytest.mark.parametrize("change", ["edited", "touched", "new", "gone"])
def test_code_goes_when_any_file_changes(folder, change):
    if change == "edited":
        (folder / "b.py").write_text("y = 3  # and longer\n")
    elif change == "touched":
        os.utime(folder / "b.py", ns=(1, 1))
    elif change == "new":
        (folder / "c.py").write_text("")
    else:
        (folder / "b.py").unlink()
    assert forget(folder)
    assert kept(folder) == {".pyc"}
    assert not forget(folder), "once is enough"


def test_a_folder_that_cannot_be_written_to_is_left(folder, monkeypatch):
    def refuse(*args, **options):
        raise PermissionError

    (folder / "b.py").write_text("y = 3  # and longer\n")
    monkeypatch.setattr(type(folder), "unlink", refuse)
    assert not forget(folder)
    assert kept(folder) == {".nbi", ".nbc", ".pyc"}


@pytest.mark.parametrize("edited", [False, True])
def test_a_kernel_sees_a_change_in_a_file_that_it_calls(tmp_path, edited):
    pytest.importorskip("numba")
    kernel = "from numba import njit\n{}\n@njit(cache=True)\ndef {}(x):\n    return {}\n"
    (tmp_path / "inner.py").write_text(kernel.format("", "f", "x + 1"))
    (tmp_path / "outer.py").write_text(kernel.format("from inner import f", "g", "f(x)"))
    code = f"""
from pathlib import Path
from tinybilevel.kernels.stale import forget
forget(Path({str(tmp_path)!r}))
from outer import g
print(g(1))
"""

    def run():
        return subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
        ).stdout.strip()

    assert run() == "2"
    if edited:
        (tmp_path / "inner.py").write_text(kernel.format("", "f", "x + 100"))
    assert run() == ("101" if edited else "2")


@pytest.mark.parametrize(("module", "looks"), [("tiles", 1), ("blocked_softmax", 0)])
def test_whoever_loads_compiled_kernels_looks_first_and_nobody_else_leaves_a_trace(module, looks):
    pytest.importorskip("numba")
    code = f"""
import tinybilevel.kernels.stale as stale
stale.forget = lambda folder: print(folder.name)
import tinybilevel.kernels.{module}
"""
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert said == looks * "kernels\n"
