"""Data flow down the list of folders: none imports one that imports it, and few know of kernels."""

import ast
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "tinybilevel"

#: From what knows nothing of the others to what knows all of them.
ORDER = (
    "errors",
    "products",
    "arrays",
    "maps",
    "objectives",
    "transitions",
    "problem",
    "engine",
    "measure",
    "methods",
    "problems",
    "data",
    "outer",
    "bounds",
    "plotting",
    "testing",
    "compiled",
    "cli",
)
#: The places that choose an overlay: for an objective's products, and for a network's layers.
SEAMS = ("objectives/overlays.py", "layers/overlays.py")


def modules(path):
    """Return every module of the package that a file imports, also by name, without its root."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Import():
                found |= {alias.name for alias in node.names}
            case ast.ImportFrom(module="tinybilevel"):
                found |= {f"tinybilevel.{alias.name}" for alias in node.names}
            case ast.ImportFrom(level=0):
                found.add(node.module)
            case ast.Constant(value=str(text)) if text.startswith("tinybilevel.kernels"):
                found.add(text)
    return {m.removeprefix("tinybilevel.") for m in found if m.startswith("tinybilevel.")}


def folder(module):
    return module.partition(".")[0]


@cache
def uses():
    """Return which folders each folder imports; a module of the root is one of its own."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        part = path.relative_to(PACKAGE)
        name = part.parts[0].removesuffix(".py")
        if name not in ("__init__", "__main__", "kernels"):
            found.setdefault(name, set()).update(folder(m) for m in modules(path))
    return {name: parts - {name, "kernels"} for name, parts in found.items()}


def test_no_folder_imports_one_that_imports_it():
    TopologicalSorter(uses()).prepare()  # raises a CycleError, which names them


@pytest.mark.parametrize("name", ORDER)
def test_data_flow_down(name):
    above = {part for part in uses()[name] if part in ORDER}
    below = set(ORDER[ORDER.index(name) :])
    assert not above & below, f"{name}/ imports {sorted(above & below)}, which come after it"


@pytest.mark.parametrize("name", sorted({*ORDER, *uses()} - {"compiled"}))
def test_only_the_seam_and_compiled_know_of_kernels(name):
    paths = [PACKAGE / f"{name}.py", *(PACKAGE / name).rglob("*.py")]
    for path in (path for path in paths if path.exists()):
        known = {folder(m) for m in modules(path)} & {"kernels", "compiled"}
        allowed = {"kernels"} if path in [PACKAGE / seam for seam in SEAMS] else set()
        if name == "cli":
            allowed = {"compiled"}
        assert known <= allowed, f"{path.name} imports {sorted(known)}"


def test_kernels_are_leaves():
    for path in (PACKAGE.parent / "kernels").glob("*.py"):
        assert {folder(m) for m in modules(path)} <= {"kernels"}
