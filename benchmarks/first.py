"""Time to the first hypergradient: a fresh process that imports, builds, compiles and runs.

And what each has to be installed for it, with all that it needs; and the first call of each form
that `compile` has, once Numba's cache on disk is filled.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
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
_PACKAGES = {
    "tinybilevel, NumPy": ("tinybilevel",),
    "tinybilevel, Numba": ("tinybilevel", "numba"),
    "JAX jit": ("jax",),
    "torch": ("torch",),
    "import numpy": ("numpy",),
}


def installed(*names: str) -> float:
    """Return the size in MB of distributions and of all that they need."""
    left, sizes = list(names), dict[str, int]()
    while left:
        name = re.sub(r"[-_.]+", "-", left.pop()).lower()
        if name in sizes:
            continue
        try:
            found = distribution(name)
        except PackageNotFoundError:  # for another system or version of Python
            continue
        # An editable installation lists none of its files.
        paths = (
            [p for root in ("tinybilevel", "kernels") for p in Path(root).rglob("*.py")]
            if name == "tinybilevel"
            else [Path(str(found.locate_file(f))) for f in found.files or ()]
        )
        sizes[name] = sum(p.stat().st_size for p in paths if p.is_file())
        for needed in found.requires or ():
            if "extra ==" not in needed:
                left.append(re.split(r"[^\w.-]", needed, maxsplit=1)[0])
    return sum(sizes.values()) / 1e6


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
    who = {
        name: {"seconds": median(taken), "installed": installed(*_PACKAGES[name])}
        for name, taken in samples.items()
    }
    return {"case": "first hypergradient, toy, fresh process", "kind": "first", "who": who}


_FORM = """
import time
import tinybilevel as tb
from benchmarks.forms import FORMS
problem, method = FORMS[{!r}](), tb.KRMD(K=5)
start = time.process_time()
method(tb.compile(problem))
print(time.process_time() - start)
"""


def first_calls(rounds: int) -> dict[str, Any]:
    """Return seconds of the processor for compile and a first call in a fresh process.

    That is with the import of Numba. The first round fills its cache, and does not count.
    """
    from benchmarks.forms import FORMS

    samples: dict[str, list[float]] = {name: [] for name in FORMS}
    for turn in range(rounds + 1):
        for name in FORMS:
            command = [sys.executable, "-c", _FORM.format(name)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            if turn:
                samples[name].append(float(done.stdout))
    who = {name: {"seconds": median(taken)} for name, taken in samples.items()}
    return {"case": "first call, fresh process, cache warm", "kind": "forms", "who": who}
