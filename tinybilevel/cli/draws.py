"""What a trial of task interaction draws from: pools of examples, by name or from a file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from tinybilevel import data
from tinybilevel.data.pool import Pool, load_pool

__all__ = ["SETTINGS", "Setting", "defaults", "draw"]


@dataclass(frozen=True)
class Setting:
    """Data, how a trial draws from them, and how λ is learned.

    Parameters
    ----------
    data : str
        A key of `SETTINGS` without "-balanced", or the path of an ``.npz`` file.
    n_train, n_val : int
        Examples drawn for each; the rest is for testing.
    balanced : bool
        As many of each class.
    norm : float
        Length of each row of features.
    lr : float
        Rate of the outer Adam, whose λ is projected to λ ≥ 0.
    iterations : int
        Updates of λ.
    """

    data: str
    n_train: int
    n_val: int
    balanced: bool
    norm: float = 20.0
    lr: float = 1e-3
    iterations: int = 150


#: The settings of the table, by name.
SETTINGS = {
    "cifar10": Setting("cifar10", 50, 50, balanced=False),
    "cifar10-balanced": Setting("cifar10", 50, 50, balanced=True),
    "cifar100": Setting("cifar100", 300, 300, balanced=False, lr=3e-4, iterations=50),
    "cifar100-balanced": Setting("cifar100", 300, 300, balanced=True, lr=3e-4, iterations=50),
    "mnist": Setting("mnist", 50, 50, balanced=True, norm=15.0),
    "fashion": Setting("fashion", 50, 50, balanced=True, norm=15.0),
    "omniglot": Setting("omniglot", 60, 60, balanced=True, norm=15.0),
    "digits": Setting("digits", 50, 50, balanced=True, norm=15.0),
}


def defaults(data: str) -> Setting:
    """Return the setting of a data set, or for an ``.npz`` file one that fits it.

    For a file: five of each class, and more cautious updates where there are many classes, since
    the first one of Adam sets every C_ij with a negative gradient to `lr` at once.

    Raises
    ------
    DataError
        If there is no such file, or it holds no pool.
    """
    if data in SETTINGS:
        return SETTINGS[data]
    V = len(load_pool(data).class_names)
    lr, iterations = (1e-3, 150) if V <= 20 else (3e-4, 50)
    return Setting(data, 5 * V, 5 * V, balanced=True, lr=lr, iterations=iterations)


@lru_cache(maxsize=2)
def _pool(name: str, norm: float, data_dir: Path | None) -> Pool:
    if name.endswith(".npz"):
        return load_pool(name).normalized(norm)
    if name in ("cifar10", "cifar100"):
        features = data.cifar10_features if name == "cifar10" else data.cifar100_features
        return features(data_dir).normalized(norm)
    load: Callable[..., Any] = {
        "mnist": data.mnist,
        "fashion": data.fashion_mnist,
        "digits": lambda _: data.digits(),
    }[name]
    return Pool.of(load(data_dir)).normalized(norm)


@lru_cache(maxsize=1)
def _characters(data_dir: Path | None) -> data.Characters:
    return data.omniglot(data_dir)


def draw(setting: Setting, seed: int, data_dir: Path | None) -> tuple[data.Split, Pool]:
    """Return a trial's split, and the pool that it is from."""
    if setting.data != "omniglot":
        pool = _pool(setting.data, setting.norm, data_dir)
    else:
        pool = _two_alphabets(_characters(data_dir), seed).normalized(setting.norm)
    counts = setting.n_train, setting.n_val
    return pool.draw(*counts, balanced=setting.balanced, seed=seed), pool


def _two_alphabets(characters: data.Characters, seed: int) -> Pool:
    """Return ten characters of each of two alphabets, twenty drawings each, as pixels."""
    rng = np.random.default_rng([2, seed])
    names = np.array(characters.alphabets)
    large = [name for name in np.unique(names) if (names == name).sum() >= 10]
    chosen = rng.choice(large, 2, replace=False)
    rows = [rng.choice(np.flatnonzero(names == a), 10, replace=False) for a in chosen]
    part = characters.take(np.concatenate(rows))
    images = part.images.reshape(20 * 20, -1)
    return Pool(
        "omniglot",
        np.divide(images, 255, dtype=np.float32),
        np.repeat(np.arange(20), 20),
        tuple(f"{a} {c}" for a, c in zip(part.alphabets, part.characters, strict=True)),
        part.alphabets,
    )
