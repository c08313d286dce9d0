"""How many threads there are, for all kernels; and threads for NumPy.

NumPy lets go of the interpreter while it computes. What is limited are the cores of this process
and its group, and what the user or a process pool has said. Beyond that, nobody gets helpers while
other processes have the cores: two threads on one core take longer than one.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

__all__ = [
    "blas_alone",
    "blas_can_be_alone",
    "blas_kernels",
    "cores",
    "helpers",
    "in_parallel",
    "quota",
    "threads",
]

#: Whose numbers hold for these threads too: process pools set them.
_LIMITS = ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS")
#: A look at who runs is not repeated before so many times as long have passed, or so many seconds.
#: One that finds the cores taken is, after a few milliseconds, then after twice as long each time.
_APART, _LATEST, _SOON = 1000, 0.25, 0.004
#: Seconds for which helpers go by the limits last read: thousands of products ask in a second.
_HOLDS = 0.002
#: Threads, where there is no limit.
_MANY = 1 << 16

_pool: list[ThreadPoolExecutor] = []
#: When to look at the cores again, how many were free of other processes, and how long that holds.
_seen = [0.0, 0.0, 0.0]
#: How many blocks of `blas_alone` are open, and how many threads BLAS had before; under a lock.
_alone, _guard = [0, 0], [Lock()]
#: When to read the limits again, and how many threads they allow but for BLAS's.
_limits = [0.0, 0]


def threads() -> int:
    """Return how many threads this process may use now.

    These are the cores that it may run on, or the quota of its control group, rounded up; or less
    by ``OMP_NUM_THREADS``, ``NUMBA_NUM_THREADS``, or the threads of NumPy's BLAS, which
    `threadpoolctl.threadpool_limits` and ``OPENBLAS_NUM_THREADS`` set.
    """
    return min(_allowed(), _blas_limit())


def _allowed() -> int:
    count = cores()
    for name in _LIMITS:
        # A list is for nested teams, of which there are none.
        limit = os.environ.get(name, "").partition(",")[0].strip()
        if limit.isdigit():
            count = min(count, max(int(limit), 1))
    return count


def cores() -> int:
    """Return how many cores this process may use, whatever the user has said."""
    if hasattr(os, "process_cpu_count"):  # from Python 3.13 on
        count = os.process_cpu_count()
    elif hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count()
    return min(count or 1, quota())


def helpers(most: int) -> int:
    """Return how many threads to share work with that repays `most`, the caller among them.

    None beyond the cores that are free of other processes, as far as the system says.
    """
    if most <= 1:
        return 0
    now = time.monotonic()
    if now > _limits[0]:
        _limits[:] = now + _HOLDS, _allowed()
    most = min(most, int(_limits[1]), _blas_limit())
    return min(most, max(_free(most, now), 1)) - 1 if most > 1 else 0


def blas_kernels() -> str:
    """Return for which cores the kernels are that OpenBLAS has chosen, "" for another BLAS."""
    name = _openblas("get_corename")
    if name is None:
        return ""
    name.restype = ctypes.c_char_p
    return str(name().decode())


def blas_can_be_alone() -> bool:
    """Return whether `blas_alone` does anything: OpenBLAS with threads of its own."""
    parallel = _openblas("get_parallel")
    return parallel is not None and parallel() == 1  # 2: OpenMP, by numbers of each thread


@contextmanager
def blas_alone() -> Iterator[None]:
    """Have BLAS compute on the thread that calls it, in all of this process, within the block.

    Then it has the threads again that it had before the first of the blocks that are open, unless
    somebody has set another number meanwhile.
    """
    with _guard[0]:
        if not _alone[0]:
            _alone[1] = _blas_threads()()
            _openblas("set_num_threads")(1)
        _alone[0] += 1
    try:
        yield
    finally:
        with _guard[0]:
            _alone[0] -= 1
            if not _alone[0] and _blas_threads()() == 1:
                _openblas("set_num_threads")(_alone[1])


def _blas_limit() -> int:
    """Return how many threads BLAS has where it is not told to be alone."""
    return _alone[1] if _alone[0] else _blas_threads()()


def in_parallel(tasks: Sequence[Callable[[], None]]) -> None:
    """Run all tasks and return when they are done; the calling thread runs the first, and more.

    Examples
    --------
    >>> from tinybilevel.kernels.threads import in_parallel
    >>> done = [0, 0]
    >>> in_parallel([lambda: done.__setitem__(0, 1), lambda: done.__setitem__(1, 1)])
    >>> done
    [1, 1]
    """
    left = deque(tasks)

    def work(take: Callable[[], Callable[[], None]]) -> None:
        while True:
            try:
                task = take()
            except IndexError:
                return
            task()

    others = helpers(len(tasks))
    if not others:
        return work(left.popleft)
    if not _pool:
        _pool.append(ThreadPoolExecutor(max(cores() - 1, 1), "tinybilevel"))
    state = np.geterr()  # which a thread does not inherit

    def careful() -> None:
        with np.errstate(**state):
            work(left.pop)

    waiting = [_pool[0].submit(careful) for _ in range(others)]
    try:
        work(left.popleft)
    finally:
        # The others write where the caller may write next; but not who has not come by now, as one
        # that waits for the very thread that is here.
        errors = [future.exception() for future in waiting if not future.cancel()]
    for error in errors:
        if error is not None:
            raise error
    return None


@cache
def quota(root: Path = Path("/sys/fs/cgroup"), me: Path = Path("/proc/self/cgroup")) -> int:
    """Return how many cores Linux gives this process's control group, rounded up; many if all.

    A group has no more than those it is in. Version 2 has all in one tree, version 1 one for each
    resource.
    """
    least = _MANY
    for line in _read(me).splitlines():
        _, kinds, path = line.split(":", 2)
        if kinds and "cpu" not in kinds.split(","):
            continue
        tree = root / kinds if (root / kinds).exists() else root / "cpu"
        group = tree / path.lstrip("/")
        # In a container the path may be that outside of it.
        for at in (group, *group.parents):
            if kinds:
                most, period = _read(at / "cpu.cfs_quota_us"), _read(at / "cpu.cfs_period_us")
            else:
                most, _, period = _read(at / "cpu.max").partition(" ")
            if most.strip().isdigit() and period.strip().isdigit():
                least = min(least, max(-(-int(most) // int(period)), 1))
            if at == tree:
                break
    return least


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


@cache
def _blas_threads() -> Callable[[], int]:
    """Return what says how many threads NumPy's BLAS uses, if it has any."""
    parallel = _openblas("get_parallel")
    if parallel is not None and parallel():
        return _openblas("get_num_threads")
    for name in ("MKL_Get_Max_Threads", "bli_thread_get_num_threads"):
        if hasattr(_blas(), name):
            return getattr(_blas(), name)
    return lambda: _MANY


@cache
def _blas() -> Any:
    """Return a library with what NumPy's BLAS exports, if it can be had."""
    try:
        core = import_module("numpy._core._multiarray_umath")
        return ctypes.CDLL(core.__file__)  # with what it is linked to
    except (AttributeError, ImportError, OSError):  # as where it is built in
        return None


def _openblas(name: str) -> Any:
    """Return a function of OpenBLAS, None if NumPy has another BLAS."""
    for before, after in (("scipy_", "64_"), ("scipy_", ""), ("", "64_"), ("", "")):
        if hasattr(_blas(), f"{before}openblas_{name}{after}"):
            return getattr(_blas(), f"{before}openblas_{name}{after}")
    return None


def _free(wanted: int, now: float) -> int:
    """Return how many cores of the machine are free of other processes, some moments ago."""
    if now > _seen[0]:
        all_cores = os.cpu_count() or 1
        free = all_cores - _running() + 1
        for _ in range(2):
            # What runs may be this process's, or run for a moment.
            if free < wanted:
                free = max(free, all_cores - _running() + _mine())
        apart = min(_APART * (time.monotonic() - now), _LATEST)
        if free < wanted:  # who ran for a moment would cost what is left of a short call
            apart = min(apart, max(2 * _seen[2], _SOON))
        _seen[:] = now + apart, free, apart if free < wanted else 0
    return int(_seen[1])


def _running() -> int:
    """Return how many threads run or wait for a core on this machine; 1 where it isn't known."""
    try:
        with open("/proc/loadavg", "rb") as file:
            return max(int(file.read().split()[3].partition(b"/")[0]), 1)
    except (OSError, IndexError, ValueError):
        return 1


def _mine() -> int:
    """Return how many of these are this process's."""
    count = 0
    for thread in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{thread}/stat", "rb") as file:
                count += file.read().rpartition(b") ")[2][:1] == b"R"
        except OSError:
            pass  # it has ended
    return max(count, 1)


def _forked() -> None:
    """Begin anew where there is one thread, whatever the others were at."""
    _pool.clear()
    _guard[0] = Lock()
    if _alone[0]:
        _alone[0] = 0
        _openblas("set_num_threads")(_alone[1])


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
