"""Arrays: which dtypes are taken, and how an input is checked.

The engine is written in plain NumPy. CuPy arrays run through the same code, because NumPy's
functions dispatch on their arguments (``np.sin(x)``, ``np.empty_like(x, shape=...)``); only what
creates an array from nothing needs a namespace, so the engine makes arrays from other arrays.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

__all__ = [
    "Array",
    "as_count",
    "as_float",
    "block_size",
    "check_pair",
    "check_shape",
    "promote",
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
    >>> from tinybilevel.backend import as_float
    >>> as_float("lam", [1.0, 2.0], ndim=1)
    array([1., 2.])
    """
    x = x if hasattr(x, "__cuda_array_interface__") else np.asarray(x)
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


def to_numpy(x: Any) -> Array:
    """Copy a CuPy array to the host; return a NumPy array as it is."""
    return x.get() if hasattr(x, "get") else np.asarray(x)
