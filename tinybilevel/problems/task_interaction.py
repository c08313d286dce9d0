"""Task interaction, the paper's Section 4.2.2: learn which linear models should resemble."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array
from tinybilevel.arrays.checks import as_float
from tinybilevel.arrays.labels import as_labels, class_count
from tinybilevel.errors import StabilityWarning
from tinybilevel.maps import Blocks, Layout, Symmetric
from tinybilevel.objectives import L2Penalty, PairwisePenalty, SoftmaxRegression
from tinybilevel.problem import BilevelProblem
from tinybilevel.problems.hypercleaning import append_bias
from tinybilevel.transitions import GradientDescent

__all__ = ["InteractionMap", "interactions", "task_interaction"]


def task_interaction(
    X: Any,
    y: Any,
    X_val: Any,
    y_val: Any,
    *,
    T: int = 100,
    step_size: float = 0.1,
    n_classes: int | None = None,
    backend: str = "auto",
    remember: int = 0,
) -> BilevelProblem:
    """Let V linear softmax models share strength through a matrix that validation data choose.

    Lower level: g(W, {C, ρ}) = (1/n) Σ_i ℓ_i(W) + Σ_{i,j} C_ij ‖w_i − w_j‖² + ρ Σ_v ‖w_v‖², T
    steps of gradient descent from W = 0. The pairs are ordered ones, i < j and j < i, as printed;
    a sum over i < j alone halves C. The bias is not penalised. Upper level: the mean
    cross-entropy on the validation set. The paper prints "linear regression loss" there, which
    is taken as a slip: its models are softmax classifiers.

    Parameters
    ----------
    X : array_like (n, d)
        Training examples, float32 or float64; a column of ones is appended as a bias.
    y : array_like (n,) of int
        Their classes.
    X_val, y_val : array_like (m, d), (m,) of int
        Validation examples.
    T : int
        Steps of the lower level.
    step_size : float
        γ. The steps are stable where γ (β + 2ρ + 8 max_i Σ_j C_ij) < 2, see `InteractionMap`.
    n_classes : int, optional
        V; by default the largest class in `y` and `y_val` plus one.
    backend : {"auto", "plain", "numpy", "numba"}
        See `SoftmaxRegression`.
    remember : int
        Softmaxes of the lower level to keep for the backward pass; with as many as its steps it
        takes a quarter less time. See `SoftmaxRegression`.

    Returns
    -------
    BilevelProblem
        λ holds C_ij for i < j, row by row, then ρ: V(V−1)/2 + 1 numbers, all 0 in `lam0`, and
        at least 0 by the problem's `bounds`: under exp or softplus the gradient would scale with C
        and be no measure of convergence. w = W.ravel(), W is (V, d + 1), the bias column last.

    Raises
    ------
    TypeError, ValueError
        If shapes or dtypes do not fit together.

    Warns
    -----
    StabilityWarning
        At an evaluation with a λ that leaves the bound above.

    See Also
    --------
    RowSpace : Fewer columns, and the same numbers, where n < d.

    Notes
    -----
    One strength c shared by all pairs is no model of its own: the gradient of the cross-entropy
    sums to 0 over the classes, so that from W = 0 the rows sum to 0 at every step, and then
    Σ_{i,j} c ‖w_i − w_j‖² = 2Vc Σ_v ‖w_v‖². It only adds 2Vc to ρ.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> data = tb.data.digits().split(n_train=50, n_val=50, seed=0)
    >>> problem = tb.problems.task_interaction(data.X_train, data.y_train, data.X_val, data.y_val)
    >>> problem.lam0.shape
    (46,)
    >>> tb.KRMD(K=5)(problem).grad.shape
    (46,)
    """
    X, X_val = as_float("X", X, ndim=2), as_float("X_val", X_val, ndim=2)
    if X.shape[1] != X_val.shape[1]:
        raise ValueError(f"X and X_val must have as many columns, got {X.shape} and {X_val.shape}")
    y, y_val = as_labels("y", y, len(X)), as_labels("y_val", y_val, len(X_val))
    if n_classes is None:
        n_classes = class_count("y and y_val", y, y_val)
    V, d = n_classes, X.shape[1] + 1

    def mean_loss(X: Array, y: Any, remember: int = 0) -> SoftmaxRegression:
        options: dict[str, Any] = dict(backend=backend, remember=remember)
        return SoftmaxRegression(append_bias(X), y, V, weighted=False, **options)

    loss = mean_loss(X, y, remember)
    phi = InteractionMap(V, step_size, 0.5 * _largest_eigenvalue(loss.X))
    penalized = np.tile(np.append(np.zeros(d - 1, int), -1), V)
    lower = (
        loss
        + PairwisePenalty(V, d, n_free=1).on(phi.theta_layout["C"])
        + L2Penalty(groups=penalized).on(phi.theta_layout["rho"])
    )
    return BilevelProblem(
        GradientDescent(lower, step_size, initial=np.zeros_like(X, shape=V * d)),
        upper=mean_loss(X_val, y_val),
        T=T,
        hyper_map=phi,
        lam0=np.zeros_like(X, shape=phi.layout.size),
        bounds=(0.0, None),
    )


class InteractionMap(Blocks):
    """θ = (C, ρ) of a `task_interaction`, with a word where its steps may grow.

    The Hessian of the mean cross-entropy is at most β = ½ λ_max(XᵀX/n), that of the pairs 8 times
    the largest row sum of C (a Laplacian's eigenvalues are at most twice its largest degree), and
    that of the ridge 2ρ. So γ (β + 2ρ + 8 max_i Σ_j C_ij) < 2 is enough for gradient descent to be
    stable; it is looked at whenever the map is evaluated.

    Parameters
    ----------
    n_classes : int
        V.
    step_size : float
        γ.
    beta : float
        β, at least 0.

    Examples
    --------
    >>> import numpy as np
    >>> import tinybilevel as tb
    >>> phi = tb.problems.InteractionMap(n_classes=3, step_size=0.1, beta=1.0)
    >>> phi.project(np.array([1.0, 2.0, 0.0, 0.0])).round(3)  # C_01, C_02, C_12, ρ
    array([0.791, 1.582, 0.   , 0.   ])
    """

    def __init__(self, n_classes: int, step_size: float, beta: float) -> None:
        layout = Layout(C=n_classes * (n_classes - 1) // 2, rho=1)
        super().__init__(layout, C=Symmetric(n_classes))
        self.n_classes, self.step_size, self.beta = n_classes, float(step_size), float(beta)

    def __call__(self, lam: Array) -> Array:
        theta = super().__call__(lam)
        if (bound := self.step_bound(theta)) >= 2:
            C, rho = theta[:-1].reshape(self.n_classes, -1), float(theta[-1])
            warnings.warn(
                f"the steps may grow: γ (β + 2ρ + 8 max row sum of C) is {bound:.3g}, not below 2, "
                f"with γ = {self.step_size:.3g}, β = {self.beta:.3g}, ρ = {rho:.3g} and a row sum "
                f"of {float(C.sum(axis=1).max()):.3g}; take a smaller step_size, or pass "
                "projection=problem.hyper_map.project to minimize",
                StabilityWarning,
                stacklevel=2,
            )
        return theta

    def step_bound(self, theta: Array) -> float:
        """Return γ (β + 2ρ + 8 max_i Σ_j C_ij).

        Examples
        --------
        >>> import numpy as np
        >>> import tinybilevel as tb
        >>> phi = tb.problems.InteractionMap(n_classes=3, step_size=0.1, beta=1.0)
        >>> print(f"{phi.step_bound(phi(np.array([0.1, 0.2, 0.0, 0.5]))):.2f}")
        0.44
        """
        rows = theta[:-1].reshape(self.n_classes, -1).sum(axis=1)
        return self.step_size * (self.beta + 2 * float(theta[-1]) + 8 * float(rows.max()))

    def project(self, lam: Array) -> Array:
        """Return a λ ≥ 0 within the bound: ρ clipped, and entries of C in too large rows shrunk.

        C_ij is multiplied by min(s_i, s_j), where s_i ≤ 1 brings row i to the largest sum allowed.
        It is a map into the feasible set for ``minimize(projection=…)``, not to its nearest point.
        """
        room = 0.999 * (2 / self.step_size - self.beta)
        if room <= 0:
            raise ValueError(
                f"γ = {self.step_size:.3g} is too large for any C and ρ: β = {self.beta:.3g}, so "
                f"that it must be below {2 / self.beta:.3g}"
            )
        lam = np.maximum(lam, 0)
        rho = min(float(lam[-1]), room / 2)
        C = self._maps["C"](lam[:-1]).reshape(self.n_classes, -1)
        rows = C.sum(axis=1)
        most = (room - 2 * rho) / 8
        s = np.where(rows > most, most / np.where(rows > 0, rows, 1), 1)
        upper = np.triu_indices(self.n_classes, 1)
        C = C * np.minimum(s[:, None], s)
        return np.append(C[upper], rho).astype(lam.dtype)


def _largest_eigenvalue(X: Array) -> float:
    """Return λ_max(XᵀX/n), from the smaller of the two Gram matrices."""
    n, d = X.shape
    gram = X @ X.T if n < d else X.T @ X
    return float(np.linalg.eigvalsh(gram.astype(np.float64))[-1]) / n


def interactions(lam: Array) -> Array:
    """Return the symmetric matrix C of a `task_interaction` problem's λ.

    Parameters
    ----------
    lam : ndarray (V(V−1)/2 + 1,)
        C_ij for i < j, row by row, then ρ.

    Returns
    -------
    ndarray (V, V)

    Raises
    ------
    ValueError
        If `lam` does not have V(V−1)/2 + 1 entries for any V.

    Examples
    --------
    >>> import numpy as np
    >>> import tinybilevel as tb
    >>> tb.problems.interactions(np.array([0.1, 0.2, 0.3, 9.0]))  # C_01, C_02, C_12 and ρ
    array([[0. , 0.1, 0.2],
           [0.1, 0. , 0.3],
           [0.2, 0.3, 0. ]])
    """
    pairs = len(lam) - 1
    V = round((1 + (1 + 8 * max(pairs, 0)) ** 0.5) / 2)
    if pairs != V * (V - 1) // 2:
        raise ValueError(f"lam must hold V(V−1)/2 + 1 numbers for some V, got {len(lam)}")
    return Symmetric(V)(lam[:-1]).reshape(V, V)
