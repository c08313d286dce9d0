"""The idx format: a header of big-endian integers, then one array."""

from __future__ import annotations

import gzip
import hashlib
import io
import math
import os
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

__all__ = ["DataError", "check_sha256", "read_idx"]

_DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_GZIP_MAGIC = b"\x1f\x8b"
_MOST_DIMENSIONS = 64  # NumPy's own limit
_MOST_COMPRESSED = 1032  # deflate codes 258 bytes in 2 bits at best
_CHUNK = 2**20


class DataError(ValueError):
    """A data file is missing, damaged, or not what it should be.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> try:
    ...     tb.data.read_idx("/no/such/file")
    ... except tb.data.DataError as error:
    ...     print(error)
    /no/such/file: cannot be read: No such file or directory
    """


def read_idx(
    path: str | os.PathLike[str],
    *,
    sha256: str | None = None,
    dtype: DTypeLike | None = None,
    ndim: int | None = None,
) -> NDArray[Any]:
    """Read an idx file, compressed by gzip or not; its content decides, not its name.

    A damaged or hostile file costs no more memory than its header promises, and no header is
    believed that promises more than a file of that size can hold.

    Parameters
    ----------
    path : str or os.PathLike
        The file.
    sha256 : str, optional
        Checksum, in hexadecimal, that the file as it lies on the disk must have.
    dtype : dtype_like, optional
        Type that the array must have.
    ndim : int, optional
        Number of dimensions that the array must have.

    Returns
    -------
    ndarray (d_1, d_2, …)
        With the dimensions of the header; uint8, int8, int16, int32, float32 or float64, in the
        machine's byte order.

    Raises
    ------
    DataError
        If the file is missing, is no idx file, is cut short, too long or otherwise damaged, has
        another checksum, or holds an array of another type or number of dimensions.

    Notes
    -----
    The format is that of LeCun, Cortes and Burges, "The MNIST database of handwritten digits":
    two zero bytes, a code for the type, the number of dimensions, the dimensions as 32-bit
    integers, then the entries, the last index varying fastest.

    Examples
    --------
    >>> import struct, tempfile
    >>> from pathlib import Path
    >>> header = bytes([0, 0, 0x08, 2]) + struct.pack(">2I", 2, 3)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "small-idx2-ubyte")
    ...     _ = path.write_bytes(header + bytes([1, 2, 3, 4, 5, 6]))
    ...     read_idx(path)
    array([[1, 2, 3],
           [4, 5, 6]], dtype=uint8)
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            if sha256 is not None:
                check_sha256(path, file, sha256)
            return _parse(path, file, dtype, ndim)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: damaged gzip data: {error}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error


def check_sha256(path: Path, file: io.BufferedReader, expected: str) -> None:
    """Refuse an open file with another SHA-256, and go back to its start."""
    found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected.lower():
        raise DataError(
            f"{path}: SHA-256 is {found}, expected {expected}; the file is damaged or another one"
        )
    file.seek(0)


def _parse(
    path: Path, file: io.BufferedReader, dtype: DTypeLike | None, ndim: int | None
) -> NDArray[Any]:
    size = os.fstat(file.fileno()).st_size
    zipped = file.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
    file.seek(0)
    if not zipped:
        return _parse_stream(path, file, size, dtype, ndim)
    with gzip.GzipFile(fileobj=file) as stream:
        return _parse_stream(path, stream, size * _MOST_COMPRESSED, dtype, ndim)


def _parse_stream(
    path: Path,
    stream: io.BufferedIOBase,
    capacity: int,
    dtype: DTypeLike | None,
    ndim: int | None,
) -> NDArray[Any]:
    stored, shape = _read_header(path, stream)
    native = stored.newbyteorder("=")
    if dtype is not None and native != np.dtype(dtype):
        raise DataError(f"{path}: holds {native}, expected {np.dtype(dtype)}")
    if ndim is not None and len(shape) != ndim:
        raise DataError(f"{path}: shape is {shape}, expected {ndim} dimensions")
    promised = math.prod(shape) * stored.itemsize
    # A dimension of 0 promises no bytes, but NumPy counts the other ones all the same.
    counted = math.prod(max(n, 1) for n in shape) * stored.itemsize
    if promised > capacity or counted > sys.maxsize:
        raise DataError(
            f"{path}: the header promises shape {shape} of {native}, expected at most {capacity} "
            "bytes in a file of this size; it is cut short or damaged"
        )
    # The byte too many tells a file that is too long, and makes gzip check its own checksum.
    payload = _read(stream, promised + 1)
    if len(payload) != promised:
        came = f"{len(payload)} bytes" if len(payload) < promised else "more"
        raise DataError(
            f"{path}: {came} after the header, expected {promised} for shape {shape} of {native}"
        )
    array: NDArray[Any] = np.ndarray(shape, stored, buffer=payload)
    return array.astype(native, copy=False)


def _read_header(path: Path, stream: io.BufferedIOBase) -> tuple[np.dtype[Any], tuple[int, ...]]:
    magic = bytes(_read(stream, 4))
    if len(magic) < 4 or magic[:2] != b"\0\0":
        raise DataError(
            f"{path}: starts with bytes {magic.hex(' ') or 'none'}, "
            "expected 1f 8b of gzip or 00 00 of idx"
        )
    code, rank = magic[2:]
    if code not in _DTYPES:
        known = ", ".join(f"0x{known:02X}" for known in _DTYPES)
        raise DataError(f"{path}: type code is 0x{code:02X}, expected one of {known}")
    if not 1 <= rank <= _MOST_DIMENSIONS:
        raise DataError(f"{path}: has {rank} dimensions, expected 1 to {_MOST_DIMENSIONS}")
    dimensions = _read(stream, 4 * rank)
    if len(dimensions) < 4 * rank:
        raise DataError(
            f"{path}: header ends after {4 + len(dimensions)} bytes, expected {4 + 4 * rank}"
        )
    return np.dtype(_DTYPES[code]), struct.unpack(f">{rank}I", dimensions)


def _read(stream: io.BufferedIOBase, limit: int) -> bytearray:
    # Python allocates what read() asks for before a byte has come; chunks wait for the bytes.
    data = bytearray()
    while len(data) < limit and (chunk := stream.read(min(_CHUNK, limit - len(data)))):
        data += chunk
    return data
