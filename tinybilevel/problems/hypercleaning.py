"""Data hypercleaning, the paper's Section 4.2.1: learn which training labels to distrust."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array, as_float, to_numpy
from tinybilevel.maps import Sigmoid
from tinybilevel.objectives import L2Penalty, SoftmaxRegression
from tinybilevel.problem import BilevelProblem
from tinybilevel.transitions import GradientDescent

__all__ = ["append_bias", "hypercleaning", "rejected"]


def hypercleaning(
    X: Any,
    y: Any,
    X_val: Any,
    y_val: Any,
    *,
    T: int = 100,
    step_size: float = 1.0,
    regularization: float = 1e-3,
    n_classes: int | None = None,
    backend: str = "auto",
    remember: int = 0,
) -> BilevelProblem:
    """Weigh each training example so that the classifier they train does well on clean data.

    Upper level: mean cross-entropy on the clean validation set. Lower level:
    g(W, λ) = (1/n) [Σ_i σ(λ_i) ℓ_i(W) + c ‖W‖²_F], T steps of gradient descent from W = 0. The
    paper prints g without the 1/n, with which γ = 1 diverges; dividing all of it, the penalty
    too, gives the losses of the paper's Table 2.

    Parameters
    ----------
    X : array_like (n, d)
        Training examples, float32 or float64; a column of ones is appended as a bias.
    y : array_like (n,) of int
        Their labels, some of them wrong.
    X_val, y_val : array_like (m, d), (m,) of int
        Clean examples.
    T : int
        Steps of the lower level.
    step_size : float
        γ.
    regularization : float
        c.
    n_classes : int, optional
        C; by default the largest class in `y` and `y_val` plus one.
    backend : {"auto", "numpy", "numba"}
        See `SoftmaxRegression`.
    remember : int
        Softmaxes of the lower level to keep for the backward pass; with as many as its steps it
        takes a quarter less time. See `SoftmaxRegression`.

    Returns
    -------
    BilevelProblem
        λ has one entry per row of X, λ_1 = 0 (all weights ½); w = W.ravel(), W is (C, d + 1).

    Raises
    ------
    TypeError, ValueError
        If shapes or dtypes do not fit together.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> data = tb.data.digits().split(seed=0)
    >>> y, corrupted = tb.data.corrupt_labels(data.y_train, 0.5, seed=0)
    >>> problem = tb.problems.hypercleaning(data.X_train, y, data.X_val, data.y_val)
    >>> result = tb.minimize(problem, method=tb.KRMD(K=5), optimizer=tb.Adam(0.1), iterations=5)
    >>> bool(result.value < tb.RMD()(problem).value)
    True
    """
    X, X_val = as_float("X", X, ndim=2), as_float("X_val", X_val, ndim=2)
    if X.shape[1] != X_val.shape[1]:
        raise ValueError(f"X and X_val must have as many columns, got {X.shape} and {X_val.shape}")
    y, y_val = to_numpy(y), to_numpy(y_val)
    for name, labels, rows in (("y", y, len(X)), ("y_val", y_val, len(X_val))):
        if labels.shape != (rows,) or labels.dtype.kind not in "iu":
            raise ValueError(
                f"{name} must be {rows} integers, got shape {labels.shape} of {labels.dtype}"
            )
    if n_classes is None:
        if not y.size or not y_val.size:
            raise ValueError(
                f"y and y_val must not be empty, got shapes {y.shape} and {y_val.shape}"
            )
        n_classes = int(max(y.max(), y_val.max())) + 1
    n = len(X)
    loss = SoftmaxRegression(append_bias(X), y, n_classes, backend=backend, remember=remember)
    lower = loss + (1.0 / n) * L2Penalty(regularization)
    upper = SoftmaxRegression(append_bias(X_val), y_val, n_classes, weighted=False, backend=backend)
    return BilevelProblem(
        GradientDescent(lower, step_size, initial=np.zeros_like(X, shape=loss.size)),
        upper=upper,
        T=T,
        hyper_map=Sigmoid(),
        lam0=np.zeros_like(X, shape=n),
    )


def append_bias(X: Array) -> Array:
    """Append a column of ones, (n, d) → (n, d + 1)."""
    return np.concatenate([X, np.ones_like(X, shape=(len(X), 1))], axis=1)


def rejected(lam: Array, threshold: float = -3.0) -> Array:
    """Return which examples are marked as corrupted: λ_i < −3, a weight under σ(−3) ≈ 0.047."""
    return lam < threshold
