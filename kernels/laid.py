"""Data laid out for the kernels once, however many kernels read them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import WeakValueDictionary

import numpy as np

__all__ = ["Laid", "laid"]

_known: WeakValueDictionary[Any, Laid] = WeakValueDictionary()


class Laid:
    """What was made of X. X itself is held, so that nothing else comes to lie where it lies."""

    def __init__(self, X: Any, parts: tuple[Any, ...]) -> None:
        self.of, self.parts = X, parts

    def __reduce__(self) -> Any:
        # A kernel that is copied or pickled takes its data along, and shares them with nobody.
        return Laid, (None, ())


def laid(X: Any, lay: Callable[..., tuple[Any, ...]], *sizes: int) -> Laid:
    """Return what lay(X, *sizes) gives, or gave for the same memory while someone still holds it.

    Where X can be written into, it is laid out each time: it may be another by now.
    """
    arrays = (X,) if isinstance(X, np.ndarray) else (X.data, X.indices, X.indptr)
    if any(_writable(a) for a in arrays):
        return Laid(X, lay(X, *sizes))
    places = ((a.__array_interface__["data"][0], a.strides, a.dtype.str) for a in arrays)
    key = (lay, sizes, X.shape, *places)
    found = _known.get(key)
    if found is None:
        found = _known[key] = Laid(X, lay(X, *sizes))
    return found


def _writable(a: Any) -> bool:
    """Return whether some array may be written into that has this one's memory."""
    while isinstance(a, np.ndarray):
        if a.flags.writeable:
            return True
        a = a.base
    return False
