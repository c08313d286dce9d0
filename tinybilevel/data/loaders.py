"""The data sets by name."""

from __future__ import annotations

import os

import numpy as np

from tinybilevel.data._sources import FASHION_MNIST, MNIST, Source, locate
from tinybilevel.data.dataset import Dataset
from tinybilevel.data.idx import read_idx
from tinybilevel.errors import missing_extra

__all__ = ["digits", "fashion_mnist", "mnist"]

_DIGITS_TEST_SIZE = 597  # leaves 600 + 600 of the 1797 for training and validation


def mnist(data_dir: str | os.PathLike[str] | None = None) -> Dataset:
    """Load MNIST: handwritten digits, 60000 to train on and 10000 to test, 28 × 28.

    Parameters
    ----------
    data_dir : str or os.PathLike, optional
        Directory that holds ``mnist/train-images-idx3-ubyte.gz`` and the three other original
        files. By default the directory that the environment variable ``TINYBILEVEL_DATA`` names,
        then the download cache, then a download.

    Returns
    -------
    Dataset
        ``X_train`` (60000, 784) and ``X_test`` (10000, 784), both uint8; 10 classes.

    Raises
    ------
    DataError
        If a file is missing from `data_dir`, cannot be downloaded, or has another SHA-256 than
        the original.
    ImportError
        If there is no copy at hand and pooch is not installed.

    References
    ----------
    LeCun, Cortes and Burges, "The MNIST database of handwritten digits".

    Examples
    --------
    >>> import tinybilevel as tb
    >>> tb.data.mnist("/no/such/place")  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    DataError: data_dir lacks a file: expected /no/such/place/mnist/train-images-idx3-ubyte.gz
    """
    return _load(MNIST, data_dir)


def fashion_mnist(data_dir: str | os.PathLike[str] | None = None) -> Dataset:
    """Load Fashion-MNIST: pictures of clothes, 60000 to train on and 10000 to test, 28 × 28.

    Parameters
    ----------
    data_dir : str or os.PathLike, optional
        Directory that holds ``fashion/train-images-idx3-ubyte.gz`` and the three other original
        files. By default the directory that the environment variable ``TINYBILEVEL_DATA`` names,
        then the download cache, then a download.

    Returns
    -------
    Dataset
        ``X_train`` (60000, 784) and ``X_test`` (10000, 784), both uint8; 10 classes.

    Raises
    ------
    DataError
        If a file is missing from `data_dir`, cannot be downloaded, or has another SHA-256 than
        the original.
    ImportError
        If there is no copy at hand and pooch is not installed.

    References
    ----------
    Xiao, Rasul and Vollgraf 2017, "Fashion-MNIST: a novel image dataset for benchmarking machine
    learning algorithms".

    Examples
    --------
    >>> import tinybilevel as tb
    >>> tb.data.fashion_mnist("/no/such/place")  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    DataError: data_dir lacks a file: expected /no/such/place/fashion/train-images-idx3-ubyte.gz
    """
    return _load(FASHION_MNIST, data_dir)


def digits() -> Dataset:
    """Load the 1797 handwritten digits, 8 × 8, that come with scikit-learn.

    They have no official test part. Here it is 597 of them, always the same, drawn at random.

    Returns
    -------
    Dataset
        ``X_train`` (1200, 64) and ``X_test`` (597, 64), both uint8 in 0 … 16; 10 classes.

    Raises
    ------
    ImportError
        If scikit-learn is not installed.

    References
    ----------
    Alpaydin and Kaynak 1998, "Optical recognition of handwritten digits", UCI.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> data = tb.data.digits()
    >>> data.X_train.shape, data.X_test.shape, data.pixel_max
    ((1200, 64), (597, 64), 16)
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise missing_extra("digits needs scikit-learn", "data", error) from error
    X, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    train, test = order[:-_DIGITS_TEST_SIZE], order[-_DIGITS_TEST_SIZE:]
    X, y = X.astype(np.uint8), y.astype(np.int64)
    return Dataset(
        name="digits",
        X_train=X[train],
        y_train=y[train],
        X_test=X[test],
        y_test=y[test],
        image_shape=(8, 8),
        class_names=tuple("0123456789"),
        pixel_max=16,
    )


def _load(source: Source, data_dir: str | os.PathLike[str] | None) -> Dataset:
    def read(file: str, ndim: int) -> np.ndarray:
        path = locate(source, file, data_dir)
        return read_idx(path, sha256=source.sha256[file], dtype=np.uint8, ndim=ndim)

    train, test = read("train-images-idx3-ubyte.gz", 3), read("t10k-images-idx3-ubyte.gz", 3)
    return Dataset(
        name=source.name,
        X_train=train.reshape(len(train), -1),
        y_train=read("train-labels-idx1-ubyte.gz", 1).astype(np.int64),
        X_test=test.reshape(len(test), -1),
        y_test=read("t10k-labels-idx1-ubyte.gz", 1).astype(np.int64),
        image_shape=train.shape[1:],
        class_names=source.class_names,
    )
