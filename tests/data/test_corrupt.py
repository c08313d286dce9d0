"""Corrupted labels: as many as asked for, never true ones, and nothing else changes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinybilevel.data import corrupt_labels


@given(
    n=st.integers(0, 200),
    n_classes=st.integers(2, 100),
    noise=st.floats(0, 1),
    dtype=st.sampled_from(["int8", "uint8", "int32", "int64", "uint64", ">i2"]),
    seed=st.integers(0, 2**32),
)
def test_exactly_the_marked_labels_are_wrong(n, n_classes, noise, dtype, seed):
    y = np.random.default_rng(seed).integers(n_classes, size=n).astype(dtype)
    y.flags.writeable = False
    y_noisy, corrupted = corrupt_labels(y, noise, n_classes, seed)
    assert corrupted.sum() == round(noise * n)
    np.testing.assert_array_equal(y_noisy != y, corrupted, strict=True)
    assert y_noisy.dtype == y.dtype
    assert ((y_noisy >= 0) & (y_noisy < n_classes)).all()


@pytest.mark.parametrize("n_classes", [2, 3, 10])
@pytest.mark.parametrize("true", [0, 1])
def test_the_other_classes_are_equally_likely(n_classes, true):
    n = 30_000
    y_noisy, _ = corrupt_labels(np.full(n, true), 1.0, n_classes, seed=1)
    share = np.bincount(y_noisy, minlength=n_classes) / n
    expected = np.full(n_classes, 1 / (n_classes - 1))
    expected[true] = 0
    np.testing.assert_allclose(share, expected, atol=4 / np.sqrt(n))


def test_every_position_is_equally_likely():
    hits = sum(corrupt_labels(np.zeros(20, int), 0.25, 2, seed)[1] for seed in range(2000))
    np.testing.assert_allclose(hits / 2000, 0.25, atol=4 * np.sqrt(0.25 * 0.75 / 2000))


def test_the_seed_decides():
    y = np.arange(100) % 10
    first, again, other = (corrupt_labels(y, 0.5, seed=seed)[0] for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    np.testing.assert_array_equal(first, corrupt_labels(y, 0.5, seed=np.random.default_rng(3))[0])


def test_a_generator_moves_on():
    rng = np.random.default_rng(0)
    first, second = (corrupt_labels(np.arange(100) % 10, 0.5, seed=rng)[1] for _ in range(2))
    assert (first != second).any()


def test_lists_and_the_number_of_classes():
    y_noisy, corrupted = corrupt_labels([0, 2, 1, 2], 1)
    assert corrupted.all()
    assert y_noisy.max() <= 2


def test_256_classes_fit_a_byte():
    y = np.arange(256, dtype=np.uint8)
    y_noisy, _ = corrupt_labels(y, 1.0, 256)
    assert (y_noisy != y).all()


def test_floats_that_are_whole_numbers_stay_floats():
    y = np.arange(30.0) % 3
    y_noisy, corrupted = corrupt_labels(y, 0.5, seed=0)
    assert y_noisy.dtype == y.dtype
    np.testing.assert_array_equal(y_noisy, corrupt_labels(y.astype(int), 0.5, seed=0)[0])
    np.testing.assert_array_equal(y_noisy != y, corrupted)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (dict(noise=-0.1), ValueError, r"noise must be a share, in \[0, 1\], got -0.1"),
        (dict(noise=1.1), ValueError, "noise must be a share"),
        (dict(noise=float("nan")), ValueError, "noise must be a share.* got nan"),
        (dict(y=[[0, 1]]), ValueError, r"y must be 1-D, got shape \(1, 2\)"),
        (dict(noise="half"), TypeError, "noise must be a number, got 'half'"),
        (dict(noise=None), TypeError, "noise must be a number, got None"),
        (dict(y=[0.0, 1.5]), ValueError, r"y must be whole numbers 0 … C−1, got 1\.5"),
        (dict(y=[0.0, float("nan")]), ValueError, "y must be whole numbers .* got nan"),
        (dict(y=[True, False]), TypeError, r"whole numbers .*, got bool; .*np\.unique\(labels"),
        (dict(y=["cat", "dog"]), TypeError, r"whole numbers .*, got <U3; .*np\.unique\(labels"),
        (dict(y=[0, -1]), ValueError, r"y must lie in 0 … 2, got -1 … 0"),
        (dict(y=[0, 3]), ValueError, r"y must lie in 0 … 2, got 0 … 3"),
        (dict(y=[1, 2, 3], n_classes=None), ValueError, "class 0 never occurs in y"),
        (dict(y=[0, 1, 250], n_classes=None), ValueError, "largest is 250.*n_classes=251 if"),
        (dict(n_classes=1), ValueError, "n_classes must be at least 2, got 1"),
        (dict(n_classes=3.0), TypeError, "n_classes must be an integer, got 3.0"),
        (dict(y=[0, 0], n_classes=None), ValueError, "y holds class 0 alone: n_classes must say"),
        (dict(y=np.zeros(0, int), n_classes=None), ValueError, "y is empty"),
        (dict(y=np.zeros(2, np.int8), n_classes=200), ValueError, "up to 199 do not fit int8"),
        (dict(seed=None), TypeError, "seed, if not a numpy.random.Generator, must be an integer"),
        (dict(seed=np.random.RandomState(0)), TypeError, "seed, if not"),
        (dict(seed=-1), ValueError, "at least 0, got -1"),
    ],
)
def test_what_is_refused(change, error, message):
    with pytest.raises(error, match=message):
        corrupt_labels(**(dict(y=[0, 1, 2], noise=0.5, n_classes=3, seed=0) | change))
