import numpy as np
import pytest

from tinybilevel.arrays import backend


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_float_array_comes_back_as_it_is(dtype):
    x = np.ones((2, 3), dtype)[::-1, ::2]
    assert backend.as_float("x", x, ndim=2) is x


def test_python_floats_become_float64():
    assert backend.as_float("x", [1.0, 2.0]).dtype == np.float64
    assert backend.as_float("x", 1.0, ndim=0).shape == ()


def test_a_subclass_comes_back_as_a_plain_array():
    assert type(backend.as_float("x", np.ma.array([1.0, 2.0]))) is np.ndarray


@pytest.mark.parametrize(
    ("x", "dtype"),
    [
        ([1, 2], "int64"),
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
    with pytest.raises(TypeError, match=f"^lam must be float32 or float64, got dtype {dtype}$"):
        backend.as_float("lam", x)


def test_dimensions_and_finiteness():
    with pytest.raises(ValueError, match=r"lam must have 1 dimension\(s\), got shape \(1, 2\)"):
        backend.as_float("lam", np.ones((1, 2)), ndim=1)
    with pytest.raises(ValueError, match="lam must be finite, got 2 NaN or inf"):
        backend.as_float("lam", [np.nan, 1.0, -np.inf])
    assert np.isnan(backend.as_float("lam", [np.nan], finite=False))
    assert backend.as_float("lam", np.ones(0), ndim=1).size == 0


@pytest.mark.parametrize("x", [3, np.int8(3), np.uint64(3)])
def test_as_count(x):
    assert backend.as_count("T", x) == 3
    assert type(backend.as_count("T", x)) is int


@pytest.mark.parametrize("x", [3.0, True, np.True_, "3", None, np.array([3])])
def test_as_count_refuses_what_is_no_integer(x):
    with pytest.raises(TypeError, match="T must be an integer, got"):
        backend.as_count("T", x)


def test_as_count_refuses_what_is_too_small():
    with pytest.raises(ValueError, match="T must be at least 0, got -1"):
        backend.as_count("T", -1)
    with pytest.raises(ValueError, match="T must be at least 2, got 1"):
        backend.as_count("T", 1, minimum=2)


def test_check_shape():
    x = np.ones(2)
    assert backend.check_shape("grad", x, (2,)) is x
    np.testing.assert_array_equal(backend.check_shape("grad", [1.0, 2.0], (2,)), [1, 2])
    with pytest.raises(ValueError, match=r"grad must have shape \(2,\), got \(1,\)"):
        backend.check_shape("grad", np.ones(1), (2,))


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
    assert backend.block_size(block) == size
    if size is not None:
        assert np.ones(9)[block].size == size


def test_take_block_is_a_view_of_the_right_size():
    lam = np.arange(4.0)
    assert np.shares_memory(backend.take_block(lam, slice(1, 3), 2), lam)
    assert backend.take_block(lam, slice(1, None), None).size == 3
    with pytest.raises(ValueError, match="of lam must have 2 entries, got 1 of 4"):
        backend.take_block(lam, slice(3, 5), 2)


def test_promote_leaves_out_none():
    assert backend.promote(np.ones(1, np.float32), None) == np.float32
    assert backend.promote(np.ones(1, np.float32), np.dtype(np.float64)) == np.float64


def test_to_numpy_copies_from_a_device_only():
    class OnDevice:
        __cuda_array_interface__ = None

        def get(self):
            return np.arange(2.0)

    class Column:  # such as pandas', which has a `get` of its own
        def get(self, key):
            raise KeyError(key)

        def __array__(self, *_, **__):
            return np.arange(2.0)

    x = np.ones(2)
    assert backend.to_numpy(x) is x
    np.testing.assert_array_equal(backend.to_numpy(OnDevice()), [0, 1])
    np.testing.assert_array_equal(backend.to_numpy(Column()), [0, 1])
