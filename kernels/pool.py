"""Threads for the kernels: they take chunks of work as they come, and sleep between calls."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

import numpy as np
from numba import njit, types

from tinybilevel.kernels.tiles import count_up

__all__ = ["LOOKS", "core", "part", "pool", "rest", "wait"]

Task = tuple[Callable[..., None], tuple[Any, ...]]

#: Looks for the next task before a thread goes to sleep, some 0.1 ms: longer than the time between
#: two steps, since a thread that is woken may be late or land on its waker's core.
LOOKS = 20_000


class Pool:
    """Threads of a process, started when first needed."""

    def __init__(self) -> None:
        self._lock, self._started = threading.Lock(), 0
        self._tasks: SimpleQueue[Task] = SimpleQueue()
        self._shared = np.zeros(1, np.int64)

    def share(self, helpers: int, function: Callable[..., None], args: tuple[Any, ...]) -> None:
        """Have `helpers` threads call function(*args), which takes chunks until none is left.

        One that comes late finds none; so the caller does its share and then waits for the chunks,
        not for the threads.
        """
        if not helpers:
            return
        with self._lock:
            for _ in range(self._started, helpers):
                mine = (self._tasks, self._shared)
                threading.Thread(target=self._serve, args=mine, daemon=True).start()
                self._started += 1
        for _ in range(helpers):
            self._tasks.put((function, args))
        count_shared(self._shared)

    @staticmethod
    def _serve(tasks: SimpleQueue[Task], shared: np.ndarray[Any, Any]) -> None:
        while True:
            seen = shared[0]
            function, args = tasks.get()
            function(*args)
            del function, args
            look_out(shared, seen + 1, LOOKS)


@njit(nogil=True, cache=True)
def count_shared(shared):  # type: ignore[no-untyped-def]
    """Tell the threads that look out that there are tasks."""
    count_up(shared, 0, 1)


@njit(nogil=True, cache=True)
def look_out(shared, seen, looks):  # type: ignore[no-untyped-def]
    """Return once there are tasks again, or after so many looks."""
    for _ in range(looks):
        if count_up(shared, 0, 0) > seen:
            return


if os.name == "posix":
    _usleep = types.ExternalFunction("usleep", types.int32(types.uint32))

    @njit(nogil=True, cache=True)
    def rest():  # type: ignore[no-untyped-def]
        """Leave the core to whoever may need it."""
        _usleep(50)

else:

    @njit(nogil=True, cache=True)
    def rest():  # type: ignore[no-untyped-def]
        """Go on at once."""


if sys.platform == "linux":
    _cpu = types.ExternalFunction("sched_getcpu", types.int32())
    _mask = types.int32(types.int32, types.intp, types.intp)
    _allowed = types.ExternalFunction("sched_getaffinity", _mask)
    _allow = types.ExternalFunction("sched_setaffinity", _mask)

    @njit(nogil=True, cache=True)
    def core():  # type: ignore[no-untyped-def]
        """Return which core this thread is on."""
        return _cpu()

    @njit(nogil=True, cache=True)
    def _leave_core(mask):  # type: ignore[no-untyped-def]
        # For a moment, all cores are allowed that were, but this one.
        if _allowed(0, mask[0].nbytes, mask.ctypes.data) < 0:
            return
        mask[1], at = mask[0], _cpu()
        mask[1, at // 64] &= ~(np.uint64(1) << np.uint64(at % 64))
        if _allow(0, mask[1].nbytes, mask[1].ctypes.data) == 0:
            _allow(0, mask[0].nbytes, mask.ctypes.data)

else:

    @njit(nogil=True, cache=True)
    def core():  # type: ignore[no-untyped-def]
        """Return 0: it isn't known."""
        return 0

    @njit(nogil=True, cache=True)
    def _leave_core(mask):  # type: ignore[no-untyped-def]
        pass


@njit(nogil=True, cache=True, _nrt=True)  # it makes an array, whoever calls it
def part(cores, me):  # type: ignore[no-untyped-def]
    """Go to another core, once, if another of these threads was last seen on this one.

    cores[:, 0] says where each was seen, cores[:, 1] whether it has gone. Two threads on one core
    beside another process's are as fair to the scheduler as one on each, so it leaves them.
    """
    if cores[me, 1]:
        return
    at = core()
    for other in range(len(cores)):
        if other != me and cores[other, 0] == at:
            cores[me, 1] = 1
            # Held here until the system is done with where it lies.
            _leave_core(np.zeros((2, 16), np.uint64))
            return


@njit(nogil=True, cache=True)
def wait(counter, chunks):  # type: ignore[no-untyped-def]
    """Return once counter[1], the chunks that are done, has come to `chunks`.

    Who waits for long leaves its core: whoever is to do them may have none.
    """
    looks = 0
    while count_up(counter, 1, 0) < chunks:
        looks += 1
        if looks > LOOKS:
            rest()


pool = Pool()
# A forked process has no threads but one.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=pool.__init__)  # type: ignore[misc]
