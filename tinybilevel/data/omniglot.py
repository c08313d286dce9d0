"""Omniglot: 1623 handwritten characters of 50 alphabets, each by twenty people."""

from __future__ import annotations

import hashlib
import io
import os
import re
import tempfile
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinybilevel.data._sources import Source, cache_folder, locate
from tinybilevel.data.few_shot import Characters
from tinybilevel.data.idx import DataError
from tinybilevel.data.npz import read_npz
from tinybilevel.errors import missing_extra

__all__ = ["omniglot"]

#: The parts of the original distribution, and how many characters each has.
_PARTS = {"background": 964, "evaluation": 659}
_COPY = "omniglot_28.npz"
_READY = Source(
    name="omniglot",
    folder="omniglot",
    url="",
    class_names=(),
    sha256={_COPY: "5ddbf700df2116258d310a2b3fd1016277f1ce881880d929e164049fbb292315"},
)
_ARCHIVES = Source(
    name="omniglot",
    folder="omniglot",
    url="https://github.com/brendenlake/omniglot/raw/master/python/",
    class_names=(),
    sha256={
        "images_background.zip": "md5:68d2efa1b9178cc56df9314c21c6e718",
        "images_evaluation.zip": "md5:6b91aef0f799c5bb55b94e3f2daec811",
    },
)
_DRAWERS = 20
_SIDE = 105  # of an original image
_MOST_BYTES = 10_000  # of one PNG of 105 × 105 pixels of 1 bit; the largest have 300
_MEMBER = re.compile(
    r"images_(background|evaluation)/([^/]+)/(character\d\d)/\d{4}_(\d\d)\.png", re.ASCII
)


def omniglot(data_dir: str | os.PathLike[str] | None = None) -> Characters:
    """Load Omniglot, resized to 28 × 28; ink is high.

    Parameters
    ----------
    data_dir : str or os.PathLike, optional
        Directory that holds ``omniglot/omniglot_28.npz``, or ``omniglot/images_background.zip`` and
        ``omniglot/images_evaluation.zip`` of the original distribution. By default the directory
        that the environment variable ``TINYBILEVEL_DATA`` names, then the download cache, then a
        download of the archives. What is decoded from archives is kept in the cache, if that can be
        written to.

    Returns
    -------
    Characters
        964 characters of the background set, then 659 of the evaluation set, 20 images each. The
        1-bit images of 105 × 105 are resized by Lanczos' filter, neither cropped nor thresholded.

    Raises
    ------
    DataError
        If the files are missing, cannot be downloaded, have another checksum, or are damaged.
    ImportError
        If an archive is to be decoded and Pillow is not installed, or downloaded without pooch.

    Warns
    -----
    UserWarning
        If what was decoded cannot be kept.

    References
    ----------
    Lake, Salakhutdinov and Tenenbaum 2015, "Human-level concept learning through probabilistic
    program induction", Science 350:1332.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> tb.data.omniglot("/no/such/place")  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    DataError: data_dir lacks a file: expected /no/such/place/omniglot/images_background.zip
    """
    try:
        return _characters(read_npz(locate(_READY, _COPY, data_dir), sha256=_READY.sha256[_COPY]))
    except DataError as error:
        if "SHA-256" in str(error):
            raise
    paths = [locate(_ARCHIVES, f"images_{part}.zip", data_dir) for part in _PARTS]
    try:
        decoded = cache_folder(_ARCHIVES) / _decoded_name(paths)
        return _characters(read_npz(decoded))
    except (ImportError, DataError, KeyError):
        pass  # none is kept, or it is damaged
    arrays: dict[str, Any] = {}
    for (part, count), path in zip(_PARTS.items(), paths, strict=True):
        names, images = decode(path, part)
        if len(names) != count:
            raise DataError(f"{path}: holds {len(names)} characters, the original has {count}")
        arrays[f"images_{part}"] = images
        arrays[f"alphabet_{part}"], arrays[f"character_{part}"] = np.array(names).T
    try:
        _save(cache_folder(_ARCHIVES) / _decoded_name(paths), arrays)
    except (ImportError, OSError) as error:
        warnings.warn(f"what was decoded of Omniglot is not kept: {error}", stacklevel=2)
    return _characters(arrays)


def decode(
    path: str | os.PathLike[str], part: str
) -> tuple[list[tuple[str, str]], NDArray[np.uint8]]:
    """Read an archive of the original distribution, in memory; nothing is extracted.

    Parameters
    ----------
    path : path-like
        A zip file with ``images_PART/ALPHABET/characterNN/NNNN_DD.png``, 1-bit images of 105 × 105.
    part : {"background", "evaluation"}
        Which one: a character in both would be trained on and tested on.

    Returns
    -------
    names : list of (str, str)
        Alphabet and character, sorted.
    images : ndarray (characters, 20, 28, 28) of uint8
        By drawer 01 … 20.

    Raises
    ------
    DataError
        If the archive is damaged, an image is not what it should be, or one is missing or there
        twice.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise missing_extra("decoding Omniglot needs Pillow", "data", error) from error
    path, found = Path(path), dict[tuple[str, str], dict[int, NDArray[np.uint8]]]()
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                match = _MEMBER.fullmatch(info.filename)
                if match is None:
                    continue  # folders, and what a system has left in them
                if info.file_size > _MOST_BYTES:
                    raise DataError(f"{path}: {info.filename!r} has {info.file_size} bytes")
                whose, alphabet, character, drawer = match.groups()
                if whose != part:
                    raise DataError(f"{path}: holds {info.filename!r}, expected images_{part}/")
                drawn = found.setdefault((alphabet, character), {})
                if int(drawer) in drawn:
                    raise DataError(f"{path}: holds {info.filename!r} twice")
                with archive.open(info) as member:
                    data = member.read(_MOST_BYTES + 1)
                drawn[int(drawer)] = _resize(Image, path, info.filename, data)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{path}: damaged archive: {error}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from error
    names = sorted(found)
    if not names:
        raise DataError(f"{path}: holds no image images_{part}/ALPHABET/characterNN/NNNN_DD.png")
    for name in names:
        if sorted(found[name]) != list(range(1, _DRAWERS + 1)):
            raise DataError(
                f"{path}: {'/'.join(name)} has drawers {sorted(found[name])}, not 1 … 20"
            )
    stacked = [[found[name][k] for k in range(1, _DRAWERS + 1)] for name in names]
    return names, np.array(stacked, np.uint8)


def _resize(Image: Any, path: Path, name: str, data: bytes) -> NDArray[np.uint8]:
    try:
        image = Image.open(io.BytesIO(data), formats=["PNG"])
        # Before a pixel is decoded: a few bytes can stand for very many.
        if image.size != (_SIDE, _SIDE) or image.mode != "1":
            raise DataError(
                f"{path}: {name!r} is {image.size} of mode {image.mode!r}, expected (105, 105) of "
                "mode '1'"
            )
        grey = image.convert("L").resize((28, 28), resample=Image.Resampling.LANCZOS)
    except DataError:
        raise
    except Exception as error:  # Pillow names damage in a dozen ways
        raise DataError(f"{path}: {name!r} is no PNG image: {error}") from error
    return 255 - np.asarray(grey)


def _characters(arrays: dict[str, Any]) -> Characters:
    def joined(name: str) -> NDArray[Any]:
        return np.concatenate([arrays[f"{name}_{part}"] for part in _PARTS])

    alphabets, names = joined("alphabet"), joined("character")
    return Characters(
        "omniglot", joined("images"), tuple(map(str, alphabets)), tuple(map(str, names))
    )


def _decoded_name(paths: list[Path]) -> str:
    """Name what was decoded after what it was decoded from."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return f"decoded-{digest.hexdigest()[:16]}.npz"


def _save(path: Path, arrays: dict[str, Any]) -> None:
    """Write all of the file or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        whole = Path(folder, path.name)
        np.savez_compressed(whole, **arrays)
        os.replace(whole, path)
