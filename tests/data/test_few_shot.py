import numpy as np
import pytest

import tinybilevel as tb
from tinybilevel.data import Characters, DataError

RNG = np.random.default_rng(0)


@pytest.fixture
def data():
    images = RNG.integers(0, 256, (7, 6, 4, 5), dtype=np.uint8)
    images[:, :, 0, 0] = np.arange(7)[:, None]  # tells the class
    images[:, :, 0, 1] = np.arange(6)  # and the image
    return Characters("marks", images, tuple("AAABBBB"), tuple("abcdefg"))


def labels(X):
    return np.rint(X[:, 0, 0, 0] * 255).astype(int), np.rint(X[:, 0, 0, 1] * 255).astype(int)


def test_a_task_has_disjoint_images_of_its_classes(data):
    task = data.draw(ways=3, shots=2, queries=3, seed=1)
    assert task.X.shape == (6, 1, 4, 5)
    assert task.X.dtype == np.float32
    for X, y in ((task.X, task.y), (task.X_query, task.y_query)):
        np.testing.assert_array_equal(labels(X)[0], task.classes[y])
    pairs = [tuple(pair) for X in (task.X, task.X_query) for pair in zip(*labels(X), strict=True)]
    assert len(set(pairs)) == len(pairs) == 3 * 5
    np.testing.assert_array_equal(task.y, [0, 0, 1, 1, 2, 2])


def test_a_seed_repeats_and_a_generator_goes_on(data):
    np.testing.assert_array_equal(data.draw(3, seed=1).X, data.draw(3, seed=1).X)
    rng = np.random.default_rng(1)
    assert not np.array_equal(data.draw(3, seed=rng).X, data.draw(3, seed=rng).X)


def test_a_split_parts_the_classes(data):
    train, test = data.split(4, seed=0)
    assert (len(train), len(test)) == (4, 3)
    assert sorted(train.characters + test.characters) == list("abcdefg")
    assert train.images[0, 0, 0, 0] == data.characters.index(train.characters[0])


def test_some_classes_are_taken_by_number_or_by_a_mask(data):
    for chosen in ([1, 3], np.array([1, 3]), np.isin(np.arange(7), [1, 3])):
        assert data.take(chosen).characters == ("b", "d")
        np.testing.assert_array_equal(data.take(chosen).images, data.images[[1, 3]])


def test_turns_are_classes_of_their_own(data):
    square = Characters("marks", data.images[:, :, :, :4].copy(), data.alphabets, data.characters)
    turned = square.rotated()
    assert len(turned) == 28
    assert turned.characters[4:8] == ("b 0°", "b 90°", "b 180°", "b 270°")
    np.testing.assert_array_equal(turned.images[6, 3], square.images[1, 3, ::-1, ::-1])
    np.testing.assert_array_equal(turned.images[5, 3], np.rot90(square.images[1, 3]))


def test_digits_are_characters_too():
    data = Characters.of(tb.data.digits())
    assert data.images.shape == (10, 174, 8, 8)
    assert data.images.max() == 255
    assert repr(data) == "Characters('digits': 10 classes of 174 images, 8 × 8)"
    assert repr(data.draw(seed=0)) == "Task(5 classes, 5 support, 25 query)"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda d: d.draw(ways=8), "ways must be at most 7 for marks, got 8"),
        (lambda d: d.draw(ways=2, shots=4, queries=3), r"shots \+ queries must be at most 6"),
        (lambda d: d.draw(ways=2, shots=0), "shots must be at least 1, got 0"),
        (lambda d: d.draw(ways=2, shots=3, queries=-1), "queries must be at least 1, got -1"),
        (lambda d: d.split(7), "n_train must be less than the 7 classes, got 7"),
        (lambda d: d.rotated(), "square"),
        (lambda d: Characters("x", d.images[0], (), ()), "images must be uint8 of shape"),
        (lambda d: Characters("x", d.images, ("A",), ("a",)), "an alphabet and a character for 7"),
    ],
)
def test_refused(data, call, message):
    with pytest.raises((ValueError, DataError), match=message):
        call(data)
