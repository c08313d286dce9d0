"""The arguments of `minimize`: each of its kind, or named."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from tinybilevel.methods.base import Method
from tinybilevel.outer.optimizers import Optimizer

__all__ = ["check_flags", "check_kinds", "check_single", "checkpoint_path", "stops"]


def check_kinds(
    lam0: Any, method: Any, optimizer: Any, callback: Any, warm_start: Any, gtol: Any
) -> None:
    """Refuse what is of another kind than its place, and say where it belongs."""
    if isinstance(lam0, Method | Optimizer):
        name = "method" if isinstance(lam0, Method) else "optimizer"
        raise TypeError(f"lam0 must be a vector, got {lam0!r}: pass it as {name}=")
    if not isinstance(method, Method):
        hint = ": pass it as optimizer=" if isinstance(method, Optimizer) else ""
        raise TypeError(f"method must be a Method such as KRMD(K=5), got {method!r}{hint}")
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"optimizer must be an Optimizer such as Adam(0.1), got {optimizer!r}")
    if callback is not None and not callable(callback):
        raise TypeError(f"callback must be a function of a Progress, got {callback!r}")
    if not (isinstance(warm_start, bool | np.bool_) or warm_start == "state"):
        raise ValueError(f'warm_start must be False, True or "state", got {warm_start!r}')
    if isinstance(gtol, bool) or not isinstance(gtol, int | float | np.floating | np.integer):
        raise TypeError(f"gtol must be a number, got {gtol!r}")
    if not gtol >= 0:
        raise ValueError(f"gtol must be at least 0, got {gtol}")


def check_single(lam0: Any) -> None:
    """Refuse a matrix, and say who takes it."""
    shape = getattr(lam0, "shape", None)
    if shape is None and isinstance(lam0, list | tuple) and lam0:
        shape = (len(lam0), *getattr(lam0[0], "shape", (0,) * isinstance(lam0[0], list | tuple)))
    if shape is not None and len(shape) == 2:
        raise ValueError(
            f"lam0 must be a vector, got {shape[0]} rows: minimize_many does a run from each"
        )


def stops(answer: Any) -> bool:
    """Return whether a callback's answer stops the run."""
    if not (answer is None or isinstance(answer, bool | np.bool_)):
        raise TypeError(
            f"callback must return True to stop, or False or None to go on, got {answer!r}"
        )
    return bool(answer)


def checkpoint_path(checkpoint: Any, resume: bool) -> Path | None:
    """Return the file to save a run to, if there is to be one; see `tinybilevel.minimize`."""
    if checkpoint is None:
        if resume:
            raise ValueError("resume needs the checkpoint to resume from")
        return None
    if not isinstance(checkpoint, str | os.PathLike):
        raise TypeError(f"checkpoint must be the path of a file, got {checkpoint!r}")
    path = Path(checkpoint)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path.parent} is no folder; the checkpoint needs one")
    if path.is_dir():
        raise IsADirectoryError(f"checkpoint must be the path of a file, {path} is a folder")
    if path.exists() and not resume:
        raise FileExistsError(f"{path} exists: pass resume=True to continue it, or remove it")
    return path


def check_flags(**flags: Any) -> None:
    """Refuse what is neither True nor False."""
    for name, flag in flags.items():
        if not isinstance(flag, bool | np.bool_):
            hint = ": a function is a callback" if callable(flag) else ""
            raise TypeError(f"{name} must be True or False, got {flag!r}{hint}")
