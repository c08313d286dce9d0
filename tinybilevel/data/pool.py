"""A pool of labelled examples, from which small training sets are drawn."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinybilevel.arrays.checks import as_count, as_float
from tinybilevel.data._seed import as_generator
from tinybilevel.data.dataset import Dataset, Split
from tinybilevel.data.idx import DataError
from tinybilevel.data.npz import read_npz

__all__ = ["Pool", "load_pool"]


@dataclass(frozen=True, eq=False)
class Pool:
    """Examples as features, and their classes, without a training and a test part.

    Attributes
    ----------
    name : str
        Name of the data.
    X : ndarray (n, d)
        Features, float32 or float64.
    y : ndarray (n,) of int64
        Class numbers, from 0.
    class_names : tuple of str
        What they stand for.
    superclasses : tuple of str, optional
        The superclass of each class, where there are any.

    Raises
    ------
    DataError
        If the shapes, types or class numbers do not fit together.

    Examples
    --------
    >>> import numpy as np
    >>> import tinybilevel as tb
    >>> pool = tb.data.Pool.of(tb.data.digits())
    >>> pool, pool.X.shape
    (Pool('digits': 1797 examples, 64 features, 10 classes), (1797, 64))
    >>> float(np.linalg.norm(pool.normalized(20.0).X[0]).round(3))
    20.0
    """

    name: str
    X: NDArray[Any]
    y: NDArray[np.int64]
    class_names: tuple[str, ...]
    superclasses: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        X, y, V = self.X, self.y, len(self.class_names)
        if X.ndim != 2 or X.dtype not in (np.float32, np.float64) or y.shape != X.shape[:1]:
            raise DataError(
                f"{self.name}: X is {X.dtype} of shape {X.shape}, expected float32 or float64, one "
                f"row for each of {y.shape} labels"
            )
        if y.dtype.kind not in "iu" or (y.size and not (y.min() >= 0 and y.max() < V)):
            raise DataError(f"{self.name}: y must hold class numbers 0 to {V - 1}")
        if self.superclasses is not None and len(self.superclasses) != V:
            raise DataError(
                f"{self.name}: superclasses must name one for each of {V} classes, got "
                f"{len(self.superclasses)}"
            )

    def __repr__(self) -> str:
        n, d = self.X.shape
        return f"Pool({self.name!r}: {n} examples, {d} features, {len(self.class_names)} classes)"

    @classmethod
    def of(cls, data: Dataset) -> Pool:
        """Return all images of a data set, training part first, as rows of pixels in [0, 1]."""
        pixels = np.concatenate([data.X_train, data.X_test])
        X = np.divide(pixels, data.pixel_max, dtype=np.float32)
        return cls(data.name, X, np.concatenate([data.y_train, data.y_test]), data.class_names)

    def normalized(self, norm: float) -> Pool:
        """Standardise each feature over the pool, then scale each row to one Euclidean norm.

        Parameters
        ----------
        norm : float
            Length of each row, greater than 0. A feature that is constant becomes 0.

        Returns
        -------
        Pool
        """
        if not (np.isfinite(norm) and norm > 0):
            raise ValueError(f"norm must be greater than 0 and finite, got {norm}")
        X = self.X - self.X.mean(axis=0, dtype=np.float64)
        spread = X.std(axis=0)
        X /= np.where(spread > 1e-12 * np.abs(self.X).max(axis=0, initial=1e-300), spread, np.inf)
        length = np.linalg.norm(X, axis=1, keepdims=True)
        X *= norm / np.where(length > 0, length, 1.0)
        return replace(self, X=X.astype(self.X.dtype))

    def draw(
        self,
        n_train: int,
        n_val: int,
        *,
        balanced: bool = False,
        seed: int | np.random.Generator = 0,
    ) -> Split:
        """Draw disjoint small training and validation sets; the rest is for testing.

        Parameters
        ----------
        n_train, n_val : int
            Numbers of examples.
        balanced : bool
            True: as many of each class, which must divide both numbers.
        seed : int or numpy.random.Generator
            Where the randomness comes from.

        Returns
        -------
        Split
            Its arrays are copies, its indices rows of the pool.

        Raises
        ------
        ValueError
            If there are too few examples, or the numbers cannot be balanced.

        Examples
        --------
        >>> import tinybilevel as tb
        >>> pool = tb.data.Pool.of(tb.data.digits())
        >>> split = pool.draw(50, 50, balanced=True, seed=0)
        >>> split.X_train.shape, split.X_val.shape, split.X_test.shape
        ((50, 64), (50, 64), (1697, 64))
        """
        n_train, n_val = as_count("n_train", n_train), as_count("n_val", n_val)
        if n_train + n_val > len(self.y):
            raise ValueError(
                f"n_train + n_val must be at most the {len(self.y)} examples of {self.name}, got "
                f"{n_train} + {n_val}"
            )
        order = as_generator(seed).permutation(len(self.y))
        if balanced:
            order = self._balanced(order, n_train, n_val)
        train, val, rest = np.split(order, [n_train, n_train + n_val])
        X, y = self.X, self.y
        return Split(
            X_train=X[train],
            y_train=y[train],
            X_val=X[val],
            y_val=y[val],
            X_test=X[rest],
            y_test=y[rest],
            train_index=train,
            val_index=val,
        )

    def _balanced(self, order: NDArray[Any], n_train: int, n_val: int) -> NDArray[Any]:
        """Reorder: so many of each class first, so many of each next, then the rest."""
        V = len(self.class_names)
        for name, n in (("n_train", n_train), ("n_val", n_val)):
            if n % V:
                raise ValueError(f"{name} must be a multiple of the {V} classes, got {n}")
        a, b = n_train // V, n_val // V
        own = [order[self.y[order] == c] for c in range(V)]
        if few := [self.class_names[c] for c in range(V) if len(own[c]) < a + b]:
            raise ValueError(f"{self.name} has fewer than {a + b} examples of {', '.join(few)}")
        parts = [rows[s] for s in (slice(a), slice(a, a + b), slice(a + b, None)) for rows in own]
        return np.concatenate(parts)


def load_pool(path: str | os.PathLike[str]) -> Pool:
    """Read a pool from an ``.npz`` file of your own.

    Parameters
    ----------
    path : path-like
        File with the arrays ``X`` (n, d) of floats and ``y`` (n,) of int, and if need be
        ``class_names`` and ``superclasses`` (V,) of str.

    Returns
    -------
    Pool

    Raises
    ------
    DataError
        If the file is missing, is no such file, or its arrays do not fit together.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> import numpy as np
    >>> import tinybilevel as tb
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "flowers.npz"
    ...     np.savez(path, X=np.zeros((6, 4)), y=[0, 0, 1, 1, 2, 2])
    ...     print(tb.data.load_pool(path))
    Pool('flowers': 6 examples, 4 features, 3 classes)
    """
    path, arrays = Path(path), read_npz(path)
    if missing := {"X", "y"} - set(arrays):
        raise DataError(f"{path}: lacks {', '.join(sorted(missing))}; it holds {sorted(arrays)}")
    try:
        X = as_float("X", arrays["X"], ndim=2)
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: {error}") from error
    y = arrays["y"]
    if y.dtype.kind not in "iu":
        raise DataError(f"{path}: y must hold integers, got {y.dtype}")
    names = arrays.get("class_names", np.arange(int(y.max(initial=0)) + 1))
    above = arrays.get("superclasses")
    return Pool(
        path.stem,
        X,
        y.astype(np.int64),
        tuple(map(str, names)),
        None if above is None else tuple(map(str, above)),
    )
