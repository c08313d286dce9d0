"""What the pictures show in words and numbers, and what they refuse."""

import sys

import numpy as np
import pytest

import tinybilevel as tb
from tinybilevel import plotting
from tinybilevel.plotting.style import RIGHT

pytest.importorskip("matplotlib", reason="pictures need it")

from matplotlib import rcParams
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

TOY, LAM = tb.problems.toy(), np.array([1.0, 1.0])


def names(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


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


def test_a_trace_runs_from_T_back_and_leaves_zeros_out():
    trace = tb.RMD().trace(TOY, LAM)
    ax = plotting.trace(trace)
    assert ax.get_xlim()[0] > ax.get_xlim()[1]
    assert ax.get_yscale() == "log"
    alpha, product, h, error = (line.get_ydata() for line in ax.lines)
    np.testing.assert_array_equal(alpha, trace.alpha_norms)
    np.testing.assert_array_equal(product[:-2], trace.product_norms[:-2])
    np.testing.assert_array_equal(h[1:], trace.h_norms[1:])
    np.testing.assert_array_equal(error[:-2], trace.errors[:-2])
    assert np.isnan([h[0], product[-2], *error[-2:]]).all()
    plotting.trace(trace, ax=ax)
    assert ax.get_xlim()[0] > ax.get_xlim()[1], "a second one does not turn it round"
    assert len(plotting.trace(tb.KRMD(K=5).trace(TOY)).lines) == 3


def test_what_is_no_trace_is_refused():
    with pytest.raises(TypeError, match="trace must be a Trace"):
        plotting.trace(tb.RMD()(TOY))


def test_a_learning_curve_takes_a_result_its_history_and_lines():
    r = tb.minimize(TOY, method=tb.KRMD(K=1), iterations=5)
    lines = [{"iteration": 3, "value": 2.0}, {"iteration": 4}, {"iteration": 9, "value": 1.0}]
    for history, x, y in (
        (r, np.arange(1, 6), r.history["value"]),
        (r.history, np.arange(1, 6), r.history["value"]),
        (lines, [3, 9], [2.0, 1.0]),
        ([{"value": None, "iteration": 1}], None, None),
    ):
        ax = plotting.learning_curve(history)
        if x is None:
            assert not ax.lines
            continue
        np.testing.assert_array_equal(ax.lines[0].get_xydata(), np.transpose([x, y]))
    seconds = plotting.learning_curve(r, "grad_norm", against="seconds")
    np.testing.assert_array_equal(seconds.lines[0].get_xdata(), r.history["seconds"])
    assert (seconds.get_yscale(), seconds.get_xlabel()) == ("log", "seconds")


def test_means_stand_at_the_last_of_their_points():
    ax = plotting.learning_curve({"loss": [1.0, 3.0, 5.0, 7.0]}, "loss", window=2)
    np.testing.assert_allclose(ax.lines[0].get_xydata(), [[2, 2], [3, 4], [4, 6]])


def test_an_unknown_quantity_names_those_that_there_are():
    with pytest.raises(ValueError, match="history has no 'los'; it has loss"):
        plotting.learning_curve({"loss": [1.0]}, "los")
    with pytest.raises(ValueError, match="history has no 'seconds'; it has loss"):
        plotting.learning_curve([{"loss": 1.0}], "loss", against="seconds")
    with pytest.raises(TypeError, match=r"history must be an OptimizeResult, .* got float"):
        plotting.learning_curve(1.0)


def test_truncation_errors_come_from_numbers_bounds_and_traces():
    trace = tb.RMD().trace(TOY, LAM)
    rows = [tb.bounds.proposition_3_1(TOY, LAM, K) for K in (0, 50, 99)]
    found = {
        "numbers": plotting.truncation_error(trace.errors[[0, 50, 99]], K=[0, 50, 99]),
        "bounds": plotting.truncation_error(rows),
    }
    for ax in found.values():
        x, y = ax.lines[-1].get_xydata().T
        np.testing.assert_array_equal(x, [0, 50, 99])
        np.testing.assert_allclose(y, trace.errors[[0, 50, 99]], rtol=1e-12)
    ten = found["bounds"].lines[0]
    np.testing.assert_array_equal(ten.get_ydata(), [row.eq_10 for row in rows])
    assert (ten.get_label(), names(found["bounds"])[0]) == ("eq. (10)", "eq. (10)")
    x, y = plotting.truncation_error(trace).lines[0].get_xydata().T
    np.testing.assert_array_equal(x, np.arange(101))
    np.testing.assert_array_equal(y[:100], trace.errors[:100])


def test_a_bound_far_above_does_not_press_the_errors_flat():
    ax = plotting.truncation_error([1.0, 0.5], {"eq. (9)": [1e30, 1e29]})
    assert ax.get_ylim() == (0.25, 1e3)


def test_truncation_errors_must_fit_their_K():
    with pytest.raises(ValueError, match=r"errors must have a number for each of 2 K, got \(1,\)"):
        plotting.truncation_error([1.0], K=[1, 2])
    with pytest.raises(ValueError, match=r"bounds\['b'\] must have a number for each of 1 K"):
        plotting.truncation_error([1.0], {"b": [1.0, 2.0]})
    with pytest.raises(ValueError, match="exact=True"):
        plotting.truncation_error(tb.KRMD(K=3).trace(TOY))


def test_memory_and_time_are_those_of_the_costs():
    costs = {"ring": tb.RMD().cost(TOY), "√T": tb.RMD(tb.Checkpoint()).cost(TOY)}
    ax = plotting.memory_time(costs)
    points = [line.get_xydata()[0].tolist() for line in ax.lines]
    assert points == [[c.transitions + c.products, c.bytes] for c in costs.values()]
    assert plotting.memory_time({"a": (0.5, 10.0)}).get_xlabel() == "seconds"
    with pytest.raises(TypeError, match="costs must be counted, Cost, or measured"):
        plotting.memory_time({"a": (1.0, 2.0), **costs})
    with pytest.raises(TypeError, match="costs must be a mapping of names"):
        plotting.memory_time({})


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


def test_rejected_labels_are_those_of_the_smallest_weights():
    images = np.arange(4.0)[:, None, None] + np.eye(2)
    lam, labels, true = [0.0, 3.0, -1.0, 2.0], [5, 6, 7, 8], [5, 0, 1, 2]
    ax = plotting.rejected_labels(images, labels, lam, true, count=2)
    assert [text.get_text() for text in ax.texts] == ["7 is 1", "5 is right"]
    wrong, right = (to_hex(text.get_color()) for text in ax.texts)
    assert wrong == RIGHT.lower() != right
    unknown = plotting.rejected_labels(images, labels, lam, count=9)
    assert [text.get_text() for text in unknown.texts] == ["7", "5", "8", "6"]


def test_an_image_grid_fills_its_rows():
    ax = plotting.image_grid(np.ones((5, 2, 3)), columns=2)
    corners = [tuple(np.round(image.get_extent()[::3], 2)) for image in ax.images]
    assert corners == [(0, 0), (1.12, 0), (0, 1.12), (1.12, 1.12), (0, 2.24)]


def test_what_does_not_fit_the_images_is_named():
    images = np.ones((2, 2, 2))
    for call, message in (
        (lambda: plotting.image_grid(np.ones((2, 2))), r"images must have shape \(n, height"),
        (lambda: plotting.image_grid(images, ["a"]), "captions must be one for each of 2 images"),
        (lambda: plotting.image_grid(images, columns=0), "columns must be"),
        (lambda: plotting.rejected_labels(images, [1], [0.0, 1.0]), r"labels must have shape \(2"),
        (lambda: plotting.rejected_labels(images, [1, 2], [0.0]), r"lam must have shape \(2,\)"),
        (lambda: plotting.confusion([[1, 2]]), "matrix must be a square matrix"),
        (lambda: plotting.confusion([[1]], ["a", "b"]), "names must be one for each of 1 classes"),
        (lambda: plotting.interaction([[1]], ["a"], []), "groups must be one for each of 1"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_a_confusion_matrix_has_what_is_in_rows():
    ax = plotting.confusion([[8, 2], [0, 0]], ["cat", "dog"])
    np.testing.assert_allclose(ax.images[0].get_array(), [[0.8, 0.2], [0, 0]])
    assert (ax.get_ylabel(), ax.get_xlabel()) == ("is", "taken for")


@pytest.mark.parametrize("V", [4, 40])
@pytest.mark.parametrize("grouped", [True, False])
def test_an_interaction_is_ordered_by_group(V, grouped):
    rng = np.random.default_rng(0)
    C, names = rng.random((V, V)), [f"{rng.integers(900)}_{k}" for k in range(V)]
    groups = [("pet", "car")[k % 2] for k in range(V)] if grouped else None
    ax = plotting.interaction(C, names, groups)
    order = sorted(range(V), key=lambda k: (groups[k], names[k])) if grouped else range(V)
    np.testing.assert_array_equal(ax.images[0].get_array(), C[np.ix_(order, order)])
    labels = [label.get_text() for label in ax.get_yticklabels()]
    if grouped and V > 30:
        assert (labels, ax.get_yticks().tolist()) == (["car", "pet"], [9.5, 29.5])
    else:
        assert labels == [names[k].replace("_", " ") for k in order]
    between = [line.get_ydata()[0] for line in ax.lines[::2]]
    assert between == ([V / 2 - 0.5] if grouped else [])
    assert len(ax.lines) == 2 * grouped
