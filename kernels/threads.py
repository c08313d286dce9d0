"""Threads for NumPy: NumPy lets go of the interpreter while it computes."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

__all__ = ["in_parallel", "threads"]

_pool: list[ThreadPoolExecutor] = []


def threads() -> int:
    """Return how many cores this process may use, or ``OMP_NUM_THREADS`` where that is less."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    # A list is for nested teams, of which there are none.
    limit = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return min(cores or 1, max(int(limit), 1)) if limit.isdigit() else cores or 1


def in_parallel(tasks: Sequence[Callable[[], None]]) -> None:
    """Run all tasks and return when they are done; the first runs on the calling thread.

    Examples
    --------
    >>> from tinybilevel.kernels.threads import in_parallel
    >>> done = [0, 0]
    >>> in_parallel([lambda: done.__setitem__(0, 1), lambda: done.__setitem__(1, 1)])
    >>> done
    [1, 1]
    """
    first, *others = tasks
    if not others:
        return first()
    if not _pool:
        _pool.append(ThreadPoolExecutor(max(threads() - 1, 1), "tinybilevel"))
    state = np.geterr()  # which a thread does not inherit

    def careful(task: Callable[[], None]) -> None:
        with np.errstate(**state):
            task()

    waiting = [_pool[0].submit(careful, task) for task in others]
    try:
        first()
    finally:  # the others write where the caller may write next
        errors = [future.exception() for future in waiting]
    for error in errors:
        if error is not None:
            raise error
    return None


# A forked process has no threads but one.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pool.clear)
