"""Few-shot tasks: k classes, n examples of each to learn from, more to be judged by."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from tinybilevel.arrays.checks import as_count
from tinybilevel.data._seed import as_generator
from tinybilevel.data.dataset import Dataset
from tinybilevel.data.idx import DataError

__all__ = ["Characters", "Task"]


@dataclass(frozen=True, eq=False)
class Task:
    """One few-shot task.

    Attributes
    ----------
    X, y : ndarray (k n, 1, height, width), (k n,) of int
        Support images in [0, 1], and their classes 0 … k − 1.
    X_query, y_query : ndarray (k m, 1, height, width), (k m,) of int
        Query images and their classes.
    classes : ndarray (k,) of int
        Rows of the `Characters` that the classes are.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> task = tb.data.Characters.of(tb.data.digits()).draw(ways=3, shots=2, queries=4, seed=0)
    >>> task.X.shape, task.y, task.X_query.shape
    ((6, 1, 8, 8), array([0, 0, 1, 1, 2, 2]), (12, 1, 8, 8))
    """

    X: NDArray[Any]
    y: NDArray[np.int64]
    X_query: NDArray[Any]
    y_query: NDArray[np.int64]
    classes: NDArray[np.int64]

    def __repr__(self) -> str:
        return (
            f"Task({len(self.classes)} classes, {len(self.y)} support, {len(self.y_query)} query)"
        )


@dataclass(frozen=True, eq=False)
class Characters:
    """Many classes with as many images each, from which tasks are drawn.

    Attributes
    ----------
    name : str
        Name of the data.
    images : ndarray (classes, images, height, width) of uint8
        Grey images, 0 … 255.
    alphabets, characters : tuple of str
        What each class is a character of, and which.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> digits = tb.data.Characters.of(tb.data.digits())
    >>> digits, digits.images.shape
    (Characters('digits': 10 classes of 174 images, 8 × 8), (10, 174, 8, 8))
    >>> train, test = digits.split(n_train=7, seed=0)
    >>> len(train), len(test.rotated())
    (7, 12)
    """

    name: str
    images: NDArray[np.uint8]
    alphabets: tuple[str, ...]
    characters: tuple[str, ...]

    def __post_init__(self) -> None:
        C = len(self.images)
        if self.images.ndim != 4 or self.images.dtype != np.uint8:
            raise DataError(
                f"{self.name}: images must be uint8 of shape (classes, images, height, width), got "
                f"{self.images.dtype} of shape {self.images.shape}"
            )
        if len(self.alphabets) != C or len(self.characters) != C:
            raise DataError(f"{self.name}: expected an alphabet and a character for {C} classes")

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        C, n, *shape = self.images.shape
        return f"Characters({self.name!r}: {C} classes of {n} images, {shape[0]} × {shape[1]})"

    @classmethod
    def of(cls, data: Dataset) -> Characters:
        """Return grey images by class, as many of each as there are of the rarest."""
        X = np.concatenate([data.X_train, data.X_test]).reshape(-1, *data.image_shape)
        X = np.rint(X * (255 / data.pixel_max)).astype(np.uint8)
        y = np.concatenate([data.y_train, data.y_test])
        V = len(data.class_names)
        fewest = int(np.bincount(y, minlength=V).min())
        images = np.stack([X[y == c][:fewest] for c in range(V)])
        return cls(data.name, images, (data.name,) * V, data.class_names)

    def rotated(self) -> Characters:
        """Return four times as many classes: each, and each turned by 90°, 180° and 270°.

        Classes 4c, 4c + 1, … are class c turned by 0°, 90°, …, so that a split by class before
        this keeps all turns of a class on one side.
        """
        if self.images.shape[2] != self.images.shape[3]:
            raise ValueError(f"only square images can be turned, got {self.images.shape[2:]}")
        turned = np.stack([np.rot90(self.images, k, axes=(2, 3)) for k in range(4)], axis=1)
        images = turned.reshape(-1, *turned.shape[2:])
        names = tuple(f"{name} {90 * k}°" for name in self.characters for k in range(4))
        alphabets = tuple(np.repeat(self.alphabets, 4).tolist())
        return replace(
            self, images=np.ascontiguousarray(images), alphabets=alphabets, characters=names
        )

    def take(self, classes: Any) -> Characters:
        """Return some of the classes, in that order.

        Examples
        --------
        >>> import tinybilevel as tb
        >>> digits = tb.data.Characters.of(tb.data.digits())
        >>> digits.take([3, 7]).characters
        ('3', '7')
        """
        classes = np.arange(len(self))[[*classes]]
        return replace(
            self,
            images=self.images[classes],
            alphabets=tuple(self.alphabets[c] for c in classes),
            characters=tuple(self.characters[c] for c in classes),
        )

    def split(
        self, n_train: int, seed: int | np.random.Generator = 0
    ) -> tuple[Characters, Characters]:
        """Return classes to train on, drawn at random, and the others to test on."""
        n_train = as_count("n_train", n_train, minimum=1)
        if n_train >= len(self):
            raise ValueError(f"n_train must be less than the {len(self)} classes, got {n_train}")
        order = as_generator(seed).permutation(len(self))
        return self.take(order[:n_train]), self.take(order[n_train:])

    def draw(
        self,
        ways: int = 5,
        shots: int = 1,
        queries: int = 5,
        *,
        seed: int | np.random.Generator = 0,
        dtype: DTypeLike = np.float32,
    ) -> Task:
        """Draw a task: classes, then images of each, support and query disjoint.

        Parameters
        ----------
        ways, shots, queries : int
            Classes, and support and query images of each, at least 1.
        seed : int or numpy.random.Generator
            Where the randomness comes from.
        dtype : dtype_like
            float32 or float64.

        Returns
        -------
        Task

        Raises
        ------
        ValueError
            If there are too few classes, or images of a class.

        Examples
        --------
        >>> import tinybilevel as tb
        >>> digits = tb.data.Characters.of(tb.data.digits()).rotated()
        >>> task = digits.draw(ways=5, shots=1, queries=3, seed=0)
        >>> task, task.X.shape
        (Task(5 classes, 5 support, 15 query), (5, 1, 8, 8))
        """
        C, n = self.images.shape[:2]
        ways, shots, queries = (
            as_count(name, count, minimum=1)
            for name, count in (("ways", ways), ("shots", shots), ("queries", queries))
        )
        for name, count, most in (("ways", ways, C), ("shots + queries", shots + queries, n)):
            if count > most:
                raise ValueError(f"{name} must be at most {most} for {self.name}, got {count}")
        rng = as_generator(seed)
        classes = rng.choice(C, size=ways, replace=False)
        which = np.array([rng.permutation(n)[: shots + queries] for _ in classes])
        X = np.divide(self.images[classes[:, None], which], 255, dtype=dtype)

        def part(X: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64]]:
            y = np.repeat(np.arange(ways), X.shape[1])
            return X.reshape(-1, 1, *X.shape[2:]), y

        return Task(*part(X[:, :shots]), *part(X[:, shots:]), classes)
