"""Multiclass softmax regression, with one weight per example."""

from __future__ import annotations

import copy
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array, as_count, as_float, like, on_device, to_numpy
from tinybilevel.arrays.workspace import FRESH, Workspace
from tinybilevel.errors import missing_extra
from tinybilevel.objectives.base import Objective
from tinybilevel.objectives.plain_softmax import PlainSoftmax
from tinybilevel.objectives.remembered import Remembered

__all__ = ["SoftmaxRegression"]

#: Multiply-adds of one product with X from which compiled code repays being loaded.
_LARGE = 20_000_000
#: The same on a GPU, where Numba takes some 0.1 ms to launch a kernel. Not measured yet.
_LARGE_ON_DEVICE = 1_000_000_000


class SoftmaxRegression(Objective):
    """g(w, θ) = s Σ_i θ_i ℓ_i(W), ℓ_i(W) = log Σ_c exp(W x_i)_c − (W x_i)_{y_i}.

    The loss of the paper's Section 4.2.1; W is (C, d) and w = W.ravel().

    Conventions:

    ==============  ========  ===================================================
    ``X``           (n, d)    one example per row
    ``P``           (C, n)    softmax of the scores W Xᵀ, classes first
    ``R``           (C, n)    ∂ℓ_i/∂(W x_i)_c = P − onehot(y)
    ``dS``          (C, n)    change V Xᵀ of the scores along V
    ==============  ========  ===================================================

    Classes come first so that a sum over classes adds whole contiguous rows, and W and V share
    one product with X.

    Parameters
    ----------
    X : array_like or scipy.sparse array (n, d)
        Examples, float32 or float64; append a column of ones for a bias.
    y : array_like (n,) of int
        Classes, 0 … C−1.
    n_classes : int, optional
        C; by default the largest class in `y` plus one.
    weighted : bool
        True: θ = ``lam`` holds one weight per example. False: all weights are 1 and `lam`
        does not enter.
    scale : float, optional
        s; by default 1/n, the mean.
    backend : {"auto", "numpy", "numba"}
        Who computes the value, the gradient and its vjp: the plain bodies, or
        compiled kernels, which need the extra ``fast``. "auto" takes those where they are
        installed and X is large. They compute in the dtype of X, and leave a mix of dtypes to the
        plain bodies; they skip the zeros of X, also those that an infinite w would turn to NaN.
    remember : int
        How many softmaxes of all examples to keep in a call, n·C numbers each: the backward pass
        then takes up those of its newest so many steps, where it would compute them again. Not on
        minibatches, nor on a GPU, which would have to wait.

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

    #: Where a product puts what it makes: new arrays, unless the objective is bound to a call.
    _work = FRESH

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
        self.X = _examples(X)
        n, self.n_features = self.X.shape
        if n == 0 or self.n_features == 0:
            raise ValueError(f"X must have at least one row and one column, got {self.X.shape}")
        y = to_numpy(y)
        if y.shape != (n,) or y.dtype.kind not in "iu":
            raise ValueError(f"y must be {n} integers, got shape {y.shape} of {y.dtype}")
        top = int(y.max())
        self.n_classes = (
            top + 1 if n_classes is None else as_count("n_classes", n_classes, minimum=1)
        )
        if y.min() < 0 or top >= self.n_classes:
            raise ValueError(f"y must lie in 0 … {self.n_classes - 1}, got {y.min()} … {top}")
        self.y = like(self.X, y.astype(np.intp))
        self.weighted = bool(weighted)
        self.scale = 1.0 / n if scale is None else float(scale)
        self.n_lam = n if weighted else None
        self.dtype, self._entries = self.X.dtype, np.empty(0, self.X.dtype)
        self._rows: Array | None = None
        self.remember = as_count("remember", remember)
        self._remembered: Remembered | None = None
        self.backend = backend
        self._plain = PlainSoftmax(self.X, self.y, self.n_classes)
        self._kernel = _kernel(backend, self.X, self.y, self.n_classes)

    @property
    def size(self) -> int:
        """M = C·d, the number of entries of w."""
        return self.n_classes * self.n_features

    def restrict(self, index: Array) -> SoftmaxRegression:
        """Return the same loss over the rows in `index` (in that order), rescaled by n/len(index).

        `lam` keeps its n entries; the products are scattered back into them.
        """
        index = like(self.X, index if on_device(index) else np.asarray(index))
        if index.ndim != 1 or index.size == 0 or index.dtype.kind not in "iu":
            raise ValueError(f"index must be a nonempty vector of integers, got {index!r}")
        part = object.__new__(SoftmaxRegression)
        part.__dict__.update(self.__dict__, X=self.X[index], y=self.y[index])
        part._plain = PlainSoftmax(part.X, part.y, self.n_classes)
        part._kernel = part._remembered = None
        part.scale = self.scale * len(self.y) / len(index)
        part._rows = index if self._rows is None else self._rows[index]
        return part

    def value(self, w: Array, lam: Array) -> float:
        losses = self.losses(w)
        return float(losses @ self._weights(lam) if self.weighted else self.scale * losses.sum())

    def to(self, namespace: str) -> SoftmaxRegression:
        other = super().to(namespace)
        other._plain = PlainSoftmax(other.X, other.y, self.n_classes)
        other._kernel = _kernel(self.backend, other.X, other.y, self.n_classes)
        return other

    def bound(self) -> SoftmaxRegression:
        other = copy.copy(self)
        other._work = Workspace()
        other._plain = self._plain.bound()
        other._kernel = None if self._kernel is None else self._kernel.bound()
        if self.remember and not on_device(self.X):
            room, W = other._products().room, (self.size,)
            slots = [(np.empty(W, self.dtype), room()) for _ in range(self.remember)]
            other._remembered = Remembered(slots)
        return other

    def grad(self, w: Array, lam: Array) -> Array:
        W, weights = self._matrix(w), self._weight_array(w, lam)
        products, remembered = self._products(w, lam), self._memory(w, lam)
        out = self._out("grad", w, weights)
        if remembered is None:
            products.grad(W, weights, out)
        else:
            products.grad(W, weights, out, remembered.add(w))
        return out.ravel()

    def grad_lam(self, w: Array, lam: Array) -> Array:
        return self._scatter(lam, self.losses(w)) if self.weighted else np.zeros_like(lam)

    def grad_vjp(self, w: Array, lam: Array, v: Array) -> tuple[Array, Array]:
        """Return s Σ_i θ_i ∇²ℓ_i v and the vector of s ∇ℓ_i·v."""
        weights = self._weight_array(w, lam)
        out, along = self._out("hessian", w, v, weights), self._per_example("along", w, v)
        products, remembered = self._products(w, lam, v), self._memory(w, lam, v)
        arrays = self._matrix(w), self._matrix(v), weights, out, along
        kept = None if remembered is None else remembered.pop(w)
        if kept is None:
            products.grad_vjp(*arrays)
        else:
            products.grad_vjp(*arrays, kept)
        return out.ravel(), self._scatter(lam, along) if self.weighted else np.zeros_like(lam)

    def grad_jvp(self, w: Array, lam: Array, dw: Array, dlam: Array) -> Array:
        """Return s Σ_i (θ_i ∇²ℓ_i dw + dθ_i ∇ℓ_i)."""
        weights = self._weight_array(w, lam)
        dweights = self._weights(dlam, "dweights") if self.weighted else np.zeros_like(weights)
        out = self._out("jvp", w, dw, weights, dweights)
        W, dW = self._matrix(w), self._matrix(dw)
        return self._plain.grad_jvp(W, dW, weights, dweights, out).ravel()

    def predict(self, w: Array, X: Array) -> Array:
        """Return the most likely class of each row of `X`, (n,)."""
        return np.argmax(X @ self._matrix(w).T, axis=1)

    def whole_dense(self) -> bool:
        """Return whether X is dense, and its rows are not a part of other data's."""
        return self._rows is None and not hasattr(self.X, "tocsr")

    def losses(self, w: Array) -> Array:
        """Return ℓ_i(W) for each example, (n,), unweighted and unscaled."""
        return self._products(w).losses(self._matrix(w), self._per_example("losses", w))

    def _products(self, *vectors: Array) -> Any:
        """Return who computes: the kernel, or the plain bodies where it does not know the dtype."""
        compiled = self._kernel is not None and all(v.dtype == self.dtype for v in vectors)
        return self._kernel if compiled else self._plain

    def _memory(self, *vectors: Array) -> Remembered | None:
        """Return what this call remembers, which is of the dtype of X."""
        usable = self._remembered is not None and all(v.dtype == self.dtype for v in vectors)
        return self._remembered if usable else None

    def _out(self, name: str, *operands: Array) -> Array:
        return self._work(name, (self.n_classes, self.n_features), *operands, self._entries)

    def _per_example(self, name: str, *operands: Array) -> Array:
        return self._work(name, self.y.shape, *operands, self._entries)

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

    def _weights(self, lam: Array, name: str = "weights") -> Array:
        if lam.shape != (self.n_lam,):
            raise ValueError(f"lam must hold {self.n_lam} example weights, got shape {lam.shape}")
        lam = lam if self._rows is None else lam[self._rows]
        return np.multiply(lam, self.scale, out=self._work(name, lam.shape, lam))

    def _scatter(self, lam: Array, per_example: Array) -> Array:
        per_example *= self.scale
        if self._rows is None:
            return per_example
        whole = self._work("mixed", lam.shape, per_example)
        whole[...] = 0
        np.add.at(whole, self._rows, per_example)
        return whole


def _examples(X: Any) -> Any:
    """Check X; a sparse one comes back in compressed rows."""
    if not hasattr(X, "tocsr"):
        return as_float("X", X, ndim=2)
    from scipy.sparse import csr_array

    X = X if hasattr(X, "get") else csr_array(X)
    data = as_float("X", X.data)
    return X if data.dtype == X.dtype else X.astype(data.dtype)


def _kernel(backend: str, X: Any, y: Array, n_classes: int) -> Any:
    if backend not in ("auto", "numpy", "numba"):
        raise ValueError(f'backend must be "auto", "numpy" or "numba", got {backend!r}')
    device, sparse = on_device(X), hasattr(X, "tocsr")
    work = (X.nnz if sparse else X.size) * n_classes
    # A sparse matrix on a GPU is left to CuPy.
    usable = find_spec("numba") is not None and not (sparse and hasattr(X, "get"))
    small = work < (_LARGE_ON_DEVICE if device else _LARGE)
    if backend == "numpy" or (backend == "auto" and (small or not usable)):
        return None
    try:
        kernels = import_module("tinybilevel.kernels." + ("cuda" if device else "softmax"))
    except ImportError as error:
        raise missing_extra('backend="numba" needs Numba', "fast", error) from error
    return kernels.Softmax(X, y, n_classes)
