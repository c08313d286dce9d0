"""The page that leads from the paper to the code is up to date, and what it names is there."""

import ast
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MADE = runpy.run_path(str(ROOT / "docs" / "equations.py"))
PLACES = sorted(
    {p for row in MADE["rows"]() for p in (*row["code"], row["test"], *row.get("lines", ()))}
)


def test_the_page_is_made_of_the_table():
    assert (ROOT / "docs" / "equations.md").read_text("utf-8") == MADE["page"]()


@pytest.mark.parametrize("place", PLACES)
def test_every_function_is_in_its_file(place):
    file, dotted = place.split("::")
    body = ast.parse((ROOT / file).read_text("utf-8")).body
    for name in dotted.split("."):
        found = [node for node in body if getattr(node, "name", None) == name]
        assert found, f"{file} has no {dotted}"
        body = found[0].body


def test_every_numbered_equation_of_the_method_has_a_row():
    papers = {row["paper"] for row in MADE["rows"]()}
    assert papers >= {f"({n})" for n in (1, *range(4, 13))}
