"""Least squares, with one weight per example."""

from __future__ import annotations

from tinybilevel.arrays.backend import Array
from tinybilevel.objectives.one_score import OneScore

__all__ = ["LeastSquares"]


class LeastSquares(OneScore):
    """g(w, θ) = s Σ_i θ_i ½ (x_i·w − y_i)²: by default the mean of half the squared residuals.

    Parameters
    ----------
    X : array_like or scipy.sparse array (n, d)
        Examples, float32 or float64; append a column of ones for a bias.
    y : array_like (n,)
        Targets.
    weighted : bool
        True: θ = ``lam`` holds one weight per example. False: all weights are 1 and `lam`
        does not enter.
    scale : float, optional
        s; by default 1/n, the mean.
    backend : {"auto", "plain", "numpy", "numba"}
        Who computes: the definition, or compiled kernels, which need the extra ``fast`` and take
        dense data; "auto" takes those where they are installed and X is large. "numpy" is "plain".

    Raises
    ------
    TypeError, ValueError
        If X or y has the wrong dtype or shape, or is not finite.
    ImportError
        If `backend` is "numba" and Numba is not installed.

    See Also
    --------
    LinearLoss : the conventions.

    Examples
    --------
    >>> import numpy as np
    >>> import tinybilevel as tb
    >>> g = tb.LeastSquares(np.eye(2), [1.0, 3.0], weighted=False)
    >>> g.value(np.zeros(2), np.zeros(0))  # (½·1 + ½·9) / 2
    2.5
    >>> g.grad(np.zeros(2), np.zeros(0))
    array([-0.5, -1.5])
    """

    compiled = "SQUARES"

    def loss(self, z: Array) -> Array:
        return 0.5 * (z - self.y) ** 2

    def slope(self, z: Array) -> Array:
        return z - self.y

    def curvature(self, z: Array) -> float:
        return 1.0

    def predict(self, w: Array, X: Array) -> Array:
        """Return the prediction X w for each row of `X`, (n,).

        Examples
        --------
        >>> import numpy as np
        >>> import tinybilevel as tb
        >>> g = tb.LeastSquares(np.eye(2), np.ones(2))
        >>> g.predict(np.array([1.0, 2.0]), np.array([[1.0, 1.0], [0.0, 3.0]]))
        array([3., 6.])
        """
        return self.score(w, X)
