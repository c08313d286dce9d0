"""What is taken out of an archive, and what a hostile one cannot do."""

import io
import tarfile

import pytest

from tinybilevel.data import DataError
from tinybilevel.data.archive import read_tar

EXPECTED = {"set/a.bin": 4, "set/names.txt": 10}


def archive(path, *members):
    """Write members: pairs of a name and bytes, or TarInfo objects without contents."""
    with tarfile.open(path, "w:gz") as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
                continue
            name, data = member
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


A, NAMES = ("set/a.bin", b"1234"), ("set/names.txt", b"one two")


def special(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def test_reads_what_is_expected_and_writes_nothing(tmp_path):
    path = archive(tmp_path / "x.tar.gz", ("../evil", b"x"), A, ("set/readme", b"hello"), NAMES)
    assert read_tar(path, EXPECTED) == {"set/a.bin": b"1234", "set/names.txt": b"one two"}
    assert [p.name for p in tmp_path.iterdir()] == ["x.tar.gz"]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([A], "lacks set/names.txt"),
        ([A, A, NAMES], "holds 'set/a.bin' twice"),
        ([("set/a.bin", b"12345"), NAMES], "'set/a.bin' has 5 bytes, expected at most 4"),
        ([special("set/a.bin", tarfile.SYMTYPE, "/etc/passwd")], "'set/a.bin' is no regular file"),
        ([special("set/a.bin", tarfile.LNKTYPE, "/etc/passwd")], "'set/a.bin' is no regular file"),
        ([special("set/a.bin", tarfile.DIRTYPE)], "'set/a.bin' is no regular file"),
        ([special("set/a.bin", tarfile.FIFOTYPE)], "'set/a.bin' is no regular file"),
        ([("bomb", bytes(2**21)), A, NAMES], "holds 'bomb', which is not expected"),
        ([*[(f"{i}", bytes(2**16)) for i in range(40)], A, NAMES], "which is not expected"),
    ],
)
def test_refused(tmp_path, members, message):
    with pytest.raises(DataError, match=message):
        read_tar(archive(tmp_path / "x.tar.gz", *members), EXPECTED)


def test_damage_is_named(tmp_path):
    path = archive(tmp_path / "x.tar.gz", A, NAMES)
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"no archive", b"", whole[:40] + b"?" + whole[41:]):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"x.tar.gz: (damaged archive|lacks)"):
            read_tar(path, EXPECTED)
    with pytest.raises(DataError, match="cannot be read: No such file"):
        read_tar(tmp_path / "none", EXPECTED)
