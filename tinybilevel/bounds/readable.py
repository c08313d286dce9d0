"""Results that print in a few lines, however long the arrays in them are."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np

__all__ = ["Readable"]


class Readable:
    """A dataclass, made with ``repr=False``, that shows of a long array its size and range."""

    def __repr__(self) -> str:
        parts = ", ".join(f"{f.name}={_short(getattr(self, f.name))}" for f in fields(self))  # type: ignore[arg-type]
        return f"{type(self).__name__}({parts})"


def _short(x: Any) -> str:
    if isinstance(x, np.ndarray):
        if x.size <= 6 and x.ndim <= 1:
            return np.array2string(x, precision=4, separator=", ")
        shape = " × ".join(map(str, x.shape))
        return f"<{shape}: {np.nanmin(x):.3g} … {np.nanmax(x):.3g}>"
    if isinstance(x, float):
        return f"{x:.6g}"
    if isinstance(x, tuple) and x and hasattr(x[0], "holds"):
        return f"<{sum(bool(a.holds) for a in x)} of {len(x)} hold>"
    return repr(x)
