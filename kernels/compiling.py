"""A line to whoever waits for Numba: which loop is being compiled, where none was found on disk.

The logger ``tinybilevel`` gets it, as a warning: that is what Python shows where nobody has set up
logging. To import this module is enough; it also sees to it that no old code is found there.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from threading import Timer
from time import monotonic
from typing import Any

from numba import types
from numba.core import event

from tinybilevel.kernels.stale import forget

__all__ = ["APART", "LEAN", "PATIENCE"]

#: Options of `numba.njit` for functions that make no array. Those that they are given or take views
#: of are not counted in and out then, nor passed from caller to callee, a dozen numbers each: both
#: take longer than a step on small data.
LEAN = {"nogil": True, "cache": True, "_nrt": False, "forceinline": True}
#: The same for long ones, beside whose work that is nothing: they are compiled once, and on their
#: own, which for large data makes the faster code.
APART = LEAN | {"forceinline": False}

#: Seconds of compiling after which it is said; most functions take less.
PATIENCE = 1.0
#: Seconds after a line in which what else the same call needs is compiled in silence.
SHADOW = 10.0

#: Modules of whole loops: each is a line of its own, once.
_LOOPS = {
    "adaptation_loop",
    "coupled_softmax",
    "dense_loops",
    "loops",
    "minibatch_loop",
    "softmax_loop",
    "touched_columns",
}
_log = logging.getLogger("tinybilevel")


class _Listener(event.Listener):
    """Numba tells of what it compiles, not of what it reads from disk, and never of two at once."""

    def __init__(self) -> None:
        self._depth, self._said = 0, set[str]()
        self._timer: Timer | None = None
        self._told = False  # whoever waits for what is being compiled knows
        self._until, self._of_loop = 0.0, False  # how long the last line holds, and for what

    def on_start(self, event: Any) -> None:
        self._depth += 1
        if self._depth > 1:  # what one function calls is compiled on the way
            return
        dispatcher = event.data["dispatcher"]
        text = _text(dispatcher, event.data["args"])
        if text is None:
            return
        is_loop = dispatcher.py_func.__module__.rpartition(".")[2] in _LOOPS
        held = monotonic() < self._until
        if text in self._said or (held and not (is_loop and self._of_loop)):
            self._told = held
            self._said.add(text)
            self._of_loop |= is_loop
        else:
            self._timer = Timer(PATIENCE, self._say, [text, is_loop])
            self._timer.daemon = True
            self._timer.start()

    def on_end(self, event: Any) -> None:
        self._depth -= 1
        if self._depth:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._told:
            self._told, self._until = False, monotonic() + SHADOW

    def _say(self, text: str, is_loop: bool) -> None:
        self._told, self._of_loop = True, is_loop
        self._said.add(text)
        _log.warning("%s", text)


def _text(dispatcher: Any, args: Any) -> str | None:
    """Return what is compiled, by the first line of its module; None of others' functions."""
    module = dispatcher.py_func.__module__
    if not module.startswith("tinybilevel."):
        return None
    about = (sys.modules[module].__doc__ or module).partition("\n")[0].rstrip(".")
    # What is bound in a closure is not kept.
    often = "in each process" if dispatcher.stats.cache_path is None else "once on a machine"
    dtypes = ", ".join(sorted(_floats(args)))
    file = module.removeprefix("tinybilevel.").replace(".", "/")
    return f"tinybilevel is compiling, {often}: {about} ({file}.py, {dtypes or 'no dtype'})"


def _floats(args: Any) -> set[str]:
    """Return the dtypes of all floating-point arrays among types."""
    found = set[str]()
    for each in args:
        if isinstance(each, types.BaseTuple):
            found |= _floats(each)
        elif isinstance(each, types.Array) and isinstance(each.dtype, types.Float):
            found.add(str(each.dtype))
    return found


forget(Path(__file__).parent)
_listener = _Listener()
event.register("numba:compile", _listener)
