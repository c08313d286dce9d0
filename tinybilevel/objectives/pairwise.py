"""Strengths between pairs of vectors: the penalty of the paper's task interaction."""

from __future__ import annotations

import numpy as np

from tinybilevel.arrays.backend import Array
from tinybilevel.arrays.checks import as_count
from tinybilevel.objectives.base import Objective

__all__ = ["PairwisePenalty"]


class PairwisePenalty(Objective):
    """g(W, C) = Σ_{i,j} C_ij ‖w_i − w_j‖² over all ordered pairs of the rows of W.

    The penalty of the paper's Section 4.2.2. The sum runs over i < j and over j < i: one over
    i < j alone is this one with C halved. With S = C + Cᵀ and its Laplacian
    L(S) = diag(S 1) − S, it is ⟨W, L(S) W⟩, so that no difference w_i − w_j is ever formed; a
    symmetric C has ∇_W g = 4 L(C) W.

    Conventions:

    ==========================  ===========  ==============================================
    ``W``                       (V, d)       one vector per row, ``w = W.ravel()``
    ``C``                       (V, V)       ``lam = C.ravel()``; the diagonal has no effect
    ``grad``                    (V, d)       2 L(S) W
    ``grad_vjp`` by W           (V, d)       2 L(S) V
    ``grad_vjp`` by C_ij        (V, V)       2 (w_i − w_j)·(v_i − v_j), from one Gram matrix
    ==========================  ===========  ==============================================

    Parameters
    ----------
    n_vectors : int
        V.
    n_features : int
        d, the length of each vector.
    n_free : int
        How many of the last columns of W are left alone, such as one for a bias.

    Raises
    ------
    TypeError, ValueError
        If a size is not an integer or out of range.

    Examples
    --------
    >>> import numpy as np
    >>> import tinybilevel as tb
    >>> g = tb.PairwisePenalty(n_vectors=2, n_features=1)
    >>> C = np.array([[0.0, 0.5], [0.5, 0.0]])
    >>> w = np.array([1.0, 4.0])
    >>> g.value(w, C.ravel()), g.grad(w, C.ravel())
    (9.0, array([-6.,  6.]))
    """

    def __init__(self, n_vectors: int, n_features: int, n_free: int = 0) -> None:
        self.n_vectors = as_count("n_vectors", n_vectors, minimum=1)
        self.n_features = as_count("n_features", n_features, minimum=1)
        self.n_free = as_count("n_free", n_free)
        if self.n_free > self.n_features:
            raise ValueError(f"n_free must be at most n_features = {n_features}, got {n_free}")
        self.n_lam = self.n_vectors**2

    def value(self, w: Array, lam: Array) -> float:
        W = self._vectors("w", w)
        return float((W * (self._laplacian(lam) @ W)).sum())

    def grad(self, w: Array, lam: Array) -> Array:
        return self._whole(2 * self._laplacian(lam) @ self._vectors("w", w))

    def grad_lam(self, w: Array, lam: Array) -> Array:
        W = self._vectors("w", w)
        return _between_pairs(W, W).ravel()

    def grad_vjp(self, w: Array, lam: Array, v: Array) -> tuple[Array, Array]:
        W, V = self._vectors("w", w), self._vectors("v", v)
        return self._whole(2 * self._laplacian(lam) @ V), 2 * _between_pairs(W, V).ravel()

    def grad_jvp(self, w: Array, lam: Array, dw: Array, dlam: Array) -> Array:
        W, dW = self._vectors("w", w), self._vectors("dw", dw)
        return self._whole(2 * self._laplacian(lam) @ dW + 2 * self._laplacian(dlam) @ W)

    def _laplacian(self, lam: Array) -> Array:
        """Return L(C + Cᵀ)."""
        V = self.n_vectors
        if lam.shape != (V * V,):
            raise ValueError(f"lam must hold C, {V} × {V} = {V * V} numbers, got {lam.shape}")
        C = lam.reshape(V, V)
        S = C + C.T
        return np.diag(S.sum(axis=1)) - S

    def _vectors(self, name: str, w: Array) -> Array:
        """Return the columns of W that are penalised, a view."""
        V, d = self.n_vectors, self.n_features
        if w.shape != (V * d,):
            raise ValueError(f"{name} must have shape ({V * d},) = {V} × {d}, got {w.shape}")
        return w.reshape(V, d)[:, : d - self.n_free]

    def _whole(self, G: Array) -> Array:
        """Put zeros in the columns that are left alone."""
        zeros = np.zeros_like(G, shape=(self.n_vectors, self.n_free))
        return np.concatenate([G, zeros], axis=1).ravel()


def _between_pairs(W: Array, V: Array) -> Array:
    """Return (w_i − w_j)·(v_i − v_j) for all i and j, from the Gram matrix W Vᵀ."""
    G = W @ V.T
    own = np.diag(G)
    return own[:, None] + own - G - G.T
