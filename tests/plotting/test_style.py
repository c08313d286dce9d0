import sys

import numpy as np
import pytest

import tinybilevel as tb
from tinybilevel import plotting

pytest.importorskip("matplotlib", reason="pictures need it")

from matplotlib import rcParams
from matplotlib.figure import Figure

TOY = tb.problems.toy()


def test_without_axes_a_figure_is_made_in_the_house_s_style():
    before = dict(rcParams)
    ax = plotting.confusion([[1, 0], [0, 1]])
    assert ax.figure.get_facecolor() == (1, 1, 1, 1), "readable on a dark page"
    assert dict(rcParams) == before, "and nothing is left changed"


def test_axes_that_are_given_are_drawn_on_and_come_back():
    left, right = Figure().subplots(1, 2)
    assert plotting.memory_time({"ring": tb.RMD().cost(TOY)}, ax=right) is right
    assert len(right.lines) == 1
    assert not left.lines


@pytest.mark.parametrize(
    ("draw", "args"),
    [
        (plotting.trace, (tb.RMD().trace(TOY),)),
        (plotting.learning_curve, ({"value": [1.0]},)),
        (plotting.truncation_error, ([1.0],)),
        (plotting.landscape, (np.sum,)),
        (plotting.image_grid, (np.ones((1, 2, 2)),)),
        (plotting.rejected_labels, (np.ones((1, 2, 2)), [0], [0.0])),
        (plotting.confusion, ([[1]],)),
        (plotting.interaction, ([[1]],)),
        (plotting.memory_time, ({"a": (1.0, 2.0)},)),
    ],
)
def test_what_is_no_axes_is_refused(draw, args):
    with pytest.raises(TypeError, match="ax must be matplotlib axes, one of them, got ndarray"):
        draw(*args, ax=Figure().subplots(1, 2))


def test_a_missing_matplotlib_is_named_with_what_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    for call in (plotting.style, lambda: plotting.trace(tb.RMD().trace(TOY))):
        with pytest.raises(ImportError, match=r"pip install matplotlib tqdm .*\[plot\]"):
            call()
