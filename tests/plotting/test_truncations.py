import numpy as np
import pytest

import tinybilevel as tb
from tinybilevel import plotting

pytest.importorskip("matplotlib", reason="pictures need it")


TOY, LAM = tb.problems.toy(), np.array([1.0, 1.0])


def names(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


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
