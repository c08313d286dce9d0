"""Class labels: whole numbers 0 … C − 1, and what is mistaken for them."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array, on_device, to_numpy
from tinybilevel.arrays.checks import as_count, frozen, unmasked

__all__ = ["as_labels", "class_count", "one_hot"]


def as_labels(name: str, y: Any, n: int, n_classes: int | None = None) -> Array:
    """Check class labels, and return them as a read-only vector of integers.

    Parameters
    ----------
    name : str
        The argument's name, for the error.
    y : array_like (n,)
        Whole numbers 0 … C−1, as integers or as floats.
    n : int
        How many there must be.
    n_classes : int, optional
        C, where it is known; `class_count` finds it where it is not.

    Returns
    -------
    ndarray (n,) of intp
        On the host.

    Raises
    ------
    TypeError
        If they are neither integers nor floats.
    ValueError
        If their number is wrong, or one is no whole number or out of range.

    Examples
    --------
    >>> from tinybilevel.arrays.labels import as_labels
    >>> as_labels("y", [0.0, 2.0], 2)
    array([0, 2])
    """
    y = to_numpy(y) if on_device(y) else unmasked(name, y)
    if y.dtype.kind not in "iuf":
        raise TypeError(
            f"{name} must be whole numbers 0 … C−1, got {y.dtype}; to number any labels: "
            f"classes, {name} = np.unique(labels, return_inverse=True)"
        )
    if y.shape != (n,):
        raise ValueError(f"{name} must be {n} integers, got shape {y.shape} of {y.dtype}")
    if y.dtype.kind == "f":
        broken = y[~(np.isfinite(y) & (np.floor(y) == y))]
        if broken.size:
            raise ValueError(f"{name} must be whole numbers 0 … C−1, got {broken[0]}")
    count = np.iinfo(np.intp).max if n_classes is None else as_count("n_classes", n_classes)
    if n and not 0 <= y.min() <= y.max() < count:
        top = "C−1" if n_classes is None else count - 1
        raise ValueError(f"{name} must lie in 0 … {top}, got {y.min()} … {y.max()}")
    return frozen(name, y.astype(np.intp, copy=False))


def class_count(name: str, *labels: Array) -> int:
    """Return how many classes there are where nobody says: the largest label plus one.

    Raises
    ------
    ValueError
        If there are no labels, class 0 never occurs, or the largest label is far beyond the
        number of classes that occur: such labels may not be what they seem, so that `n_classes`
        has to be given.

    Examples
    --------
    >>> import numpy as np
    >>> from tinybilevel.arrays.labels import class_count
    >>> class_count("y", np.array([0, 2, 1, 2]))
    3
    """
    seen = np.unique(np.concatenate(labels))
    if seen.size == 0:
        raise ValueError(f"{name} must not be empty")
    lowest, count = int(seen[0]), int(seen[-1]) + 1
    what = None
    if lowest > 0:
        what = f"class 0 never occurs in {name}, whose labels are {lowest} … {count - 1}"
    elif count > 2 * seen.size + 10:
        what = f"{name} has only {seen.size} different labels, but the largest is {count - 1}"
    if what is not None:
        raise ValueError(
            f"{what}: number them 0 … C−1 (classes, {name} = np.unique(labels, "
            f"return_inverse=True)), or give n_classes={count} if that many are meant"
        )
    return count


def one_hot(y: Array, n_classes: int) -> Array:
    """Return Y_ci = [c = y_i], (C, n), where y lies.

    Examples
    --------
    >>> import numpy as np
    >>> from tinybilevel.arrays.labels import one_hot
    >>> one_hot(np.array([1, 0, 1]), 2)
    array([[False,  True, False],
           [ True, False,  True]])
    """
    # Counted where y lies: every minibatch on a GPU comes by here.
    return np.cumsum(np.ones_like(y, shape=(n_classes, 1)), axis=0) - 1 == y
