import numpy as np
import pytest
from scipy.sparse import csr_array

from tinybilevel.arrays import checks, labels


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_float_array_comes_back_as_it_is(dtype):
    x = np.ones((2, 3), dtype)[::-1, ::2]
    assert checks.as_float("x", x, ndim=2) is x


def test_python_floats_become_float64():
    assert checks.as_float("x", [1.0, 2.0]).dtype == np.float64
    assert checks.as_float("x", 1.0, ndim=0).shape == ()


def test_a_subclass_comes_back_as_a_plain_array():
    assert type(checks.as_float("x", np.ma.array([1.0, 2.0]))) is np.ndarray


@pytest.mark.parametrize(
    ("x", "dtype"),
    [
        (np.ones(2, np.float16), "float16"),
        (np.ones(2, complex), "complex128"),
        ([True, False], "bool"),
        (np.ones(2, ">f8"), ">f8"),
        (["a"], "<U1"),
        (None, "object"),
        (np.ones(2, np.longdouble), str(np.dtype(np.longdouble))),
    ],
)
def test_any_other_dtype_is_refused_by_name(x, dtype):
    with pytest.raises(TypeError, match=f"^lam must be float32 or float64, got dtype {dtype}"):
        checks.as_float("lam", x)


@pytest.mark.parametrize(
    "x", [[1, -2], np.array([7, 2**53], np.uint64), [2**60, -(2**63)], [[3]], 4]
)
def test_whole_numbers_become_float64(x):
    found = checks.as_float("lam", x)
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found.astype(object), np.asarray(x).astype(object))


@pytest.mark.parametrize(
    "x", [2**53 + 1, -(2**53) - 1, 2**63 - 1, np.array([2**64 - 1, 0], np.uint64)]
)
def test_a_whole_number_that_is_no_float_is_refused(x):
    with pytest.raises(
        ValueError, match=r"lam must hold whole numbers that float64 has, got -?[0-9]+"
    ):
        checks.as_float("lam", x)


def test_a_sparse_array_is_refused_where_a_dense_one_is_meant():
    with pytest.raises(TypeError, match="lam must be a dense array, got a sparse csr_array"):
        checks.as_float("lam", csr_array(np.eye(2)))


@pytest.mark.parametrize("x", [np.ones(3), np.ones((2, 3), np.float32), np.arange(3), [1.0, 2.0]])
def test_frozen_data_are_a_read_only_copy(x):
    kept = checks.frozen("X", x)
    assert not np.shares_memory(kept, x)
    assert kept.dtype == np.asarray(x).dtype
    np.testing.assert_array_equal(kept, x)
    assert checks.frozen("X", kept) is kept
    with pytest.raises(ValueError, match="read-only"):
        kept[...] = 0


def test_data_that_nobody_can_write_stay_where_they_are():
    x = np.arange(6.0)
    x.flags.writeable = False
    assert checks.frozen("X", x) is x
    part = x[::2]
    assert checks.frozen("X", part) is part


def test_a_read_only_view_of_a_writable_array_is_copied():
    x = np.ones(3)
    view = x.view()
    view.flags.writeable = False
    kept = checks.frozen("X", view)
    x[0] = 5
    np.testing.assert_array_equal(kept, np.ones(3))


def test_frozen_sparse_data_keep_nothing_of_the_callers():
    X = csr_array(np.eye(3))
    kept = checks.frozen("X", X)
    X.data[0], X.indices[0] = 7, 2
    np.testing.assert_array_equal(kept.toarray(), np.eye(3))
    assert checks.frozen("X", kept) is kept
    assert X.data.flags.writeable


def test_frozen_data_on_a_device_are_a_copy():
    class OnDevice:  # has no flag that could make it read-only
        __cuda_array_interface__ = None

        def copy(self):
            return OnDevice()

    x = OnDevice()
    assert checks.frozen("X", x) is not x


def test_frozen_refuses_what_are_no_numbers():
    for x in (["a"], [None], [1j]):
        with pytest.raises(TypeError, match="y must be an array of numbers, got dtype"):
            checks.frozen("y", x)


def test_dimensions_and_finiteness():
    with pytest.raises(ValueError, match=r"lam must have 1 dimension\(s\), got shape \(1, 2\)"):
        checks.as_float("lam", np.ones((1, 2)), ndim=1)
    with pytest.raises(ValueError, match="lam must be finite, got 2 NaN or inf"):
        checks.as_float("lam", [np.nan, 1.0, -np.inf])
    assert np.isnan(checks.as_float("lam", [np.nan], finite=False))
    assert checks.as_float("lam", np.ones(0), ndim=1).size == 0


@pytest.mark.parametrize("x", [3, np.int8(3), np.uint64(3)])
def test_as_count(x):
    assert checks.as_count("T", x) == 3
    assert type(checks.as_count("T", x)) is int


@pytest.mark.parametrize("x", [3.0, True, np.True_, "3", None, np.array([3])])
def test_as_count_refuses_what_is_no_integer(x):
    with pytest.raises(TypeError, match="T must be an integer, got"):
        checks.as_count("T", x)


def test_as_count_refuses_what_is_too_small():
    with pytest.raises(ValueError, match="T must be at least 0, got -1"):
        checks.as_count("T", -1)
    with pytest.raises(ValueError, match="T must be at least 2, got 1"):
        checks.as_count("T", 1, minimum=2)


def test_check_shape():
    x = np.ones(2)
    assert checks.check_shape("grad", x, (2,)) is x
    np.testing.assert_array_equal(checks.check_shape("grad", [1.0, 2.0], (2,)), [1, 2])
    with pytest.raises(ValueError, match=r"grad must have shape \(2,\), got \(1,\)"):
        checks.check_shape("grad", np.ones(1), (2,))


@pytest.mark.parametrize(
    ("block", "size"),
    [
        (slice(2, 5), 3),
        (slice(None, 2), 2),
        (slice(0, 5, 2), 3),
        (slice(5, 2), 0),
        (slice(2, None), None),
        (slice(-2, None), None),
        (slice(-3, -1), None),
        (slice(3, 0, -1), None),
    ],
)
def test_block_size_is_known_where_the_length_of_lam_does_not_matter(block, size):
    assert checks.block_size(block) == size
    if size is not None:
        assert np.ones(9)[block].size == size


def test_take_block_is_a_view_of_the_right_size():
    lam = np.arange(4.0)
    assert np.shares_memory(checks.take_block(lam, slice(1, 3), 2), lam)
    assert checks.take_block(lam, slice(1, None), None).size == 3
    with pytest.raises(ValueError, match="of lam must have 2 entries, got 1 of 4"):
        checks.take_block(lam, slice(3, 5), 2)


def test_masked_entries_are_no_numbers():
    masked, whole = np.ma.array([1.0, 2.0], mask=[0, 1]), np.ma.array([1.0, 2.0])
    with pytest.raises(TypeError, match="lam has masked entries: fill them first"):
        checks.as_float("lam", masked)
    with pytest.raises(TypeError, match="y has masked entries: fill them first"):
        labels.as_labels("y", masked, 2)
    assert type(checks.as_float("lam", whole)) is np.ndarray
