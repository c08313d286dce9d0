"""Links, paths and line counts in README and docs name what there is."""

import configparser
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
    *(p for p in sorted((ROOT / "docs").rglob("*.md")) if "generated" not in p.parts),
]
SOURCES = [p for name in ("tinybilevel", "kernels") for p in (ROOT / name).rglob("*.py")]
names = [str(page.relative_to(ROOT)) for page in PAGES]


def anchors(page):
    """Return the anchors of a page's headings, as GitHub makes them and as docutils does."""
    titles = re.findall(r"^#+ (.+)$", page.read_text("utf-8").lower(), flags=re.MULTILINE)
    github = {re.sub(r"[^\w\- ]", "", title).strip().replace(" ", "-") for title in titles}
    return github | {re.sub(r"[^a-z0-9]+", "-", title).strip("-") for title in titles}


def links(page):
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"`[^`\n]*`", "code", text)
    return re.findall(r"\]\(([^)\s]+)\)", text)


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_every_relative_link_leads_somewhere(page):
    for link in links(page):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if target.parent == ROOT / "docs" / "gallery":  # made from the examples
            target = ROOT / "examples" / "gallery" / f"{target.stem}.py"
            target = target.with_name("GALLERY_HEADER.rst") if target.stem == "index" else target
        assert target.exists(), f"{link} in {page.name}"
        if anchor and target.suffix == ".md":
            assert anchor in anchors(target), f"{link} in {page.name}"


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_every_file_that_is_named_is_there(page):
    bases = (ROOT, ROOT / "tinybilevel")
    for path in re.findall(r"`([\w/.-]+\.py)`", page.read_text("utf-8")):
        if "NAME" not in path and "MODULE" not in path:
            assert any((base / path).is_file() for base in bases), f"{path} in {page.name}"


def test_every_page_is_in_the_navigation():
    docs = ROOT / "docs"
    pages = {p for p in docs.rglob("*.md") if "generated" not in p.parts}
    listed = {docs / "index.md"}
    for page in pages:
        text = page.read_text("utf-8")
        for block in re.findall(r"^```\{toctree\}$(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            entries = re.findall(r"^(?!:)\S+$", block, re.MULTILINE)
            listed |= {(page.parent / f"{entry}.md").resolve() for entry in entries}
    missing = sorted(str(page.relative_to(docs)) for page in pages - listed)
    assert not missing, "list them in the toctree of an index.md"


def test_the_files_to_read_first_are_as_long_as_the_readme_says():
    rows = re.findall(
        r"^\| \[`([\w/.]+\.py)`\].* \| (\d+) \|", (ROOT / "README.md").read_text("utf-8"), re.M
    )
    assert len(rows) == 4
    whole = sum(len(p.read_text("utf-8").splitlines()) for p in SOURCES)
    (said,) = re.findall(r"some (\d+),000 lines", (ROOT / "README.md").read_text("utf-8"))
    assert whole == pytest.approx(1000 * int(said), rel=0.2)
    for path, said in rows:
        lines = len((ROOT / "tinybilevel" / path).read_text("utf-8").splitlines())
        assert lines == pytest.approx(int(said), rel=0.3), path


def test_the_test_file_of_the_tutorial_passes(tmp_path):
    page = (ROOT / "docs" / "tutorials" / "assert_a_theorem.md").read_text("utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    (passed,) = re.findall(r"^\d+ passed", page, re.MULTILINE)
    (tmp_path / "test_bounds.py").write_text(code, "utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_bounds.py"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert passed in run.stdout


def test_the_page_on_installation_lists_every_extra():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    page = (ROOT / "docs" / "installation.md").read_text("utf-8")
    listed = re.findall(r"^\| `(\w+)`", page, re.MULTILINE)
    assert sorted(listed) == sorted(config["options.extras_require"])
