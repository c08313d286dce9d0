"""Binary logistic regression, with one weight per example."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array, to_numpy
from tinybilevel.arrays.checks import as_examples, check_shape
from tinybilevel.maps import Sigmoid, Softplus
from tinybilevel.objectives.one_score import OneScore

__all__ = ["LogisticRegression"]

_sigmoid, _softplus = Sigmoid(), Softplus()


class LogisticRegression(OneScore):
    """g(w, θ) = s Σ_i θ_i log(1 + exp(−y_i x_i·w)), y_i = ±1.

    Everything is written in the margin y_i x_i·w, whose sigmoid neither overflows nor cancels.

    Parameters
    ----------
    X : array_like or scipy.sparse array (n, d)
        Examples, float32 or float64; append a column of ones for a bias.
    y : array_like (n,)
        Labels, 0 and 1 or −1 and 1; the first stands for y_i = −1.
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
        If X or y has the wrong dtype or shape, or there are other labels.
    ImportError
        If `backend` is "numba" and Numba is not installed.

    See Also
    --------
    LinearLoss : the conventions.
    SoftmaxRegression : more than two classes.

    Examples
    --------
    >>> import numpy as np
    >>> import tinybilevel as tb
    >>> g = tb.LogisticRegression(np.eye(2), [0, 1])
    >>> round(g.value(np.zeros(2), np.ones(2)), 6)  # log 2
    0.693147
    >>> g.predict(np.array([1.0, -2.0]), np.eye(2))
    array([1, 0])
    """

    compiled = "LOGISTIC"

    def __init__(
        self,
        X: Any,
        y: Any,
        *,
        weighted: bool = True,
        scale: float | None = None,
        backend: str = "auto",
    ) -> None:
        X = as_examples("X", X)
        self.lower_label, signs = _signs(y, X.shape[0])
        signs = signs.astype(X.dtype)
        super().__init__(X, signs, weighted=weighted, scale=scale, backend=backend)

    def loss(self, z: Array) -> Array:
        return _softplus(-self.y * z)

    def slope(self, z: Array) -> Array:
        return -self.y * _sigmoid(-self.y * z)

    def curvature(self, z: Array) -> Array:
        return _sigmoid.derivative(z)

    def predict(self, w: Array, X: Array) -> Array:
        """Return the more likely label of each row of `X`, (n,), one of those that `y` had.

        Examples
        --------
        >>> import numpy as np
        >>> import tinybilevel as tb
        >>> g = tb.LogisticRegression(np.eye(2), [-1, 1])
        >>> g.predict(np.array([1.0, -2.0]), np.eye(2))
        array([ 1, -1])
        """
        return np.where(self.score(w, X) > 0, 1, self.lower_label)


def _signs(y: Any, n: int) -> tuple[int, Array]:
    """Return the label that stands for −1, and −1 or 1 for each label."""
    y = np.asarray(to_numpy(y))
    if y.dtype.kind not in "biuf":
        raise TypeError(
            f"y must hold the labels 0 and 1, or −1 and 1, got dtype {y.dtype}: for other names "
            "of two classes, (labels == name).astype(int)"
        )
    y = check_shape("y", y, (n,)).astype(np.float64)
    seen = np.unique(y)
    if np.isin(seen, (0, 1)).all():
        return 0, 2 * y - 1
    if np.isin(seen, (-1, 1)).all():
        return -1, y
    raise ValueError(
        f"y must hold the labels 0 and 1, or −1 and 1, got {seen[:5].tolist()}"
        f"{' …' if seen.size > 5 else ''}; SoftmaxRegression takes more classes"
    )
