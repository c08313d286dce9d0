"""Threads for the kernels: they wait without spinning, and take chunks of work as they come."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

from numba import config, njit

from tinybilevel.kernels.tiles import count_up

__all__ = ["pool", "threads", "wait"]

Task = tuple[Callable[..., None], tuple[Any, ...]]


def threads() -> int:
    """Return Numba's number of threads, ``NUMBA_NUM_THREADS``."""
    return int(config.NUMBA_NUM_THREADS)  # type: ignore[attr-defined]


class Pool:
    """Threads of a process, started when first needed."""

    def __init__(self) -> None:
        self._lock, self._started = threading.Lock(), 0
        self._tasks: SimpleQueue[Task] = SimpleQueue()

    def share(self, helpers: int, function: Callable[..., None], args: tuple[Any, ...]) -> None:
        """Have `helpers` threads call function(*args), which takes chunks until none is left.

        One that comes late finds none; so the caller does its share and then waits for the chunks,
        not for the threads.
        """
        with self._lock:
            for _ in range(self._started, helpers):
                threading.Thread(target=self._serve, args=(self._tasks,), daemon=True).start()
                self._started += 1
        for _ in range(helpers):
            self._tasks.put((function, args))

    @staticmethod
    def _serve(tasks: SimpleQueue[Task]) -> None:
        while True:
            function, args = tasks.get()
            function(*args)
            del function, args


@njit(nogil=True, cache=True)
def wait(counter, chunks):  # type: ignore[no-untyped-def]
    """Return once counter[1], the chunks that are done, has come to `chunks`."""
    while count_up(counter, 1, 0) < chunks:
        pass


pool = Pool()
# A forked process has no threads but one.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=pool.__init__)  # type: ignore[misc]
