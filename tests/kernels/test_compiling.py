"""Who waits for Numba is told what it compiles: one line, once, where nothing was on disk."""

import os
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("numba")

from numba import njit

from tinybilevel.kernels import compiling, loops, moves, pool, softmax_loop, updates

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
    now = [0.0]
    monkeypatch.setattr(compiling, "monotonic", lambda: now[0])
    # A line of another test holds for what comes after it, and so does what was said there.
    listener = compiling._listener
    for name, value in {"_said": set(), "_until": 0.0, "_of_loop": False}.items():
        monkeypatch.setattr(listener, name, value)
    return now


def fresh(function):
    """Return a function of ours that nothing is compiled of."""
    made = njit(function.py_func)
    assert not made.signatures
    return made


def test_what_is_compiled_is_said_once(at_once, caplog):
    w = np.zeros(1, np.int64)
    for _ in range(2):
        fresh(pool.count_shared)(w)
    assert [r.message for r in caplog.records] == [
        "tinybilevel is compiling, in each process: Threads for the kernels: they take chunks of "
        "work as they come, and sleep between calls (kernels/pool.py, no dtype)"
    ]
    assert caplog.records[0].name == "tinybilevel"


def files(caplog):
    """Return which files the lines were about."""
    return [record.message.rpartition("kernels/")[2].partition(",")[0] for record in caplog.records]


def test_what_else_a_call_needs_is_compiled_in_silence(at_once, caplog):
    w = np.ones(2)

    def helper():
        fresh(pool.count_shared)(np.zeros(1, np.int64))

    def other_helper():
        fresh(updates._subtract)(w, w)

    def loop():
        fresh(loops._shrink)(w, w, 2)

    def other_loop():
        fresh(softmax_loop._subtract_twice)(w, w, w)

    loop()
    helper()
    loop()
    assert files(caplog) == ["loops.py"]
    other_loop()  # the user has gone on to another form
    other_helper()
    assert files(caplog) == ["loops.py", "softmax_loop.py"]
    at_once[0] += 100
    helper()  # was compiled beneath a line before
    other_helper()
    assert len(caplog.records) == 2
    fresh(moves.watch)(0, 1, w, w, w, np.zeros(3), 0, 2)
    assert files(caplog)[2:] == ["moves.py"]


def test_a_loop_after_what_it_needs_is_one_line_too(at_once, caplog):
    w = np.ones(2)
    fresh(pool.count_shared)(np.zeros(1, np.int64))
    fresh(loops._shrink)(w, w, 2)
    assert files(caplog) == ["pool.py"]
    at_once[0] += compiling.SHADOW - 1  # and its line holds on
    fresh(updates._subtract)(w, w)
    assert len(caplog.records) == 1
    fresh(softmax_loop._subtract_twice)(w, w, w)
    assert files(caplog) == ["pool.py", "softmax_loop.py"]


def test_functions_of_others_are_compiled_in_silence(at_once, caplog):
    assert njit(lambda x: x + 1)(1) == 2
    assert caplog.records == []


def test_what_takes_no_time_is_not_worth_a_line(caplog):
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
    (line,) = said[0].splitlines()
    assert line.startswith("tinybilevel is compiling, once on a machine: ")
    assert line.endswith("(kernels/softmax_loop.py, float64)")
    assert said[1] == ""
