"""Steps of work on threads, from one to the next without the interpreter.

The work is a queue of tickets, numbered. A step has a ticket for each chunk of rows and then one
for each piece of w, and a ticket is there to be taken once all tickets of what came before are
done. So whoever is there takes the next one, and nobody waits for a thread that has not come.

Nor for one that has lost its core to another process in the middle of a chunk: whoever has waited
for it too long does that chunk as well. Each thread has a row for the sum of every chunk, and the
first to be done says where it is; the sum is the same, and what the late one brings is left. So a
chunk may be worked on when its step is long over: it must write only what it owns, or what it makes
of arrays that nobody has written to since.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit

from tinybilevel.kernels.compiling import LEAN
from tinybilevel.kernels.pool import core, part, pool, rest, wait
from tinybilevel.kernels.tiles import count_up, swap

__all__ = ["FEW", "PIECES", "STRETCH", "hand_in", "next_ticket", "tick_off", "work_off"]

#: Pieces of w, of which each is one thread's at a time; a w of fewer entries is one piece.
PIECES, FEW = 4, 2_000
#: Entries of w that are taken at a time, at least: what is made of them stays in cache.
STRETCH = 2_048


def work_off(
    work: Callable[..., None],
    threads: int,
    helpers: int,
    steps: int,
    chunks: int,
    pieces: int,
    patience: int,
    *args: Any,
) -> None:
    """Have this thread and `helpers` others, of `threads` at most, work off all tickets.

    Each calls `work` with a queue, `patience`, and `args`, and counts itself by what is first in
    the queue: the next ticket, how many are done, the next thread's number, −1 for each at work;
    and where a thread has nobody to wait for, its step and which of its tickets.
    """
    counter = np.zeros(6, np.int64)
    # How often each step's chunks are done, and where among the sums the step's chunks are.
    done, places = np.zeros(steps * chunks, np.int64), np.zeros(chunks, np.int64)
    cores = np.zeros((threads, 2), np.int64)
    cores[:, 0] = -1
    given = (counter, steps, done, places, cores, pieces), patience, *args
    pool.share(helpers, work, given)
    work(*given)
    # The late ones too, who write to what is the caller's.
    wait(counter[2:], 0)


@njit(**LEAN)
def next_ticket(queue, patience, me):  # type: ignore[no-untyped-def]
    """Wait for the next ticket and take it; return its step, or −1 if none is left, and which.

    After so many looks, return a chunk that another thread is at.
    """
    counter, steps, done, places, cores, pieces = queue
    chunks = places.size
    each, looks = chunks + pieces, 0
    if len(cores) == 1:  # nobody to wait for, and no division, which takes as long as small steps
        step, which = counter[4], counter[5]
        last = which + 1 == each
        counter[4], counter[5] = step + last, 0 if last else which + 1
        return (step, which) if step < steps else (-1, 0)
    cores[me, 0] = core()
    while True:
        k = count_up(counter, 0, 0)
        step, which = k // each, k % each
        if step >= steps:
            return -1, 0
        if count_up(counter, 1, 0) >= step * each + (chunks if which >= chunks else 0):
            if swap(counter, 0, k, k + 1):
                return step, which
            continue
        looks += 1
        if looks < patience:
            continue
        part(cores, me)
        if which >= chunks:
            for late in range(chunks):
                if count_up(done, step * chunks + late, 0) == 0:
                    return step, late
        else:
            # Whoever is to write a piece may need this core. Not above, where the scheduler would
            # bring all threads to a core that has nothing to do for a moment, and leave them there.
            rest()


@njit(**LEAN)
def hand_in(queue, step, which, place):  # type: ignore[no-untyped-def]
    """Say where the sum of a chunk lies; return False if another thread has done so."""
    _, _, done, places, cores, _ = queue
    if len(cores) > 1 and count_up(done, step * places.size + which, 1):
        return False
    places[which] = place
    return True


@njit(**LEAN)
def tick_off(queue):  # type: ignore[no-untyped-def]
    """Count a ticket among those that are done, which others may wait for."""
    counter, _, _, _, cores, _ = queue
    if len(cores) > 1:
        count_up(counter, 1, 1)
