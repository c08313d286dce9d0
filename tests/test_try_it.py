"""The site that runs in a browser: its notebook, what is put before it, and what is refused."""

import importlib.util
import json
import re
import zipfile
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "examples" / "try_it"


@pytest.fixture(scope="module")
def build():
    spec = importlib.util.spec_from_file_location("try_it_build", FOLDER / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def notebook():
    return json.loads((FOLDER / "try_it.ipynb").read_text("utf-8"))


def code(notebook):
    return ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"]


def test_the_notebook_runs_and_finds_the_wrong_labels(notebook, capsys):
    pytest.importorskip("sklearn")
    plt = pytest.importorskip("matplotlib.pyplot")
    plt.switch_backend("agg")
    names = {}
    for cell in code(notebook):
        exec(cell.replace("plt.show()", "plt.close('all')"), names)
    printed = capsys.readouterr().out
    assert "exact  [11.09251167 10.98945195]" in printed
    assert float(re.search(r"([\d.]+)% of those are wrong", printed)[1]) > 90
    before, after = map(float, re.search(r"loss ([\d.]+) → ([\d.]+)", printed).groups())
    assert after < 0.8 * before


def test_the_notebook_is_kept_without_outputs(notebook):
    cells = [c for c in notebook["cells"] if c["cell_type"] == "code"]
    assert all(c["outputs"] == [] and c["execution_count"] is None for c in cells)


def test_a_notebook_installs_tinybilevel_in_a_browser_alone(build, notebook):
    once = build.prepared(notebook)
    assert code(once)[1:] == code(notebook)
    assert build.prepared(once) == once
    first = code(once)[0]
    assert '    %pip install -q "tinybilevel[data,plot]" ipywidgets' in first
    exec(first.replace("    %pip", "    assert False  # %pip"), {})  # not here


def wheel(path, name="w-1-py3-none-any.whl", pure="true", extra="w/__init__.py"):
    with zipfile.ZipFile(path / name, "w") as archive:
        archive.writestr("w-1.dist-info/WHEEL", f"Root-Is-Purelib: {pure}\n")
        archive.writestr(extra, "")
    return path / name


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (dict(name="w-1-cp311-cp311-linux_x86_64.whl"), "not a py3-none-any wheel"),
        (dict(pure="false"), "does not say that it is pure"),
        (dict(extra="w/fast.cpython-311-x86_64-linux-gnu.so"), "which is not Python source"),
    ],
)
def test_a_wheel_that_is_not_pure_is_refused(build, tmp_path, made, said):
    assert list(build.impurities(wheel(tmp_path))) == []
    (fault,) = build.impurities(wheel(tmp_path, **made))
    assert said in fault


@pytest.fixture
def site(build, notebook, tmp_path):
    """Return the least that a good site has, as `faults` reads it."""
    (tmp_path / "pypi").mkdir()
    made = wheel(tmp_path / "pypi")
    digest = build.hashlib.sha256(made.read_bytes()).hexdigest()
    file = dict(url=f"./{made.name}", digests=dict(sha256=digest))
    urls = dict(pipliteUrls=["./pypi/all.json?sha256=1"])
    config = dict(
        litePluginSettings={f"{build.KERNEL}:kernel": urls},
        federated_extensions=[dict(name=build.KERNEL)],
    )
    parts = {
        "jupyter-lite.json": {"jupyter-config-data": config},
        "pypi/all.json": dict(tinybilevel=dict(releases={"1": [file]})),
        "api/contents/all.json": dict(content=[dict(name="try_it.ipynb")]),
        "files/try_it.ipynb": build.prepared(notebook),
    }
    for name, part in parts.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(json.dumps(part), "utf-8")
    assert list(build.faults(tmp_path, ["try_it.ipynb"])) == []
    return tmp_path


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("jupyter-lite.json", "./pypi/all.json", "./other/all.json", "does not know the index"),
        ("jupyter-lite.json", '"name": "@jupyterlite', '"name": "other', "kernel is not there"),
        ("pypi/all.json", "tinybilevel", "another", "0 wheels of tinybilevel"),
        ("pypi/all.json", '"sha256": "', '"sha256": "0', "has not the SHA-256"),
        ("api/contents/all.json", "try_it", "lab9", "try_it.ipynb is not listed"),
        ("files/try_it.ipynb", "%pip install", "%pip download", "does not install tinybilevel"),
    ],
)
def test_a_broken_site_is_refused(build, site, name, old, new, said):
    text = (site / name).read_text("utf-8")
    assert old in text
    (site / name).write_text(text.replace(old, new), "utf-8")
    (fault,) = build.faults(site, ["try_it.ipynb"])
    assert said in fault
