"""Data hypercleaning, the paper's Section 4.2.1: learn which training labels to distrust."""

from __future__ import annotations

import warnings
from typing import Any
from weakref import ref

import numpy as np

from tinybilevel.arrays.backend import Array, entries, promote, sparse_module
from tinybilevel.arrays.checks import as_flag, as_float, as_matrix, is_fixed
from tinybilevel.arrays.labels import as_labels, class_count
from tinybilevel.engine.stability import Stability, largest_curvature
from tinybilevel.errors import StabilityWarning
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
    step_size: float | str = 1.0,
    regularization: float = 1e-3,
    penalize_bias: bool = True,
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
    X : array_like or scipy.sparse array (n, d)
        Training examples, float32 or float64; a column of ones is appended as a bias.
    y : array_like (n,) of int
        Their labels, 0 … C−1, some of them wrong.
    X_val, y_val : array_like or scipy.sparse array (m, d), array_like (m,) of int
        Clean examples.
    T : int
        Steps of the lower level.
    step_size : float or "auto"
        γ; "auto" is 1/β, β being the largest eigenvalue of ∇²_WW g at W = 0 and λ_1. Beyond 2/β
        the lower level does not settle. Features far from unit size need a γ of their own.
    regularization : float
        c.
    penalize_bias : bool
        False leaves the bias out of ‖W‖²_F.
    n_classes : int, optional
        C; by default the largest class in `y` and `y_val` plus one.
    backend : {"auto", "plain", "numpy", "numba"}
        See `SoftmaxRegression`.
    remember : int
        Softmaxes of the lower level to keep for the backward pass; with as many as its steps it
        takes a quarter less time. See `SoftmaxRegression`.

    Returns
    -------
    BilevelProblem
        λ has one entry per row of X, λ_1 = 0 (all weights ½); w = W.ravel(), W is (C, d + 1). X
        and y are copied, so that nobody's later writing changes the problem.

    Raises
    ------
    TypeError, ValueError
        If shapes or dtypes do not fit together.

    Warns
    -----
    StabilityWarning
        If γ is beyond 2/β, with γ, β and a step size that would do. To find β by power iteration
        takes 20 Hessian products, as much as some 20 steps of the lower level.

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
    X, X_val = as_matrix("X", X), as_matrix("X_val", X_val)
    if X.shape[1] != X_val.shape[1]:
        raise ValueError(f"X and X_val must have as many columns, got {X.shape} and {X_val.shape}")
    # A kernel computes in one dtype, and would leave a mix to NumPy.
    X, X_val = (x.astype(promote(X.dtype, X_val.dtype), copy=False) for x in (X, X_val))
    n = X.shape[0]
    y, y_val = as_labels("y", y, n, n_classes), as_labels("y_val", y_val, X_val.shape[0], n_classes)
    if n_classes is None:
        n_classes = class_count("y and y_val", y, y_val)
    loss = SoftmaxRegression(_with_bias(X), y, n_classes, backend=backend, remember=remember)
    lower = loss + (1.0 / n) * _ridge(regularization, loss, as_flag("penalize_bias", penalize_bias))
    upper = SoftmaxRegression(_with_bias(X_val), y_val, n_classes, weighted=False, backend=backend)
    start, lam0 = (np.zeros_like(entries(X), shape=size) for size in (loss.size, n))
    with np.errstate(over="ignore", invalid="ignore"):
        beta = largest_curvature(lower, start, Sigmoid()(lam0))
    limit = 2 / beta if beta else np.inf
    if isinstance(step_size, str):
        if step_size != "auto":
            raise ValueError(f'step_size must be a number or "auto", got {step_size!r}')
        step_size = limit / 2
    descent = GradientDescent(lower, step_size, initial=start)
    found = Stability(float(np.max(descent.step_size(0, lam0))), beta, limit, "w_0")
    if not found.stable:
        warnings.warn(
            f'the lower level does not settle: {found}, as step_size="auto" has it',
            StabilityWarning,
            stacklevel=2,
        )
    return BilevelProblem(descent, upper=upper, T=T, hyper_map=Sigmoid(), lam0=lam0)


def append_bias(X: Any) -> Any:
    """Append a column of ones, as which a bias is one more weight.

    Parameters
    ----------
    X : array_like (n, d), or sparse
        Examples.

    Returns
    -------
    ndarray (n, d + 1), or a sparse matrix of X's kind

    Examples
    --------
    >>> import numpy as np
    >>> import tinybilevel as tb
    >>> tb.problems.append_bias(np.zeros((2, 2)))
    array([[0., 0., 1.],
           [0., 0., 1.]])
    """
    X = as_matrix("X", X)
    ones = np.ones_like(entries(X), shape=(X.shape[0], 1))
    if not hasattr(X, "tocsr"):
        return np.concatenate([X, ones], axis=1)
    sparse = sparse_module(X)
    return sparse.hstack([X, sparse.csr_matrix(ones)], format="csr", dtype=X.dtype)


#: By the id of an array that nobody writes to: itself, and what it is with its bias.
_biased: dict[int, tuple[ref[Any], ref[Any]]] = {}


def _with_bias(X: Any) -> Any:
    """Return X with its bias, which nobody else holds: no other copy is needed to keep it.

    Problems on one read-only X, such as those of many seeds, have it once.
    """
    of, known = _biased.get(id(X), (None, None))
    if of is not None and known is not None and of() is X and (found := known()) is not None:
        return found
    found = append_bias(X)
    for part in (found.data, found.indices, found.indptr) if hasattr(X, "tocsr") else (found,):
        while isinstance(part, np.ndarray):  # what it is a view of as well
            part.flags.writeable = False
            part = part.base
    if isinstance(X, np.ndarray) and is_fixed(X):
        key = id(X)
        _biased[key] = ref(X, lambda _: _biased.pop(key, None)), ref(found)
    return found


def _ridge(strength: float, loss: SoftmaxRegression, penalize_bias: bool) -> L2Penalty:
    if penalize_bias:
        return L2Penalty(strength)
    groups = np.zeros((loss.n_classes, loss.n_features), int)
    groups[:, -1] = -1
    return L2Penalty(strength, groups=groups.ravel())


def rejected(lam: Array, threshold: float = -3.0) -> Array:
    """Return which examples are marked as corrupted: λ_i < −3, a weight under σ(−3) ≈ 0.047.

    Parameters
    ----------
    lam : array_like (N,)
        λ, an entry for each training example.
    threshold : float
        What takes the place of −3.

    Returns
    -------
    ndarray (N,) of bool

    Examples
    --------
    >>> import numpy as np
    >>> import tinybilevel as tb
    >>> tb.problems.rejected(np.array([-4.0, 0.0]))
    array([ True, False])
    """
    return as_float("lam", lam, ndim=1) < threshold
