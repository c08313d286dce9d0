"""λ_1, λ_2, … of a run, kept in memory and appended to a file of their own."""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array, to_numpy

__all__ = ["Trail"]


class Trail:
    """Every k-th λ of a run, from λ_1 on.

    A checkpoint is replaced as a whole every few updates; a history of many long λ in it would be
    written again each time. It lies beside it instead, in a file that only grows: raw numbers, of
    which the checkpoint holds the checksum.

    Parameters
    ----------
    lam : ndarray (N,)
        Any λ, for its size and dtype.
    stride : int
        k; 0 keeps none.
    """

    def __init__(self, lam: Array, stride: int) -> None:
        self.stride, self._size, self._dtype = stride, lam.size, lam.dtype
        self._kept: list[Array] = []
        self._saved, self._checksum = 0, 0

    def count(self, iterations: int) -> int:
        """Return how many of the first λ's are kept."""
        return -(-iterations // self.stride) if self.stride else 0

    def put(self, tau: int, lam: Array) -> None:
        """Take λ_τ; after an update that did not come to its end, again."""
        if self.stride and (tau - 1) % self.stride == 0:
            self._kept[self.count(tau - 1) :] = [np.array(to_numpy(lam))]

    def rows(self, iterations: int) -> Array:
        """Return what is kept of the first λ's, (rows, N)."""
        rows = self._kept[: self.count(iterations)]
        return np.array(rows, dtype=self._dtype).reshape(len(rows), self._size)

    def save(self, path: Path, iterations: int) -> int:
        """Append what the file does not have; return the checksum of all of it."""
        count = self.count(iterations)
        if count > self._saved:
            new = np.stack(self._kept[self._saved : count]).tobytes()
            with _beside(path).open("r+b" if self._saved else "wb") as file:
                file.seek(self._saved * self._size * self._dtype.itemsize)
                file.write(new)
                file.truncate()
                file.flush()
                os.fsync(file.fileno())
            self._saved, self._checksum = count, zlib.crc32(new, self._checksum)
        return self._checksum

    def load(self, path: Path, iterations: int, checksum: int) -> None:
        """Read the λ's of a checkpoint back.

        Raises
        ------
        ValueError
            If the file is not there, or is not the checkpoint's.
        """
        count = self.count(iterations)
        if not count:
            return
        beside, size = _beside(path), count * self._size * self._dtype.itemsize
        raw = beside.read_bytes()[:size] if beside.exists() else b""
        if len(raw) != size or zlib.crc32(raw) != checksum:
            raise ValueError(f"{beside} does not hold the {count} lams that belong to {path}")
        rows: Any = np.frombuffer(raw, self._dtype).reshape(count, self._size)
        self._kept, self._saved, self._checksum = list(rows.copy()), count, checksum


def _beside(path: Path) -> Path:
    return path.with_name(path.name + ".lam")
