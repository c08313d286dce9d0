"""Named files out of a tar archive, read into memory and never extracted."""

from __future__ import annotations

import os
import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path

from tinybilevel.data.idx import DataError

__all__ = ["read_tar"]

#: What the headers and unexpected small files of an archive may add to what is looked for.
_SLACK = 2**20


def read_tar(path: str | os.PathLike[str], expected: Mapping[str, int]) -> dict[str, bytes]:
    """Return the contents of the members that are expected, by name.

    Nothing is written to the disk, no link is followed, and no more than what is expected is
    decompressed: an archive cannot place files, nor fill memory.

    Parameters
    ----------
    path : path-like
        A ``.tar.gz`` file.
    expected : mapping of str to int
        Names of members, and the most bytes that each may have.

    Returns
    -------
    dict of str to bytes

    Raises
    ------
    DataError
        If the archive is missing or damaged, lacks a member, holds one twice, or holds one that is
        no regular file or larger than expected.
    """
    path, found = Path(path), dict[str, bytes]()
    most = sum(expected.values()) + _SLACK
    try:
        with tarfile.open(path, "r:gz") as tar:
            for member in tar:
                if member.offset_data + member.size > most and member.name not in expected:
                    raise DataError(f"{path}: holds {member.name!r}, which is not expected")
                if member.name not in expected:
                    continue
                if member.name in found:
                    raise DataError(f"{path}: holds {member.name!r} twice")
                stream = tar.extractfile(member) if member.isreg() else None
                if stream is None:
                    raise DataError(f"{path}: {member.name!r} is no regular file")
                if member.size > expected[member.name]:
                    raise DataError(
                        f"{path}: {member.name!r} has {member.size} bytes, expected at most "
                        f"{expected[member.name]}"
                    )
                found[member.name] = stream.read()
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: damaged archive: {error}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    if missing := sorted(set(expected) - set(found)):
        raise DataError(f"{path}: lacks {', '.join(missing)}")
    return found
