import numpy as np
import pytest
from scipy.optimize import Bounds

import tinybilevel as tb
from tinybilevel.outer.bounds import Projection, box

LOW, HIGH = [-1.0, 0.0], [1.0, 2.0]
TWO, THREE = np.zeros(2), np.zeros(3)
INF = np.inf


def test_scipys_pairs_on_the_toy_end_at_its_minimum():
    result = tb.minimize(
        tb.problems.toy(), method=tb.RMD(), iterations=400, bounds=[(-1, 1), (-1, 1)]
    )
    np.testing.assert_allclose(result.lam, [0, -0.0119], atol=1e-4)
    assert result.value < 1e-6


@pytest.mark.parametrize(
    ("bounds", "low", "high"),
    [
        (Bounds(LOW, HIGH), LOW, HIGH),
        (Bounds(-1, 1), [-1, -1], [1, 1]),
        (Bounds([-1], [1, 2]), [-1, -1], [1, 2]),
        ([(-1, 1), (-1, 1)], [-1, -1], [1, 1]),
        ([(-1, 1), (0, 2)], LOW, HIGH),
        ([(-1, 0), (1, 2)], [-1, 1], [0, 2]),
        ([(-1, None), (None, 2)], [-1, -INF], [INF, 2]),
        ([(0, 0), (1, 1)], [0, 1], [0, 1]),
        ([[-1, 1], [-1, 1]], [-1, -1], [1, 1]),
        (((-1, 1), (-1, 1)), [-1, -1], [1, 1]),
        (np.array([[-1, 1], [-1, 1]]), [-1, -1], [1, 1]),
        ((np.array(LOW), np.array(HIGH)), LOW, HIGH),
        ((np.array([0, 0]), np.array([1, 1])), [0, 0], [1, 1]),
        (([0, 0], [1, 1]), [0, 0], [1, 1]),
        (([0.2, -1.0], [2.0, 0.9]), [0.2, -1], [2, 0.9]),
        ([[1, 2], [2, 5]], [1, 2], [2, 5]),
        ((-1, 1), [-1, -1], [1, 1]),
        ([-1, 1], [-1, -1], [1, 1]),
        (np.array([-1, 1]), [-1, -1], [1, 1]),
        ((None, 1), [-INF, -INF], [1, 1]),
        ((0, [1, 2]), [0, 0], [1, 2]),
        ((0, np.array([1, 2])), [0, 0], [1, 2]),
    ],
)
def test_two_hyperparameters(bounds, low, high):
    found = box(bounds, TWO)
    for side, expected in zip(found, (low, high), strict=True):
        np.testing.assert_array_equal(np.broadcast_to(side, 2), expected)


@pytest.mark.parametrize(
    "bounds",
    [
        [(-1, 1)] * 3,
        ((-1, 1),) * 3,
        np.array([(-1, 1)] * 3),
        Bounds(-1, [1, 1, 1]),
        (-1, 1),
        (-np.ones(3), 1),
        [[-1] * 3, [1] * 3],
        np.array([[-1] * 3, [1] * 3]),
    ],
)
def test_three_hyperparameters_leave_no_doubt(bounds):
    for side, expected in zip(box(bounds, THREE), (-1, 1), strict=True):
        np.testing.assert_array_equal(np.broadcast_to(side, 3), expected)


@pytest.mark.parametrize("bounds", [[(0, 1)], ([0], [1]), (0, 1), Bounds(0, 1), np.array([[0, 1]])])
def test_one_hyperparameter(bounds):
    for side, expected in zip(box(bounds, np.zeros(1)), (0, 1), strict=True):
        np.testing.assert_array_equal(np.broadcast_to(side, 1), [expected])


@pytest.mark.parametrize(
    "bounds",
    [
        ([-1, 0], [1, 2]),
        ((-1, 0), (1, 2)),
        [[-1, 0], [1, 2]],
        [np.array([-1, 0]), np.array([1, 2])],
        np.array([[-1, 0], [1, 2]]),
        [None, (0, 1)],
    ],
)
def test_what_can_be_read_in_two_ways_is_refused_with_both(bounds):
    with pytest.raises(ValueError, match="can be read in two ways") as caught:
        box(bounds, TWO)
    assert "as N = 2 pairs (low_i, high_i)" in str(caught.value)
    assert "or as (low, high)" in str(caught.value)


def test_both_readings_are_spelled_out():
    with pytest.raises(ValueError, match=r"-1 <= lam\[0\] <= 0 and 1 <= lam\[1\] <= 2") as caught:
        box([[-1, 0], [1, 2]], TWO)
    assert "-1 <= lam[0] <= 1 and 0 <= lam[1] <= 2" in str(caught.value)


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ((1, 0), r"low <= high; for lam\[0\] they are 1.0, 0.0"),
        ([(0, 1), (3, 2)], r"low <= high; for lam\[1\] they are 3.0, 2.0"),
        ([(0, np.nan), (3, 4)], r"low <= high; for lam\[0\]"),
        ([(0, 1)] * 3, r"N = 2 pairs \(low_i, high_i\), or \(low, high\).*got \[\(0, 1"),
        (1.0, "got 1.0"),
        ("ab", "got 'ab'"),
        (([0, 0, 0], 1), r"each a number or of shape \(2,\)"),
        (("a", "b"), "bounds must be numbers or None, got 'a'"),
        ((0, "1"), "bounds must be numbers or None, got '1'"),
        ([(False, True), (0, 1)], "bounds must be numbers or None, got"),
    ],
)
def test_wrong_bounds_are_named(bounds, message):
    with pytest.raises(ValueError, match=message):
        box(bounds, TWO)


def test_bounds_take_lams_dtype():
    project = Projection([(0, 1), (2, 3)], None, np.zeros(2, np.float32))
    found = project(np.array([-1, 9], np.float32))
    np.testing.assert_array_equal(found, [0, 3])
    assert found.dtype == np.float32


def test_a_projection_may_write_into_what_it_is_given():
    lam = np.array([2.0, 3.0])

    def halve(x):
        x /= 2
        return x

    np.testing.assert_array_equal(Projection(None, halve, lam)(lam), [1, 1.5])
    np.testing.assert_array_equal(lam, [2, 3])


@pytest.mark.parametrize(
    ("projection", "error", "message"),
    [
        (3.0, TypeError, "projection must be a function of lam, got 3.0"),
        (lambda lam: lam / 0.0, ValueError, r"projection\(lam\) must be finite"),
        (lambda lam: None, TypeError, r"projection\(lam\) must have shape \(2,\), got None"),
    ],
)
def test_wrong_projections_are_named(projection, error, message):
    with pytest.raises(error, match=message), np.errstate(all="ignore"):
        Projection(None, projection, TWO)(np.ones(2))


def test_a_projection_may_not_leave_the_bounds():
    with pytest.raises(ValueError, match=r"leaves the bounds: lam\[1\] becomes 1.5. It is applied"):
        Projection((0, 1), lambda lam: lam + np.array([0, 0.5]), TWO)(np.ones(2))
    rounded = Projection((0, 1), lambda lam: lam * (1 + 1e-12), TWO)(np.ones(2))
    np.testing.assert_allclose(rounded, 1)


def test_a_projection_to_whole_numbers_is_promoted():
    found = Projection((0, 3), lambda lam: np.round(lam).astype(int), TWO)(np.array([0.4, 1.6]))
    np.testing.assert_array_equal(found, [0, 2])
    assert found.dtype == np.float64


@pytest.mark.parametrize("bounds", [(None, None), [None, None], [(None, None)] * 2])
def test_none_and_none_are_no_box_in_either_reading(bounds):
    low, high = box(bounds, TWO)
    assert np.isneginf(low).all()
    assert np.isposinf(high).all()
