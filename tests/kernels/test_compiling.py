"""Who waits for Numba is told what it compiles: one line, once, where nothing was on disk."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("numba")

from numba import njit

from tinybilevel.kernels import compiling, pool

SMALL = """
import numpy as np, tinybilevel as tb
rng = np.random.default_rng(0)
X, y = rng.standard_normal((600, 5)), rng.integers(3, size=600)
problem = tb.problems.hypercleaning(X, y, X, y, T=4)
for _ in range(2):
    tb.KRMD(K=2)(tb.compile(problem))
"""


@pytest.fixture
def at_once(monkeypatch):
    """Have the line said as soon as anything is compiled, and in this thread."""

    class Timer:
        daemon = False

        def __init__(self, seconds, function, args):
            self.start = lambda: function(*args)

        def cancel(self):
            pass

    monkeypatch.setattr(compiling, "Timer", Timer)


def fresh(function):
    """Return a function of ours that nothing is compiled of."""
    made = njit(function.py_func)
    assert not made.signatures
    return made


def test_what_is_compiled_is_said_once(at_once, caplog):
    import numpy as np

    w = np.zeros(1, np.int64)
    for _ in range(2):
        fresh(pool.count_shared)(w)
    assert [r.message for r in caplog.records] == [
        "tinybilevel is compiling, in each process: Threads for the kernels: they take chunks of "
        "work as they come, and sleep between calls (kernels/pool.py, no dtype)"
    ]
    assert caplog.records[0].name == "tinybilevel"


def test_functions_of_others_are_compiled_in_silence(at_once, caplog):
    assert njit(lambda x: x + 1)(1) == 2
    assert caplog.records == []


def test_what_takes_no_time_is_not_worth_a_line(caplog):
    import numpy as np

    fresh(pool.count_shared)(np.zeros(1, np.int64))
    assert caplog.records == []


def test_dtypes_are_found_in_tuples_too():
    import numba

    single, double = numba.float32[::1], numba.float64[:, ::1]
    args = numba.types.Tuple((single, numba.int64)), numba.types.UniTuple(double, 2), single
    assert compiling._floats(args) == {"float32", "float64"}


@pytest.mark.slow
def test_a_user_sees_it_the_first_time_and_never_again(tmp_path):
    env = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    said = [
        subprocess.run(
            [sys.executable, "-c", SMALL], env=env, capture_output=True, text=True, check=True
        ).stderr
        for _ in range(2)
    ]
    lines = said[0].splitlines()  # one for the loop, and one for what its caller takes besides
    assert 1 <= len(lines) == len(set(lines)) <= 2, said[0]
    assert all(line.startswith("tinybilevel is compiling, once on a machine: ") for line in lines)
    assert "(kernels/softmax_loop.py, float64)" in said[0]
    assert said[1] == ""
