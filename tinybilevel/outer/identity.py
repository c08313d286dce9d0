"""What a value is, as text: how a checkpoint knows the run that it belongs to."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import types
from typing import Any

import numpy as np

from tinybilevel.arrays.backend import on_device, to_numpy

__all__ = ["identity"]


def identity(x: Any) -> str:
    """Return text that is equal for values that are built alike, in this process or another.

    A dataclass is its class and its fields, without those at their default and those declared with
    ``repr=False`` or ``compare=False``; another object its class and its public attributes; a
    function its code, its defaults and what it closes over; an array its entries. No address is
    part of it, and a NumPy number is the Python number that it equals.

    Examples
    --------
    >>> import numpy as np
    >>> import tinybilevel as tb
    >>> from tinybilevel.outer.identity import identity
    >>> identity(tb.Adam(np.float64(0.2)))
    'Adam(lr=0.2)'
    """
    return _identity(x, ())


def _identity(x: Any, inside: tuple[int, ...]) -> str:
    if isinstance(x, np.generic):
        x = x.item()
    if x is None or isinstance(x, bool | int | float | complex | str | bytes | slice):
        return repr(x)
    if id(x) in inside:
        return "…"
    within = functools.partial(_identity, inside=(*inside, id(x)))
    if isinstance(x, np.ndarray) or on_device(x):
        return _array(to_numpy(x))
    if isinstance(x, list | tuple):
        return f"[{', '.join(map(within, x))}]"
    if isinstance(x, set | frozenset):
        return f"{{{', '.join(sorted(map(within, x)))}}}"
    if isinstance(x, dict):
        return f"{{{', '.join(f'{within(k)}: {within(v)}' for k, v in x.items())}}}"
    if isinstance(x, functools.partial):
        return f"partial({within(x.func)}, {within(x.args)}, {within(x.keywords)})"
    if isinstance(x, types.MethodType):
        return f"{within(x.__self__)}.{x.__name__}"
    if isinstance(x, types.FunctionType):
        closed = [cell.cell_contents for cell in x.__closure__ or ()]
        parts = within([_code(x.__code__), x.__defaults__, x.__kwdefaults__, closed])
        return f"{_name(x)}<{_digest(parts.encode())}>"
    if isinstance(x, type) or not hasattr(x, "__dict__"):
        return _name(x if hasattr(x, "__qualname__") else type(x))
    given = ", ".join(f"{name}={text}" for name, text in _given(x, within))
    return f"{_name(type(x))}({given})"


def _given(x: Any, within: Any) -> list[tuple[str, str]]:
    """Return what tells an object from others of its class."""
    if not dataclasses.is_dataclass(x):
        public = {name: part for name, part in vars(x).items() if not name.startswith("_")}
        return [(name, within(part)) for name, part in public.items()]
    found = []
    for field in dataclasses.fields(x):
        text, default = within(getattr(x, field.name)), within(field.default)
        if field.default_factory is not dataclasses.MISSING:
            default = within(field.default_factory())
        if field.repr and field.compare and text != default:
            found.append((field.name, text))
    return found


def _code(code: types.CodeType) -> list[Any]:
    constants = [_code(c) if isinstance(c, types.CodeType) else c for c in code.co_consts]
    return [code.co_code, code.co_names, constants]


def _array(x: Any) -> str:
    if x.size <= 4:
        return f"{x.tolist()} ({x.dtype})"
    return f"array({x.shape}, {x.dtype}, {_digest(np.ascontiguousarray(x).tobytes())})"


def _name(x: Any) -> str:
    module = x.__module__
    own = module is None or module.split(".")[0] in ("tinybilevel", "builtins")
    return x.__qualname__ if own else f"{module}.{x.__qualname__}"


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:12]
