"""Timing: each contender in a process of its own, one call at a time, in interleaved rounds."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.cases import Case
from benchmarks.contenders import NEEDS, Call, contenders

#: Relative difference from tinybilevel's plain body beyond which a time means nothing.
AGREE = {"float32": 1e-3, "float64": 1e-9}
#: A sample repeats its call until it has lasted this long, in seconds.
_SAMPLE = 0.02
#: Kinds that are timed on one thread, by the processor's clock.
_ALONE = ("one-shot", "logistic")


class Worker:
    """A process with one contender in it, which is stopped between its turns."""

    def __init__(self, case: Case, name: str, clock: str = "") -> None:
        clock = clock or ("process_time" if case.kind in _ALONE else "perf_counter")
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, case, name, clock), daemon=True)
        self.process.start()

    def ask(self, question: str | Case) -> Any:
        self._signal("SIGCONT")
        self.pipe.send(question)
        answer = self.pipe.recv()
        self._signal("SIGSTOP")
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _signal(self, name: str) -> None:
        # Threads of most libraries spin for a while after their work, at the cost of the next.
        if hasattr(signal, name) and self.process.pid is not None:
            os.kill(self.process.pid, getattr(signal, name))

    def close(self) -> None:
        self._signal("SIGCONT")
        self.process.terminate()
        self.process.join()


def measure_some(
    workers: dict[str, Worker], case: Case, seconds: float, fewest: int = 3, most: int = 15
) -> dict[str, dict[str, Any]]:
    """Return for each of these contenders its hypergradient and its least seconds per call.

    The rounds end after so many seconds, but not before the fewest. Who takes a second and five
    times as long as the first two of `workers`, once, gets no time.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, worker in workers.items():
        try:
            found[name] = worker.ask(case)
        except Exception as error:  # one that cannot run does not stop the others
            found[name] = {"error": _line(error)}
    once = {name: of["once"] for name, of in found.items() if "once" in of}
    usual = max([once[name] for name in list(workers)[:2] if name in once], default=np.inf)
    for name in list(once):
        if once[name] > max(1.0, 5 * usual):
            found[name]["error"] = f"left out: one call took {once.pop(name):.3g} s"
    samples: dict[str, list[float]] = {name: [] for name in once}
    end = time.perf_counter() + seconds
    for turn in range(most):
        if turn >= fewest and time.perf_counter() > end:
            break
        for name in list(samples):
            try:
                samples[name].append(workers[name].ask("time"))
            except Exception as error:
                found[name]["error"] = _line(error)
                del samples[name]
    for name, taken in samples.items():
        found[name]["seconds"] = min(taken)
    return found


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]


def measure(case: Case, names: Iterable[str], rounds: int) -> dict[str, dict[str, Any]]:
    """Return for each contender its hypergradient, seconds per call, and memory in MB.

    Memory is the most that building and calling took above the imports and the data.
    """
    one = contextmanager(_one_thread)() if case.kind in _ALONE else nullcontext()
    with one:
        workers = {name: Worker(case, name) for name in names}
    try:
        found: dict[str, dict[str, Any]] = {}
        for name, worker in workers.items():
            try:
                found[name] = worker.ask("first")
            except Exception as error:  # one that cannot run does not stop the others
                found[name] = {"error": _line(error)}
        samples: dict[str, list[float]] = {n: [] for n in workers if "error" not in found[n]}
        for _ in range(rounds):
            for name in samples:
                samples[name].append(workers[name].ask("time"))
        for name, taken in samples.items():
            # Others on the machine add to times, also of the processor, through caches they share.
            found[name]["seconds"] = (min if case.kind in _ALONE else median)(taken)
            found[name]["memory"] = workers[name].ask("memory")
    finally:
        for worker in workers.values():
            worker.close()
    return found


def compare(found: dict[str, dict[str, Any]], dtype: str, reference: str) -> None:
    """Put the distance from a contender's hypergradient in place of everyone's own, in place.

    Who is too far from it loses its time.
    """
    grads = {name: result.pop("grad") for name, result in found.items() if "grad" in result}
    if reference not in grads:
        return
    for name, grad in grads.items():
        error = np.linalg.norm(grad - grads[reference]) / np.linalg.norm(grads[reference])
        found[name]["disagreement"] = float(error)
        if not error <= AGREE[dtype]:
            found[name]["error"] = f"disagrees by {error:.1e}"
            found[name].pop("seconds", None)


def _serve(pipe: Connection, case: Case, name: str, clock_name: str) -> None:
    _die_with_parent()
    call: Call | None = None
    repeats, before, clock = 1, 0.0, getattr(time, clock_name)
    while True:
        question = pipe.recv()
        try:
            if isinstance(question, Case):  # another one, in place of what there is
                case, question, call = question, "first", None
                _forget(name)
            if question == "first":
                _import(name, case.device)
                from benchmarks.cases import numbers

                data = numbers(case)
                _give_back()
                before = _resident()
                _reset_peak()
                start = time.perf_counter()
                call = contenders(case)[name](case)
                grad = call()
                seconds = time.perf_counter() - start
                once = _time(call, 1, clock)
                again = once if once > _SAMPLE else _time(call, 3, clock)
                repeats = max(1, int(_SAMPLE / max(again, 1e-7)))
                about = {"first": seconds, "once": once, "data": len(data.data)}
                pipe.send({"grad": np.array(grad), **about})
            elif question == "time":
                assert call is not None
                pipe.send(_time(call, repeats, clock))
            else:
                pipe.send((_peak() - before) / 1e6)
        except Exception as error:
            pipe.send(error)


def _time(call: Callable[[], Any], repeats: int, clock: Callable[[], float]) -> float:
    start = clock()
    for _ in range(repeats):
        call()
    return (clock() - start) / repeats


def _one_thread() -> Iterator[None]:
    """Have the processes that are started within take one thread each, on the processor's clock."""
    names = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "NUMBA_NUM_THREADS")
    values = dict.fromkeys(names, "1")
    values["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def _import(name: str, device: str) -> None:
    """Load the contender's library, and start what it starts, before memory is counted."""
    if name.startswith(("JAX", "jaxopt")):
        # By default it takes three quarters of a GPU's memory, which the others need.
        os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
        import jax
        import jax.numpy as jnp

        # Without its CUDA part it would take the processor in a GPU's place.
        jax.config.update("jax_platforms", {"cpu": "cpu", "gpu": "cuda"}[device])
        jax.config.update("jax_default_matmul_precision", "highest")  # no TF32 for anyone
        jnp.ones(2).sum().block_until_ready()
    elif name.startswith(("torch", "higher", "TorchOpt")):
        import torch

        torch.ones(2).sum()
    elif device == "gpu":
        import cupy

        cupy.ones(2).sum()
    elif NEEDS.get(name) == "numba":
        import numba

        numba.njit(lambda x: x + 1)(1)


def _forget(name: str) -> None:
    """Let go of what JAX has compiled for another case."""
    if name.startswith("JAX") and "jax" in sys.modules:
        sys.modules["jax"].clear_caches()
    gc.collect()


def _libc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if sys.platform == "linux" else None


def _give_back() -> None:
    """Return freed memory to the system, which the peak could otherwise hide in."""
    gc.collect()
    libc = _libc()
    if libc is not None and hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)


def _die_with_parent() -> None:
    """Have Linux kill this process, stopped or not, when the one that measures is gone."""
    libc = _libc()
    if libc is not None:
        libc.prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _status(key: str) -> float:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:  # not Linux
        return float("nan")
    return 1024.0 * int(next(line for line in lines if line.startswith(key)).split()[1])


def _resident() -> float:
    return _status("VmRSS")


def _peak() -> float:
    return _status("VmHWM")


def _reset_peak() -> None:
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        os.environ["BENCHMARK_PEAK"] = "since the start of the process"
