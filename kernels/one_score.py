"""Losses of one linear score per example in one pass over X: an overlay of the definitions.

It is softmax regression of two classes with the score that these come down to, or half squares in
its place; examples lie across the vectors, as `across_one` says.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinybilevel.kernels.across_one import LOGISTIC, SQUARES
from tinybilevel.kernels.softmax import Softmax

__all__ = ["LOGISTIC", "SQUARES", "OneScore"]

Array = np.ndarray[Any, np.dtype[Any]]


class OneScore(Softmax):
    """Σ_i θ_i ℓ_i(x_i·w) and its products, as those of `Softmax`, with w for a W of one row.

    Parameters
    ----------
    X : ndarray (n, d)
        Examples, float32 or float64.
    y : ndarray (n,)
        Labels −1 and 1, or targets.
    loss : int
        `LOGISTIC`, ℓ_i = log(1 + exp(−y_i z)); or `SQUARES`, ½ (z − y_i)².
    threads : int, optional
        See `Softmax`.
    """

    def __init__(self, X: Array, y: Array, loss: int, *, threads: int | None = None) -> None:
        self._labels, self._loss = y, loss
        super().__init__(X, y > 0, 1, sparse=False, across=True, threads=threads)

    def _lay_across(self, X: Array, vector: int) -> None:
        self._lay_one(X, vector, self._labels, self._loss)
