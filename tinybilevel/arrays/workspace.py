"""Working memory: arrays that the steps of one call write into again and again."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array, Movable

__all__ = ["FRESH", "Workspace", "bound"]


class Workspace:
    """Arrays by name, each made once and kept as long as its shape and dtype stay the same.

    Parameters
    ----------
    keep : bool
        False: each array is a new one, for results that belong to the caller.

    Examples
    --------
    >>> import numpy as np
    >>> from tinybilevel.arrays.workspace import Workspace
    >>> work, v = Workspace(), np.ones(3, dtype=np.float32)
    >>> work("P", (2, 3), v) is work("P", (2, 3), v)
    True
    """

    def __init__(self, keep: bool = True) -> None:
        self._keep = keep
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
        array = np.empty_like(operands[0], shape=shape, dtype=dtype, order="C")
        if self._keep:
            self._arrays[name] = array
        return array


def bound(x: Any) -> Any:
    """Return `x` for one call of a method: what keeps working memory in it gets its own.

    Such a thing has a method ``bound()``; it is looked for in tuples, lists and in what a `Movable`
    holds. What a product of it returns holds until that product is taken again.
    """
    if hasattr(x, "bound"):
        return x.bound()
    if type(x) in (tuple, list):
        return type(x)(bound(part) for part in x)
    if not isinstance(x, Movable):
        return x
    other = copy.copy(x)
    other.__dict__.update({name: bound(part) for name, part in vars(x).items()})
    return other


#: Outside of a call there is nothing to share: every array is a new one.
FRESH = Workspace(keep=False)
