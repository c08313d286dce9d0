"""A line to whoever waits for Numba: what is being compiled, where it was not found on disk.

The logger ``tinybilevel`` gets it, as a warning: that is what Python shows where nobody has set up
logging. To import this module is enough; it also sees to it that no old code is found there.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from threading import Timer
from typing import Any

from numba import types
from numba.core import event

from tinybilevel.kernels.stale import forget

__all__ = ["LEAN", "PATIENCE"]

#: Options of `numba.njit` for functions that make no array. Those that they are given or take views
#: of are not counted in and out then, which takes longer than a step on small data.
LEAN = {"nogil": True, "cache": True, "_nrt": False}

#: Seconds of compiling after which it is said; most functions take less.
PATIENCE = 1.0

_log = logging.getLogger("tinybilevel")


class _Listener(event.Listener):
    """Numba tells of what it compiles, not of what it reads from disk, and never of two at once."""

    def __init__(self) -> None:
        self._depth, self._said = 0, set[str]()
        self._timer: Timer | None = None

    def on_start(self, event: Any) -> None:
        self._depth += 1
        if self._depth > 1:  # what one function calls is compiled on the way
            return
        text = _text(event.data["dispatcher"], event.data["args"])
        if text is not None and text not in self._said:
            self._timer = Timer(PATIENCE, self._say, [text])
            self._timer.daemon = True
            self._timer.start()

    def on_end(self, event: Any) -> None:
        self._depth -= 1
        if self._depth == 0 and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _say(self, text: str) -> None:
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
event.register("numba:compile", _Listener())
