"""Which body computes an objective's products: the one place that knows of the overlays.

An overlay has the names and the signatures of the definition, and is held to it by
``tests/objectives/test_overlays.py``.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array, on_device
from tinybilevel.errors import missing_extra

__all__ = ["choose", "choose_one_score"]

#: Multiply-adds of one product with X from which compiled code repays being loaded.
_LARGE = 20_000_000


def choose(definition: Any, backend: str, X: Any, y: Array, n_classes: int) -> Any:
    """Return who computes: ``definition(X, y, n_classes)``, or what stands in for it.

    Parameters
    ----------
    definition : type
        Such as `tinybilevel.objectives.softmax.Softmax`.
    backend : {"auto", "plain", "numpy", "numba"}
        The definition itself; blocks of rows in NumPy, on a GPU the definition; compiled code,
        but on a GPU not for a sparse X, which is left to CuPy. "auto" takes compiled code where
        Numba is installed and X is large, and otherwise "numpy"; on a GPU the definition, whose
        products are CuPy's: Numba takes longer to launch a kernel than these take.
    X, y, n_classes
        What the definition takes.

    Raises
    ------
    ValueError
        If `backend` is none of these.
    ImportError
        If `backend` is "numba" and Numba is not installed.
    """
    device, sparse = on_device(X) or hasattr(X, "get"), hasattr(X, "tocsr")
    large = not device and (X.nnz if sparse else X.size) * n_classes >= _LARGE
    backend = _settled(backend, large)
    if backend == "plain" or device:
        body = definition(X, y, n_classes)
    else:
        body = import_module("tinybilevel.kernels.blocked_softmax").Softmax(X, y, n_classes)
    if backend != "numba" or (device and sparse):
        return body
    return _kernels("cuda" if device else "softmax").Softmax(X, y, n_classes, plain=body)


def choose_one_score(loss: str | None, backend: str, X: Any, y: Array) -> Any:
    """Return the kernels for a loss of one score per example; None for the definition.

    Those of `backend` "numba" and, where X is large and Numba installed, of "auto" are for dense
    data in one dtype, not on a GPU, and for a `loss` that `tinybilevel.kernels.one_score` has.
    "plain" and "numpy" are the definition.

    Raises
    ------
    ValueError, ImportError
        As in `choose`.
    """
    dense = isinstance(X, np.ndarray) and X.dtype == y.dtype
    backend = _settled(backend, dense and X.size >= _LARGE)
    if backend != "numba":
        return None
    kernels = _kernels("one_score")
    return kernels.OneScore(X, y, getattr(kernels, loss)) if dense and loss else None


def _settled(backend: str, large: bool) -> str:
    if backend not in ("auto", "plain", "numpy", "numba"):
        raise ValueError(f'backend must be "auto", "plain", "numpy" or "numba", got {backend!r}')
    if backend != "auto":
        return backend
    return "numba" if large and find_spec("numba") is not None else "numpy"


def _kernels(name: str) -> Any:
    try:
        return import_module("tinybilevel.kernels." + name)
    except ImportError as error:
        raise missing_extra('backend="numba" needs Numba', "fast", error) from error
