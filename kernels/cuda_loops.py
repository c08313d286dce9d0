"""Whole-loop K-RMD on small quadratics on a GPU: one thread for each λ of a batch."""

from __future__ import annotations

from functools import cache
from types import FunctionType
from typing import Any

from numba import cuda, from_dtype

from tinybilevel.kernels.cuda import blocks, launch
from tinybilevel.kernels.loops import (
    QuadraticLoop,
    _multiply,
    _shrink,
    _shrink_and_sum,
    _upper,
)
from tinybilevel.kernels.loops import _one as _one_on_host

__all__ = ["LARGEST", "batch"]

#: Most entries of w: a thread keeps five vectors of this size.
LARGEST = 32
_THREADS = 128


def _for_device(body: Any) -> Any:
    return cuda.jit(device=True)(body)


# The very code that `loops` compiles for the processor, with what it calls, for the device.
_called = _multiply, _shrink, _shrink_and_sum, _upper
_calls = {f.__name__: _for_device(f.py_func) for f in _called}
_body = _one_on_host.py_func
_one = _for_device(FunctionType(_body.__code__, {**_body.__globals__, **_calls}, _body.__name__))


def batch(loop: QuadraticLoop, lams: Any, K: int, values: Any, grads: Any) -> None:
    """Write f and h_{T−K} for each row of `lams`; the loop's numbers are on the device."""
    kernel = _many(loop.M, grads.dtype)
    data = loop.numbers, grads.dtype.type(loop.step_size), *loop.sizes
    launch(kernel, (blocks(len(lams)),), _THREADS, *data, lams, K, values, grads)


@cache
def _many(M: int, dtype: Any) -> Any:
    number = from_dtype(dtype)

    @cuda.jit
    def kernel(numbers, gamma, m, n, T, upper, diagonal, mapped, lams, K, values, grads):  # type: ignore[no-untyped-def]
        i = cuda.grid(1)
        if i >= lams.shape[0]:
            return
        w, work = cuda.local.array(M, number), cuda.local.array((4, M), number)
        sizes = (M, n, T, upper, diagonal, mapped)
        values[i] = _one(numbers, gamma, sizes, lams[i], K, w, grads[i], values[:0], work)

    return kernel
