"""What an argument may be, whose an array is, and what a user's function gets of it."""

from __future__ import annotations

import copy
import inspect
from functools import partial, wraps
from types import FunctionType
from typing import Any

import numpy as np

from tinybilevel.arrays.backend import FLOATS, Array, on_device, sparse_module

__all__ = [
    "as_count",
    "as_examples",
    "as_flag",
    "as_float",
    "as_matrix",
    "as_number",
    "as_rows",
    "block_size",
    "call_user",
    "check_pair",
    "check_shape",
    "check_takes",
    "frozen",
    "owned",
    "reads_only",
    "take_block",
    "unmasked",
]


def as_float(name: str, x: Any, *, ndim: int | None = None, finite: bool = True) -> Array:
    """Check one input array, and return it without a copy where it is an array already.

    Parameters
    ----------
    name : str
        The argument's name, for the error.
    x : array_like
        float32 or float64; Python floats and whole numbers become float64.
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
        If the dtype is neither float32 nor float64, nor that of whole numbers.
    ValueError
        If the number of dimensions is wrong, an entry is not finite, or a whole number has no
        float64 of its own (some beyond 2⁵³).

    Examples
    --------
    >>> from tinybilevel.arrays.checks import as_float
    >>> as_float("lam", [1.0, 2.0], ndim=1)
    array([1., 2.])
    """
    if hasattr(x, "tocsr"):
        raise TypeError(f"{name} must be a dense array, got a sparse {type(x).__name__}")
    x = x if on_device(x) else unmasked(name, x)
    if x.dtype.kind in "iu":
        x = _as_exact_float(name, x)
    if x.dtype not in FLOATS:
        hint = "; for 0 and 1 use .astype(float)" if x.dtype.kind == "b" else ""
        raise TypeError(f"{name} must be float32 or float64, got dtype {x.dtype}{hint}")
    if ndim is not None and x.ndim != ndim:
        raise ValueError(f"{name} must have {ndim} dimension(s), got shape {x.shape}")
    if finite and not bool(np.isfinite(x).all()):
        raise ValueError(f"{name} must be finite, got {int((~np.isfinite(x)).sum())} NaN or inf")
    return x


def unmasked(name: str, x: Any) -> Array:
    """Return `x` as an array, unless NumPy would take what a mask hides for numbers."""
    if np.ma.is_masked(x):
        raise TypeError(f"{name} has masked entries: fill them first (x.filled(…))")
    return np.asarray(x)


def as_examples(name: str, X: Any) -> Any:
    """Check a matrix with one example per row, and return it `frozen`; a sparse one as CSR.

    Raises
    ------
    TypeError, ValueError
        As `as_float` does, or if there is no row or no column.

    Examples
    --------
    >>> from tinybilevel.arrays.checks import as_examples
    >>> as_examples("X", [[1, 0]])
    array([[1., 0.]])
    """
    return frozen(name, as_matrix(name, X))


def as_matrix(name: str, X: Any) -> Any:
    """Check as `as_examples` does, but share the caller's memory: for what is copied anyway."""
    if not hasattr(X, "tocsr"):
        X = as_float(name, X, ndim=2)
    else:
        X = X.tocsr() if hasattr(X, "get") else sparse_module(X).csr_array(X)
        data = as_float(name, X.data)
        X = X if data.dtype == X.dtype else X.astype(data.dtype)
    if 0 in X.shape:
        raise ValueError(f"{name} must have at least one row and one column, got {X.shape}")
    return X


def _as_exact_float(name: str, x: Array) -> Array:
    beyond = x[(x > 2**53) | (x < -(2**53))].tolist()
    lost = [i for i in beyond if int(float(i)) != i]
    if lost:
        raise ValueError(f"{name} must hold whole numbers that float64 has, got {lost[0]}")
    return x.astype(np.float64)


def frozen(name: str, x: Any) -> Any:
    """Return data that a problem may hold: nobody's later writing changes it.

    A NumPy array that is read-only, and whose memory is no writable array's, comes back as it is;
    of any other array a read-only copy. CuPy has no read-only arrays: there it is always a copy.
    A sparse array is frozen in its three parts.

    Parameters
    ----------
    name : str
        The argument's name, for the error.
    x : array_like or sparse array
        Numbers.

    Raises
    ------
    TypeError
        If `x` is no array of numbers.

    Examples
    --------
    >>> import numpy as np
    >>> from tinybilevel.arrays.checks import frozen
    >>> a = np.ones(2)
    >>> kept = frozen("a", a)
    >>> kept is a, kept.flags.writeable, frozen("a", kept) is kept
    (False, False, True)
    """
    if hasattr(x, "tocsr"):
        parts = {part: frozen(name, getattr(x, part)) for part in ("data", "indices", "indptr")}
        if all(part is getattr(x, key) for key, part in parts.items()):
            return x
        x = copy.copy(x)
        vars(x).update(parts)
        return x
    if on_device(x):
        return x.copy()
    x = np.asarray(x)
    if x.dtype.kind not in "biuf":
        raise TypeError(f"{name} must be an array of numbers, got dtype {x.dtype}")
    if is_fixed(x):
        return x
    x = x.copy()
    x.flags.writeable = False
    return x


def is_fixed(x: Any) -> bool:
    """Return whether neither x nor an array that shares its memory through a base is writable."""
    while isinstance(x, np.ndarray):
        if x.flags.writeable:
            return False
        x = x.base
    return True


def call_user(name: str, function: Any, *args: Any) -> Any:
    """Call a user's function with arrays that it can only read.

    They are read-only views, or copies on a device, where nothing is read-only.

    Raises
    ------
    ValueError
        If it writes into one of them; `name` says which function it was.

    Examples
    --------
    >>> import numpy as np
    >>> from tinybilevel.arrays.checks import call_user
    >>> call_user("grad", lambda w: 2 * w, np.ones(2))
    array([2., 2.])
    """
    try:
        return function(*map(_only_to_read, args))
    except ValueError as error:
        if "read-only" not in str(error):
            raise
        raise ValueError(
            f"{name} wrote into an array that it may only read, such as its arguments: write into "
            f"a copy (w = w.copy()), or make a new array"
        ) from error


def reads_only(cls: type, *names: str) -> None:
    """Have these methods of a user's class, where it writes them, see arrays as `call_user` does.

    For ``__init_subclass__`` of what a user derives from; the package's own classes stay as they
    are.
    """
    if cls.__module__.split(".")[0] != "tinybilevel":
        for name in names:
            if isinstance(method := vars(cls).get(name), FunctionType):
                setattr(cls, name, _reading(f"{cls.__name__}.{name}", method))


def _reading(name: str, method: Any) -> Any:
    @wraps(method)
    def reads(self: Any, *args: Any, **options: Any) -> Any:
        return call_user(name, partial(method, self, **options), *args)

    return reads


def check_takes(name: str, function: Any, *args: str) -> None:
    """Refuse a user's function that cannot be called with these arguments, by position.

    Raises
    ------
    TypeError
        If it takes fewer, or needs more. What has no signature to look at is taken as it is.

    Examples
    --------
    >>> from tinybilevel.arrays.checks import check_takes
    >>> check_takes("grad", lambda w, lam: 2 * w, "w", "lam")
    >>> check_takes("grad", lambda w: 2 * w, "w", "lam")
    Traceback (most recent call last):
    TypeError: grad must take (w, lam), got a function of (w)
    """
    if not callable(function):
        raise TypeError(f"{name} must be a function, got {function!r}")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(*args)
    except TypeError:
        taken = ", ".join(map(str, signature.parameters.values()))
        expected = ", ".join(args)
        raise TypeError(f"{name} must take ({expected}), got a function of ({taken})") from None


def _only_to_read(x: Any) -> Any:
    if not isinstance(x, np.ndarray):
        return x.copy() if on_device(x) else x
    x = x.view()
    x.flags.writeable = False
    return x


def owned(x: Array) -> Array:
    """Return what a user's function returned, as an array that nobody else may write to."""
    return x.copy()


def as_count(name: str, x: Any, *, minimum: int = 0) -> int:
    """Check one integer argument (bools and floats are refused)."""
    if isinstance(x, bool | np.bool_) or not isinstance(x, int | np.integer):
        raise TypeError(f"{name} must be an integer, got {x!r}")
    if x < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {x}")
    return int(x)


def as_flag(name: str, x: Any) -> bool:
    """Check one argument that is True or False."""
    if not isinstance(x, bool | np.bool_):
        raise TypeError(f"{name} must be True or False, got {x!r}")
    return bool(x)


def as_number(name: str, x: Any) -> float:
    """Check one finite real number."""
    if np.ndim(x) or np.asarray(x).dtype.kind not in "iuf":
        raise TypeError(f"{name} must be a number, got {x!r}")
    if not np.isfinite(x):
        raise ValueError(f"{name} must be finite, got {x!r}")
    return float(x)


def as_rows(index: Any, n: int) -> Array:
    """Check which of n examples a batch names.

    Raises
    ------
    ValueError
        If it is no vector of whole numbers.
    IndexError
        If it names an example that there is not; on a GPU, where the host would have to wait, it is
        not looked at.
    """
    index = index if on_device(index) else np.asarray(index)
    if index.ndim != 1 or index.size == 0 or index.dtype.kind not in "iu":
        raise ValueError(f"index must be a nonempty vector of integers, got {index!r}")
    if not on_device(index) and not 0 <= index.min() <= index.max() < n:
        raise IndexError(f"index must lie in 0 … {n - 1}, got {index.min()} … {index.max()}")
    return index


def check_shape(name: str, value: Any, shape: tuple[int, ...]) -> Any:
    """Return `value`, as an array, if it has `shape`; otherwise say what came instead."""
    if value is None:
        raise TypeError(f"{name} must have shape {shape}, got None: is a return missing?")
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
