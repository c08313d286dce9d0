"""Saving an outer run to a file: atomic, without pickle."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array, to_numpy

__all__ = ["load_arrays", "save_arrays"]


def save_arrays(path: str | os.PathLike[str], arrays: dict[str, Any]) -> None:
    """Write named arrays to an ``.npz`` file; a reader finds the old file or the new one, whole.

    Parameters
    ----------
    path : path-like
        The file; its folder must exist.
    arrays : dict of str to array_like
        Numbers and strings; objects are refused, since only pickle could hold them.
    """
    path = Path(path)
    converted = {name: to_numpy(array) for name, array in arrays.items()}
    if bad := [name for name, array in converted.items() if array.dtype.hasobject]:
        raise TypeError(f"cannot save objects without pickle: {bad}")
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, allow_pickle=False, **converted)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def load_arrays(path: str | os.PathLike[str]) -> dict[str, Array]:
    """Read what `save_arrays` wrote.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the file is not a whole ``.npz`` file of plain arrays.
    """
    # NumPy leaves the file open when the archive in it is damaged; this does not.
    with Path(path).open("rb") as raw:
        try:
            with np.load(raw, allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
        except Exception as error:  # zipfile and NumPy name damage in a dozen ways
            # NumPy takes what is no archive for a pickle, and advises to trust it.
            why = "no .npz file" if "pickle" in str(error) else error
            raise ValueError(f"{path} is not a checkpoint: {why}") from error
