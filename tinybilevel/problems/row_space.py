"""Fewer columns for a linear lower level that has fewer rows than features."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array
from tinybilevel.arrays.checks import as_float

__all__ = ["RowSpace"]


class RowSpace:
    """Coordinates in the row space of X: n columns in place of d, with nothing lost.

    With the thin QR decomposition Xᵀ = Q R, each row of X lies in the span of the columns of Q,
    (d, n), and X = (X Q) Qᵀ. A lower level that sees w only through the scores X w and through
    inner products between such vectors (a ridge, a `PairwisePenalty`), and starts from w = 0,
    never leaves that span: every gradient is a sum of rows of X and of vectors already in it. So
    w_t = Q w̃_t, where w̃_t follows the same steps on X Q; scores on other data are
    (X_val Q) w̃_t, and values and hypergradients are the same numbers. An unpenalised bias column
    is appended after the reduction, not before.

    Parameters
    ----------
    X : array_like (n, d)
        Training examples.

    Attributes
    ----------
    Q : ndarray (d, min(n, d))
        Orthonormal columns.

    Raises
    ------
    TypeError, ValueError
        If X is not a finite matrix of floats.

    Examples
    --------
    >>> import numpy as np
    >>> import tinybilevel as tb
    >>> X = np.random.default_rng(0).standard_normal((3, 50))
    >>> rows = tb.problems.RowSpace(X)
    >>> rows.reduce(X).shape, bool(np.allclose(rows.lift(rows.reduce(X)), X))
    ((3, 3), True)
    """

    def __init__(self, X: Any) -> None:
        self.Q: Array = np.linalg.qr(as_float("X", X, ndim=2).T)[0]

    def reduce(self, X: Any) -> Array:
        """Return X Q, (m, min(n, d)): the same rows, or their projections, in fewer numbers."""
        X = as_float("X", X, ndim=2)
        if X.shape[1] != len(self.Q):
            raise ValueError(f"X must have {len(self.Q)} columns, got {X.shape}")
        return X @ self.Q

    def lift(self, W: Any) -> Array:
        """Return W Qᵀ, (V, d): weights found on reduced examples as weights for the full ones."""
        W = as_float("W", W, ndim=2)
        if W.shape[1] != self.Q.shape[1]:
            raise ValueError(f"W must have {self.Q.shape[1]} columns, got {W.shape}")
        return W @ self.Q.T
