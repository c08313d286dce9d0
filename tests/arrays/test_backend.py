import numpy as np
import pytest

from tinybilevel.arrays import backend
from tinybilevel.kernels import threads


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


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [0, 7, 10_000, 10_001, 300_007])
def test_a_product_of_vectors_is_that_of_one_thread(size, dtype):
    """BLAS shares that of long ones, and the sum then depends on the number of its threads."""
    u, v = (np.random.default_rng(k).standard_normal(size).astype(dtype) for k in (0, 1))
    found = backend.dot(u, v)
    assert found.dtype == dtype
    expected = float(u.astype(np.longdouble) @ v.astype(np.longdouble))
    assert abs(float(found) - expected) <= 50 * np.finfo(dtype).eps * np.sqrt(size + 1)
    if threads.blas_can_be_alone():
        with threads.blas_alone():
            assert backend.dot(u, v) == found
