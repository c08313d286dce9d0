"""Threads are as many as cores, quotas, the user and other processes leave; small work has one."""

import os
import platform
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from tinybilevel.kernels import threads as module
from tinybilevel.kernels.blocked_softmax import Softmax
from tinybilevel.kernels.threads import cores, helpers, in_parallel, quota, threads


@pytest.fixture(autouse=True)
def idle(monkeypatch):
    """Have no company on a machine with eight cores, and no limits."""
    monkeypatch.setattr(module, "_seen", [0.0, 0.0, 0.0])
    monkeypatch.setattr(module, "_limits", [0.0, 0])
    monkeypatch.setattr(module, "_running", lambda: 1)
    monkeypatch.setattr(module, "cores", lambda: 8)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.setattr(module, "_blas_threads", lambda: lambda: 8)
    for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)


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


def test_helpers_begin_with_the_last(monkeypatch):
    monkeypatch.setattr(module, "helpers", lambda most: 1)
    others_done, seen = threading.Event(), []

    def task(k):
        seen.append((k, threading.get_ident()))
        if k == 0:
            assert others_done.wait(10)
        elif k == 1:
            others_done.set()

    in_parallel([partial(task, k) for k in range(4)])
    here = threading.get_ident()
    assert [k for k, who in seen if who == here] == [0]
    assert [k for k, who in seen if who != here] == [3, 2, 1]


@pytest.mark.parametrize("count", [2, 5])
def test_without_helpers_all_run_here_in_turn(count, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    seen = []
    in_parallel([lambda k=k: seen.append((k, threading.get_ident())) for k in range(count)])
    assert seen == [(k, threading.get_ident()) for k in range(count)]


def test_tasks_have_tasks_of_their_own(monkeypatch):
    monkeypatch.setattr(module, "_pool", [ThreadPoolExecutor(1)])
    barrier, seen = threading.Barrier(2, timeout=10), []

    def task():
        barrier.wait()  # on the only other thread as well
        in_parallel([lambda: seen.append(1)] * 5)

    in_parallel([task, task])
    assert len(seen) == 10


@pytest.mark.parametrize("bad", [0, 1])
def test_an_error_comes_out_once_all_are_done(bad):
    barrier, done = threading.Barrier(2, timeout=10), []

    def good():
        barrier.wait()
        done.append(1)

    def fails():
        barrier.wait()
        raise ValueError("as it should")

    tasks = [good, good]
    tasks[bad] = fails
    with pytest.raises(ValueError, match="as it should"):
        in_parallel(tasks)
    assert done == [1]


def test_an_index_error_of_a_task_is_no_end():
    with pytest.raises(IndexError, match="list index"):
        in_parallel([lambda: [][0]])


def test_the_error_state_goes_along():
    states, barrier = [None, None], threading.Barrier(2, timeout=10)

    def task(k):
        barrier.wait()
        states[k] = np.geterr()

    with np.errstate(over="raise", under="call", divide="ignore"):
        in_parallel([lambda: task(0), lambda: task(1)])
    assert states[0] == states[1]
    assert states[1]["over"] == "raise"
    in_parallel([lambda: task(0), lambda: task(1)])
    assert states[1] == np.geterr()


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "NUMBA_NUM_THREADS"])
@pytest.mark.parametrize(
    ("value", "most"),
    [("1", 1), ("3", 3), ("0", 1), (" 1 ", 1), ("1,4", 1), ("", 8), ("many", 8), ("99", 8)],
)
def test_the_environment_limits_them_at_once(name, value, most, monkeypatch):
    assert threads() == 8
    monkeypatch.setenv(name, value)
    assert threads() == most
    assert helpers(99) == most - 1


def test_so_do_the_threads_of_blas(monkeypatch):
    assert helpers(8) == 7
    monkeypatch.setattr(module, "_blas_threads", lambda: lambda: 2)
    assert threads() == 2
    assert helpers(8) == 1


def test_helpers_go_by_the_limits_of_two_milliseconds_ago(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    assert helpers(8) == 7
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert helpers(8) == 7
    clock[0] += 0.003
    assert helpers(8) == 2


WITHIN = """
import threadpoolctl
from tinybilevel.kernels.threads import threads
before = threads()
with threadpoolctl.threadpool_limits(1):
    assert threads() == 1
assert threads() == before
"""


def run(code, **limits):
    """Return what a fresh process prints that has these limits only."""
    names = ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    env = {name: value for name, value in os.environ.items() if name not in names}
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(
        command, env={**env, **limits}, check=True, timeout=300, capture_output=True, text=True
    )
    return done.stdout


#: Whether NumPy's BLAS has threads, and says how many.
BLAS = module._blas_threads()() < module._MANY


@pytest.mark.skipif(not BLAS, reason="NumPy's BLAS does not say how many threads it has")
def test_threadpoolctl_limits_them_within_its_block():
    pytest.importorskip("threadpoolctl")
    run(WITHIN)


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "OPENBLAS_NUM_THREADS"])
def test_a_process_starts_with_the_limits_of_its_environment(name):
    if name.startswith("OPENBLAS") and not BLAS:
        pytest.skip("NumPy's BLAS does not say how many threads it has")
    code = "from tinybilevel.kernels.threads import threads; print(threads())"
    assert run(code, **{name: "1"}) == "1\n"


ALONE = """
import os
import numpy as np
from tinybilevel.kernels import threads as t
from tinybilevel.kernels.blocked_softmax import Softmax

get, put = t._openblas("get_num_threads"), t._openblas("set_num_threads")
put(2)
with t.blas_alone():
    with t.blas_alone():
        assert get() == 1 and t._blas_limit() == 2
    assert get() == 1
assert get() == 2 == t._blas_limit()
try:
    with t.blas_alone():
        1 / 0
except ZeroDivisionError:
    pass
assert get() == 2
with t.blas_alone():
    put(3)
assert get() == 3
put(2)
if hasattr(os, "fork"):
    with t.blas_alone():
        child = os.fork()
        if not child:
            os._exit(get() != 2 or t._alone[0])
        assert os.waitpid(child, 0)[1] == 0 and get() == 1
assert get() == 2

# What is left whole to BLAS, by several threads at once.
seen, X = [], np.zeros((4000, 6000), np.float32)
sums = Softmax(X, np.zeros(4000, int), 10)
matmul = np.matmul
def noted(*args, **options):
    seen.append(get())
    return matmul(*args, **options)
np.matmul = noted
sums.grad(np.zeros((10, 6000), np.float32), np.ones(1, np.float32))
assert len(sums._teams) == 4 and len(seen) == 8 and set(seen) == {1} and get() == 2
for rows, found in (1999, [1, 1]), (999, [2]):
    seen.clear()
    Softmax(X[:rows], np.zeros(rows, int), 10).losses(np.zeros((10, 6000), np.float32))
    assert seen == found
"""


@pytest.mark.skipif(not module.blas_can_be_alone(), reason="NumPy's BLAS has no threads to set")
def test_BLAS_is_alone_within_a_block_and_has_its_threads_again():
    run(ALONE)


@pytest.mark.skipif(not module.blas_kernels(), reason="NumPy's BLAS is not OpenBLAS")
def test_the_kernels_of_BLAS_are_those_that_run():
    code = "from tinybilevel.kernels.threads import blas_kernels; print(blas_kernels())"
    if platform.machine().lower() not in ("x86_64", "amd64"):
        pytest.skip("these kernels are for other cores")
    assert run(code, OPENBLAS_CORETYPE="Nehalem") == "Nehalem\n"


def test_a_NumPy_that_is_built_in_says_nothing_of_its_BLAS(monkeypatch):
    monkeypatch.setattr(module, "import_module", lambda name: SimpleNamespace())
    assert module._blas.__wrapped__() is None


def test_another_BLAS_has_no_kernels_of_OpenBLAS(monkeypatch):
    monkeypatch.setattr(module, "_blas", lambda: None)
    assert module.blas_kernels() == ""


def v1(quota, period, at="cpu"):
    """Return the files of a group of version 1."""
    me = "4:memory:/a\n3:cpu,cpuacct:/a/b\n2:cpuset:/a\n"
    return {
        "me": me,
        f"fs/{at}/cpu.cfs_quota_us": f"{quota}\n",
        f"fs/{at}/cpu.cfs_period_us": f"{period}\n",
    }


def tree(root, files):
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return quota(root / "fs", root / "me")


@pytest.mark.parametrize(
    ("files", "count"),
    [
        ({}, None),
        ({"me": "0::/a/b\n"}, None),
        ({"me": "0::/a/b\n", "fs/a/b/cpu.max": "max 100000\n"}, None),
        ({"me": "0::/a/b\n", "fs/a/b/cpu.max": "150000 100000\n"}, 2),
        ({"me": "0::/a/b\n", "fs/a/b/cpu.max": "max 100000\n", "fs/a/cpu.max": "5 10"}, 1),
        ({"me": "0::/a/b\n", "fs/a/b/cpu.max": "300 100", "fs/a/cpu.max": "900 100"}, 3),
        ({"me": "0::/outside\n", "fs/cpu.max": "200000 100000\n"}, 2),
        (v1(-1, 9, "cpu/a/b"), None),
        (v1(25, 10, "cpu/a/b"), 3),
        (v1(20, 10), 2),
        (v1(20, 10, "cpu,cpuacct/a"), 2),
        ({"me": "4:memory:/a\n", "fs/cpu.max": "100 100"}, None),
    ],
)
def test_a_quota_of_the_control_group_counts_in_whole_cores(files, count, tmp_path):
    assert tree(tmp_path, files) == (count or module._MANY)


def test_cores_are_those_within_the_quota(monkeypatch):
    monkeypatch.undo()
    assert 1 <= cores() <= os.cpu_count()
    assert threads() <= cores()
    monkeypatch.setattr(module, "quota", lambda: 1)
    assert cores() == 1
    if hasattr(os, "process_cpu_count"):
        monkeypatch.setattr(os, "process_cpu_count", lambda: 1)
    else:
        monkeypatch.setattr(os, "process_cpu_count", lambda: 5, raising=False)
        monkeypatch.setattr(module, "quota", lambda: 7)
        assert cores() == 5


@pytest.mark.parametrize(
    ("running", "mine", "most", "others"),
    [
        (1, 1, 8, 7),  # nobody else
        (4, 1, 8, 4),  # three others
        (4, 4, 8, 7),  # its own
        (9, 4, 8, 2),
        (8, 1, 8, 0),
        (30, 2, 8, 0),
        (8, 1, 1, 0),
        (6, 1, 3, 2),
    ],
)
def test_helpers_are_no_more_than_cores_are_free_of_others(
    running, mine, most, others, monkeypatch
):
    monkeypatch.setattr(module, "_running", lambda: running)
    monkeypatch.setattr(module, "_mine", lambda: mine)
    assert helpers(most) == others


def test_who_runs_for_a_moment_does_not_count(monkeypatch):
    looks = iter([5, 4, 1])
    monkeypatch.setattr(module, "_running", lambda: next(looks))
    monkeypatch.setattr(module, "_mine", lambda: 1)
    assert helpers(8) == 7


def test_a_look_is_not_repeated_at_once(monkeypatch):
    looks = []
    monkeypatch.setattr(module, "_running", lambda: looks.append(1) or 1)
    for _ in range(20):
        helpers(2)
    assert 1 <= len(looks) < 20
    looks.clear()
    assert [helpers(1) for _ in range(20)] == [0] * 20
    assert looks == []


def test_company_is_looked_for_again_soon_then_less_and_less_often(monkeypatch):
    clock, running, looks = [100.0], [9], []
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(module, "_mine", lambda: looks.append(clock[0]) or 1)
    # Nothing seems to take time but a look, a millisecond.
    monkeypatch.setattr(module, "_running", lambda: clock.append(clock.pop() + 5e-4) or running[0])

    def looks_within(seconds):
        looks.clear()
        while clock[0] < 100 + seconds:
            clock[0] += 5e-4
            others.append(helpers(8))
        return [looks[k] - looks[0] for k in range(0, len(looks), 2)]

    others = []
    times = looks_within(1.0)
    assert set(others) == {0}
    apart = np.diff(times)
    assert apart[0] < 0.01
    assert np.all(apart[1:5] > 1.5 * apart[:4])
    assert 0.2 < apart[-1] < 0.3
    # Once the others have gone, the next who comes is asked about soon again.
    running[0] = 1
    clock[0] += 1
    assert helpers(8) == 7
    running[0] = 9
    clock[0] += 1
    assert helpers(8) == 0
    running[0] = 1
    clock[0] += 0.01
    assert helpers(8) == 7


@pytest.mark.skipif(not os.path.exists("/proc/loadavg"), reason="the system does not say who runs")
def test_the_system_says_who_runs(monkeypatch):
    monkeypatch.undo()
    assert 1 <= module._mine() <= threading.active_count() + 200
    assert module._running() >= 1


def test_where_the_system_does_not_say_nobody_else_runs(monkeypatch):
    monkeypatch.undo()

    def missing(*args):
        raise FileNotFoundError

    monkeypatch.setattr("builtins.open", missing)
    assert module._running() == 1


@pytest.mark.parametrize("classes", [2, 10])
def test_plain_sums_are_the_same_bit_for_bit_on_any_number_of_threads(classes, monkeypatch):
    rng = np.random.default_rng(0)
    n = 5000 if classes == 10 else 20_000
    X, y = rng.standard_normal((n, 500)), rng.integers(0, classes, n)
    W, weights = rng.standard_normal((classes, 500)), rng.random(n)
    found = []
    for count in (1, 2, 3, 8):
        monkeypatch.setenv("OMP_NUM_THREADS", str(count))
        monkeypatch.setattr(module, "_limits", [0.0, 0])
        assert helpers(8) == count - 1
        sums = Softmax(X, y, classes)
        assert len(sums._teams) > 1
        found.append((sums.grad(W, weights), *sums.grad_vjp(W, W[::-1], weights), sums.losses(W)))
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


SMALL = """
import threading
import numpy as np, tinybilevel as tb

rng = np.random.default_rng(0)
for n, d, C in ((200, 100, 3), (5000, 100, 2), (1000, 64, 10)):
    X, y = rng.random((n, d)), rng.integers(0, C, n)
    problem = tb.problems.hypercleaning(X, y, X[:100], y[:100], T=3, step_size=0.1)
    for each in (problem, tb.compile(problem)):
        tb.KRMD(K=2)(each)
toy = tb.compile(tb.problems.toy())
tb.KRMD(K=2)(toy)
tb.KRMD(K=2).batch(toy, np.ones((64, 2)))
assert threading.active_count() == 1, threading.enumerate()
"""


def test_small_problems_start_no_thread():
    pytest.importorskip("numba")
    run(SMALL)


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
