"""Multiclass softmax regression, with one weight per example."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np

from tinybilevel.backend import Array, as_count, as_float, like, on_device, take, to_numpy
from tinybilevel.objectives.base import Objective

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
        self._labels = self._label_entries()
        self.weighted = bool(weighted)
        self.scale = 1.0 / n if scale is None else float(scale)
        self.n_lam = n if weighted else None
        self.dtype, self._entries = self.X.dtype, np.empty(0, self.X.dtype)
        self._rows: Array | None = None
        self.backend = backend
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
        part._labels = part._label_entries()
        part._kernel = None
        part.scale = self.scale * len(self.y) / len(index)
        part._rows = index if self._rows is None else self._rows[index]
        return part

    def value(self, w: Array, lam: Array) -> float:
        losses = self.losses(w)
        return float(losses @ self._weights(lam) if self.weighted else self.scale * losses.sum())

    def to(self, namespace: str) -> SoftmaxRegression:
        other = super().to(namespace)
        other._kernel = _kernel(self.backend, other.X, other.y, self.n_classes)
        return other

    def bound(self) -> SoftmaxRegression:
        other = self._with_workspace()
        other._kernel = None if self._kernel is None else self._kernel.bound()
        return other

    def grad(self, w: Array, lam: Array) -> Array:
        if self._compiled(w, lam):
            W, out = self._matrix(w), self._work("grad", (self.n_classes, self.n_features), w)
            return self._kernel.grad(W, self._weight_array(w, lam), out).ravel()
        R = self._residual(self._softmax(w))
        return self._gather("grad", R, self._weights(lam))

    def grad_lam(self, w: Array, lam: Array) -> Array:
        return self._scatter(lam, self.losses(w)) if self.weighted else np.zeros_like(lam)

    def grad_vjp(self, w: Array, lam: Array, v: Array) -> tuple[Array, Array]:
        """Return s Σ_i θ_i ∇²ℓ_i v and the vector of s ∇ℓ_i·v."""
        if self._compiled(w, lam, v):
            out = self._work("hessian", (self.n_classes, self.n_features), w)
            along, weights = self._work("along", self.y.shape, w), self._weight_array(w, lam)
            self._kernel.grad_vjp(self._matrix(w), self._matrix(v), weights, out, along)
            mixed = self._scatter(lam, along) if self.weighted else np.zeros_like(lam)
            return out.ravel(), mixed
        P, dS, dP = self._changes(w, v)
        hessian = self._gather("hessian", dP, self._weights(lam))
        if not self.weighted:
            return hessian, np.zeros_like(lam)
        along = np.multiply(self._residual(P), dS, out=dS)
        return hessian, self._scatter(lam, self._over_classes(along.sum, along, "along"))

    def grad_jvp(self, w: Array, lam: Array, dw: Array, dlam: Array) -> Array:
        """Return s Σ_i (θ_i ∇²ℓ_i dw + dθ_i ∇ℓ_i)."""
        P, _, dP = self._changes(w, dw)
        dR = dP * self._weights(lam)
        if self.weighted:
            dR = dR + self._residual(P) * self._weights(dlam)
        return self._gather("jvp", dR, 1.0)

    def predict(self, w: Array, X: Array) -> Array:
        """Return the most likely class of each row of `X`, (n,)."""
        return np.argmax(X @ self._matrix(w).T, axis=1)

    def whole_dense(self) -> bool:
        """Return whether X is dense, and its rows are not a part of other data's."""
        return self._rows is None and not hasattr(self.X, "tocsr")

    def losses(self, w: Array) -> Array:
        """Return ℓ_i(W) for each example, (n,), unweighted and unscaled."""
        W = self._matrix(w)
        if self._compiled(w):
            return self._kernel.losses(W, np.empty_like(w, shape=self.y.shape))
        S = self._scores("P", W)
        S -= self._over_classes(S.max, S)
        own = take(S, self._labels, out=self._work("own", self.y.shape, S))
        return np.log(np.exp(S, out=S).sum(axis=0)) - own

    def _matrix(self, w: Array) -> Array:
        if w.shape != (self.size,):
            raise ValueError(
                f"w must have shape ({self.size},) = {self.n_classes} classes × "
                f"{self.n_features} features, got {w.shape}"
            )
        return w.reshape(self.n_classes, self.n_features)

    def _compiled(self, *vectors: Array) -> bool:
        return self._kernel is not None and all(v.dtype == self.dtype for v in vectors)

    def _weight_array(self, w: Array, lam: Array) -> Array:
        weights = self._weights(lam)
        return np.full_like(w, weights, shape=1) if isinstance(weights, float) else weights

    def _label_entries(self) -> Array:
        """Return where entry (y_i, i) of a (C, n) array lies in memory, (n,)."""
        return self.y * len(self.y) + like(self.y, np.arange(len(self.y)))

    def _weights(self, lam: Array) -> Array | float:
        if not self.weighted:
            return self.scale
        if lam.shape != (self.n_lam,):
            raise ValueError(f"lam must hold {self.n_lam} example weights, got shape {lam.shape}")
        lam = lam if self._rows is None else lam[self._rows]
        return np.multiply(lam, self.scale, out=self._work("weights", lam.shape, lam))

    def _scatter(self, lam: Array, per_example: Array) -> Array:
        per_example *= self.scale
        if self._rows is None:
            return per_example
        whole = self._work("mixed", lam.shape, per_example)
        whole[...] = 0
        np.add.at(whole, self._rows, per_example)
        return whole

    def _softmax(self, w: Array) -> Array:
        return self._normalised_exp(self._scores("P", self._matrix(w)))

    def _changes(self, w: Array, v: Array) -> tuple[Array, Array, Array]:
        """Return P, dS and dP = P ∘ (dS − Σ_c P dS), the change of P along dS."""
        W, V = self._matrix(w), self._matrix(v)
        WV = self._work("W and V", (2 * len(W), W.shape[1]), W, V)
        both = self._scores("both", np.concatenate([W, V], out=WV))
        P, dS = self._normalised_exp(both[: self.n_classes]), both[self.n_classes :]
        dP = np.multiply(P, dS, out=self._work("dP", P.shape, P))
        mean = self._over_classes(dP.sum, dP)
        dP -= np.multiply(P, mean, out=self._work("term", P.shape, P))
        return P, dS, dP

    def _scores(self, name: str, W: Array) -> Array:
        S = self._work(name, (len(W), len(self.y)), W, self._entries)
        if S.dtype == np.float64:
            return _matmul(W, self.X.T, S)
        # OpenBLAS is faster with X as the left factor in float32, by half as fast in float64.
        tall = self._work("tall " + name, S.shape[::-1], S)
        S[...] = _matmul(self.X, W.T, tall).T
        return S

    def _gather(self, name: str, R: Array, weights: Array | float) -> Array:
        """Return (R ∘ weights) X."""
        operands = [R] if isinstance(weights, float) else [R, weights]
        R = np.multiply(R, weights, out=self._work("weighted", R.shape, *operands))
        out = self._work(name, (self.n_classes, self.n_features), R, self._entries)
        return _matmul(R, self.X, out).ravel()

    def _residual(self, P: Array) -> Array:
        # Indices into P.ravel(), which NumPy reads and writes without a copy.
        own = self._work("own", self.y.shape, P)
        take(P, self._labels, out=own)
        own -= 1
        np.put(P, self._labels, own)
        return P

    def _over_classes(self, reduce: Any, S: Array, name: str = "per example") -> Array:
        """Return S.max or S.sum over the classes of each example."""
        return reduce(axis=0, out=self._work(name, S.shape[1:], S))

    def _normalised_exp(self, S: Array) -> Array:
        S -= self._over_classes(S.max, S)
        np.exp(S, out=S)
        S /= self._over_classes(S.sum, S)
        return S


def _examples(X: Any) -> Any:
    """Check X; a sparse one comes back in compressed rows."""
    if not hasattr(X, "tocsr"):
        return as_float("X", X, ndim=2)
    from scipy.sparse import csr_array

    X = X if hasattr(X, "get") else csr_array(X)
    as_float("X", X.data)
    return X


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
        raise ImportError('backend="numba" needs Numba: pip install "tinybilevel[fast]"') from error
    return kernels.Softmax(X, y, n_classes)


def _matmul(A: Any, B: Any, out: Array) -> Array:
    """Write A B; SciPy's sparse products have no `out`."""
    if hasattr(A, "tocsr"):
        out[...] = A @ B
        return out
    if hasattr(B, "tocsr"):
        out[...] = (B.T @ A.T).T
        return out
    return np.matmul(A, B, out=out)
