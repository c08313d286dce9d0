import numpy as np
import pytest

from tinybilevel.arrays import labels


@pytest.mark.parametrize(
    "y",
    [[0, 2, 1], [0.0, 2.0, 1.0], np.array([0, 2, 1], np.uint8), np.array([0, 2, 1], np.float32)],
)
def test_labels_are_whole_numbers_of_any_type(y):
    found = labels.as_labels("y", y, 3)
    assert found.dtype == np.intp
    assert not found.flags.writeable
    np.testing.assert_array_equal(found, [0, 2, 1])


@pytest.mark.parametrize(
    ("y", "n_classes", "error", "message"),
    [
        (["a", "b"], None, TypeError, r"got <U1; to number any labels: classes, y = np.unique\("),
        ([True, False], None, TypeError, "y must be whole numbers 0 … C−1, got bool"),
        ([None, 1], None, TypeError, "y must be whole numbers .*, got object"),
        ([0.5, 1.0], None, ValueError, "y must be whole numbers 0 … C−1, got 0.5"),
        ([0, np.nan], None, ValueError, "y must be whole numbers 0 … C−1, got nan"),
        ([0, np.inf], None, ValueError, "y must be whole numbers 0 … C−1, got inf"),
        ([0, 1, 2], None, ValueError, r"y must be 2 integers, got shape \(3,\) of int64"),
        ([-1, 1], None, ValueError, "y must lie in 0 … C−1, got -1 … 1"),
        ([0, 1e300], None, ValueError, "y must lie in 0 … C−1, got 0.0 … 1e"),
        (np.array([0, 2**64 - 1], np.uint64), None, ValueError, "y must lie in 0 … C−1, got 0 …"),
        ([0, 3], 3, ValueError, "y must lie in 0 … 2, got 0 … 3"),
        ([0, 1], 2.0, TypeError, "n_classes must be an integer, got 2.0"),
    ],
)
def test_labels_that_are_refused(y, n_classes, error, message):
    with pytest.raises(error, match=message):
        labels.as_labels("y", y, 2, n_classes)


@pytest.mark.parametrize(
    ("given", "count"), [([[0]], 1), ([[0, 2]], 3), ([[1], [0, 4]], 5), ([[0, 1, 15]], 16)]
)
def test_classes_are_counted_up_to_the_largest_label(given, count):
    assert labels.class_count("y", *map(np.array, given)) == count


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([1, 2, 3], "class 0 never occurs in y, whose labels are 1 … 3: .* n_classes=4"),
        ([0, 1, 16], "y has only 3 different labels, but the largest is 16: .* n_classes=17"),
        ([0, 1, 24_999], "only 3 different labels, but the largest is 24999"),
    ],
)
def test_labels_that_may_not_be_what_they_seem_are_not_counted(given, message):
    with pytest.raises(ValueError, match=message):
        labels.class_count("y", np.array(given))


def test_no_labels_have_no_classes():
    with pytest.raises(ValueError, match="y must not be empty"):
        labels.class_count("y", np.empty(0, int))
