"""The page that lists the paper's statements is complete, and what it links to exists."""

import ast
import re
from pathlib import Path

import pytest

import tinybilevel as tb

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "statements.md"

#: Every numbered proposition, lemma and theorem of the paper, and what else Section 3 claims.
STATEMENTS = {
    "Proposition 3.1",
    "Lemma 3.2",
    "Theorem 3.3",
    "Theorem 3.4",
    "Theorem 3.5",
    "Proposition 3.6",
    "Section 3.3",
    "Table 1",
}


def rows():
    """Return the first table's rows: (statement, anchor, functions, test, figure)."""
    table = re.findall(r"^\| \[(.+?)\]\(#(.+?)\) \|(.+)\|$", PAGE.read_text(), flags=re.MULTILINE)
    found = []
    for name, anchor, rest in table:
        _, functions, test, figure = (cell.strip() for cell in rest.split(" | "))
        functions, test = (re.findall("`(.+?)`", cell) for cell in (functions, test))
        found.append((name, anchor, functions, test, figure))
    return found


ROWS = rows()


def test_the_list_is_complete():
    assert {name for name, *_ in ROWS} == STATEMENTS
    assert len(ROWS) == len(STATEMENTS)


@pytest.mark.parametrize(("name", "anchor", "functions", "test", "figure"), ROWS)
def test_each_link_exists(name, anchor, functions, test, figure):
    headings = re.findall(r"^## (.+)$", PAGE.read_text(), flags=re.MULTILINE)
    slugs = {re.sub(r"[^a-z0-9]+", "-", heading.lower()) for heading in headings}
    assert anchor in slugs
    assert functions
    for function in functions:
        assert callable(getattr(tb.bounds, function))
        assert function in tb.bounds.__all__
    path, case = test
    tree = ast.parse((ROOT / path).read_text())
    assert case in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    for image in re.findall(r"\((.+?)\)", figure):
        assert (ROOT / "docs" / image).is_file()


def test_the_paper_s_figures_of_section_4_1_are_all_there():
    figures = {figure for *_, figure in ROWS}
    assert {f"[{n}](images/figure{n}.png)" for n in range(1, 5)} <= figures


def test_each_function_names_its_statement():
    """The docstring says which statement or equation it is."""
    for name, _, functions, *_ in ROWS:
        text = " ".join(getattr(tb.bounds, function).__doc__ for function in functions)
        assert name in text, name
