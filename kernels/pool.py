"""Threads for the kernels: they take chunks of work as they come, and sleep between calls."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

import numpy as np
from numba import config, njit, types

from tinybilevel.kernels.tiles import count_up

__all__ = ["pool", "threads", "wait"]

Task = tuple[Callable[..., None], tuple[Any, ...]]

#: Looks for the next task before a thread goes to sleep, some 0.1 ms: longer than the time between
#: two steps, since a thread that is woken may be late or land on its waker's core.
_LOOKS = 20_000


def threads() -> int:
    """Return Numba's number of threads, ``NUMBA_NUM_THREADS``."""
    return int(config.NUMBA_NUM_THREADS)


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
            look_out(shared, seen + 1, _LOOKS)


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
    def _rest():  # type: ignore[no-untyped-def]
        _usleep(50)

else:

    @njit(nogil=True, cache=True)
    def _rest():  # type: ignore[no-untyped-def]
        pass


@njit(nogil=True, cache=True)
def wait(counter, chunks):  # type: ignore[no-untyped-def]
    """Return once counter[1], the chunks that are done, has come to `chunks`.

    Who waits for long leaves its core: whoever is to do them may have none.
    """
    looks = 0
    while count_up(counter, 1, 0) < chunks:
        looks += 1
        if looks > _LOOKS:
            _rest()


pool = Pool()
# A forked process has no threads but one.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=pool.__init__)  # type: ignore[misc]
