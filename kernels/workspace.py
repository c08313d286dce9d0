"""Working memory: arrays that the steps of one call write into again and again."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

import numpy as np

__all__ = ["FRESH", "Workspace"]

Array = np.ndarray[Any, np.dtype[Any]]

#: Bytes of arrays that are kept for the calls to come.
MOST = 128_000_000
_made: dict[Any, list[Array]] = {}


class Workspace:
    """Arrays by name, each made once and kept as long as its shape and dtype stay the same.

    Parameters
    ----------
    keep : bool
        False: each array is a new one, for results that belong to the caller.
    reuse : bool
        Arrays are looked for among those of earlier workspaces that nobody holds any more, nor a
        view of them. The system hands out new memory page by page, which can take longer than what
        is computed in it.

    Examples
    --------
    >>> import numpy as np
    >>> from tinybilevel.kernels.workspace import Workspace
    >>> work, v = Workspace(), np.ones(3, dtype=np.float32)
    >>> work("P", (2, 3), v) is work("P", (2, 3), v)
    True
    """

    def __init__(self, keep: bool = True, reuse: bool = False) -> None:
        self._keep, self._reuse = keep, reuse
        self._arrays: dict[str, Array] = {}

    def __call__(self, name: str, shape: tuple[int, ...], *operands: Array) -> Array:
        """Return an uninitialised array of the dtype that `operands` promote to."""
        dtype = operands[0].dtype
        for other in operands[1:]:
            if other.dtype != dtype:
                dtype = np.result_type(*operands)
        kept = self._arrays.get(name)
        if kept is not None and kept.shape == shape and kept.dtype == dtype:
            return kept
        if self._reuse:
            array = _unused(shape, dtype)
        else:
            array = np.empty_like(operands[0], shape=shape, dtype=dtype, order="C")
        if self._keep:
            self._arrays[name] = array
        return array


#: Outside of a call there is nothing to share: every array is a new one.
FRESH = Workspace(keep=False)


def _unused(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Return an array that only this module holds, an earlier one where there is one."""
    same = _made.setdefault((shape, dtype), [])
    for each, count in _counted(same):
        if count == _ALONE:
            return each
    array = np.empty(shape, dtype)
    # A list of them, since other threads may add some.
    kept = sum(each.nbytes for arrays in list(_made.values()) for each in arrays)
    if kept + array.nbytes > MOST:
        _made.clear()
    if array.nbytes <= MOST:
        _made.setdefault((shape, dtype), []).append(array)
    return array


def _counted(arrays: list[Array]) -> Iterable[tuple[Array, int]]:
    """Yield each array with how many hold it; views do, of the array that they are views of."""
    for each in arrays:
        yield each, sys.getrefcount(each)


#: What is counted where nobody holds an array but a list and the one that counts.
_ALONE = next(iter(_counted([np.empty(0)])))[1]
