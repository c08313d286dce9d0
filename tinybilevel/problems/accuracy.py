"""How well one-shot problems do on tasks that λ has not seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tinybilevel.arrays.checks import as_count

__all__ = ["Accuracy"]


@dataclass(frozen=True, repr=False)
class Accuracy:
    """Mean accuracy over tasks and its 95 % interval.

    Parameters
    ----------
    shares : sequence of float
        Accuracy on each task, in [0, 1].

    Attributes
    ----------
    mean : float
        Their mean.
    interval : float
        1.96 standard errors of the mean: half the width of the 95 % interval. NaN for one task.
    tasks : int
        How many.

    Raises
    ------
    ValueError
        If there are none.

    Examples
    --------
    >>> from tinybilevel.problems import Accuracy
    >>> print(Accuracy([0.9, 1.0, 0.95, 0.95]))
    95.0 ± 4.0 % (4 tasks)
    """

    shares: Sequence[float]

    def __post_init__(self) -> None:
        object.__setattr__(self, "shares", tuple(float(x) for x in self.shares))
        if not self.shares:
            raise ValueError("shares must have at least one entry")

    @property
    def mean(self) -> float:
        return float(np.mean(self.shares))

    @property
    def interval(self) -> float:
        if self.tasks < 2:
            return float("nan")
        return float(1.96 * np.std(self.shares, ddof=1) / np.sqrt(self.tasks))

    @property
    def tasks(self) -> int:
        return len(self.shares)

    def first(self, n: int) -> Accuracy:
        """Return that over the first n tasks, or all where there are fewer.

        Examples
        --------
        >>> from tinybilevel.problems import Accuracy
        >>> Accuracy([0.9, 1.0, 0.5]).first(2).mean
        0.95
        """
        return Accuracy(self.shares[: as_count("n", n, minimum=1)])

    def __str__(self) -> str:
        return f"{100 * self.mean:.1f} ± {100 * self.interval:.1f} % ({self.tasks} tasks)"

    def __repr__(self) -> str:
        return f"Accuracy({self})"
