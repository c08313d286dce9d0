"""What the distribution promises: its packages, its metadata, and what importing it loads."""

import ast
import configparser
import importlib.metadata
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import tinybilevel as tb

ROOT = Path(__file__).parents[1]
OPTIONAL = {"PIL", "cupy", "dask", "distributed", "matplotlib", "numba", "pooch", "sklearn", "tqdm"}
FRAMEWORKS = {"autograd", "jax", "tensorflow", "torch"}


def sources(*folders: str) -> Iterator[tuple[Path, str]]:
    """Yield each script and notebook below the folders, with its Python code."""
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path, path.read_text(encoding="utf-8")
        for path in sorted((ROOT / folder).rglob("*.ipynb")):
            cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
            code = "".join("".join(c["source"]) + "\n" for c in cells if c["cell_type"] == "code")
            yield path, re.sub(r"^\s*[%!].*$", "", code, flags=re.MULTILINE)


def imports(code: str) -> set[str]:
    """Return every module that the code imports, at any depth, also by name."""
    found = set()
    for node in ast.walk(ast.parse(code)):
        match node:
            case ast.Import():
                found |= {alias.name for alias in node.names}
            case ast.ImportFrom(level=0):
                found.add(node.module)
            case ast.Call(
                func=ast.Name(id=name) | ast.Attribute(attr=name),
                args=[ast.Constant(value=str(module)), *_],
            ) if name in {"__import__", "import_module", "importorskip"}:
                found.add(module)
    return found


def roots(modules: set[str]) -> set[str]:
    return {module.partition(".")[0] for module in modules}


@pytest.mark.parametrize(
    "code",
    [
        "import os, torch.nn as nn",
        "def f():\n    from torch import nn",
        "import importlib\nimportlib.import_module('torch')",
        "__import__('torch.nn')",
    ],
)
def test_the_scan_sees_every_way_to_import(code):
    assert "torch" in roots(imports(code))


def test_no_autodiff_framework_in_package_kernels_or_examples():
    scanned = dict(sources("tinybilevel", "kernels", "examples"))
    assert ROOT / "kernels" / "__init__.py" in scanned
    found = {str(p.relative_to(ROOT)): roots(imports(code)) for p, code in scanned.items()}
    assert {path: names & FRAMEWORKS for path, names in found.items() if names & FRAMEWORKS} == {}


def test_kernels_are_leaves():
    for path, code in sources("kernels"):
        ours = {name for name in imports(code) if name.partition(".")[0] == "tinybilevel"}
        assert {name for name in ours if not name.startswith("tinybilevel.kernels.")} == set(), path
        assert not re.search(r"^\s*from \.\.", code, flags=re.MULTILINE), path


def test_import_is_light():
    code = "import sys, tinybilevel; print(*sys.modules)"
    command = [sys.executable, "-c", code]
    loaded = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert "numpy" in loaded
    assert roots(set(loaded)) & (OPTIONAL | FRAMEWORKS | {"pandas", "scipy"}) == set()


def test_setup_cfg_lists_every_package():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    listed = config["options"]["packages"].split()
    folders = {path.parent.relative_to(ROOT) for path, _ in sources("tinybilevel", "kernels")}
    packages = {".".join(folder.parts) for folder in folders}
    packages = {re.sub(r"^kernels", "tinybilevel.kernels", package) for package in packages}
    assert sorted(listed) == sorted(packages)


def test_version_is_the_same_everywhere():
    assert importlib.metadata.version("tinybilevel") == tb.__version__
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {tb.__version__}\n" in citation
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"\n## [{tb.__version__}]" in changelog
    for page, text in (("cite", "version = {%s}"), ("compare", "| **tinybilevel** %s |")):
        assert text % tb.__version__ in (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")


def public_names(module: ModuleType, prefix: str = "") -> Iterator[str]:
    for name in module.__all__:
        value = getattr(module, name)
        if isinstance(value, ModuleType):
            yield from public_names(value, f"{prefix}{name}.")
        else:
            yield prefix + name


def test_the_api_page_lists_every_public_name():
    page = (ROOT / "docs" / "api.rst").read_text(encoding="utf-8")
    listed = re.findall(r"^   ([\w.]+)$", page, flags=re.MULTILINE)
    assert sorted(listed) == sorted(public_names(tb))
