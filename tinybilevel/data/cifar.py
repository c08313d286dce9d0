"""CIFAR-10 and CIFAR-100: the original binary archives, small subsets of them, and features."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinybilevel.data._sources import Source, locate
from tinybilevel.data.archive import read_tar
from tinybilevel.data.dataset import Dataset
from tinybilevel.data.idx import DataError
from tinybilevel.data.npz import read_npz
from tinybilevel.data.pool import Pool

__all__ = ["cifar10", "cifar10_features", "cifar100", "cifar100_features"]

_SHAPE = (3, 32, 32)
_PIXELS = 3 * 32 * 32
_NAMES = 10_000  # bytes that a list of class names may have

_ARCHIVES = Source(
    name="cifar",
    folder="cifar",
    url="https://www.cs.toronto.edu/~kriz/",
    class_names=(),
    sha256={
        "cifar-10-binary.tar.gz": "md5:c32a1d4ab5d03f1284b67883e8d87530",
        "cifar-100-binary.tar.gz": "md5:03b5dce01913d631647c71ecec9e9cb8",
    },
)
_SUBSETS = Source(
    name="the CIFAR subsets",
    folder="cifar",
    url="",
    class_names=(),
    sha256={
        "cifar10_5k.npz": "59111a64fb4df64a91e357bc5bccf8457c4245d10f703194b18c05e70d95da95",
        "cifar100_5k.npz": "8a2d160c6a61375859b3bbf56b4e9a800adf6f7f2a74f1ca585c44c6be3767a9",
        "cifar10_5k_lite0.npz": "324203c994dcd04a54a3b70a4ef4c4cd49ea25ae3d59325dc28c025d5d4bd1bd",
        "cifar100_5k_lite0.npz": "007830e55da74d37af7355572a67f5e9c1c6212e76afcc3fe1ca14a38b673c15",
    },
)


def cifar10(data_dir: str | os.PathLike[str] | None = None, *, subset: bool = False) -> Dataset:
    """Load CIFAR-10: colour pictures of ten kinds of things, 3 × 32 × 32.

    Parameters
    ----------
    data_dir : str or os.PathLike, optional
        Directory that holds ``cifar/cifar-10-binary.tar.gz``, the original binary version. By
        default the directory that the environment variable ``TINYBILEVEL_DATA`` names, then the
        download cache, then a download.
    subset : bool
        True: 5000 pictures to train on and 5000 to test, from ``cifar/cifar10_5k.npz``, which is
        not downloaded. What is measured on it says nothing of the whole test set.

    Returns
    -------
    Dataset
        ``X_train`` (50000, 3072) and ``X_test`` (10000, 3072), uint8, channel by channel.

    Raises
    ------
    DataError
        If the file is missing, cannot be downloaded, has another checksum, or is damaged.
    ImportError
        If there is no copy at hand and pooch is not installed.

    References
    ----------
    Krizhevsky 2009, "Learning multiple layers of features from tiny images".

    Examples
    --------
    >>> import tinybilevel as tb
    >>> tb.data.cifar10("/no/such/place")  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    DataError: data_dir lacks a file: expected /no/such/place/cifar/cifar-10-binary.tar.gz
    """
    if subset:
        return _subset("cifar10", "labels", "label_names", data_dir)
    return _original(
        "cifar10",
        locate(_ARCHIVES, "cifar-10-binary.tar.gz", data_dir),
        [f"cifar-10-batches-bin/data_batch_{k}.bin" for k in range(1, 6)],
        ["cifar-10-batches-bin/test_batch.bin"],
        "cifar-10-batches-bin/batches.meta.txt",
        label_bytes=1,
    )


def cifar100(data_dir: str | os.PathLike[str] | None = None, *, subset: bool = False) -> Dataset:
    """Load CIFAR-100: colour pictures of a hundred kinds of things, 3 × 32 × 32, by fine label.

    Parameters
    ----------
    data_dir : str or os.PathLike, optional
        Directory that holds ``cifar/cifar-100-binary.tar.gz``; else as for `cifar10`.
    subset : bool
        True: 5000 + 5000 pictures, from ``cifar/cifar100_5k.npz``.

    Returns
    -------
    Dataset
        As `cifar10` returns it, with 100 classes.

    Raises
    ------
    DataError, ImportError
        As for `cifar10`.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> tb.data.cifar100("/no/such/place")  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    DataError: data_dir lacks a file: expected /no/such/place/cifar/cifar-100-binary.tar.gz
    """
    if subset:
        return _subset("cifar100", "fine", "fine_names", data_dir)
    return _original(
        "cifar100",
        locate(_ARCHIVES, "cifar-100-binary.tar.gz", data_dir),
        ["cifar-100-binary/train.bin"],
        ["cifar-100-binary/test.bin"],
        "cifar-100-binary/fine_label_names.txt",
        label_bytes=2,
    )


def cifar10_features(data_dir: str | os.PathLike[str] | None = None) -> Pool:
    """Load 1280 features of each picture of the CIFAR-10 subset, from a pretrained network.

    The network is an EfficientNet-Lite0 (Tan and Le 2019) trained on ImageNet, whose classes
    overlap those of CIFAR; only its numbers are here.

    Parameters
    ----------
    data_dir : str or os.PathLike, optional
        Directory that holds ``cifar/cifar10_5k_lite0.npz`` and ``cifar/cifar10_5k.npz``; by
        default the one that the environment variable ``TINYBILEVEL_DATA`` names. They are not
        downloaded.

    Returns
    -------
    Pool
        X (10000, 1280) float32, the subset's training part first.

    Raises
    ------
    DataError
        If a file is missing or has another checksum.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> tb.data.cifar10_features("/no/such/place")  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    DataError: data_dir lacks a file: expected /no/such/place/cifar/cifar10_5k.npz
    """
    data = cifar10(data_dir, subset=True)
    return _features(data, None, data_dir)


def cifar100_features(data_dir: str | os.PathLike[str] | None = None) -> Pool:
    """Load 1280 features of each picture of the CIFAR-100 subset; see `cifar10_features`.

    Parameters
    ----------
    data_dir : str or os.PathLike, optional
        Directory that holds ``cifar/cifar100_5k_lite0.npz`` and ``cifar/cifar100_5k.npz``; else as
        for `cifar10_features`.

    Returns
    -------
    Pool
        With the superclass of each class.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> tb.data.cifar100_features("/no/such/place")  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    DataError: data_dir lacks a file: expected /no/such/place/cifar/cifar100_5k.npz
    """
    data = cifar100(data_dir, subset=True)
    file = _read("cifar100_5k.npz", data_dir)
    coarse = np.empty(len(data.class_names), int)
    coarse[file["train_fine"]] = file["train_coarse"]
    names = file["coarse_names"]
    return _features(data, tuple(str(names[k]) for k in coarse), data_dir)


def _features(
    data: Dataset, superclasses: tuple[str, ...] | None, data_dir: str | os.PathLike[str] | None
) -> Pool:
    file = _read(f"{data.name}_lite0.npz", data_dir)
    X = np.concatenate([file["train_features"], file["test_features"]]).astype(np.float32)
    y = np.concatenate([data.y_train, data.y_test])
    return Pool(f"{data.name} features", X, y, data.class_names, superclasses)


def _read(file: str, data_dir: str | os.PathLike[str] | None) -> dict[str, NDArray[Any]]:
    return read_npz(locate(_SUBSETS, file, data_dir), sha256=_SUBSETS.sha256[file])


def _subset(name: str, labels: str, names: str, data_dir: str | os.PathLike[str] | None) -> Dataset:
    file = _read(f"{name}_5k.npz", data_dir)
    return Dataset(
        name=f"{name}_5k",
        X_train=file["train_images"].reshape(-1, _PIXELS),
        y_train=file[f"train_{labels}"].astype(np.int64),
        X_test=file["test_images"].reshape(-1, _PIXELS),
        y_test=file[f"test_{labels}"].astype(np.int64),
        image_shape=_SHAPE,
        class_names=tuple(map(str, file[names])),
    )


def _original(
    name: str,
    path: os.PathLike[str],
    train: Sequence[str],
    test: Sequence[str],
    names: str,
    *,
    label_bytes: int,
) -> Dataset:
    """Read a binary version: records of label bytes, the fine label last, and of pixel bytes."""
    record, most = label_bytes + _PIXELS, 50_000
    sizes = dict.fromkeys([*train, *test], most * record) | {names: _NAMES}
    files = read_tar(path, sizes)

    def part(members: Sequence[str]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        for member in members:
            if len(files[member]) % record:
                raise DataError(
                    f"{path}: {member} has {len(files[member])} bytes, expected records of {record}"
                )
        rows = np.frombuffer(b"".join(files[m] for m in members), np.uint8).reshape(-1, record)
        return rows[:, label_bytes:], rows[:, label_bytes - 1].astype(np.int64)

    (X_train, y_train), (X_test, y_test) = part(train), part(test)
    try:
        class_names = tuple(files[names].decode("ascii").split())
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: {names} is no list of names") from error
    return Dataset(name, X_train, y_train, X_test, y_test, _SHAPE, class_names)
