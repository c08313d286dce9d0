"""The idx reader: every type, every kind of damage, and no memory for a lie."""

import gzip
import hashlib
import math
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinybilevel.data import DataError, read_idx

CODES = {
    "uint8": 0x08,
    "int8": 0x09,
    "int16": 0x0B,
    "int32": 0x0C,
    "float32": 0x0D,
    "float64": 0x0E,
}


def header(shape, code=0x08):
    return bytes([0, 0, code, len(shape)]) + struct.pack(f">{len(shape)}I", *shape)


def encode(array):
    big_endian = array.astype(array.dtype.newbyteorder(">"))
    return header(array.shape, CODES[array.dtype.name]) + big_endian.tobytes()


def zipped(data):
    return gzip.compress(data, mtime=0)


def digest(data):
    return hashlib.sha256(data).hexdigest()


def label(value):
    """Name a test case by its message; bytes would fill the line."""
    return "file" if isinstance(value, bytes) else getattr(value, "__name__", value)


IMAGES = np.random.default_rng(0).integers(0, 256, size=(5, 4, 3), dtype=np.uint8)
PLAIN, ZIPPED = encode(IMAGES), zipped(encode(IMAGES))


@pytest.fixture
def write(tmp_path):
    def write(data):
        path = tmp_path / "file"
        path.write_bytes(data)
        return path

    return write


@pytest.mark.parametrize("pack", [bytes, zipped])
@pytest.mark.parametrize("shape", [(7,), (5, 4, 3), (0, 28, 28), (1,) * 64])
@pytest.mark.parametrize("dtype", CODES)
def test_reads_back_every_type(write, dtype, shape, pack):
    array = np.random.default_rng(1).uniform(2, 100, shape).astype(dtype)
    path = write(pack(encode(array)))
    found = read_idx(path, sha256=digest(path.read_bytes()), dtype=dtype, ndim=len(shape))
    np.testing.assert_array_equal(found, array, strict=True)
    assert found.dtype.isnative
    assert found.flags.writeable


def test_the_content_decides_and_not_the_name(tmp_path):
    (tmp_path / "plain.gz").write_bytes(PLAIN)
    (tmp_path / "zipped").write_bytes(ZIPPED)
    np.testing.assert_array_equal(read_idx(str(tmp_path / "plain.gz")), IMAGES)
    np.testing.assert_array_equal(read_idx(tmp_path / "zipped"), IMAGES)


@pytest.mark.parametrize("pack", [bytes, zipped])
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "starts with bytes none, expected 1f 8b of gzip or 00 00 of idx"),
        (b"\0\0\x08", "starts with bytes 00 00 08"),
        (b"PK\3\4" + PLAIN, "starts with bytes 50 4b 03 04"),
        (b"\0\1" + PLAIN[2:], "starts with bytes 00 01 08 03"),
        (b"\0\0\x0a" + PLAIN[3:], "type code is 0x0A, expected one of 0x08, 0x09, 0x0B"),
        (b"\0\0\x08\0" + PLAIN[4:], "has 0 dimensions, expected 1 to 64"),
        (header((1,) * 65) + b"x", "has 65 dimensions"),
        (PLAIN[:9], "header ends after 9 bytes, expected 16"),
        (header((0, 2**32 - 1, 2**32 - 1)), "promises shape .0, 4294967295"),
    ],
    ids=label,
)
def test_a_bad_header_is_named(write, data, message, pack):
    path = write(pack(data))
    with pytest.raises(DataError, match=message) as caught:
        read_idx(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (PLAIN[:-1], "59 bytes after the header, expected 60"),
        (PLAIN[:-20], r"promises shape \(5, 4, 3\) of uint8, expected at most 56 bytes"),
        (PLAIN + b"x", "more after the header, expected 60 for shape"),
        (zipped(PLAIN[:-1]), "59 bytes after the header, expected 60"),
        (zipped(PLAIN + b"x"), "more after the header, expected 60"),
        (ZIPPED + b"x", "damaged gzip data: Not a gzipped file"),
        (ZIPPED[:-9], "damaged gzip data: Compressed file ended"),
        (ZIPPED[:-8] + bytes(8), "damaged gzip data: CRC check failed"),
        (ZIPPED[:-1] + b"\1", "damaged gzip data: Incorrect length"),
        (ZIPPED[:10] + b"\xff" * 50, "damaged gzip data: Error -3"),
        (ZIPPED[:5], "damaged gzip data"),
    ],
    ids=label,
)
def test_damage_is_named(write, data, message):
    path = write(data)
    with pytest.raises(DataError, match=message) as caught:
        read_idx(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_and_a_directory_are_named(tmp_path):
    with pytest.raises(DataError, match="missing: cannot be read: No such file"):
        read_idx(tmp_path / "missing")
    with pytest.raises(DataError, match="cannot be read"):
        read_idx(tmp_path)


def test_the_checksum_is_that_of_the_file(write):
    path = write(ZIPPED)
    np.testing.assert_array_equal(read_idx(path, sha256=digest(ZIPPED).upper()), IMAGES)
    with pytest.raises(DataError, match=f"SHA-256 is {digest(ZIPPED)}, expected {digest(PLAIN)}"):
        read_idx(path, sha256=digest(PLAIN))


def test_the_checksum_comes_before_the_parsing(write):
    with pytest.raises(DataError, match="SHA-256"):
        read_idx(write(b"no idx file"), sha256=digest(ZIPPED))


def test_another_type_or_rank_than_expected(write):
    path = write(ZIPPED)
    with pytest.raises(DataError, match="holds uint8, expected float32"):
        read_idx(path, dtype=np.float32)
    with pytest.raises(DataError, match=r"shape is \(5, 4, 3\), expected 1 dimensions"):
        read_idx(path, ndim=1)


def peak_memory_of_failure(path):
    """Return the most bytes that a refused read had allocated at one time."""
    tracemalloc.start()
    try:
        with pytest.raises(DataError):
            read_idx(path)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("pack", [bytes, zipped])
@pytest.mark.parametrize("shape", [(2**31,), (2**32 - 1,) * 4, (2**32 - 1,) * 64])
def test_a_header_that_lies_allocates_nothing(write, shape, pack):
    assert peak_memory_of_failure(write(pack(header(shape, 0x0E) + bytes(100)))) < 2**20


def test_a_promise_within_reach_is_paid_for_only_as_bytes_come(write):
    noise = np.random.default_rng(2).bytes(2**16)
    path = write(zipped(header((2**25,)) + noise))
    assert path.stat().st_size * 1032 > 2**25
    assert peak_memory_of_failure(path) < 2**22


def test_a_bomb_is_not_unpacked(write):
    path = write(zipped(header((10,)) + bytes(2**25)))
    assert peak_memory_of_failure(path) < 2**20


def test_the_bound_on_compression_admits_the_most_compressible_file(write):
    path = write(zipped(header((2**22,)) + bytes(2**22)))
    assert path.stat().st_size * 1000 < 2**22 * 1.02
    assert not read_idx(path).any()


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz") / "file"


@st.composite
def damaged(draw, data):
    """Flip some bits, then cut the end off or add to it; never the identity."""
    flips = draw(st.lists(st.integers(0, 8 * len(data) - 1), max_size=3, unique=True))
    changed = bytearray(data)
    for bit in flips:
        changed[bit // 8] ^= 1 << bit % 8
    if not flips or draw(st.booleans()):
        if draw(st.booleans()):
            return bytes(changed[: draw(st.integers(0, len(data) - 1))])
        return bytes(changed) + draw(st.binary(min_size=1, max_size=20))
    return bytes(changed)


@given(data=damaged(ZIPPED) | damaged(PLAIN))
def test_with_a_checksum_no_damage_passes(scratch, data):
    scratch.write_bytes(data)
    for original in (PLAIN, ZIPPED):
        with pytest.raises(DataError, match="SHA-256"):
            read_idx(scratch, sha256=digest(original))


@given(data=damaged(ZIPPED))
def test_without_a_checksum_gzip_guards_the_array(scratch, data):
    scratch.write_bytes(data)
    try:
        found = read_idx(scratch)
    except DataError:
        return
    # What is left are flips in the gzip header, the time stamp say, and padding with zeros.
    np.testing.assert_array_equal(found, IMAGES, strict=True)


@given(data=damaged(PLAIN) | st.binary(max_size=40).map(lambda tail: PLAIN[:3] + tail))
def test_without_a_checksum_the_array_is_what_the_header_says(scratch, data):
    scratch.write_bytes(data)
    try:
        found = read_idx(scratch)
    except DataError:
        return
    assert found.shape == struct.unpack_from(f">{data[3]}I", data, 4)
    assert CODES[found.dtype.name] == data[2]
    assert len(data) == 4 + 4 * data[3] + math.prod(found.shape) * found.itemsize


@given(
    data=st.tuples(st.sampled_from([0, *CODES.values()]), st.lists(st.integers(0, 3), max_size=4))
    .map(
        lambda drawn: (
            bytes([0, 0, drawn[0], len(drawn[1])]) + struct.pack(f">{len(drawn[1])}I", *drawn[1])
        )
    )
    .flatmap(lambda head: st.binary(max_size=60).map(lambda tail: zipped(head + tail))),
)
def test_any_payload_under_any_small_header(scratch, data):
    scratch.write_bytes(data)
    try:
        found = read_idx(scratch)
    except DataError:
        return
    assert found.nbytes == len(gzip.decompress(data)) - 4 - 4 * found.ndim
