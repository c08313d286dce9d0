"""Time to the first hypergradient: a fresh process that imports, builds, compiles and runs."""

from __future__ import annotations

import subprocess
import sys
import time
from importlib.util import find_spec
from statistics import median
from typing import Any

_OURS = "import tinybilevel as tb; tb.KRMD(K=10)(tb.problems.toy())"
_THEIRS = (
    "from benchmarks.cases import Case; from benchmarks.opponents import {0}_;"
    "{0}_.build(Case('toy', 10), {1!r})()"
)
_PROGRAMS = {
    "tinybilevel, NumPy": _OURS,
    "tinybilevel, Numba": (
        "import tinybilevel as tb; tb.KRMD(K=10)(tb.compile(tb.problems.toy()))"
    ),
    "JAX jit": _THEIRS.format("jax", "scan"),
    "torch": _THEIRS.format("torch", "autograd"),
    "import numpy": "import numpy",
}


def first_hypergradients(rounds: int) -> dict[str, Any]:
    """Return seconds from the start of a process to its end, of interleaved rounds."""
    needs = {"tinybilevel, Numba": "numba", "JAX jit": "jax", "torch": "torch"}
    programs = {n: p for n, p in _PROGRAMS.items() if find_spec(needs.get(n, "numpy")) is not None}
    samples: dict[str, list[float]] = {name: [] for name in programs}
    for turn in range(rounds + 1):
        for name, program in programs.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", program], check=True)
            if turn:  # the first warms the file cache, and Numba's
                samples[name].append(time.perf_counter() - start)
    who = {name: {"seconds": median(taken)} for name, taken in samples.items()}
    return {"case": "first hypergradient, toy, fresh process", "kind": "first", "who": who}
