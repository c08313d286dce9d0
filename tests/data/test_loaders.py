"""Where the loaders look, what they refuse, and what a data set gives."""

import dataclasses
import gzip
import hashlib
import os
import socket
import struct
import subprocess
import sys
import xml.etree.ElementTree as ET

import numpy as np
import pooch
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinybilevel.data import DataError, Dataset, digits, fashion_mnist, loaders, mnist

REAL = os.environ.get("TINYBILEVEL_DATA")
needs_files = pytest.mark.skipif(not REAL, reason="TINYBILEVEL_DATA is not set")
TRAIN_IMAGES = "train-images-idx3-ubyte.gz"


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    """Keep the tests from the network, and from what lies on the user's disk."""

    def refuse(*args, **kwargs):
        raise socket.gaierror("no network in tests")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "cache" / project)
    monkeypatch.delenv("TINYBILEVEL_DATA", raising=False)


def idx(array):
    header = bytes([0, 0, 0x08, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return gzip.compress(header + array.astype(np.uint8).tobytes(), mtime=0)


RNG = np.random.default_rng(0)
ARRAYS = {
    TRAIN_IMAGES: RNG.integers(0, 256, (30, 4, 3)),
    "train-labels-idx1-ubyte.gz": RNG.integers(0, 10, 30),
    "t10k-images-idx3-ubyte.gz": RNG.integers(0, 256, (12, 4, 3)),
    "t10k-labels-idx1-ubyte.gz": RNG.integers(0, 10, 12),
}


@pytest.fixture
def small(monkeypatch):
    """Let the loaders expect small files; return a function that makes them so of given arrays."""

    def expect(arrays):
        files = {name: idx(array) for name, array in arrays.items()}
        sha256 = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
        for name in ("MNIST", "FASHION_MNIST"):
            source = dataclasses.replace(getattr(loaders, name), sha256=sha256)
            monkeypatch.setattr(loaders, name, source)
        return files

    return expect


@pytest.fixture
def files(small):
    return small(ARRAYS)


def put(files, folder):
    folder.mkdir(parents=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)


@pytest.fixture
def mirror(files, monkeypatch):
    """Serve the files in place of the network; return the list of addresses asked for."""
    asked = []

    def download(self, url, output_file, pooch, check_only=False):
        asked.append(url)
        with open(output_file, "wb") as out:
            out.write(files[url.rpartition("/")[2]])

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", download)
    return asked


def assert_small(data):
    np.testing.assert_array_equal(data.X_train, ARRAYS[TRAIN_IMAGES].reshape(30, 12))
    np.testing.assert_array_equal(data.X_test, ARRAYS["t10k-images-idx3-ubyte.gz"].reshape(12, 12))
    np.testing.assert_array_equal(data.y_train, ARRAYS["train-labels-idx1-ubyte.gz"])
    np.testing.assert_array_equal(data.y_test, ARRAYS["t10k-labels-idx1-ubyte.gz"])
    assert data.X_train.dtype == data.X_test.dtype == np.uint8
    assert data.y_train.dtype == data.y_test.dtype == np.int64
    assert data.image_shape == (4, 3)
    assert data.pixel_max == 255


@pytest.mark.parametrize(
    ("load", "folder", "name"),
    [(mnist, "mnist", "mnist"), (fashion_mnist, "fashion", "fashion_mnist")],
)
def test_reads_from_data_dir(files, tmp_path, load, folder, name):
    put(files, tmp_path / folder)
    for data_dir in (tmp_path, str(tmp_path)):
        data = load(data_dir)
        assert_small(data)
        assert data.name == name
        assert len(data.class_names) == 10


def test_data_dir_comes_first(files, tmp_path, monkeypatch):
    put(files, tmp_path / "here" / "mnist")
    monkeypatch.setenv("TINYBILEVEL_DATA", str(tmp_path / "nowhere"))
    assert_small(mnist(tmp_path / "here"))


def test_a_file_missing_from_data_dir_is_not_looked_for_elsewhere(files, tmp_path, monkeypatch):
    put(files, tmp_path / "elsewhere" / "mnist")
    monkeypatch.setenv("TINYBILEVEL_DATA", str(tmp_path / "elsewhere"))
    put(files, tmp_path / "here" / "mnist")
    missing = tmp_path / "here" / "mnist" / "t10k-labels-idx1-ubyte.gz"
    missing.unlink()
    with pytest.raises(DataError, match="data_dir lacks a file") as caught:
        mnist(tmp_path / "here")
    assert str(missing) in str(caught.value)


def test_then_the_environment_variable(files, tmp_path, monkeypatch, mirror):
    put(files, tmp_path / "mnist")
    monkeypatch.setenv("TINYBILEVEL_DATA", str(tmp_path))
    assert_small(mnist())
    assert mirror == []


def test_a_directory_that_is_not_there_is_an_error(tmp_path, monkeypatch, mirror):
    monkeypatch.setenv("TINYBILEVEL_DATA", str(tmp_path / "mistyped"))
    with pytest.raises(DataError, match=r"TINYBILEVEL_DATA is '.*mistyped', expected a directory"):
        mnist()
    assert mirror == []


@pytest.mark.parametrize("variable", [None, "", "set"])
def test_then_the_cache(files, tmp_path, monkeypatch, mirror, variable):
    put(files, tmp_path / "cache" / "tinybilevel" / "mnist")
    if variable is not None:
        monkeypatch.setenv("TINYBILEVEL_DATA", variable and str(tmp_path))
    assert_small(mnist())
    assert mirror == []


def test_then_the_download_which_the_cache_keeps(mirror):
    assert_small(mnist())
    assert sorted(mirror) == sorted(
        f"https://ossci-datasets.s3.amazonaws.com/mnist/{name}" for name in ARRAYS
    )
    assert_small(mnist())
    assert len(mirror) == 4


@pytest.mark.parametrize("place", ["data_dir", "variable"])
def test_a_local_file_that_was_tampered_with(files, tmp_path, monkeypatch, mirror, place):
    pixels = ARRAYS[TRAIN_IMAGES].copy()
    pixels[0, 0, 0] ^= 1
    put(files | {TRAIN_IMAGES: idx(pixels)}, tmp_path / "mnist")
    monkeypatch.setenv("TINYBILEVEL_DATA", str(tmp_path))
    with pytest.raises(DataError, match=f"{TRAIN_IMAGES}: SHA-256 is .*, expected "):
        mnist(tmp_path if place == "data_dir" else None)
    assert mirror == []


def test_a_damaged_file_in_the_cache_is_downloaded_again(files, tmp_path, mirror):
    put(files | {TRAIN_IMAGES: b"half a fi"}, tmp_path / "cache" / "tinybilevel" / "mnist")
    assert_small(mnist())
    assert len(mirror) == 1


def test_a_download_with_another_checksum_is_not_kept(files, tmp_path, mirror):
    files[TRAIN_IMAGES] = b"<html>not found</html>"
    with pytest.raises(DataError, match=r"the download failed: (?s:.*)hash"):
        mnist()
    assert list((tmp_path / "cache").rglob("*.gz")) == []


@pytest.mark.parametrize("damaged", [False, True])
def test_with_no_network_the_error_says_what_to_put_where(files, tmp_path, damaged):
    if damaged:
        put(dict.fromkeys(files, b"damaged"), tmp_path / "cache" / "tinybilevel" / "fashion")
    with pytest.raises(DataError, match="the download failed") as caught:
        fashion_mnist()
    message = str(caught.value)
    for part in (*files, "fashion-mnist.s3-website", "DIR/fashion/", "data_dir=DIR"):
        assert part in message
    assert "TINYBILEVEL_DATA to DIR (it is not set)" in message


def test_a_missing_pooch_is_named_and_needed_only_to_download(files, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(ImportError, match=r"pip install pillow pooch .*TINYBILEVEL_DATA"):
        mnist()
    put(files, tmp_path / "mnist")
    assert_small(mnist(tmp_path))


def test_a_missing_scikit_learn_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ImportError, match="scikit-learn: pip install pillow pooch scikit-learn"):
        digits()


def test_importing_is_light():
    code = "import sys, tinybilevel.data; print(*sys.modules)"
    command = [sys.executable, "-c", code]
    loaded = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    assert "numpy" in loaded
    assert not {"pooch", "requests", "scipy", "sklearn"} & set(loaded)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        (TRAIN_IMAGES, np.zeros((30, 12)), r"shape is \(30, 12\), expected 3 dimensions"),
        ("t10k-labels-idx1-ubyte.gz", np.zeros((12, 1)), r"expected 1 dimensions"),
        ("train-labels-idx1-ubyte.gz", np.zeros(29), r"X_train is .*\(30, 12\).* 29 labels"),
        ("t10k-images-idx3-ubyte.gz", np.zeros((12, 3, 3)), r"X_test is .*\(12, 9\).*\(4, 3\)"),
        (
            "t10k-labels-idx1-ubyte.gz",
            np.arange(12),
            "mnist: y_test must lie in 0 … 9, got 0 … 11",
        ),
    ],
)
def test_files_that_do_not_fit_together(small, tmp_path, name, array, message):
    put(small(ARRAYS | {name: array}), tmp_path / "mnist")
    with pytest.raises(DataError, match=message):
        mnist(tmp_path)


def dataset(n=40, pixel_max=255):
    rng = np.random.default_rng(n)
    X_train = rng.integers(0, pixel_max + 1, (n, 6), dtype=np.uint8)
    X_train[:, 0] = pixel_max
    return Dataset(
        name="made up",
        X_train=X_train,
        y_train=rng.integers(0, 3, n),
        X_test=np.full((5, 6), pixel_max, dtype=np.uint8),
        y_test=np.arange(5) % 3,
        image_shape=(2, 3),
        class_names=("a", "b", "c"),
        pixel_max=pixel_max,
    )


@pytest.mark.filterwarnings("ignore:none of the")
@given(n_train=st.integers(0, 20), n_val=st.integers(0, 20), seed=st.integers(0, 1000))
def test_split_draws_disjoint_rows(n_train, n_val, seed):
    data = dataset()
    split = data.split(n_train, n_val, seed=seed, dtype=np.float64)
    rows = np.concatenate([split.train_index, split.val_index])
    assert len(set(rows.tolist())) == len(rows) == n_train + n_val
    for part, index in (("train", split.train_index), ("val", split.val_index)):
        X, y = getattr(split, f"X_{part}"), getattr(split, f"y_{part}")
        np.testing.assert_array_equal(X, data.X_train[index] / 255, strict=True)
        np.testing.assert_array_equal(y, data.y_train[index], strict=True)
    np.testing.assert_array_equal(split.train_index, data.split(n_train, 0, seed=seed).train_index)


def test_split_is_random_and_repeatable():
    data = dataset()
    first, again, other = (data.split(20, 20, seed=seed).train_index for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert set(first.tolist()) != set(other.tolist()) != set(range(20))
    generator = np.random.default_rng(0)
    np.testing.assert_array_equal(first, data.split(20, 20, seed=generator).train_index)
    assert (first != data.split(20, 20, seed=generator).train_index).any()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("pixel_max", [16, 255])
def test_split_scales_to_one(dtype, pixel_max):
    split = dataset(pixel_max=pixel_max).split(dtype=dtype)
    for X in (split.X_train, split.X_val, split.X_test):
        assert X.dtype == dtype
        assert X.min() >= 0
        assert X.max() == 1
    assert split.X_train.shape == split.X_val.shape == (20, 6)
    assert split.X_test.shape == (5, 6)


def test_split_gives_5000_of_each_by_default():
    split = dataset(10_007).split()
    assert len(split.y_train) == len(split.y_val) == 5000


def test_split_gives_copies():
    data = dataset()
    split = data.split()
    for array in vars(split).values():
        array[:] = 0
    assert (data.X_test == 255).all()
    assert data.y_test.any()
    assert data.y_train.any()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (dict(n_train=30, n_val=11), ValueError, r"at most the 40 .* of made up, got 30 \+ 11"),
        (dict(n_train=41), ValueError, r"at most the 40 .*, got 41 \+ 20, n_val by default"),
        (dict(n_train=-1), ValueError, "n_train must be at least 0, got -1"),
        (dict(n_val=-5), ValueError, "n_val must be at least 0, got -5"),
        (dict(n_train=0.5), TypeError, "n_train must be an integer, got 0.5"),
        (dict(n_val="10"), TypeError, "n_val must be an integer, got '10'"),
        (dict(dtype=np.float16), TypeError, "dtype must be float32 or float64, got float16"),
        (dict(dtype=int), TypeError, "dtype must be float32 or float64, got int64"),
        (dict(seed=None), TypeError, "seed, if not a numpy.random.Generator"),
    ],
)
def test_split_refuses(change, error, message):
    with pytest.raises(error, match=message):
        dataset().split(**change)


def test_a_class_that_a_part_lacks_is_named():
    data = dataset()
    with pytest.warns(
        UserWarning, match=r"none of the 1 training examples is of class \d, \d: draw"
    ):
        data.split(1, 30)
    with pytest.warns(UserWarning, match=r"none of the 2 validation examples is of class"):
        data.split(30, 2)
    data.split(30, 0)  # none were asked for


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            dict(pixel_max=16),
            "made up: X_train goes up to 255, .* at most the pixel_max = 16",
        ),
        (dict(y_train=np.full(40, "a")), "made up: y_train must be whole numbers .* got <U1"),
        (dict(y_train=np.full(40, 0.5)), r"made up: y_train must be whole numbers .* got 0\.5"),
        (dict(y_test=np.arange(5) + 1), "made up: y_test must lie in 0 … 2, got 1 … 5"),
        (dict(class_names=("a", "b")), "made up: y_train must lie in 0 … 1, got 0 … 2"),
    ],
)
def test_a_data_set_that_does_not_fit_together(change, message):
    with pytest.raises(DataError, match=message):
        dataclasses.replace(dataset(), **change)


def test_class_numbers_may_be_floats_or_a_list():
    data = dataclasses.replace(dataset(), y_train=dataset().y_train.astype(float), y_test=[0] * 5)
    assert data.y_train.dtype == data.y_test.dtype == np.int64
    np.testing.assert_array_equal(data.y_train, dataset().y_train)


def test_sets_print_as_a_line_and_show_as_a_table():
    data = dataset()
    assert repr(data) == (
        "Dataset('made up', train (40, 6) uint8 of 3 classes, test (5, 6) uint8 of 3 classes)"
    )
    split = data.split(20, 10)
    assert repr(split) == (
        "Split(train (20, 6) float32 of 3 classes, val (10, 6) float32 of 3 classes, "
        "test (5, 6) float32 of 3 classes)"
    )
    assert str(split) == repr(split)
    table = ET.fromstring(dataclasses.replace(data, name="a < b")._repr_html_())
    assert table.find("caption").text == "Dataset 'a < b'"
    assert [[cell.text for cell in row] for row in table.iter("tr")][1:] == [
        ["train", "40", "6", "uint8", "3"],
        ["test", "5", "6", "uint8", "3"],
    ]
    assert split._repr_html_().count("<tr>") == 4


def test_the_folder_itself_in_place_of_the_one_above_is_noticed(files, tmp_path, monkeypatch):
    put(files, tmp_path / "mnist")
    with pytest.raises(DataError, match="lacks a file") as caught:
        mnist(tmp_path / "mnist")
    assert f"({tmp_path / 'mnist'} has it: give {tmp_path})" in str(caught.value)


def test_a_tilde_is_the_home_folder(files, tmp_path, monkeypatch):
    put(files, tmp_path / "data" / "mnist")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert_small(mnist("~/data"))
    monkeypatch.setenv("TINYBILEVEL_DATA", "~/data")
    assert_small(mnist())


def test_digits_keep_every_image_once():
    from sklearn.datasets import load_digits

    data = digits()
    assert data.X_train.shape == (1200, 64)
    assert data.X_test.shape == (597, 64)
    assert data.image_shape == (8, 8)
    found = np.c_[np.r_[data.X_train, data.X_test], np.r_[data.y_train, data.y_test]]
    expected = np.c_[load_digits(return_X_y=True)]
    assert sorted(map(tuple, found.tolist())) == sorted(map(tuple, expected.astype(int).tolist()))
    np.testing.assert_array_equal(data.X_test, digits().X_test)
    # Drawn at random: neither end of the file, and for good, so that results can be compared.
    assert np.bincount(data.y_test).tolist() == [61, 62, 68, 53, 65, 63, 62, 49, 54, 60]
    assert data.y_train[:10].tolist() == [6, 6, 6, 2, 5, 6, 6, 2, 2, 1]


def test_digits_split():
    split = digits().split()
    assert split.X_train.shape == split.X_val.shape == (600, 64)
    assert split.X_train.max() == split.X_val.max() == split.X_test.max() == 1


@pytest.mark.data
@needs_files
@pytest.mark.parametrize("load", [mnist, fashion_mnist])
def test_the_real_files(load, monkeypatch):
    monkeypatch.setenv("TINYBILEVEL_DATA", REAL)
    data = load()
    assert data.X_train.shape == (60000, 784)
    assert data.X_test.shape == (10000, 784)
    assert data.image_shape == (28, 28)
    if load is fashion_mnist:
        train, test = [6000] * 10, [1000] * 10
        assert data.class_names[0] == "T-shirt/top"
        assert data.class_names[9] == "Ankle boot"
    else:
        train = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
        test = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert np.bincount(data.y_train).tolist() == train
    assert np.bincount(data.y_test).tolist() == test
    assert (data.X_train.max(), data.X_test.max()) == (255, 255)
    assert data.X_train.sum(axis=1).min() > 0


@pytest.mark.data
@needs_files
def test_real_images_and_labels_belong_together():
    data = mnist(REAL)
    split = data.split(5000, 5000, seed=0)
    means = np.stack([split.X_train[split.y_train == c].mean(axis=0) for c in range(10)])
    # The nearest class mean, ‖x − m‖² without the term that all classes share.
    nearest = ((means**2).sum(axis=1) - 2 * split.X_test @ means.T).argmin(axis=1)
    assert (nearest == split.y_test).mean() > 0.78


@pytest.mark.data
@needs_files
def test_one_flipped_bit_of_a_real_file_is_seen(tmp_path):
    name = "t10k-labels-idx1-ubyte.gz"
    with open(os.path.join(REAL, "mnist", name), "rb") as file:
        changed = bytearray(file.read())
    changed[4] ^= 1  # the time stamp: gzip itself would not notice
    for other in ARRAYS:
        if other != name:
            (tmp_path / "mnist").mkdir(exist_ok=True)
            (tmp_path / "mnist" / other).symlink_to(os.path.join(REAL, "mnist", other))
    (tmp_path / "mnist" / name).write_bytes(changed)
    with pytest.raises(DataError, match=f"{name}: SHA-256"):
        mnist(tmp_path)
