"""Make docs/equations.md, the paper in code, of docs/equations.toml: `python docs/equations.py`."""

import tomllib
from pathlib import Path

DOCS = Path(__file__).parent

HEAD = """\
<!-- Made by docs/equations.py of docs/equations.toml: change them, and run it. -->

# The paper in code

Each equation, where it is computed, and what holds it. The link in the first column leads to the
derivation; [the statements of Section 3](statements.md) have a page of their own. Where the printed
text has slips, [Recursion](derivations/recursion.md#slips-in-print) lists the forms used here.
Files are in `tinybilevel/`, tests in `tests/`.

| paper | what it says | function, file | test, file |
| --- | --- | --- | --- |
"""


def rows():
    return tomllib.loads((DOCS / "equations.toml").read_text("utf-8"))["row"]


def named(place):
    """Return the function, and below it the file, of `FILE::FUNCTION`."""
    file, function = place.split("::")
    return f"`{function}`<br>`{file.removeprefix('tinybilevel/')}`"


def page():
    table, shown = "", ""
    for row in rows():
        link = f"[{row['paper']}]({row['derived']})" if "derived" in row else row["paper"]
        code = "<br>".join(map(named, row["code"]))
        table += f"| {link} | {row['says']} | {code} | {named(row['test'])} |\n"
        if "lines" in row:
            shown += f"\n### {row['paper'].capitalize()}\n\n{row['says']}\n"
        for place in row.get("lines", ()):
            shown += f"\n```{{lines-of}} {place}\n```\n"
    return f"{HEAD}{table}\n## Line by line\n\nWithout their docstrings, as they are run.\n{shown}"


if __name__ == "__main__":
    (DOCS / "equations.md").write_text(page(), "utf-8")
