import numpy as np
import pytest

from tinybilevel.outer.checkpoint import load_arrays, save_arrays


def test_what_is_saved_comes_back(tmp_path):
    arrays = {"x": np.arange(3, dtype=np.float32), "n": 7, "text": "K = 5, λ"}
    save_arrays(tmp_path / "a.npz", arrays)
    back = load_arrays(tmp_path / "a.npz")
    assert set(back) == set(arrays)
    assert back["x"].dtype == np.float32
    assert str(back["text"]) == "K = 5, λ"


def test_an_interrupted_save_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    file = tmp_path / "a.npz"
    save_arrays(file, {"x": np.zeros(2)})

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    for name in ("os.replace", "numpy.savez", "os.fsync"):
        with monkeypatch.context() as patch:
            patch.setattr(name, interrupted)
            with pytest.raises(KeyboardInterrupt):
                save_arrays(file, {"x": np.ones(2)})
        np.testing.assert_array_equal(load_arrays(file)["x"], [0, 0])
        assert list(tmp_path.iterdir()) == [file]


def test_objects_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(TypeError, match=r"cannot save objects without pickle: \['x'\]"):
        save_arrays(tmp_path / "a.npz", {"x": np.array([{}])})
    assert list(tmp_path.iterdir()) == []


def test_pickles_are_not_loaded(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.array([{}]), allow_pickle=True)
    with pytest.raises(ValueError, match=r"a.npz is not a checkpoint"):
        load_arrays(tmp_path / "a.npz")


def test_nobody_is_advised_to_trust_a_file_that_is_no_archive(tmp_path):
    (tmp_path / "a.npz").write_text("no archive")
    with pytest.raises(ValueError, match=r"a.npz is not a checkpoint: no .npz file$"):
        load_arrays(tmp_path / "a.npz")


def test_a_missing_file_is_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_arrays(tmp_path / "none.npz")


def test_one_wrong_bit_is_never_read_as_something_else(tmp_path):
    file, rng = tmp_path / "a.npz", np.random.default_rng(0)
    arrays = {"x": rng.standard_normal(3), "n": np.array(7), "text": np.array("K = 5")}
    save_arrays(file, arrays)
    whole, refused = file.read_bytes(), 0
    for position in range(0, len(whole), 3):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << rng.integers(8)
        file.write_bytes(damaged)
        try:
            back = load_arrays(file)
        except ValueError:  # and nothing else
            refused += 1
            continue
        for name in set(back) & set(arrays):
            np.testing.assert_array_equal(back[name], arrays[name])
    assert refused > len(whole) / 6


def test_an_array_file_is_no_checkpoint(tmp_path):
    with (tmp_path / "a.npz").open("wb") as file:
        np.save(file, np.ones(3))
    with pytest.raises(ValueError, match=r"a.npz is not a checkpoint"):
        load_arrays(tmp_path / "a.npz")
