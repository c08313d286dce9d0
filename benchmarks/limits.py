"""What this machine can do at most: multiply-adds of its vector units, and reading memory."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

__all__ = ["bandwidths", "best", "least", "measured", "peak"]

Array = np.ndarray[Any, np.dtype[Any]]

#: Sizes of the arrays that are read, in bytes: from a core's own cache to none.
SIZES = tuple(2**k for k in (20, 22, 24, 25, 26, 27, 29))
#: Numbers that a thread works on, which stay in its registers' neighbourhood, and how often.
_NUMBERS, _TIMES, _EACH = 256, 40_000, 8


@cache
def _loops() -> tuple[int, Callable[..., Any], Callable[..., Any]]:
    """Return how many threads there are, and what multiplies and what reads on all of them."""
    from numba import config, njit, prange

    @njit(parallel=True, fastmath={"contract"})
    def multiply_add(x, a, b):  # type: ignore[no-untyped-def]
        for i in prange(len(x)):
            own = x[i]
            for _ in range(_TIMES):
                for j in range(_NUMBERS):
                    v = own[j]
                    v = v * a + b  # _EACH of them, one after another, for each load and store
                    v = v * a + b
                    v = v * a + b
                    v = v * a + b
                    v = v * a + b
                    v = v * a + b
                    v = v * a + b
                    v = v * a + b
                    own[j] = v

    @njit(parallel=True, fastmath=True)
    def read(x):  # type: ignore[no-untyped-def]
        sums = np.empty(len(x), x.dtype)
        for i in prange(len(x)):
            s = x[i, 0]
            for j in range(1, x.shape[1]):
                s += x[i, j]
            sums[i] = s
        return sums

    return config.NUMBA_NUM_THREADS, multiply_add, read


@cache
def peak(dtype: str) -> float:
    """Return multiply-adds a second, of all threads that Numba has."""
    threads, multiply_add, _ = _loops()
    x = np.ones((threads, _NUMBERS), dtype)
    number = x.dtype.type
    return x.size * _TIMES * _EACH / _best(lambda: multiply_add(x, number(0.5), number(0.25)))


@cache
def bandwidths(dtype: str = "float32") -> dict[int, float]:
    """Return bytes a second that all threads read of arrays of each of `SIZES`."""
    threads, _, read = _loops()
    found = {}
    for size in SIZES:
        rows = 64 * threads
        x = np.ones((rows, size // rows // np.dtype(dtype).itemsize), dtype)
        again = max(1, 2**27 // size)
        found[size] = again * x.nbytes / _best(lambda: [read(x) for _ in range(again)])  # noqa: B023
    return found


def _best(call: Callable[[], Any], rounds: int = 7) -> float:
    call()  # compiles
    taken = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return min(taken)


def measured() -> dict[str, Any]:
    """Return multiply-adds a second by dtype, and bytes a second by size, for JSON."""
    peaks = {dtype: peak(dtype) for dtype in ("float32", "float64")}
    return {"peak": peaks, "bandwidth": {str(size): of for size, of in bandwidths().items()}}


def best(several: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the largest of what was measured at several times: other work takes from it."""
    return {
        what: {name: max(of[what][name] for of in several) for name in several[0][what]}
        for what in ("peak", "bandwidth")
    }


def least(case: dict[str, Any], machine: dict[str, Any]) -> float:
    """Return the seconds that a hypergradient takes at least on a machine of these limits.

    Each of T steps and K backward steps reads X once, dense or as its nonzeros with 32-bit columns,
    from the smallest memory that holds it, and has two products with it, of one score for two
    classes: a backward step remembers its softmax.
    """
    steps, count = case["T"] + case["K"], case["nonzeros"]
    size = np.dtype(case["dtype"]).itemsize
    read = min(case["rows"] * case["features"] * size, count * (size + 4))
    holds = sorted((int(of), speed) for of, speed in machine["bandwidth"].items())
    speed = next((speed for of, speed in holds if of >= read), holds[-1][1])
    scores = 1 if case["classes"] == 2 else case["classes"]
    return max(steps * read / speed, 2 * steps * count * scores / machine["peak"][case["dtype"]])
