"""For tests and examples in docstrings and pages: pictures open no window, and are closed."""

import os
import sys

import pytest

import tinybilevel

os.environ.setdefault("MPLBACKEND", "Agg")

if tinybilevel.__file__ is None:
    # Numba's code of an installation that is gone: a folder without modules comes before ours.
    raise pytest.UsageError(
        f"an earlier installation has left machine code in {list(tinybilevel.__path__)}, which is "
        "imported in place of this checkout: delete that folder"
    )


@pytest.fixture(autouse=True)
def figures_are_closed():
    yield
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close("all")
