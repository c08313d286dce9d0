"""Arrays: where they lie, on the host or on a GPU, and what both can do.

The engine is written in plain NumPy. CuPy arrays run through the same code, because NumPy's
functions dispatch on their arguments (``np.sin(x)``, ``np.empty_like(x, shape=...)``); only what
creates an array from nothing needs a namespace, so the engine makes arrays from other arrays.
CuPy lacks ``np.take(mode=...)``, ``np.maximum.reduce`` and ``max(initial=...)``, and refuses to mix
its arrays with NumPy's.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from importlib import import_module
from typing import Any, Self, TypeAlias

import numpy as np

from tinybilevel.errors import missing_extra

__all__ = [
    "FLOATS",
    "Array",
    "Movable",
    "block_sums",
    "bound",
    "cast",
    "dot",
    "entries",
    "group_sums",
    "like",
    "moved",
    "on_device",
    "promote",
    "sparse_module",
    "take",
    "to_numpy",
]

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

#: Entries of vectors whose product OpenBLAS leaves to the calling thread.
_SHORT = 10_000
#: The dtypes that are taken.
FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


def promote(*arrays: Any) -> np.dtype[Any]:
    """Return the dtype that NumPy's rules give a mix of arrays and dtypes, leaving out None."""
    return np.result_type(*(a for a in arrays if a is not None))


def dot(u: Array, v: Array) -> Any:
    """Return u·v, (M,) each; on the host always by the calling thread.

    Of longer vectors BLAS gives each of its threads a part, and OpenBLAS's then look out for more
    work for a tenth of a second, on the cores that whatever comes next is to have.
    """
    return u @ v if on_device(u) or u.size <= _SHORT else np.einsum("i,i", u, v)


def on_device(x: Any) -> bool:
    """Return whether x is an array on a GPU."""
    return hasattr(x, "__cuda_array_interface__")


def to_numpy(x: Any) -> Array:
    """Copy a CuPy array to the host; return a NumPy array as it is."""
    return x.get() if on_device(x) else np.asarray(x)


def take(a: Array, indices: Array, out: Array) -> Array:
    """Write ``a.ravel()[indices]`` to `out`; the indices are known to be in range."""
    # NumPy takes a copy of `out` unless it is told what to do out of range; CuPy cannot be told.
    return a.take(indices, out=out) if on_device(a) else a.take(indices, out=out, mode="clip")


def group_sums(groups: Array, x: Array, count: int) -> Array:
    """Return the sums of the entries of x in each group, (count,), in float64; −1 is no group."""
    if not on_device(x):
        if count == 1:  # NumPy's bincount goes through x one by one
            return x[groups == 0].sum(dtype=np.float64, keepdims=True)
        return np.bincount(groups + 1, weights=x, minlength=count + 1)[1:]
    # CuPy's bincount has the host wait, to look at the groups.
    sums = np.zeros_like(x, shape=count + 1, dtype=np.float64)
    np.add.at(sums, groups, x)
    return sums[:count]


def block_sums(groups: Array, starts: Array, x: Array) -> Array:
    """Return the sums of consecutive blocks of x: they begin at `starts`, `groups` counts them."""
    if x.shape != groups.shape:
        raise ValueError(f"expected a vector in blocks, of shape {groups.shape}, got {x.shape}")
    return group_sums(groups, x, starts.size) if on_device(x) else np.add.reduceat(x, starts)


def like(model: Any, x: Any) -> Any:
    """Return `x` where `model` lies: on the host or on its device."""
    return moved(x, "cupy" if on_device(model) else "numpy")


class Movable:
    """What holds arrays and can be had with all of them elsewhere, or in another precision."""

    def to(self, namespace: str) -> Self:
        """Return the same with every array that it holds in `namespace`, "numpy" or "cupy"."""
        return self._each(lambda part: moved(part, namespace))

    def astype(self, dtype: Any) -> Self:
        """Return the same with every float array that it holds in `dtype`, float32 or float64.

        Whole numbers, such as labels, stay what they are, and so do your own functions, which may
        hold arrays that nobody sees.
        """
        return self._each(lambda part: cast(part, dtype))

    def _each(self, change: Callable[[Any], Any]) -> Self:
        other = copy.copy(self)
        other.__dict__.update({name: change(part) for name, part in vars(self).items()})
        other._remake()
        return other

    def _remake(self) -> None:
        """Make anew what is made of the arrays and is no `Movable` itself."""


def bound(x: Any) -> Any:
    """Return `x` for one call of a method: what keeps working memory in it gets its own.

    Such a thing has a method ``bound()``; it is looked for in tuples, lists, dicts and in what a
    `Movable` holds. What a product of it returns holds until that product is taken again.
    """
    if hasattr(x, "bound"):
        return x.bound()
    if type(x) in (tuple, list):
        parts = [bound(part) for part in x]
        return x if all(a is b for a, b in zip(parts, x, strict=True)) else type(x)(parts)
    own = x if type(x) is dict else vars(x) if isinstance(x, Movable) else {}
    held = {name: bound(part) for name, part in own.items()}
    if all(held[name] is part for name, part in own.items()):
        return x  # a copy would keep what it counts to itself
    if type(x) is dict:
        return held
    other = copy.copy(x)
    other.__dict__.update(held)
    return other


def moved(x: Any, namespace: str) -> Any:
    """Return `x` with the arrays in it in `namespace`; what has none comes back as it is.

    Raises
    ------
    ImportError
        If `namespace` is "cupy" and CuPy is not installed.
    ValueError
        If it is another name.
    """
    if namespace not in ("numpy", "cupy"):
        raise ValueError(f'namespace must be "numpy" or "cupy", got {namespace!r}')
    if isinstance(x, Movable):
        return x.to(namespace)
    if type(x) in (tuple, list):
        return type(x)(moved(part, namespace) for part in x)
    if type(x) is dict:
        return {name: moved(part, namespace) for name, part in x.items()}
    if namespace == "numpy":
        sparse = hasattr(x, "tocsr") and hasattr(x, "get")
        return x.get() if sparse or on_device(x) else x
    if hasattr(x, "tocsr"):
        return _import("cupyx.scipy.sparse").csr_matrix(x)
    return _import("cupy").asarray(x) if isinstance(x, np.ndarray) else x


def cast(x: Any, dtype: Any) -> Any:
    """Return `x` with the float arrays in it in `dtype`; what has none comes back as it is.

    Raises
    ------
    TypeError
        If `dtype` is neither float32 nor float64.

    Examples
    --------
    >>> import numpy as np
    >>> from tinybilevel.arrays.backend import cast
    >>> cast((np.ones(1, np.float32), np.arange(2)), np.float64)
    (array([1.]), array([0, 1]))
    """
    dtype = np.dtype(dtype)
    if dtype not in FLOATS:
        raise TypeError(f"dtype must be float32 or float64, got {dtype}")
    if isinstance(x, Movable):
        return x.astype(dtype)
    if type(x) in (tuple, list):
        return type(x)(cast(part, dtype) for part in x)
    if type(x) is dict:
        return {name: cast(part, dtype) for name, part in x.items()}
    if isinstance(x, np.dtype):
        return dtype if x in FLOATS else x
    array = isinstance(x, np.ndarray) or on_device(x) or hasattr(x, "tocsr")
    if not array or x.dtype not in FLOATS or x.dtype == dtype:
        return x
    y = x.astype(dtype)
    if isinstance(x, np.ndarray):
        y.flags.writeable = x.flags.writeable
    return y


def entries(X: Any) -> Any:
    """Return the entries that a matrix holds, the nonzeros of a sparse one."""
    return X.data if hasattr(X, "tocsr") else X


def sparse_module(X: Any) -> Any:
    """Return the module of the sparse matrices where `X` lies."""
    return _import("cupyx.scipy.sparse") if hasattr(X, "get") else import_module("scipy.sparse")


def _import(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise missing_extra("a GPU needs CuPy", "gpu", error) from error
