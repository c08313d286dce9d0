"""Minibatches: which examples each step of a run sees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array, like, to_numpy
from tinybilevel.arrays.checks import as_count, frozen
from tinybilevel.objectives import Objective

__all__ = ["FreshMinibatches", "as_batches", "minibatches"]


def minibatches(n: int, size: int, T: int, seed: int | np.random.Generator) -> Array:
    """Draw T minibatches by passing through shuffled data, a new shuffle each epoch.

    Parameters
    ----------
    n, size, T : int
        Number of examples, of examples in a batch and of batches. A rest of an epoch smaller
        than a batch is left out.
    seed : int or numpy.random.Generator
        Source of the shuffles.

    Returns
    -------
    ndarray (T, size) of int
        Row t holds the examples of step t.

    Raises
    ------
    ValueError
        If a batch is empty or larger than the data.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> tb.minibatches(4, size=2, T=3, seed=0).shape
    (3, 2)
    """
    n, T = as_count("n", n, minimum=1), as_count("T", T)
    if as_count("size", size, minimum=1) > n:
        raise ValueError(f"size must be at most n = {n}, got {size}")
    rng = np.random.default_rng(seed)
    per_epoch = n // size
    epochs = [rng.permutation(n)[: per_epoch * size] for _ in range(-(-T // per_epoch))]
    return np.concatenate([np.empty(0, dtype=np.intp), *epochs]).reshape(-1, size)[:T]


@dataclass(frozen=True)
class FreshMinibatches:
    """New minibatches at each outer update, as a function of its number τ and of the seed alone.

    It is called with τ and returns what `minibatches` draws. A run that is stopped and resumed
    sees what it would have seen.

    Parameters
    ----------
    n, size, T : int
        See `minibatches`.
    seed : int
        At least 0. The batches of update τ come from the pair (seed, τ).

    Raises
    ------
    TypeError, ValueError
        If an argument is not such a number, or a batch is larger than the data.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> fresh = tb.FreshMinibatches(n=40, size=4, T=4, seed=0)
    >>> fresh(1).shape, bool((fresh(1) == fresh(2)).all())
    ((4, 4), False)
    """

    n: int
    size: int
    T: int
    seed: int

    def __post_init__(self) -> None:
        for name in ("n", "size", "T", "seed"):
            object.__setattr__(self, name, as_count(name, getattr(self, name)))
        self(1)

    def __call__(self, tau: int) -> Array:
        """Return the batches of outer update τ = 1, 2, …, an array (T, size) of int."""
        rng = np.random.default_rng([self.seed, as_count("tau", tau, minimum=1)])
        return minibatches(self.n, self.size, self.T, rng)


def as_batches(batches: Any, objective: Objective) -> tuple[Array, ...]:
    """Check which examples each step sees, and return read-only vectors of their indices."""
    if isinstance(batches, np.ndarray) and _is_rows(batches):
        found = tuple(frozen("batches", batches))  # an array of batches is looked at as a whole
    elif hasattr(batches, "__len__") and not isinstance(batches, str | bytes | dict | set):
        found = tuple(_as_batch(f"batches[{t}]", batch) for t, batch in enumerate(batches))
    else:
        raise TypeError(
            "batches must be a sequence of vectors of indices, one for each step, or a function "
            f"τ → such a sequence, got {batches!r}"
        )
    if found:
        largest = [int(batch.max()) for batch in found]
        t = int(np.argmax(largest))
        try:
            objective.restrict(found[t][to_numpy(found[t]) == largest[t]])
        except IndexError as error:
            raise ValueError(
                f"batches[{t}] asks for example {largest[t]}, which is beyond the data: {error}"
            ) from error
    return found


def _is_rows(batches: Array) -> bool:
    """Return whether all rows of an array are batches, at one look."""
    rows = batches.ndim == 2 and batches.dtype.kind in "iu"
    return rows and (not len(batches) or (batches.size > 0 and bool(batches.min() >= 0)))


def _as_batch(name: str, batch: Any) -> Array:
    rows = to_numpy(batch)
    if rows.ndim != 1 or not rows.size:
        raise ValueError(f"{name} must be a vector of at least one index, got shape {rows.shape}")
    if rows.dtype.kind not in "iu":
        hint = "; np.flatnonzero makes indices of a mask" if rows.dtype.kind == "b" else ""
        raise TypeError(f"{name} must hold whole numbers, got dtype {rows.dtype}{hint}")
    if rows.min() < 0:
        i = int(np.argmin(rows))
        raise ValueError(f"{name} must hold indices of at least 0, got {rows[i]} at entry {i}")
    return like(batch, frozen(name, rows))
