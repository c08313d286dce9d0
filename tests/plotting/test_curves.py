import numpy as np
import pytest

import tinybilevel as tb
from tinybilevel import plotting

pytest.importorskip("matplotlib", reason="pictures need it")


TOY, LAM = tb.problems.toy(), np.array([1.0, 1.0])


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
