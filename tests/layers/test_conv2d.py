import numpy as np
import pytest
from scipy.signal import correlate2d

from tinybilevel.layers import Conv2d

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(("stride", "padding"), [(1, 0), (1, 1), (2, 1), (3, 2)])
def test_it_is_scipys_cross_correlation(stride, padding):
    x, W, b = RNG.standard_normal((2, 3, 8, 7)), RNG.standard_normal((4, 3, 3, 3)), np.arange(4.0)
    y, _ = Conv2d(4, 3, stride=stride, padding=padding).forward((W, b), x)
    a = padding
    padded = np.pad(x, ((0, 0), (0, 0), (a, a), (a, a)))
    for n in range(2):
        for o in range(4):
            planes = [correlate2d(padded[n, c], W[o, c], mode="valid") for c in range(3)]
            expected = b[o] + sum(planes)[::stride, ::stride]
            np.testing.assert_allclose(y[n, o], expected, rtol=1e-12, atol=1e-13)
    assert y.shape[1:] == Conv2d(4, 3, stride=stride, padding=padding).output_shape((3, 8, 7))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Conv2d(0, 3), ValueError, "channels must be at least 1, got 0"),
        (lambda: Conv2d(2, 3, stride=0), ValueError, "stride must be at least 1, got 0"),
        (lambda: Conv2d(2, 3.0), TypeError, r"kernel_size must be an integer, got 3\.0"),
        (
            lambda: Conv2d(2, 9).output_shape((1, 8, 8)),
            ValueError,
            "kernel of 9 that does not fit",
        ),
        (lambda: Conv2d(2, 3).output_shape((8,)), ValueError, r"takes images \(channels, height"),
    ],
)
def test_refused(call, error, message):
    with pytest.raises(error, match=message):
        call()
