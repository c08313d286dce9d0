"""Of all data that problems hold, a few numbers: how a checkpoint knows other data."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array, Movable, on_device, to_numpy

__all__ = ["same_data", "sketch"]

_BLOCK = 1 << 18


def sketch(x: Any) -> Array:
    """Return the norm of each array and number in x, and its product with a fixed random vector.

    One label more or less shows in it, and rounding, which may differ from one machine to another,
    does not. What your own functions hold is nobody else's to see.

    Parameters
    ----------
    x : object
        Arrays, floats, and what holds them: a problem's parts, tuples, lists.

    Returns
    -------
    ndarray (R, 2)
        In the order of the attributes.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> from tinybilevel.outer.sketch import same_data, sketch
    >>> one, other = sketch(tb.Quadratic([1.0, 2.0])), sketch(tb.Quadratic([1.0, 2.001]))
    >>> same_data(one, one), same_data(one, other)
    (True, False)
    """
    return np.array([_numbers(part) for part in _parts(x)]).reshape(-1, 2)


def same_data(was: Array, here: Array) -> bool:
    """Return whether two sketches are of the same data, but for rounding."""
    if was.shape != here.shape:
        return False
    return bool((np.abs(was - here) <= 1e-5 * here[:, :1]).all())


def _parts(x: Any) -> Iterator[Array]:
    if isinstance(x, float | np.ndarray) or on_device(x):
        yield np.ravel(to_numpy(x))
    elif hasattr(x, "tocsr"):
        for part in (x.data, x.indices, x.indptr):
            yield from _parts(part)
    elif isinstance(x, Movable):
        yield from _parts([part for _, part in sorted(vars(x).items())])
    elif isinstance(x, list | tuple):
        for part in x:
            yield from _parts(part)


def _numbers(x: Array) -> tuple[float, float]:
    rng, square, product = np.random.default_rng(0), 0.0, 0.0
    for start in range(0, x.size, _BLOCK):
        block = x[start : start + _BLOCK].astype(np.float64)
        square += float(block @ block)
        product += float(block @ rng.standard_normal(block.size))
    return square**0.5, product
