"""Arrays: which dtypes are taken, how an input is checked, and where arrays lie.

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
    "Array",
    "Movable",
    "as_count",
    "as_examples",
    "as_float",
    "as_labels",
    "as_matrix",
    "block_size",
    "block_sums",
    "bound",
    "call_user",
    "cast",
    "check_pair",
    "check_shape",
    "class_count",
    "entries",
    "frozen",
    "group_sums",
    "like",
    "moved",
    "on_device",
    "one_hot",
    "owned",
    "promote",
    "sparse_module",
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
    >>> from tinybilevel.arrays.backend import as_float
    >>> as_float("lam", [1.0, 2.0], ndim=1)
    array([1., 2.])
    """
    if hasattr(x, "tocsr"):
        raise TypeError(f"{name} must be a dense array, got a sparse {type(x).__name__}")
    x = x if on_device(x) else np.asarray(x)
    if x.dtype.kind in "iu":
        x = _as_exact_float(name, x)
    if x.dtype not in _FLOATS:
        hint = "; for 0 and 1 use .astype(float)" if x.dtype.kind == "b" else ""
        raise TypeError(f"{name} must be float32 or float64, got dtype {x.dtype}{hint}")
    if ndim is not None and x.ndim != ndim:
        raise ValueError(f"{name} must have {ndim} dimension(s), got shape {x.shape}")
    if finite and not bool(np.isfinite(x).all()):
        raise ValueError(f"{name} must be finite, got {int((~np.isfinite(x)).sum())} NaN or inf")
    return x


def as_examples(name: str, X: Any) -> Any:
    """Check a matrix with one example per row, and return it `frozen`; a sparse one as CSR.

    Raises
    ------
    TypeError, ValueError
        As `as_float` does, or if there is no row or no column.

    Examples
    --------
    >>> from tinybilevel.arrays.backend import as_examples
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
    >>> from tinybilevel.arrays.backend import frozen
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
    if _is_fixed(x):
        return x
    x = x.copy()
    x.flags.writeable = False
    return x


def _is_fixed(x: Any) -> bool:
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
    >>> from tinybilevel.arrays.backend import call_user
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


def _only_to_read(x: Any) -> Any:
    if not isinstance(x, np.ndarray):
        return x.copy() if on_device(x) else x
    x = x.view()
    x.flags.writeable = False
    return x


def owned(x: Array) -> Array:
    """Return what a user's function returned, as an array that nobody else may write to."""
    return x.copy()


def as_labels(name: str, y: Any, n: int, n_classes: int | None = None) -> Array:
    """Check class labels, and return them as a read-only vector of integers.

    Parameters
    ----------
    name : str
        The argument's name, for the error.
    y : array_like (n,)
        Whole numbers 0 … C−1, as integers or as floats.
    n : int
        How many there must be.
    n_classes : int, optional
        C, where it is known; `class_count` finds it where it is not.

    Returns
    -------
    ndarray (n,) of intp
        On the host.

    Raises
    ------
    TypeError
        If they are neither integers nor floats.
    ValueError
        If their number is wrong, or one is no whole number or out of range.

    Examples
    --------
    >>> from tinybilevel.arrays.backend import as_labels
    >>> as_labels("y", [0.0, 2.0], 2)
    array([0, 2])
    """
    y = np.asarray(to_numpy(y))
    if y.dtype.kind not in "iuf":
        raise TypeError(
            f"{name} must be whole numbers 0 … C−1, got {y.dtype}; to number any labels: "
            f"classes, {name} = np.unique(labels, return_inverse=True)"
        )
    if y.shape != (n,):
        raise ValueError(f"{name} must be {n} integers, got shape {y.shape} of {y.dtype}")
    if y.dtype.kind == "f":
        broken = y[~(np.isfinite(y) & (np.floor(y) == y))]
        if broken.size:
            raise ValueError(f"{name} must be whole numbers 0 … C−1, got {broken[0]}")
    count = np.iinfo(np.intp).max if n_classes is None else as_count("n_classes", n_classes)
    if n and not 0 <= y.min() <= y.max() < count:
        top = "C−1" if n_classes is None else count - 1
        raise ValueError(f"{name} must lie in 0 … {top}, got {y.min()} … {y.max()}")
    return frozen(name, y.astype(np.intp, copy=False))


def class_count(name: str, *labels: Array) -> int:
    """Return how many classes there are where nobody says: the largest label plus one.

    Raises
    ------
    ValueError
        If there are no labels, class 0 never occurs, or the largest label is far beyond the
        number of classes that occur: such labels may not be what they seem, so that `n_classes`
        has to be given.

    Examples
    --------
    >>> import numpy as np
    >>> from tinybilevel.arrays.backend import class_count
    >>> class_count("y", np.array([0, 2, 1, 2]))
    3
    """
    seen = np.unique(np.concatenate(labels))
    if seen.size == 0:
        raise ValueError(f"{name} must not be empty")
    lowest, count = int(seen[0]), int(seen[-1]) + 1
    what = None
    if lowest > 0:
        what = f"class 0 never occurs in {name}, whose labels are {lowest} … {count - 1}"
    elif count > 2 * seen.size + 10:
        what = f"{name} has only {seen.size} different labels, but the largest is {count - 1}"
    if what is not None:
        raise ValueError(
            f"{what}: number them 0 … C−1 (classes, {name} = np.unique(labels, "
            f"return_inverse=True)), or give n_classes={count} if that many are meant"
        )
    return count


def entries(X: Any) -> Any:
    """Return the entries that a matrix holds, the nonzeros of a sparse one."""
    return X.data if hasattr(X, "tocsr") else X


def sparse_module(X: Any) -> Any:
    """Return the module of the sparse matrices where `X` lies."""
    return _import("cupyx.scipy.sparse") if hasattr(X, "get") else import_module("scipy.sparse")


def one_hot(y: Array, n_classes: int) -> Array:
    """Return Y_ci = [c = y_i], (C, n), where y lies.

    Examples
    --------
    >>> import numpy as np
    >>> from tinybilevel.arrays.backend import one_hot
    >>> one_hot(np.array([1, 0, 1]), 2)
    array([[False,  True, False],
           [ True, False,  True]])
    """
    # Counted where y lies: every minibatch on a GPU comes by here.
    return np.cumsum(np.ones_like(y, shape=(n_classes, 1)), axis=0) - 1 == y


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
    """Return the sums of the entries of x in each group, (count,), in float64; −1 is no group."""
    if not on_device(x):
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
    if dtype not in _FLOATS:
        raise TypeError(f"dtype must be float32 or float64, got {dtype}")
    if isinstance(x, Movable):
        return x.astype(dtype)
    if type(x) in (tuple, list):
        return type(x)(cast(part, dtype) for part in x)
    if type(x) is dict:
        return {name: cast(part, dtype) for name, part in x.items()}
    if isinstance(x, np.dtype):
        return dtype if x in _FLOATS else x
    array = isinstance(x, np.ndarray) or on_device(x) or hasattr(x, "tocsr")
    if not array or x.dtype not in _FLOATS or x.dtype == dtype:
        return x
    y = x.astype(dtype)
    if isinstance(x, np.ndarray):
        y.flags.writeable = x.flags.writeable
    return y


def _import(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise missing_extra("a GPU needs CuPy", "gpu", error) from error
