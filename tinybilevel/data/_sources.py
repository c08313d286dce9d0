"""Where the files of a data set lie, and what they must hash to."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tinybilevel.data.idx import DataError
from tinybilevel.errors import missing_extra

__all__ = ["FASHION_MNIST", "MNIST", "Source", "cache_folder", "locate"]

_VARIABLE = "TINYBILEVEL_DATA"
_FILES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)


@dataclass(frozen=True)
class Source:
    """A data set's files: their folder in a data directory, their mirror, their checksums.

    An empty `url` says that they are not downloaded. A checksum is a SHA-256, or begins with the
    name of another, such as ``md5:``.
    """

    name: str
    folder: str
    url: str
    class_names: tuple[str, ...]
    sha256: Mapping[str, str]


def _digests(*digests: str) -> dict[str, str]:
    return dict(zip(_FILES, digests, strict=True))


MNIST = Source(
    name="mnist",
    folder="mnist",
    url="https://ossci-datasets.s3.amazonaws.com/mnist/",
    class_names=tuple("0123456789"),
    sha256=_digests(
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    ),
)

FASHION_MNIST = Source(
    name="fashion_mnist",
    folder="fashion",
    # The authors' server speaks no https; the checksums vouch for what it sends.
    url="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    class_names=(
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
    sha256=_digests(
        "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    ),
)


def locate(source: Source, file: str, data_dir: str | os.PathLike[str] | None) -> Path:
    """Return the path of a file, after downloading it if there is no copy.

    Parameters
    ----------
    source : Source
        The data set.
    file : str
        One of its files.
    data_dir : str, os.PathLike or None
        The only directory to look in, if given.

    Raises
    ------
    DataError
        If `data_dir` lacks the file, ``TINYBILEVEL_DATA`` names no directory, or the download
        fails.
    ImportError
        If there is no copy at hand and pooch is not installed.
    """
    if data_dir is not None:
        root = Path(data_dir).expanduser()
        path = root / source.folder / file
        if not path.is_file():
            # The folder itself, given in place of the one that holds it, is an easy slip.
            near = f" ({root} has it: give {root.parent})" if (root / file).is_file() else ""
            raise DataError(f"data_dir lacks a file: expected {path}{near}; {_remedy(source)}")
        return path
    if variable := os.environ.get(_VARIABLE):
        root = Path(variable).expanduser()
        # A mistyped path must not turn into a download; a directory may hold one set of the two.
        if not root.is_dir():
            raise DataError(f"{_VARIABLE} is {variable!r}, expected a directory that exists")
        path = root / source.folder / file
        if path.is_file():
            return path
    return _fetch(source, file)


def _fetch(source: Source, file: str) -> Path:
    if not source.url:
        raise DataError(f"{file} is not downloaded: {_remedy(source)}")
    try:
        import pooch
    except ImportError as error:
        hint = missing_extra(f"downloading {source.name} needs pooch", "data", error)
        raise ImportError(f"{hint}; or else {_remedy(source)}") from error
    url, folder = source.url + file, cache_folder(source)
    try:
        return Path(pooch.retrieve(url, source.sha256[file], fname=file, path=folder))
    except (OSError, ValueError) as error:
        raise DataError(
            f"{folder / file}: no good copy, and the download failed: {error}\n"
            f"Without a network, {_remedy(source)}"
        ) from error


def cache_folder(source: Source) -> Path:
    """Return where what is made of a data set may be kept, by user."""
    try:
        import pooch
    except ImportError as error:
        raise missing_extra(f"keeping {source.name} needs pooch", "data", error) from error
    return Path(pooch.os_cache("tinybilevel"), source.folder)


def _remedy(source: Source) -> str:
    origin = f" (from {source.url})" if source.url else ""
    return (
        f"put {', '.join(source.sha256)}{origin} into a folder DIR/{source.folder}/ "
        f"and pass data_dir=DIR or set the environment variable {_VARIABLE} to DIR "
        f"(it is {os.environ.get(_VARIABLE) or 'not set'})"
    )
