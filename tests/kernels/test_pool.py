"""Who waits for chunks of work returns when they are done, and leaves a core that two are on."""

import os
import sys
import threading

import numpy as np
import pytest

pytest.importorskip("numba")

from tinybilevel.kernels.pool import core, part, pool, wait


@pytest.mark.parametrize("seconds", [0.0, 0.05])
def test_waiting_ends_with_the_last_chunk(seconds):
    counter, late = np.zeros(2, np.int64), threading.Event()

    def work(counter):
        late.wait(seconds)
        late.set()
        counter[1] = 3

    pool.share(1, work, (counter,))
    wait(counter, 3)
    assert late.is_set()
    assert counter[1] == 3


def seen(*on, gone=0):
    return np.array([[core(), gone], *([at, 0] for at in on)])


linux = pytest.mark.skipif(sys.platform != "linux", reason="moves threads on Linux only")


@linux
def test_a_thread_leaves_the_core_of_another_once():
    allowed = os.sched_getaffinity(0)
    if len(allowed) < 2:
        pytest.skip("has one core only")
    moved = 0
    for _ in range(20):
        at = core()
        assert at in allowed
        cores = seen(-1, at)
        part(cores, 0)
        moved += core() != at
        assert cores[0, 1] == 1
    assert moved
    assert os.sched_getaffinity(0) == allowed


@linux
def test_a_thread_stays_where_no_other_is_or_where_it_has_moved():
    allowed, at = os.sched_getaffinity(0), core()
    # Where the scheduler itself can't move it.
    os.sched_setaffinity(0, {at})
    try:
        for cores in (seen(-1, at + 1), seen(at, gone=1), seen()):
            before = cores.copy()
            part(cores, 0)
            np.testing.assert_array_equal(cores, before)
    finally:
        os.sched_setaffinity(0, allowed)
