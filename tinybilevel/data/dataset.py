"""A labelled set of images, and the three parts that a bilevel problem needs of it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from tinybilevel.arrays.checks import as_count
from tinybilevel.arrays.labels import as_labels
from tinybilevel.data._seed import as_generator
from tinybilevel.data.idx import DataError

__all__ = ["Dataset", "Split"]

_DEFAULT_SIZE = 5000  # of the paper's training and validation sets (Section 4.2.1)


class _Readable:
    """Sets that print as a line, and in a notebook as a table, rather than as their numbers."""

    def _title(self) -> list[str]:
        return []

    def __repr__(self) -> str:
        parts = [
            f"{part} {X.shape} {X.dtype} of {count} classes" for part, X, count in self._parts()
        ]
        return f"{type(self).__name__}({', '.join([*self._title(), *parts])})"

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><td>{part}</td><td>{len(X)}</td><td>{X.shape[1]}</td><td>{X.dtype}</td>"
            f"<td>{classes}</td></tr>"
            for part, X, classes in self._parts()
        )
        head = "".join(f"<th>{title}</th>" for title in ("", "rows", "columns", "dtype", "classes"))
        title = escape(" ".join([type(self).__name__, *self._title()]))
        return f"<table><caption>{title}</caption><tr>{head}</tr>{rows}</table>"

    def _parts(self) -> Iterator[tuple[str, NDArray[Any], int]]:
        for part in ("train", "val", "test"):
            if hasattr(self, f"X_{part}"):
                classes = len(np.unique(getattr(self, f"y_{part}")))
                yield part, getattr(self, f"X_{part}"), classes


@dataclass(frozen=True, eq=False, repr=False)
class Split(_Readable):
    """Training, validation and test examples, ready for a problem.

    Attributes
    ----------
    X_train, X_val, X_test : ndarray (n, d), (m, d), (k, d)
        Pixels in [0, 1], float32 or float64, one image to a row; no column of ones.
    y_train, y_val, y_test : ndarray (n,), (m,), (k,) of int64
        Class numbers.
    train_index, val_index : ndarray (n,), (m,) of int64
        Rows of the data set's training part that the first two were drawn from.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> data = tb.data.digits().split(n_train=500, n_val=300, seed=0)
    >>> data.X_train.shape, data.X_val.shape, data.X_test.shape, data.X_train.dtype
    ((500, 64), (300, 64), (597, 64), dtype('float32'))
    """

    X_train: NDArray[Any]
    y_train: NDArray[np.int64]
    X_val: NDArray[Any]
    y_val: NDArray[np.int64]
    X_test: NDArray[Any]
    y_test: NDArray[np.int64]
    train_index: NDArray[np.int64]
    val_index: NDArray[np.int64]


@dataclass(frozen=True, eq=False, repr=False)
class Dataset(_Readable):
    """Images and their classes, in a training and a test part.

    Pixels stay uint8, an eighth of the memory that float64 takes; `split` makes floats of the
    rows it draws.

    Attributes
    ----------
    name : str
        Name of the data set.
    X_train, X_test : ndarray (n, d), (k, d) of uint8
        Pixels in 0 … `pixel_max`, one image to a row.
    y_train, y_test : ndarray (n,), (k,) of int64
        Class numbers, from 0. Whole numbers of another type become int64.
    image_shape : tuple of int
        Height and width of an image; their product is d.
    class_names : tuple of str
        What the class numbers stand for.
    pixel_max : int
        The pixel value that stands for 1.

    Raises
    ------
    DataError
        If the shapes, types or class numbers do not fit together, or a pixel is above `pixel_max`.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> tb.data.digits()
    Dataset('digits', train (1200, 64) uint8 of 10 classes, test (597, 64) uint8 of 10 classes)
    """

    name: str
    X_train: NDArray[np.uint8]
    y_train: NDArray[np.int64]
    X_test: NDArray[np.uint8]
    y_test: NDArray[np.int64]
    image_shape: tuple[int, ...]
    class_names: tuple[str, ...]
    pixel_max: int = 255

    def __post_init__(self) -> None:
        d, n_classes = math.prod(self.image_shape), len(self.class_names)
        pixel_max = as_count("pixel_max", self.pixel_max, minimum=1)
        for part in ("train", "test"):
            X, y = getattr(self, f"X_{part}"), getattr(self, f"y_{part}")
            if X.shape != (len(y), d) or X.dtype != np.uint8:
                raise DataError(
                    f"{self.name}: X_{part} is {X.dtype} of shape {X.shape}, expected uint8 of "
                    f"shape {(len(y), d)} to go with {len(y)} labels and images {self.image_shape}"
                )
            if X.size and X.max() > pixel_max:
                raise DataError(
                    f"{self.name}: X_{part} goes up to {X.max()}, expected at most the "
                    f"pixel_max = {pixel_max} that stands for 1"
                )
            try:
                labels = as_labels(f"y_{part}", y, len(y), n_classes)
            except (TypeError, ValueError) as error:
                raise DataError(f"{self.name}: {error}") from error
            object.__setattr__(self, f"y_{part}", labels.astype(np.int64))

    def _title(self) -> list[str]:
        return [repr(self.name)]

    def split(
        self,
        n_train: int | None = None,
        n_val: int | None = None,
        *,
        seed: int | np.random.Generator = 0,
        dtype: DTypeLike = np.float32,
    ) -> Split:
        """Draw disjoint training and validation sets at random from the training part.

        Classes are not balanced. For one seed, the training set does not depend on `n_val`.

        Parameters
        ----------
        n_train, n_val : int, optional
            Numbers of examples; by default 5000 each, or half of the training part if that is
            less.
        seed : int or numpy.random.Generator
            Where the randomness comes from.
        dtype : dtype_like
            float32 or float64.

        Returns
        -------
        Split
            The two sets and the whole test part, pixels scaled to [0, 1]. Its arrays are copies.

        Raises
        ------
        TypeError
            If a number is not an integer, or `dtype` is neither float32 nor float64.
        ValueError
            If a number is negative, or both together exceed the training part.

        Warns
        -----
        UserWarning
            If a set that is drawn lacks a class of the training part: no classifier learns it, or
            none is judged by it.

        Examples
        --------
        >>> import tinybilevel as tb
        >>> split = tb.data.digits().split(n_train=500, n_val=300, seed=0)
        >>> split.X_train.shape, split.X_val.shape, split.X_test.shape
        ((500, 64), (300, 64), (597, 64))
        >>> split.X_train.dtype, float(split.X_train.max())
        (dtype('float32'), 1.0)
        """
        n, given = len(self.y_train), (n_train, n_val)
        default = min(_DEFAULT_SIZE, n // 2)
        n_train = default if n_train is None else as_count("n_train", n_train, minimum=0)
        n_val = default if n_val is None else as_count("n_val", n_val, minimum=0)
        if n_train + n_val > n:
            defaults = [k for k, x in (("n_train", given[0]), ("n_val", given[1])) if x is None]
            note = f", {defaults[0]} by default" if defaults else ""
            raise ValueError(
                f"n_train + n_val must be at most the {n} training examples of {self.name}, "
                f"got {n_train} + {n_val}{note}"
            )
        if np.dtype(dtype) not in (np.float32, np.float64):
            raise TypeError(f"dtype must be float32 or float64, got {np.dtype(dtype)}")
        order = as_generator(seed).permutation(n)
        train, val = order[:n_train], order[n_train : n_train + n_val]
        for part, rows in (("training", train), ("validation", val)):
            lacking = np.setdiff1d(self.y_train, self.y_train[rows])
            if rows.size and lacking.size:
                warnings.warn(
                    f"none of the {rows.size} {part} examples is of class "
                    f"{', '.join(map(str, lacking))}: draw more, or with another seed",
                    stacklevel=2,
                )

        def scaled(X: NDArray[np.uint8]) -> NDArray[Any]:
            return np.divide(X, self.pixel_max, dtype=dtype)

        return Split(
            X_train=scaled(self.X_train[train]),
            y_train=self.y_train[train],
            X_val=scaled(self.X_train[val]),
            y_val=self.y_train[val],
            X_test=scaled(self.X_test),
            y_test=self.y_test.copy(),
            train_index=train,
            val_index=val,
        )
