"""Build a static site in which tinybilevel's notebooks run in the reader's browser, and check it.

    pip install -e ".[lite]"
    python examples/try_it/build.py SITE

JupyterLite serves the notebooks: `try_it.ipynb`, the labs' releases and any others that are named
after SITE. Its Pyodide kernel installs tinybilevel from SITE/pypi, where the wheel lies that is
built here; Python itself and NumPy, SciPy and the like come to the reader from Pyodide's CDN, or
from the site too, with ``--pyodide`` and a distribution of it.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parents[1]
LABS = ROOT / "examples" / "labs" / "release"
KERNEL = "@jupyterlite/pyodide-kernel-extension"

#: What each notebook begins with on the site. Outside of a browser it does nothing.
INSTALL = """\
import sys

if sys.platform == "emscripten":  # in the browser
    %pip install -q "tinybilevel[data,plot]" ipywidgets
"""


def prepared(notebook: dict) -> dict:
    """Return the notebook with a first cell that installs tinybilevel in a browser."""
    cell = {"cell_type": "code", "execution_count": None, "id": "install-in-browser"}
    cell |= {"metadata": {}, "outputs": [], "source": INSTALL.rstrip().splitlines(keepends=True)}
    rest = [c for c in notebook["cells"] if c.get("id") != cell["id"]]
    return notebook | {"cells": [cell, *rest]}


def copied(source: Path) -> Path:
    """Copy what a wheel is made of: a checkout may have leavings of an older build."""
    source.mkdir()
    for name in ("tinybilevel", "kernels"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.cfg", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    return source


def build(site: Path, notebooks: list[Path], pyodide: str | None = None) -> None:
    """Build the wheel and, around it and the notebooks, the site."""
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        contents = work / "contents"
        contents.mkdir()
        for path in notebooks:
            notebook = prepared(json.loads(path.read_text("utf-8")))
            (contents / path.name).write_text(json.dumps(notebook, ensure_ascii=False), "utf-8")
        source = copied(work / "source")
        wheel = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", work, source]
        subprocess.run(wheel, check=True)
        lite = [sys.executable, "-m", "jupyterlite_core", "build", "--lite-dir", work]
        lite += ["--contents", contents, "--output-dir", site.resolve()]
        lite += ["--piplite-wheels", *work.glob("*.whl")]
        lite += ["--apps", "lab", "--apps", "notebooks"]
        lite += ["--no-sourcemaps", "--no-unused-shared-packages"]
        if pyodide:
            lite += ["--pyodide", pyodide if "://" in pyodide else Path(pyodide).resolve()]
        subprocess.run(lite, check=True, cwd=work)  # where it keeps its notes


def faults(site: Path, names: list[str]) -> Iterator[str]:
    """Yield what is wrong with a site that should have notebooks of these names."""
    config = json.loads((site / "jupyter-lite.json").read_text("utf-8"))["jupyter-config-data"]
    settings = config.get("litePluginSettings", {}).get(f"{KERNEL}:kernel", {})
    if not any(url.startswith("./pypi/all.json") for url in settings.get("pipliteUrls", ())):
        yield "the kernel does not know the index pypi/all.json"
    if not any(extension["name"] == KERNEL for extension in config["federated_extensions"]):
        yield "the Pyodide kernel is not there"

    index = json.loads((site / "pypi" / "all.json").read_text("utf-8"))
    releases = index.get("tinybilevel", {}).get("releases", {})
    files = [file for release in releases.values() for file in release]
    if len(files) != 1:
        yield f"the index has {len(files)} wheels of tinybilevel, not one"
    for file in files:
        wheel = site / "pypi" / file["url"]
        if hashlib.sha256(wheel.read_bytes()).hexdigest() != file["digests"]["sha256"]:
            yield f"{wheel.name} has not the SHA-256 that the index says"
        yield from impurities(wheel)

    listed = json.loads((site / "api" / "contents" / "all.json").read_text("utf-8"))["content"]
    for name in names:
        if name not in {entry["name"] for entry in listed}:
            yield f"{name} is not listed"
        notebook = json.loads((site / "files" / name).read_text("utf-8"))
        if "".join(notebook["cells"][0]["source"]) != INSTALL.rstrip():
            yield f"{name} does not install tinybilevel"


def impurities(wheel: Path) -> Iterator[str]:
    """Yield what keeps a wheel from running on any machine."""
    if not wheel.name.endswith("-py3-none-any.whl"):
        yield f"{wheel.name} is not a py3-none-any wheel"
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        meta = "".join(archive.read(n).decode() for n in names if n.endswith(".dist-info/WHEEL"))
    if "Root-Is-Purelib: true" not in meta:
        yield f"{wheel.name} does not say that it is pure"
    for name in names:
        if ".dist-info/" not in name and not name.endswith((".py", "/py.typed")):
            yield f"{wheel.name} holds {name}, which is not Python source"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("site", type=Path, help="folder for the site")
    parser.add_argument("notebooks", nargs="*", type=Path, help="further notebooks")
    parser.add_argument("--pyodide", help="path or URL of a Pyodide distribution to put in")
    given = parser.parse_args()
    notebooks = [FOLDER / "try_it.ipynb", *sorted(LABS.glob("*.ipynb")), *given.notebooks]
    build(given.site, notebooks, given.pyodide)
    names = [path.name for path in notebooks]
    if found := list(faults(given.site, names)):
        sys.exit("\n".join(found))
    print(f"{given.site}: {', '.join(names)}, and a pure wheel in its own index")


if __name__ == "__main__":
    main()
