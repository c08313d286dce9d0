"""Working memory: arrays that the steps of one call write into again and again."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["FRESH", "Workspace"]

Array = np.ndarray[Any, np.dtype[Any]]


class Workspace:
    """Arrays by name, each made once and kept as long as its shape and dtype stay the same.

    Parameters
    ----------
    keep : bool
        False: each array is a new one, for results that belong to the caller.

    Examples
    --------
    >>> import numpy as np
    >>> from tinybilevel.kernels.workspace import Workspace
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


#: Outside of a call there is nothing to share: every array is a new one.
FRESH = Workspace(keep=False)
