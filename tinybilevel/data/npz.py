"""Arrays out of an ``.npz`` file, without pickle."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinybilevel.data.idx import DataError, check_sha256

__all__ = ["read_npz"]


def read_npz(path: str | os.PathLike[str], *, sha256: str | None = None) -> dict[str, NDArray[Any]]:
    """Read all arrays of an ``.npz`` file.

    Parameters
    ----------
    path : path-like
        The file.
    sha256 : str, optional
        Checksum, in hexadecimal, that the file must have.

    Returns
    -------
    dict of str to ndarray

    Raises
    ------
    DataError
        If the file is missing or damaged, has another checksum, or holds what only pickle reads.
    """
    path = Path(path)
    try:
        with path.open("rb") as raw:
            if sha256 is not None:
                check_sha256(path, raw, sha256)
            with np.load(raw, allow_pickle=False) as file:
                return {name: file[name] for name in file.files}
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # zipfile and NumPy name damage in a dozen ways
        raise DataError(f"{path}: not an .npz file of plain arrays: {error}") from error
