"""Which body computes an objective's products: the one place that knows of the overlays.

An overlay has the names and the signatures of the definition, and is held to it by
``tests/objectives/test_overlays.py``.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from tinybilevel.arrays.backend import Array, on_device
from tinybilevel.errors import missing_extra

__all__ = ["choose"]

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
    if backend not in ("auto", "plain", "numpy", "numba"):
        raise ValueError(f'backend must be "auto", "plain", "numpy" or "numba", got {backend!r}')
    device, sparse = on_device(X) or hasattr(X, "get"), hasattr(X, "tocsr")
    large = not device and (X.nnz if sparse else X.size) * n_classes >= _LARGE
    if backend == "auto":
        backend = "numba" if large and find_spec("numba") is not None else "numpy"
    if backend == "plain" or device:
        body = definition(X, y, n_classes)
    else:
        body = import_module("tinybilevel.kernels.blocked_softmax").Softmax(X, y, n_classes)
    if backend != "numba" or (device and sparse):
        return body
    try:
        kernels = import_module("tinybilevel.kernels." + ("cuda" if device else "softmax"))
    except ImportError as error:
        raise missing_extra('backend="numba" needs Numba', "fast", error) from error
    return kernels.Softmax(X, y, n_classes, plain=body)
