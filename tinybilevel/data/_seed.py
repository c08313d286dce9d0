"""What the modules of `tinybilevel.data` take as a seed."""

from __future__ import annotations

import numpy as np

from tinybilevel.arrays.checks import as_count

__all__ = ["as_generator"]


def as_generator(seed: int | np.random.Generator) -> np.random.Generator:
    """Return the caller's generator, or one made from the seed.

    NumPy's default_rng would also take None and draw from the operating system, which no run
    could repeat.
    """
    if isinstance(seed, np.random.Generator):
        return seed
    number = as_count("seed, if not a numpy.random.Generator,", seed)
    return np.random.default_rng(number)
