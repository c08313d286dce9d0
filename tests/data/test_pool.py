import numpy as np
import pytest

import tinybilevel as tb
from tinybilevel.data import DataError, Pool, load_pool

RNG = np.random.default_rng(0)


@pytest.fixture
def pool():
    y = np.repeat([0, 1, 2], [10, 6, 8])
    return Pool("shapes", RNG.standard_normal((24, 4)) * [1, 5, 0, 2] + 3, y, ("a", "b", "c"))


def test_normalized_rows_have_one_length_and_features_no_mean(pool):
    X = pool.normalized(20.0).X
    np.testing.assert_allclose(np.linalg.norm(X, axis=1), 20, rtol=1e-13)
    standard = (pool.X - pool.X.mean(axis=0)) / np.where(
        pool.X.std(axis=0) > 1e-9, pool.X.std(axis=0), 1
    )
    standard[:, 2] = 0  # a constant feature says nothing
    expected = 20 * standard / np.linalg.norm(standard, axis=1, keepdims=True)
    np.testing.assert_allclose(X, expected, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_dtype_stays(pool, dtype):
    other = Pool("x", pool.X.astype(dtype), pool.y, pool.class_names)
    assert other.normalized(1.0).X.dtype == dtype
    assert other.draw(3, 3, seed=0).X_train.dtype == dtype


@pytest.mark.parametrize("balanced", [False, True])
def test_a_draw_parts_the_pool(pool, balanced):
    split = pool.draw(6, 9, balanced=balanced, seed=3)
    again = pool.draw(6, 9, balanced=balanced, seed=3)
    np.testing.assert_array_equal(split.X_test, again.X_test)
    rows = np.concatenate([split.X_train, split.X_val, split.X_test])
    np.testing.assert_array_equal(np.sort(rows, axis=0), np.sort(pool.X, axis=0))
    np.testing.assert_array_equal(split.X_val, pool.X[split.val_index])
    np.testing.assert_array_equal(split.y_train, pool.y[split.train_index])
    if balanced:
        np.testing.assert_array_equal(np.bincount(split.y_train), [2, 2, 2])
        np.testing.assert_array_equal(np.bincount(split.y_val), [3, 3, 3])
    assert not np.array_equal(
        split.train_index, pool.draw(6, 9, balanced=balanced, seed=4).train_index
    )


def test_a_pool_of_images():
    digits = tb.data.digits()
    pool = Pool.of(digits)
    assert pool.X.shape == (1797, 64)
    assert pool.X.max() == 1
    np.testing.assert_array_equal(pool.y[:1200], digits.y_train)
    assert repr(pool) == "Pool('digits': 1797 examples, 64 features, 10 classes)"


def test_a_file_of_your_own(tmp_path, pool):
    path = tmp_path / "mine.npz"
    np.savez(path, X=pool.X, y=pool.y, class_names=pool.class_names, superclasses=["s", "s", "t"])
    mine = load_pool(path)
    np.testing.assert_array_equal(mine.X, pool.X)
    assert (mine.name, mine.class_names, mine.superclasses) == (
        "mine",
        ("a", "b", "c"),
        ("s", "s", "t"),
    )
    np.savez(path, X=pool.X, y=pool.y)
    assert load_pool(path).class_names == ("0", "1", "2")


def test_files_that_do_not_do(tmp_path, pool):
    path = tmp_path / "mine.npz"
    for arrays, message in (
        (dict(X=pool.X), r"lacks y; it holds \['X'\]"),
        (dict(X=pool.X, y=pool.y[:-1]), "one row for each of"),
        (dict(X=pool.X, y=pool.y.astype(str)), "y must hold integers, got <U"),
        (dict(X=pool.X.astype(object), y=pool.y), "not an .npz file of plain arrays"),
        (dict(X=pool.X, y=pool.y - 1), "y must hold class numbers 0 to 1"),
        (dict(X=pool.X, y=pool.y, superclasses=["s"]), "one for each of 3 classes, got 1"),
        (dict(X=np.full((2, 2), np.nan), y=[0, 1]), "X must be finite"),
    ):
        np.savez(path, **arrays)
        with pytest.raises(DataError, match=message):
            load_pool(path)
    path.write_bytes(b"no archive")
    with pytest.raises(DataError, match=r"not an \.npz file"):
        load_pool(path)
    with pytest.raises(DataError, match=r"cannot be read: No such file"):
        load_pool(tmp_path / "none.npz")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: p.draw(20, 5), "n_train \\+ n_val must be at most the 24 examples of shapes"),
        (
            lambda p: p.draw(4, 3, balanced=True),
            "n_train must be a multiple of the 3 classes, got 4",
        ),
        (lambda p: p.draw(12, 9, balanced=True), "shapes has fewer than 7 examples of b"),
        (lambda p: p.normalized(0.0), "norm must be greater than 0"),
    ],
)
def test_refused(pool, call, message):
    with pytest.raises(ValueError, match=message):
        call(pool)
