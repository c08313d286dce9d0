import numpy as np

from tinybilevel.arrays import backend


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
