"""The original archives, decoded as the copy was; and what a hostile one cannot do."""

import io
import os
import socket
import sys
import zipfile
from importlib import import_module

import numpy as np
import pooch
import pytest

Image = pytest.importorskip("PIL.Image")

from tinybilevel.data import DataError, omniglot  # noqa: E402
from tinybilevel.data.omniglot import decode  # noqa: E402

module = import_module("tinybilevel.data.omniglot")
REAL = os.environ.get("TINYBILEVEL_DATA")
RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    def refuse(*args, **kwargs):
        raise socket.gaierror("no network in tests")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "cache" / project)
    monkeypatch.delenv("TINYBILEVEL_DATA", raising=False)
    # Archives that the tests make have few characters.
    monkeypatch.setattr(module, "_PARTS", {"background": 2, "evaluation": 1})


def png(bits, mode="1"):
    file = io.BytesIO()
    Image.fromarray(np.asarray(bits, np.uint8) * 255).convert(mode).save(file, format="PNG")
    return file.getvalue()


def drawing():
    bits = np.ones((105, 105), bool)
    row, column = RNG.integers(5, 80, 2)
    bits[row : row + 20, column : column + 4] = False  # ink is 0 in the originals
    return bits


def members(part, characters):
    """Return one PNG for each of twenty drawers of each character, by name."""
    found = {}
    for number, (alphabet, character) in enumerate(characters, 1):
        for drawer in range(1, 21):
            name = f"images_{part}/{alphabet}/{character}/{number:04}_{drawer:02}.png"
            found[name] = png(drawing())
    return found


def archive(path, files):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in files.items():
            file.writestr(name, data)
    return path


GREEK = [("Greek", "character02"), ("Greek", "character01")]


def test_images_are_resized_and_inverted_in_order(tmp_path):
    files = members("background", GREEK)
    path = archive(tmp_path / "x.zip", {"images_background/": b"", "__MACOSX/._x": b"?", **files})
    names, images = decode(path, "background")
    assert names == [("Greek", "character01"), ("Greek", "character02")]
    assert images.shape == (2, 20, 28, 28)
    assert images.dtype == np.uint8
    data = files["images_background/Greek/character01/0002_07.png"]
    grey = Image.open(io.BytesIO(data)).convert("L").resize((28, 28), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(images[0, 6], 255 - np.asarray(grey))
    assert images[0, 6].max() > 200 > 50 > np.median(images[0, 6])


def test_archives_are_decoded_once(tmp_path, monkeypatch):
    folder = tmp_path / "omniglot"
    archive(folder / "images_background.zip", members("background", GREEK))
    archive(folder / "images_evaluation.zip", members("evaluation", [("Runic", "character01")]))
    data = omniglot(tmp_path)
    assert data.images.shape == (3, 20, 28, 28)
    assert data.alphabets == ("Greek", "Greek", "Runic")
    monkeypatch.setattr(module, "decode", None)
    np.testing.assert_array_equal(omniglot(tmp_path).images, data.images)
    assert [p.suffix for p in (tmp_path / "cache").rglob("*") if p.is_file()] == [".npz"]


def test_other_archives_are_decoded_anew(tmp_path):
    folder = both_archives(tmp_path)
    first = omniglot(tmp_path)
    archive(folder / "images_background.zip", members("background", GREEK))
    assert not np.array_equal(omniglot(tmp_path).images, first.images)


def both_archives(tmp_path):
    folder = tmp_path / "omniglot"
    archive(folder / "images_background.zip", members("background", GREEK))
    archive(folder / "images_evaluation.zip", members("evaluation", [("Runic", "character01")]))
    return folder


@pytest.mark.parametrize("spoil", [lambda p: p.write_bytes(p.read_bytes()[:900]), np.savez])
def test_a_damaged_cache_is_made_anew(tmp_path, spoil):
    both_archives(tmp_path)
    first = omniglot(tmp_path)
    [kept] = (tmp_path / "cache").rglob("decoded*")
    spoil(kept)
    np.testing.assert_array_equal(omniglot(tmp_path).images, first.images)
    assert set(np.load(kept)) >= {"images_background", "alphabet_evaluation"}


def test_a_cache_that_cannot_be_written_does_no_harm(tmp_path, monkeypatch):
    both_archives(tmp_path)
    (tmp_path / "cache").write_text("a file, and no folder")
    with pytest.warns(UserWarning, match="what was decoded of Omniglot is not kept: .*cache"):
        assert len(omniglot(tmp_path)) == 3
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.warns(UserWarning, match="not kept: keeping omniglot needs pooch"):
        assert len(omniglot(tmp_path)) == 3


def test_no_character_is_in_both_parts(tmp_path):
    folder = both_archives(tmp_path)
    background, evaluation = (folder / f"images_{p}.zip" for p in ("background", "evaluation"))
    evaluation.write_bytes(background.read_bytes())
    with pytest.raises(DataError, match="expected images_evaluation/"):
        omniglot(tmp_path)


def test_characters_that_are_missing_are_missed(tmp_path):
    folder = both_archives(tmp_path)
    archive(folder / "images_background.zip", members("background", GREEK[:1]))
    with pytest.raises(DataError, match="holds 1 characters, the original has 2"):
        omniglot(tmp_path)


def spoiled(change):
    files = members("background", GREEK[:1])
    change(files, next(iter(files)))
    return files


def bomb():
    """Return few bytes that decode to very many pixels."""
    file = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(file, format="PNG", compress_level=9)
    return file.getvalue()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f, name: f.pop(name), r"Greek/character02 has drawers \[2, .*not 1 … 20"),
        (lambda f, name: f.__setitem__(name, b"no image"), "is no PNG image"),
        (lambda f, name: f.__setitem__(name, f[name][:60]), "is no PNG image"),
        (lambda f, name: f.__setitem__(name, png(np.ones((28, 28)))), r"is \(28, 28\) of mode '1'"),
        (lambda f, name: f.__setitem__(name, png(drawing(), "L")), "of mode 'L', expected"),
        (lambda f, name: f.__setitem__(name, bytes(20_000)), "has 20000 bytes"),
        (lambda f, name: f.__setitem__(name, bomb()), r"has \d+ bytes|is \(20000, 20000\)"),
        (lambda f, name: f.__setitem__(name.replace("0001_", "0009_"), f[name]), "twice"),
        (lambda f, name: f.clear(), "holds no image"),
        (lambda f, name: f.update(members("evaluation", GREEK[:1])), "expected images_background/"),
        (
            lambda f, name: f.__setitem__(name.replace("_01", "_" + "1" * 5000), f.pop(name)),
            r"has drawers \[2, .*not 1 … 20",
        ),
    ],
)
def test_refused(tmp_path, change, message):
    with pytest.raises(DataError, match=message):
        decode(archive(tmp_path / "x.zip", spoiled(change)), "background")


def test_a_path_that_climbs_writes_nothing(tmp_path):
    files = {"../../images_background/Greek/character02/0001_01.png": png(drawing())}
    path = archive(tmp_path / "in" / "x.zip", files | members("background", GREEK[:1]))
    decode(path, "background")
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["in", "x.zip"]


def test_damage_is_named(tmp_path):
    path = archive(tmp_path / "x.zip", members("background", GREEK[:1]))
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(DataError, match="damaged archive"):
        decode(path, "background")
    with pytest.raises(DataError, match="cannot be read: No such file"):
        decode(tmp_path / "none.zip", "background")


def test_where_the_files_belong_is_said(tmp_path):
    with pytest.raises(
        DataError, match=r"expected .*images_background\.zip; put images_background"
    ):
        omniglot(tmp_path)
    (tmp_path / "omniglot").mkdir()
    (tmp_path / "omniglot" / "omniglot_28.npz").write_bytes(b"another file")
    with pytest.raises(DataError, match="SHA-256 is"):
        omniglot(tmp_path)


@pytest.mark.skipif(not REAL, reason="TINYBILEVEL_DATA is not set")
@pytest.mark.data
def test_the_checked_copy():
    data = omniglot(REAL)
    assert data.images.shape == (1623, 20, 28, 28)
    assert len(set(data.alphabets)) == 50
    assert data.alphabets[963] < data.alphabets[0] or data.alphabets[964] < data.alphabets[963]
    ink = data.images.mean()
    assert 10 < ink < 60  # paper is 0
