"""Wrong labels on purpose, so that a method can be asked to find them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tinybilevel.arrays.checks import as_count
from tinybilevel.arrays.labels import as_labels, class_count
from tinybilevel.data._seed import as_generator

__all__ = ["corrupt_labels"]


def corrupt_labels(
    y: ArrayLike,
    noise: float,
    n_classes: int | None = None,
    seed: int | np.random.Generator = 0,
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Replace a share of the labels by wrong ones.

    Exactly ``round(noise * n)`` labels are chosen at random, and each becomes one of the other
    classes, all equally likely. A corrupted label is never the true one.

    Parameters
    ----------
    y : array_like (n,)
        True labels: the whole numbers 0 … C − 1, as integers or as floats.
    noise : float
        Share of labels to corrupt, in [0, 1].
    n_classes : int, optional
        C, at least 2; by default the largest label plus one, where no doubt is left: class 0 must
        occur, and the largest label not be far beyond the number of those that do.
    seed : int or numpy.random.Generator
        Where the randomness comes from.

    Returns
    -------
    y_noisy : ndarray (n,)
        A copy of `y`, of its dtype, with the wrong labels in place.
    corrupted : ndarray (n,) of bool
        Which labels are wrong.

    Raises
    ------
    TypeError
        If `y` or `n_classes` is not of numbers, `noise` is no number, or `seed` is neither an int
        nor a generator.
    ValueError
        If `y` is not 1-D, a label is no whole number or lies outside 0 … C − 1, C is less than 2,
        in doubt, or beyond the dtype of `y`, or `noise` lies outside [0, 1].

    Examples
    --------
    >>> import numpy as np
    >>> y = np.array([0, 1, 2, 0, 1, 2])
    >>> y_noisy, corrupted = corrupt_labels(y, noise=0.5, seed=0)
    >>> int(corrupted.sum())
    3
    >>> np.array_equal(y_noisy != y, corrupted)
    True
    """
    y = np.asarray(y)
    if y.ndim != 1:
        raise ValueError(f"y must be 1-D, got shape {y.shape}")
    if n_classes is not None:
        n_classes = as_count("n_classes", n_classes, minimum=2)
    labels = as_labels("y", y, len(y), n_classes)
    try:
        share = float(noise)
    except (TypeError, ValueError) as error:
        raise TypeError(f"noise must be a number, got {noise!r}") from error
    if not 0 <= share <= 1:
        raise ValueError(f"noise must be a share, in [0, 1], got {noise}")
    if n_classes is None:
        if not y.size:
            raise ValueError("y is empty, so n_classes must be given")
        n_classes = class_count("y", labels)
        if n_classes == 1:
            raise ValueError("y holds class 0 alone: n_classes must say which others there are")
    if y.dtype.kind != "f" and n_classes - 1 > np.iinfo(y.dtype).max:
        raise ValueError(f"labels up to {n_classes - 1} do not fit {y.dtype}")
    rng = as_generator(seed)
    index = rng.choice(len(y), size=round(share * len(y)), replace=False)
    # An offset in int64 also keeps narrow types from overflowing before the modulo.
    offset = rng.integers(1, n_classes, size=len(index))
    y_noisy, corrupted = y.copy(), np.zeros(len(y), dtype=bool)
    y_noisy[index] = (labels[index] + offset) % n_classes
    corrupted[index] = True
    return y_noisy, corrupted
