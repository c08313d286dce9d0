import numpy as np
import pytest

import tinybilevel as tb
from tinybilevel import plotting

pytest.importorskip("matplotlib", reason="pictures need it")

from matplotlib.figure import Figure

TOY, LAM = tb.problems.toy(), np.array([1.0, 1.0])


def test_a_landscape_has_a_problem_s_values_and_one_scale_for_all_arrows():
    exact = -tb.RMD()(TOY, LAM).grad
    arrows = {"exact": (LAM, exact), "half": (LAM, exact / 2)}
    ax = plotting.landscape(TOY, (-2, 2), arrows=arrows, arrow_length=0.25, resolution=4)
    long, short = ax.collections[-2:]
    assert long.scale == short.scale == pytest.approx(np.linalg.norm(exact))
    assert (long.U[0], long.V[0], short.U[0]) == pytest.approx((*exact, exact[0] / 2))
    assert ax.get_aspect() == 1
    assert ax.get_xlim() == ax.get_ylim() == (-2, 2)
    levels = plotting.landscape(lambda lam: lam[0], ((0, 1), (0, 2)), resolution=3).collections[0]
    low, high = levels.get_clim()
    assert low <= 0.1
    assert high >= 0.9


def test_a_landscape_surrounds_its_paths():
    ax = plotting.landscape(np.sum, paths={"K = 1": [[0.0, 1.0], [2.0, 3.0]]}, resolution=2)
    assert (ax.get_xlim(), ax.get_ylim()) == ((-0.5, 2.5), (0.5, 3.5))


def test_what_a_landscape_cannot_draw_is_named():
    with pytest.raises(TypeError, match="f must be a BilevelProblem or a function of λ"):
        plotting.landscape(3.0)
    with pytest.raises(ValueError, match=r"paths\['a'\] must have two numbers a row"):
        plotting.landscape(np.sum, paths={"a": [[1.0, 2.0, 3.0]]})
    with pytest.raises(ValueError, match=r"lims must be .low, high. with low < high"):
        plotting.landscape(np.sum, (1, -1))
    with pytest.raises(ValueError, match=r"lims must be .low, high., or one for each λ"):
        plotting.landscape(np.sum, (1, 2, 3))
    solid = Figure().add_subplot(projection="3d")
    with pytest.raises(ValueError, match="ax must not be 3D"):
        plotting.landscape(np.sum, arrows={"a": (LAM, LAM)}, ax=solid)
