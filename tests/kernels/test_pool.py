"""Who waits for chunks of work returns when they are done, however late that is."""

import threading

import numpy as np
import pytest

pytest.importorskip("numba")

from tinybilevel.kernels.pool import pool, wait


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
