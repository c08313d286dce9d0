"""Every picture against one that was looked at, and broken ones that must not pass for it.

After a change that is meant, ``TINYBILEVEL_BASELINE=1 pytest tests/plotting`` draws them anew: look
at each before it is committed. Texts are left out, since fonts differ between machines.
"""

import os
from pathlib import Path

import numpy as np
import pytest

import tinybilevel as tb
from tinybilevel import plotting

pytest.importorskip("matplotlib", reason="pictures need it")

from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.testing.compare import compare_images
from matplotlib.text import Text

BASELINE = Path(__file__).parent / "baseline"
#: RMS of 255. Versions of matplotlib draw curves alike; where an image's edge falls between two
#: pixels, 3.9 and 3.11 differ by 12 to 19, and a broken picture by 46 and more.
TOL, TOL_IMAGES = 2.5, 25.0
LAM = np.array([1.0, 1.0])


def trace(ax, sign=1):
    rows = tb.RMD().trace(tb.problems.toy(), LAM)
    if sign < 0:
        rows.__dict__.update(alpha_norms=rows.h_norms, h_norms=rows.alpha_norms)
    return plotting.trace(rows, ax)


def learning_curve(ax, swapped=False, window=4):
    tau = np.arange(1, 41)
    loss = {"value": np.exp(-tau / 10) + 0.1 * np.cos(tau), "grad_norm": np.exp(-tau / 5)}
    shown = "grad_norm" if swapped else "value"
    plotting.learning_curve(loss, shown, window=window, color="C0", ax=ax)
    return plotting.learning_curve([{"value": 0.5}, {"value": 1.0}] * 20, color="C1", ax=ax)


def truncation_error(ax, swapped=False):
    K = np.arange(40)
    error, bound = 0.9**K * (1 - K / 40), 3 * 0.9**K
    error, bound = (bound, error) if swapped else (error, bound)
    return plotting.truncation_error(error, {"eq. (10)": bound}, ax=ax)


def landscape(ax, flip=1.0, swapped=False, transposed=False):
    problem = tb.problems.toy(T=20)
    exact, truncated = -tb.RMD()(problem, LAM).grad, -flip * tb.KRMD(K=8)(problem, LAM).grad
    if swapped:
        exact, truncated = truncated, exact

    def f(lam):
        lam = lam[::-1] if transposed else lam
        return tb.KRMD(K=0)(problem, lam).value + lam[0] ** 3

    arrows = {"exact": (LAM, exact), "K = 8": (LAM, truncated)}
    paths = {"K = 1": [[-2, -1], [-1, -0.2], [0, 0.1]], "K = 9": [[-2, -1], [-0.6, -0.6], [0, 0]]}
    return plotting.landscape(f, (-2.5, 2), paths=paths, arrows=arrows, resolution=16, ax=ax)


def graph(ax, sign=1.0):
    def f(lam):
        return sign * (lam[0] ** 2 + np.sin(2 * lam[1]))

    return plotting.landscape(f, ((-2, 2), (-1, 3)), resolution=16, ax=ax)


def images():
    x = np.linspace(-1, 1, 8)
    return np.array([np.add.outer(k * x, (3 - k) * x**2) for k in range(6)])


def rejected_labels(ax, sign=1):
    lam = sign * np.array([3.0, 1.0, 2.0, 0.0, 5.0, 4.0])
    return plotting.rejected_labels(images(), range(6), lam, [0] * 6, count=4, columns=2, ax=ax)


def confusion(ax, transposed=False):
    matrix = np.array([[8, 2, 0], [5, 4, 1], [0, 0, 9]])
    return plotting.confusion(matrix.T if transposed else matrix, ax=ax)


def interaction(ax, groups="baab"):
    C = np.array([[0, 1, 2, 9], [1, 0, 8, 3], [2, 8, 0, 4], [9, 3, 4, 0]])
    return plotting.interaction(C, list("dcba"), list(groups), ax)


def memory_time(ax, swapped=False):
    costs = {"ring": (1.0, 100.0), "√T": (1.9, 20.0), "binomial": (4.0, 5.0)}
    if swapped:
        costs["ring"], costs["√T"] = costs["√T"], costs["ring"]
    return plotting.memory_time(costs, ax=ax)


DRAWN = [
    trace,
    learning_curve,
    truncation_error,
    landscape,
    graph,
    rejected_labels,
    confusion,
    interaction,
    memory_time,
]
BROKEN = {
    "the norms of α and h swapped": (trace, dict(sign=-1)),
    "another quantity": (learning_curve, dict(swapped=True)),
    "no means taken": (learning_curve, dict(window=1)),
    "error and bound swapped": (truncation_error, dict(swapped=True)),
    "an arrow flipped": (landscape, dict(flip=-1.0)),
    "the arrows swapped": (landscape, dict(swapped=True)),
    "the axes of λ swapped": (landscape, dict(transposed=True)),
    "the graph upside down": (graph, dict(sign=-1.0)),
    "the most trusted images": (rejected_labels, dict(sign=-1)),
    "rows and columns swapped": (confusion, dict(transposed=True)),
    "other groups": (interaction, dict(groups="abab")),
    "two storages swapped": (memory_time, dict(swapped=True)),
}


def draw(function, path, **how):
    with plotting.style():
        figure = Figure(figsize=(2.4, 1.8), dpi=60)
        figure.subplots_adjust(left=0.02, right=0.98, bottom=0.02, top=0.98)
        ax = figure.add_subplot(projection="3d" if function is graph else None)
        assert function(ax, **how) is ax
        for kind in (Text, Legend):
            for artist in figure.findobj(kind):
                artist.set_visible(False)
        figure.savefig(path, dpi=60, metadata={"Software": None})
    return path


def difference(path, function):
    tol = TOL_IMAGES if function in (rejected_labels, interaction) else TOL
    return compare_images(str(BASELINE / f"{function.__name__}.png"), str(path), tol)


@pytest.mark.parametrize("function", DRAWN, ids=lambda f: f.__name__)
def test_the_picture_is_the_one_that_was_looked_at(function, tmp_path):
    baseline = BASELINE / f"{function.__name__}.png"
    if os.environ.get("TINYBILEVEL_BASELINE"):
        draw(function, baseline)
    assert difference(draw(function, tmp_path / "seen.png"), function) is None


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_picture_is_seen(what, tmp_path):
    function, how = BROKEN[what]
    assert difference(draw(function, tmp_path / "seen.png", **how), function), what


def test_baselines_are_small_and_none_is_left_over():
    assert {p.stem for p in BASELINE.glob("*.png")} == {f.__name__ for f in DRAWN}
    assert all(path.stat().st_size < 12_000 for path in BASELINE.glob("*.png"))
