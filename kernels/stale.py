"""Machine code on disk that is older than its source.

Numba finds what it has compiled from a function by the date of that function's file. What the
function calls was compiled into it, and may lie in another file here that has changed since: the
old code would run, on arrays that are laid out anew.
"""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

__all__ = ["forget"]

_NAME = "sources.txt"


def forget(folder: Path) -> bool:
    """Delete what Numba keeps in ``__pycache__`` if a file of `folder` has changed since.

    Returns
    -------
    bool
        Whether one had, or this folder is new.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from tinybilevel.kernels.stale import forget
    >>> with TemporaryDirectory() as folder:
    ...     print(forget(Path(folder)), forget(Path(folder)))
    True False
    """
    cache = folder / "__pycache__"
    try:
        seen, now = _read(cache / _NAME), _stamp(folder)
        if seen == now:
            return False
        cache.mkdir(exist_ok=True)
        for pattern in ("*.nbi", "*.nbc"):
            for file in cache.glob(pattern):
                file.unlink(missing_ok=True)
        (cache / _NAME).write_text(now)
    except OSError:  # not ours to write to: Numba keeps its code elsewhere then
        return False
    return True


def _stamp(folder: Path) -> str:
    states = ((f.name, f.stat().st_mtime_ns, f.stat().st_size) for f in folder.glob("*.py"))
    return hashlib.sha256(repr(sorted(states)).encode()).hexdigest()


def _read(file: Path) -> str:
    with contextlib.suppress(FileNotFoundError):
        return file.read_text()
    return ""
