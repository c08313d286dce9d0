import os

import numpy as np
import pytest
from data.test_archive import archive

from tinybilevel.data import DataError, cifar10, cifar10_features, cifar100, cifar100_features

needs_files = pytest.mark.skipif(
    "TINYBILEVEL_DATA" not in os.environ, reason="TINYBILEVEL_DATA is not set"
)
RNG = np.random.default_rng(0)
NAMES = b"airplane\nautomobile\nbird\n\n"


def records(n, label_bytes, classes=3):
    rows = RNG.integers(0, 256, (n, label_bytes + 3072), dtype=np.uint8)
    rows[:, label_bytes - 1] %= classes
    return rows


@pytest.fixture
def small(tmp_path):
    """Write small archives in the original layout; return their records."""
    (tmp_path / "cifar").mkdir()
    batches = {f"data_batch_{k}.bin": records(4, 1) for k in range(1, 6)} | {
        "test_batch.bin": records(3, 1)
    }
    folder = "cifar-10-batches-bin/"
    members = [(folder + name, rows.tobytes()) for name, rows in batches.items()]
    archive(
        tmp_path / "cifar" / "cifar-10-binary.tar.gz",
        *members,
        (folder + "batches.meta.txt", NAMES),
        (folder + "readme.html", b"<html>"),
    )
    parts = {"train": records(5, 2), "test": records(2, 2)}
    members = [(f"cifar-100-binary/{name}.bin", rows.tobytes()) for name, rows in parts.items()]
    names = ("cifar-100-binary/fine_label_names.txt", NAMES)
    archive(tmp_path / "cifar" / "cifar-100-binary.tar.gz", *members, names)
    return tmp_path, batches, parts


def test_the_binary_version_of_cifar10(small):
    folder, batches, _ = small
    data = cifar10(folder)
    train = np.concatenate([batches[f"data_batch_{k}.bin"] for k in range(1, 6)])
    np.testing.assert_array_equal(data.X_train, train[:, 1:])
    np.testing.assert_array_equal(data.y_train, train[:, 0])
    np.testing.assert_array_equal(data.X_test, batches["test_batch.bin"][:, 1:])
    assert data.class_names == ("airplane", "automobile", "bird")
    assert data.image_shape == (3, 32, 32)


def test_the_binary_version_of_cifar100_by_fine_label(small):
    folder, _, parts = small
    data = cifar100(folder)
    np.testing.assert_array_equal(data.X_train, parts["train"][:, 2:])
    np.testing.assert_array_equal(data.y_train, parts["train"][:, 1])
    np.testing.assert_array_equal(data.y_test, parts["test"][:, 1])


def test_records_cut_short_are_refused(tmp_path, small):
    path = tmp_path / "cifar" / "cifar-100-binary.tar.gz"
    folder = "cifar-100-binary/"
    archive(
        path,
        (folder + "train.bin", bytes(3074 + 5)),
        (folder + "test.bin", bytes(3074)),
        (folder + "fine_label_names.txt", NAMES),
    )
    with pytest.raises(DataError, match=r"train\.bin has 3079 bytes, expected records of 3074"):
        cifar100(tmp_path)


def test_a_label_without_a_name_is_refused(tmp_path, small):
    path, folder = tmp_path / "cifar" / "cifar-100-binary.tar.gz", "cifar-100-binary/"
    rows = records(2, 2)
    rows[0, 1] = 3
    members = [(folder + f"{name}.bin", rows.tobytes()) for name in ("train", "test")]
    archive(path, *members, (folder + "fine_label_names.txt", NAMES))
    with pytest.raises(DataError, match=r"y_train must lie in 0 … 2, got . … 3"):
        cifar100(tmp_path)
    archive(path, *members, (folder + "fine_label_names.txt", b"\xff\xfe"))
    with pytest.raises(DataError, match="is no list of names"):
        cifar100(tmp_path)


def test_where_the_files_belong_is_said(tmp_path):
    with pytest.raises(DataError, match=r"expected .*cifar/cifar10_5k\.npz; put cifar10_5k.npz"):
        cifar10(tmp_path, subset=True)
    (tmp_path / "cifar").mkdir()
    (tmp_path / "cifar" / "cifar10_5k.npz").write_bytes(b"another file")
    with pytest.raises(DataError, match=r"SHA-256 is .*, expected 59111a64"):
        cifar10(tmp_path, subset=True)


@needs_files
@pytest.mark.data
def test_the_subsets_and_their_features():
    for subset, features, V in (
        (cifar10, cifar10_features, 10),
        (cifar100, cifar100_features, 100),
    ):
        data, pool = subset(subset=True), features()
        assert data.X_train.shape == data.X_test.shape == (5000, 3072)
        assert pool.X.shape == (10_000, 1280)
        assert len(pool.class_names) == V
        np.testing.assert_array_equal(pool.y, np.concatenate([data.y_train, data.y_test]))
    assert pool.superclasses[pool.class_names.index("maple_tree")] == "trees"
    assert len(set(pool.superclasses)) == 20
