"""Linear losses that have an overlay."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from tinybilevel.arrays.backend import Array
from tinybilevel.objectives.linear import LinearLoss
from tinybilevel.objectives.overlays import choose_one_score

__all__ = ["OneScore"]


class OneScore(LinearLoss):
    """A `LinearLoss` that compiled kernels may compute, in the dtype of the data alone.

    A subclass names in `compiled` the loss that it has among theirs; one that writes out another,
    as a subclass of it may, names none.
    """

    #: Name in ``kernels.one_score``, for this very class.
    compiled: str | None = None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        cls.compiled = cls.__dict__.get("compiled")

    def __init__(
        self,
        X: Any,
        y: Any,
        *,
        weighted: bool = True,
        scale: float | None = None,
        backend: str = "auto",
    ) -> None:
        super().__init__(X, y, weighted=weighted, scale=scale)
        self.backend = backend
        self._remake()

    def _remake(self) -> None:
        self.body = choose_one_score(self.compiled, self.backend, self.X, self.y)

    def losses(self, w: Array) -> Array:
        if (body := self._body(w)) is None:
            return super().losses(w)
        return body.losses(w)

    def grad(self, w: Array, lam: Array) -> Array:
        if (body := self._body(w, lam)) is None:
            return super().grad(w, lam)
        return body.grad(w, self._weight_array(lam))

    def value_with_grads(self, w: Array, lam: Array) -> tuple[float, Array, Array]:
        if (body := self._body(w, lam)) is None:
            return super().value_with_grads(w, lam)
        losses, grad = body.losses_and_grad(w, self._weight_array(lam))
        value = float((self._weights(lam) * losses).sum())
        return value, grad, self._scatter(lam, losses) if self.weighted else np.zeros_like(lam)

    def grad_vjp(self, w: Array, lam: Array, v: Array) -> tuple[Array, Array]:
        if (body := self._body(w, lam, v)) is None:
            return super().grad_vjp(w, lam, v)
        hessian, along = body.grad_vjp(w, v, self._weight_array(lam))
        return hessian, self._scatter(lam, along)

    def restrict(self, index: Array) -> Self:
        part = super().restrict(index)
        part.body = None  # which would not repay what it has to prepare
        return part

    def _body(self, *arrays: Array) -> Any:
        """Return the kernels where they know all of it; the definition explains a wrong size."""
        w, *_ = arrays
        known = w.shape == (self.size,) and all(a.dtype == self.dtype for a in arrays)
        return self.body if known else None

    def _weight_array(self, lam: Array) -> Array:
        """Return sθ, (n,), or (1,) where all are the same."""
        return np.atleast_1d(np.asarray(self._weights(lam), self.dtype))
