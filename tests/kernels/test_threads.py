import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from tinybilevel.kernels.threads import in_parallel, threads


def test_all_run_at_the_same_time():
    barrier, seen = threading.Barrier(2, timeout=10), []

    def task():
        barrier.wait()
        seen.append(threading.get_ident())

    for _ in range(3):
        in_parallel([task, task])
    assert len(set(seen)) == 2
    assert threading.get_ident() in seen


def test_one_task_runs_here():
    seen = []
    in_parallel([lambda: seen.append(threading.get_ident())])
    assert seen == [threading.get_ident()]


@pytest.mark.parametrize("bad", [0, 1])
def test_an_error_comes_out_once_all_are_done(bad):
    done = []

    def good():
        done.append(1)

    def fails():
        raise ValueError("as it should")

    tasks = [good, good]
    tasks[bad] = fails
    with pytest.raises(ValueError, match="as it should"):
        in_parallel(tasks)
    assert done == [1]


def test_the_error_state_goes_along():
    states = [None, None]

    def task(k):
        states[k] = np.geterr()

    with np.errstate(over="raise", under="call", divide="ignore"):
        in_parallel([lambda: task(0), lambda: task(1)])
    assert states[0] == states[1]
    assert states[1]["over"] == "raise"
    in_parallel([lambda: task(0), lambda: task(1)])
    assert states[1] == np.geterr()


@pytest.mark.parametrize(
    ("value", "most"), [("1", 1), ("0", 1), (" 1 ", 1), ("1,4", 1), ("", None), ("many", None)]
)
def test_how_many(value, most, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    cores = threads()
    assert 1 <= cores <= os.cpu_count()
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert threads() == (most or cores)


FORK = """
import os
from tinybilevel.kernels.threads import in_parallel

def work():
    seen = []
    in_parallel([lambda: seen.append(1), lambda: seen.append(2)])
    assert sorted(seen) == [1, 2]

work()
child = os.fork()
if child == 0:
    work()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_has_threads_of_its_own():
    # In a process of its own: libraries that other tests load warn of forks.
    subprocess.run([sys.executable, "-W", "ignore", "-c", FORK], check=True, timeout=30)
