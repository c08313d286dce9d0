"""Multiclass softmax regression, with one weight per example."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array, like
from tinybilevel.arrays.checks import as_count, as_examples, as_flag, as_number, as_rows
from tinybilevel.arrays.labels import as_labels, class_count, one_hot
from tinybilevel.objectives.base import Objective
from tinybilevel.objectives.overlays import choose

__all__ = ["Softmax", "SoftmaxRegression"]


class Softmax:
    """Σ_i θ_i ℓ_i(W), ℓ_i(W) = log Σ_c exp(W x_i)_c − (W x_i)_{y_i}: the definition.

    Conventions:

    =========  ========  ===================================================
    ``X``      (n, d)    one example per row; sparse, or on a GPU, as well
    ``Y``      (C, n)    Y_ci = [c = y_i], classes first
    ``W``      (C, d)    and V, dW, along which the products are taken
    ``theta``  (n,)      one weight per example, or (1,) for all; dtheta
    ``S``      (C, n)    scores W Xᵀ, the largest of each example made 0
    ``P``      (C, n)    softmax of the scores
    ``R``      (C, n)    ∂ℓ_i/∂S_ci = P − Y
    ``dS``     (C, n)    change V Xᵀ of the scores along V; dP that of P
    =========  ========  ===================================================
    """

    def __init__(self, X: Any, y: Array, n_classes: int) -> None:
        self.X, self.Y = X, one_hot(y, n_classes)

    def scores(self, W: Array) -> Array:
        S = W @ self.X.T
        return S - S.max(axis=0)

    def softmax(self, W: Array) -> Array:
        E = np.exp(self.scores(W))
        return E / E.sum(axis=0)

    def losses(self, W: Array) -> Array:
        """Return ℓ_i(W), (n,)."""
        S = self.scores(W)
        return np.log(np.exp(S).sum(axis=0)) - (self.Y * S).sum(axis=0)

    def grad(self, W: Array, theta: Array) -> Array:
        """Return Σ_i θ_i ∇ℓ_i(W), (C, d)."""
        R = self.softmax(W) - self.Y
        return (R * theta) @ self.X

    def grad_vjp(self, W: Array, V: Array, theta: Array) -> tuple[Array, Array]:
        """Return Σ_i θ_i ∇²ℓ_i(W) V, (C, d), and each ∇ℓ_i(W)·V, (n,)."""
        P, dS = self.softmax(W), V @ self.X.T
        R, dP = P - self.Y, P * (dS - (P * dS).sum(axis=0))
        return (dP * theta) @ self.X, (R * dS).sum(axis=0)

    def grad_jvp(self, W: Array, dW: Array, theta: Array, dtheta: Array) -> Array:
        """Return Σ_i (θ_i ∇²ℓ_i(W) dW + dθ_i ∇ℓ_i(W)), (C, d)."""
        P, dS = self.softmax(W), dW @ self.X.T
        R, dP = P - self.Y, P * (dS - (P * dS).sum(axis=0))
        return (dP * theta + R * dtheta) @ self.X

    def bound(self, remember: int = 0) -> Softmax:
        """Return itself: only an overlay has working memory, and remembers."""
        return self


class SoftmaxRegression(Objective):
    """g(w, θ) = s Σ_i θ_i ℓ_i(W), ℓ_i(W) = log Σ_c exp(W x_i)_c − (W x_i)_{y_i}.

    The loss of the paper's Section 4.2.1; W is (C, d) and w = W.ravel(). Its products are those of
    ``Softmax`` in the same file, with the weights s θ.

    Parameters
    ----------
    X : array_like or scipy.sparse array (n, d)
        Examples, float32 or float64; append a column of ones for a bias. They are copied, unless
        they are read-only.
    y : array_like (n,) of int
        Classes, 0 … C−1.
    n_classes : int, optional
        C; by default the largest class in `y` plus one.
    weighted : bool
        True: θ = ``lam`` holds one weight per example. False: all weights are 1 and `lam`
        does not enter.
    scale : float, optional
        s; by default 1/n, the mean.
    backend : {"auto", "plain", "numpy", "numba"}
        Who computes: the definition on whole arrays; the same in blocks of rows, on threads; or
        compiled kernels, which need the extra ``fast``. "auto" takes those where they are
        installed and X is large, and otherwise "numpy". They compute in the dtype of X, and leave
        a mix of dtypes to the blocks; they skip the zeros of X, also those that an infinite w
        would turn to NaN.
    remember : int
        How many softmaxes of all examples to keep in a call, n·C numbers each: the backward pass
        then takes up those of its newest so many steps, where it would compute them again. Not by
        the definition, on minibatches, nor on a GPU, which would have to wait.

    Raises
    ------
    TypeError, ValueError
        If X or y has the wrong dtype or shape, or a class is out of range.
    ImportError
        If `backend` is "numba" and Numba is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> import tinybilevel as tb
    >>> g = tb.SoftmaxRegression(np.eye(2), [0, 1])
    >>> round(g.value(np.zeros(4), np.ones(2)), 6)  # log 2
    0.693147
    """

    def __init__(
        self,
        X: Any,
        y: Any,
        n_classes: int | None = None,
        *,
        weighted: bool = True,
        scale: float | None = None,
        backend: str = "auto",
        remember: int = 0,
    ) -> None:
        self.X = as_examples("X", X)
        n, self.n_features = self.X.shape
        if n_classes is not None:
            n_classes = as_count("n_classes", n_classes, minimum=1)
        y = as_labels("y", y, n, n_classes)
        self.n_classes = class_count("y", y) if n_classes is None else n_classes
        self.y = like(self.X, y)
        self.weighted = as_flag("weighted", weighted)
        self.scale = 1.0 / n if scale is None else as_number("scale", scale)
        self.n_lam = n if weighted else None
        self.dtype = self.X.dtype
        self._rows: Array | None = None
        self.remember = as_count("remember", remember)
        if remember and backend == "plain":
            raise ValueError('remember needs an overlay: backend="plain" keeps no softmax')
        self.backend = backend
        self.body = choose(Softmax, backend, self.X, self.y, self.n_classes)

    @property
    def size(self) -> int:
        """M = C·d, the number of entries of w."""
        return self.n_classes * self.n_features

    def restrict(self, index: Array) -> SoftmaxRegression:
        """Return the same loss over the rows in `index` (in that order), rescaled by n/len(index).

        `lam` keeps its n entries; the products are scattered back into them.
        """
        index = like(self.X, as_rows(index, len(self.y)))
        part = object.__new__(SoftmaxRegression)
        part.__dict__.update(self.__dict__, X=self.X[index], y=self.y[index])
        # A kernel would not repay what it has to prepare.
        backend = "plain" if self.backend == "plain" else "numpy"
        part.body = choose(Softmax, backend, part.X, part.y, self.n_classes)
        part.scale = self.scale * len(self.y) / len(index)
        part._rows = index if self._rows is None else self._rows[index]
        return part

    def value(self, w: Array, lam: Array) -> float:
        return self._total(self.losses(w), lam)

    def value_with_grads(self, w: Array, lam: Array) -> tuple[float, Array, Array]:
        if not hasattr(self.body, "losses_and_grad"):  # which kernels have
            return super().value_with_grads(w, lam)
        losses, grad = self.body.losses_and_grad(self._matrix(w), self._weight_array(w, lam))
        value = self._total(losses, lam)
        along = self._scatter(lam, losses) if self.weighted else np.zeros_like(lam)
        return value, grad.ravel(), along

    def _total(self, losses: Array, lam: Array) -> float:
        return float(losses @ self._weights(lam) if self.weighted else self.scale * losses.sum())

    def _remake(self) -> None:
        self.body = choose(Softmax, self.backend, self.X, self.y, self.n_classes)

    def bound(self) -> SoftmaxRegression:
        """Return the same with working memory of its own, for one call."""
        other = copy.copy(self)
        other.body = self.body.bound(self.remember)
        return other

    def grad(self, w: Array, lam: Array) -> Array:
        return self.body.grad(self._matrix(w), self._weight_array(w, lam)).ravel()

    def grad_lam(self, w: Array, lam: Array) -> Array:
        return self._scatter(lam, self.losses(w)) if self.weighted else np.zeros_like(lam)

    def grad_vjp(self, w: Array, lam: Array, v: Array) -> tuple[Array, Array]:
        """Return s Σ_i θ_i ∇²ℓ_i v and the vector of s ∇ℓ_i·v."""
        W, V, weights = self._matrix(w), self._matrix(v), self._weight_array(w, lam)
        hessian, along = self.body.grad_vjp(W, V, weights)
        return hessian.ravel(), self._scatter(lam, along) if self.weighted else np.zeros_like(lam)

    def grad_jvp(self, w: Array, lam: Array, dw: Array, dlam: Array) -> Array:
        """Return s Σ_i (θ_i ∇²ℓ_i dw + dθ_i ∇ℓ_i)."""
        weights = self._weight_array(w, lam)
        dweights = self._weights(dlam) if self.weighted else np.zeros_like(weights)
        return self.body.grad_jvp(self._matrix(w), self._matrix(dw), weights, dweights).ravel()

    def predict(self, w: Array, X: Array) -> Array:
        """Return the most likely class of each row of `X`, (n,).

        Examples
        --------
        >>> import numpy as np
        >>> import tinybilevel as tb
        >>> g = tb.SoftmaxRegression(np.eye(3), [0, 1, 2])
        >>> g.predict(np.eye(3).ravel(), np.array([[0.1, 0.9, 0.0], [0.2, 0.0, 0.3]]))
        array([1, 2])
        """
        if X.shape[1:] != (self.n_features,):
            raise ValueError(
                f"X must have {self.n_features} columns, with a bias where the examples have one "
                f"(`append_bias`), got shape {X.shape}"
            )
        return np.argmax(X @ self._matrix(w).T, axis=1)

    def whole_dense(self) -> bool:
        """Return whether X is dense, and its rows are not a part of other data's."""
        return self._rows is None and not hasattr(self.X, "tocsr")

    def losses(self, w: Array) -> Array:
        """Return ℓ_i(W) for each example, (n,), unweighted and unscaled."""
        return self.body.losses(self._matrix(w))

    def _matrix(self, w: Array) -> Array:
        if w.shape != (self.size,):
            raise ValueError(
                f"w must have shape ({self.size},) = {self.n_classes} classes × "
                f"{self.n_features} features, got {w.shape}"
            )
        return w.reshape(self.n_classes, self.n_features)

    def _weight_array(self, w: Array, lam: Array) -> Array:
        """Return the weights of the examples, (n,), or (1,) where all are the same."""
        return self._weights(lam) if self.weighted else np.full_like(w, self.scale, shape=1)

    def _weights(self, lam: Array) -> Array:
        if lam.shape != (self.n_lam,):
            raise ValueError(f"lam must hold {self.n_lam} example weights, got shape {lam.shape}")
        return self.scale * (lam if self._rows is None else lam[self._rows])

    def _scatter(self, lam: Array, per_example: Array) -> Array:
        per_example *= self.scale
        if self._rows is None:
            return per_example
        whole = np.zeros_like(per_example, shape=lam.shape)
        np.add.at(whole, self._rows, per_example)
        return whole
