"""Whole-loop K-RMD on small quadratics on a GPU: one thread for each λ of a batch."""

from __future__ import annotations

from functools import cache
from types import FunctionType
from typing import Any

from numba import cuda, from_dtype

from tinybilevel.kernels.cuda import blocks, launch
from tinybilevel.kernels.loops import _multiply, _upper
from tinybilevel.kernels.loops import _one as _one_on_host

__all__ = ["LARGEST", "batch"]

#: Most entries of w: a thread keeps five vectors of this size.
LARGEST = 32
_THREADS = 128


def _for_device(body: Any) -> Any:
    return cuda.jit(device=True)(body)


# The very code that `loops` compiles for the processor, with what it calls, for the device.
_calls = {"_multiply": _for_device(_multiply.py_func), "_upper": _for_device(_upper.py_func)}
_body = _one_on_host.py_func
_one = _for_device(FunctionType(_body.__code__, {**_body.__globals__, **_calls}, _body.__name__))


def batch(data: tuple[Any, ...], lams: Any, K: int, values: Any, grads: Any) -> None:
    """Write f and h_{T−K} for each row of `lams`; `data` is `QuadraticLoop`'s, on the device."""
    kernel = _many(data[3].size, grads.dtype)
    launch(kernel, (blocks(len(lams)),), _THREADS, *data, lams, K, values, grads)


@cache
def _many(M: int, dtype: Any) -> Any:
    number = from_dtype(dtype)

    @cuda.jit
    def kernel(G, C, d, initial, upper_data, gamma, T, upper, diagonal, lams, K, values, grads):  # type: ignore[no-untyped-def]
        i = cuda.grid(1)
        if i >= lams.shape[0]:
            return
        w, work = cuda.local.array(M, number), cuda.local.array((4, M), number)
        data = (G, C, d, initial, upper_data, gamma, T, upper, diagonal)
        values[i] = _one(data, lams[i], K, w, grads[i], values[:0], work)

    return kernel
