"""The check of the built site sees what it is there to see."""

import runpy
from pathlib import Path

import pytest

CHECK = runpy.run_path(str(Path(__file__).parents[2] / ".ci" / "check_site.py"))
GOOD = (
    '<h1 id="top">A</h1><a href="b.html#it">b</a><a href="#top">up</a><script src="x.js"></script>'
)
ROW = "<td><p>Full reverse mode, eq. (6): exact.</p></td>"


@pytest.fixture
def site(tmp_path):
    def write(page=GOOD, row=ROW):
        (tmp_path / "a.html").write_text(page, "utf-8")
        (tmp_path / "b.html").write_text('<p id="it">b</p>', "utf-8")
        (tmp_path / "api.html").write_text(row, "utf-8")
        (tmp_path / "x.js").touch()
        return list(CHECK["faults"](tmp_path))

    return write


def test_a_whole_site_has_no_fault(site):
    assert site() == []


@pytest.mark.parametrize(
    ("good", "bad", "said"),
    [
        ("b.html#it", "c.html", "c.html, which is not there"),
        ("b.html#it", "b.html#that", "b.html#that, which has no such anchor"),
        ("#top", "#bottom", "#bottom, which has no such anchor"),
        ("x.js", "https://example.org/x.js", "loads https://example.org/x.js"),
        ("x.js", "y.js", "y.js, which is not there"),
    ],
)
def test_each_fault_is_named(site, good, bad, said):
    (fault,) = site(GOOD.replace(good, bad))
    assert said in fault


def test_a_summary_that_ends_at_an_abbreviation_is_named(site):
    (fault,) = site(row="<td><p>Full reverse mode, eq.</p></td>")
    assert "cuts a summary" in fault
