"""Arrays: which dtypes are taken, how an input is checked, and where arrays lie.

The engine is written in plain NumPy. CuPy arrays run through the same code, because NumPy's
functions dispatch on their arguments (``np.sin(x)``, ``np.empty_like(x, shape=...)``); only what
creates an array from nothing needs a namespace, so the engine makes arrays from other arrays.
CuPy lacks ``np.take(mode=...)``, ``np.maximum.reduce`` and ``max(initial=...)``, and refuses to mix
its arrays with NumPy's.
"""

from __future__ import annotations

import copy
from importlib import import_module
from typing import Any, Self, TypeAlias

import numpy as np

from tinybilevel.errors import missing_extra

__all__ = [
    "Array",
    "Movable",
    "as_count",
    "as_float",
    "block_size",
    "check_pair",
    "check_shape",
    "group_sums",
    "like",
    "moved",
    "on_device",
    "promote",
    "take",
    "take_block",
    "to_numpy",
]

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

_FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


def as_float(name: str, x: Any, *, ndim: int | None = None, finite: bool = True) -> Array:
    """Check one input array, and return it without a copy where it is an array already.

    Parameters
    ----------
    name : str
        The argument's name, for the error.
    x : array_like
        float32 or float64; Python floats become float64.
    ndim : int, optional
        Required number of dimensions.
    finite : bool
        Refuse NaN and infinity.

    Returns
    -------
    ndarray
        `x`, float32 or float64.

    Raises
    ------
    TypeError
        If the dtype is neither float32 nor float64.
    ValueError
        If the number of dimensions is wrong or an entry is not finite.

    Examples
    --------
    >>> from tinybilevel.arrays.backend import as_float
    >>> as_float("lam", [1.0, 2.0], ndim=1)
    array([1., 2.])
    """
    x = x if on_device(x) else np.asarray(x)
    if x.dtype not in _FLOATS:
        raise TypeError(f"{name} must be float32 or float64, got dtype {x.dtype}")
    if ndim is not None and x.ndim != ndim:
        raise ValueError(f"{name} must have {ndim} dimension(s), got shape {x.shape}")
    if finite and not bool(np.isfinite(x).all()):
        raise ValueError(f"{name} must be finite, got {int((~np.isfinite(x)).sum())} NaN or inf")
    return x


def as_count(name: str, x: Any, *, minimum: int = 0) -> int:
    """Check one integer argument (bools and floats are refused)."""
    if isinstance(x, bool | np.bool_) or not isinstance(x, int | np.integer):
        raise TypeError(f"{name} must be an integer, got {x!r}")
    if x < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {x}")
    return int(x)


def check_shape(name: str, value: Any, shape: tuple[int, ...]) -> Any:
    """Return `value`, as an array, if it has `shape`; otherwise say what came instead."""
    value = value if hasattr(value, "shape") else np.asarray(value)
    if value.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {value.shape}")
    return value


def check_pair(
    name: str, value: Any, first: tuple[int, ...], second: tuple[int, ...]
) -> tuple[Any, Any]:
    """Check what a user's vjp returned: a pair of arrays of these shapes."""
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise TypeError(f"{name} must return a pair of arrays, got {type(value).__name__}")
    return check_shape(f"{name}[0]", value[0], first), check_shape(f"{name}[1]", value[1], second)


def block_size(block: Any) -> int | None:
    """Return how many entries a slice takes; None where that depends on the vector's length."""
    if not isinstance(block, slice):
        raise TypeError(f"block must be a slice, as layout['name'] gives, got {block!r}")
    start, stop, step = block.start or 0, block.stop, block.step or 1
    if stop is None or min(start, stop, step) < 0:
        return None
    return len(range(start, stop, step))


def take_block(lam: Array, block: slice, size: int | None) -> Array:
    """Return ``lam[block]``, a view, which must have `size` entries unless that is None."""
    part = lam[block]
    if size not in (None, part.size):
        raise ValueError(f"{block} of lam must have {size} entries, got {part.size} of {lam.size}")
    return part


def promote(*arrays: Any) -> np.dtype[Any]:
    """Return the dtype that NumPy's rules give a mix of arrays and dtypes, leaving out None."""
    return np.result_type(*(a for a in arrays if a is not None))


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
    """Return the sums of the entries of x in each group, (count,), in float64."""
    if not on_device(x):
        return np.bincount(groups, weights=x, minlength=count)
    # CuPy's bincount has the host wait, to look at the groups.
    sums = np.zeros_like(x, shape=count, dtype=np.float64)
    np.add.at(sums, groups, x)
    return sums


def like(model: Any, x: Any) -> Any:
    """Return `x` where `model` lies: on the host or on its device."""
    return moved(x, "cupy" if on_device(model) else "numpy")


class Movable:
    """What holds arrays and can be had with all of them on a GPU, or on the host."""

    def to(self, namespace: str) -> Self:
        """Return the same with every array that it holds in `namespace`, "numpy" or "cupy"."""
        other = copy.copy(self)
        other.__dict__.update({name: moved(part, namespace) for name, part in vars(self).items()})
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


def _import(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise missing_extra("a GPU needs CuPy", "gpu", error) from error
