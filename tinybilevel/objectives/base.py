"""What an objective g(w, λ) is: value, gradient, and the two products of the gradient map."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from functools import reduce
from numbers import Real
from operator import add
from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array, Movable
from tinybilevel.arrays.checks import (
    block_size,
    call_user,
    check_pair,
    check_shape,
    check_takes,
    owned,
    reads_only,
    take_block,
)
from tinybilevel.products import Missing, writes

__all__ = ["FunctionObjective", "Objective", "OnBlock", "Sum"]


class Objective(Movable):
    """A scalar function g(w, λ) with hand-written derivatives.

    A lower-level objective writes `value`, `grad`, `grad_vjp` and `grad_jvp`; an upper-level one
    `value`, `grad` and, where it depends on λ directly, `grad_lam`.

    Conventions:

    ================================  ============  ========================================
    ``w``                             (M,)          lower-level variable
    ``lam``                           (N,)          hyperparameters as the objective sees them
    ``value(w, lam)``                 float         g
    ``grad(w, lam)``                  (M,)          ∇_w g
    ``grad_lam(w, lam)``              (N,)          ∇_λ g
    ``grad_vjp(w, lam, v)``           ((M,), (N,))  ∇²_ww g · v and ∇²_λw g · v
    ``grad_jvp(w, lam, dw, dlam)``    (M,)          ∇²_ww g · dw + ∇²_wλ g · dλ
    ================================  ============  ========================================

    Objectives add and scale: ``loss + 0.1 * penalty``, ``(g - h) / 2``, ``sum([g, h])``.
    ``g.on(block)`` lets g see one block of λ.

    Examples
    --------
    >>> import numpy as np
    >>> import tinybilevel as tb
    >>> g = tb.Quadratic([1.0, 0.5])  # ½ (w − λ)ᵀ diag(1, ½) (w − λ)
    >>> w, lam = np.array([3.0, 1.0]), np.array([1.0, 0.0])
    >>> g.value(w, lam), g.grad(w, lam)
    (2.25, array([2. , 0.5]))
    >>> hessian, mixed = g.grad_vjp(w, lam, np.array([1.0, 1.0]))
    >>> hessian, mixed
    (array([1. , 0.5]), array([-1. , -0.5]))
    >>> (g + 0.1 * g).value(w, lam)
    2.475
    """

    #: dtype of the data the objective holds; None where it holds none.
    dtype: np.dtype[Any] | None = None
    #: size of λ where the objective knows it; None where any size will do.
    n_lam: int | None = None
    #: NumPy leaves ``np.float64(2) * g`` to `__rmul__`.
    __array_ufunc__ = None

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        reads_only(cls, "value", "grad", "grad_lam", "grad_vjp", "grad_jvp")

    def __repr__(self) -> str:
        parts = [(name, x) for name, x in vars(self).items() if not name.startswith("_")]
        shown = [f"{name} {x.shape}" for name, x in parts if getattr(x, "ndim", 0)]
        return f"{type(self).__name__}({', '.join(shown)})"

    def value(self, w: Array, lam: Array) -> float:
        """Return g(w, λ)."""
        raise _missing(self, "value")

    def grad(self, w: Array, lam: Array) -> Array:
        """Return ∇_w g, (M,)."""
        raise _missing(self, "grad")

    def grad_lam(self, w: Array, lam: Array) -> Array:
        """Return ∇_λ g, (N,); zero unless written out."""
        return np.zeros_like(lam)

    def grad_vjp(self, w: Array, lam: Array, v: Array) -> tuple[Array, Array]:
        """Return ∇²_ww g · v, (M,), and ∇²_λw g · v, (N,)."""
        raise _missing(self, "grad_vjp")

    def grad_jvp(self, w: Array, lam: Array, dw: Array, dlam: Array) -> Array:
        """Return ∇²_ww g · dw + ∇²_wλ g · dλ, (M,)."""
        raise _missing(self, "grad_jvp")

    def value_with_grads(self, w: Array, lam: Array) -> tuple[float, Array, Array]:
        """Return g, ∇_w g and ∇_λ g: in one pass where an objective knows how.

        Examples
        --------
        >>> import numpy as np
        >>> import tinybilevel as tb
        >>> f = tb.problems.toy(biased=True).upper
        >>> value, grad, grad_lam = f.value_with_grads(np.zeros(2), np.ones(2))
        >>> value, grad, grad_lam
        (5.0, array([0., 0.]), array([ 0., 10.]))
        """
        return self.value(w, lam), self.grad(w, lam), self.grad_lam(w, lam)

    def grad_with_vjp(self, w: Array, lam: Array, v: Array) -> tuple[Array, Array, Array]:
        """Return ∇_w g and the two of `grad_vjp`: in one pass where an objective knows how."""
        hessian, mixed = self.grad_vjp(w, lam, v)
        return self.grad(w, lam), hessian, mixed

    def lacking(self, product: str) -> Missing | None:
        """Return which part of the objective does not write `product` out; None if all do."""
        given = product == "grad_lam"  # left out, it is 0
        return None if given or writes(self, Objective, product) else (self, product)

    def restrict(self, index: Array) -> Objective:
        """Return an unbiased estimate of g from the examples in `index`, where g is over some.

        Examples
        --------
        >>> import numpy as np
        >>> import tinybilevel as tb
        >>> g = tb.LeastSquares(np.eye(4), np.arange(4.0), weighted=False)
        >>> w, lam = np.zeros(4), np.zeros(0)
        >>> batches = [np.array([0, 1]), np.array([2, 3])]
        >>> parts = [g.restrict(index).value(w, lam) for index in batches]
        >>> g.value(w, lam), float(np.mean(parts))
        (1.75, 1.75)
        """
        raise TypeError(f"{type(self).__name__} has no restrict, so that it knows of no minibatch")

    @property
    def restrictable(self) -> bool:
        """Whether g is over examples, of which `restrict` takes some."""
        return type(self).restrict is not Objective.restrict

    def on(self, block: slice) -> Objective:
        """Return g as a function of the whole λ, of which it sees only ``lam[block]``.

        Examples
        --------
        >>> import numpy as np
        >>> import tinybilevel as tb
        >>> blocks = tb.Layout(weights=3, l2=1)
        >>> g = tb.LeastSquares(np.eye(3), np.ones(3)).on(blocks["weights"])
        >>> g = g + tb.L2Penalty().on(blocks["l2"])
        >>> g.grad(np.ones(3), blocks.pack(weights=np.ones(3), l2=0.5))
        array([1., 1., 1.])
        """
        return OnBlock(self, block)

    def __add__(self, other: Objective) -> Objective:
        return (
            Sum(*_terms(self), *_terms(other)) if isinstance(other, Objective) else NotImplemented
        )

    def __radd__(self, other: int) -> Objective:
        # What ``sum([g, h])`` starts with.
        return self if isinstance(other, int) and other == 0 else NotImplemented

    def __sub__(self, other: Objective) -> Objective:
        return self + -other if isinstance(other, Objective) else NotImplemented

    def __neg__(self) -> Objective:
        return -1.0 * self

    def __rmul__(self, factor: float) -> Objective:
        factor = _number(factor)
        return Sum(*((factor * c, g) for c, g in _terms(self)))

    __mul__ = __rmul__

    def __truediv__(self, divisor: float) -> Objective:
        divisor = _number(divisor)
        return Sum(*((c / divisor, g) for c, g in _terms(self)))

    @staticmethod
    def from_functions(
        value: Callable[[Array, Array], float],
        grad: Callable[[Array, Array], Array],
        grad_vjp: Callable[[Array, Array, Array], tuple[Array, Array]] | None = None,
        grad_jvp: Callable[[Array, Array, Array, Array], Array] | None = None,
        grad_lam: Callable[[Array, Array], Array] | None = None,
        restrict: Callable[[Array], Objective] | None = None,
    ) -> Objective:
        """Build an objective from plain functions; see the table of `Objective` for their shapes.

        The functions get read-only views of what they are called with, and what they return is
        copied: they may return one array of their own again and again.

        Parameters
        ----------
        value, grad : callable
            ``(w, lam)`` → float and (M,).
        grad_vjp : callable, optional
            ``(w, lam, v)`` → ((M,), (N,)); a lower-level objective needs it.
        grad_jvp : callable, optional
            ``(w, lam, dw, dlam)`` → (M,); forward mode needs it.
        grad_lam : callable, optional
            ``(w, lam)`` → (N,); left out means 0.
        restrict : callable, optional
            ``(index)`` → Objective, an unbiased estimate of g from the examples in `index`;
            minibatches need it.

        Returns
        -------
        Objective
            Its methods raise ValueError, naming the function, where a shape comes back wrong or
            where it writes into its arguments.

        Examples
        --------
        >>> import numpy as np
        >>> import tinybilevel as tb
        >>> g = tb.Objective.from_functions(
        ...     value=lambda w, lam: 0.5 * ((w - lam) ** 2).sum(),
        ...     grad=lambda w, lam: w - lam,
        ...     grad_vjp=lambda w, lam, v: (v, -v),
        ...     grad_jvp=lambda w, lam, dw, dlam: dw - dlam,
        ... )
        >>> g.grad(np.array([3.0]), np.array([1.0]))
        array([2.])
        """
        return FunctionObjective(value, grad, grad_vjp, grad_jvp, grad_lam, restrict)


_ARGUMENTS = {
    "value": ("w", "lam"),
    "grad": ("w", "lam"),
    "grad_lam": ("w", "lam"),
    "grad_vjp": ("w", "lam", "v"),
    "grad_jvp": ("w", "lam", "dw", "dlam"),
    "restrict": ("index",),
}


class FunctionObjective(Objective):
    """See `Objective.from_functions`."""

    def __init__(
        self,
        value: Any,
        grad: Any,
        grad_vjp: Any,
        grad_jvp: Any,
        grad_lam: Any,
        restrict: Any = None,
    ) -> None:
        functions = dict(
            value=value,
            grad=grad,
            grad_vjp=grad_vjp,
            grad_jvp=grad_jvp,
            grad_lam=grad_lam,
            restrict=restrict,
        )
        for name, function in functions.items():
            if function is not None or name in ("value", "grad"):
                check_takes(name, function, *_ARGUMENTS[name])
        self._functions = functions

    def _call(self, name: str, *args: Array) -> Any:
        function = self._functions[name]
        if function is None:
            raise _missing(self, name)
        return call_user(name, function, *args)

    def lacking(self, product: str) -> Missing | None:
        own = product == "grad_lam" or writes(self, FunctionObjective, product)
        return None if own or self._functions[product] is not None else (self, product)

    def value(self, w: Array, lam: Array) -> float:
        return float(check_shape("value", self._call("value", w, lam), ()))

    def grad(self, w: Array, lam: Array) -> Array:
        return owned(check_shape("grad", self._call("grad", w, lam), w.shape))

    def grad_lam(self, w: Array, lam: Array) -> Array:
        if self._functions["grad_lam"] is None:
            return np.zeros_like(lam)
        return owned(check_shape("grad_lam", self._call("grad_lam", w, lam), lam.shape))

    def grad_vjp(self, w: Array, lam: Array, v: Array) -> tuple[Array, Array]:
        result = self._call("grad_vjp", w, lam, v)
        hessian, mixed = check_pair("grad_vjp", result, w.shape, lam.shape)
        return owned(hessian), owned(mixed)

    def grad_jvp(self, w: Array, lam: Array, dw: Array, dlam: Array) -> Array:
        return owned(check_shape("grad_jvp", self._call("grad_jvp", w, lam, dw, dlam), w.shape))

    def restrict(self, index: Array) -> Objective:
        part = self._call("restrict", index)
        if not isinstance(part, Objective):
            raise TypeError(f"restrict must return an Objective, got {part!r}")
        return part

    @property
    def restrictable(self) -> bool:
        return self._functions["restrict"] is not None


class Sum(Objective):
    """Σ_k c_k g_k(w, λ), from pairs (c_k, g_k)."""

    def __init__(self, *terms: tuple[float, Objective]) -> None:
        self.terms = tuple((float(c), g) for c, g in terms)
        dtypes = [g.dtype for _, g in terms if g.dtype is not None]
        self.dtype = np.result_type(*dtypes) if dtypes else None
        sizes = {g.n_lam for _, g in terms if g.n_lam is not None}
        if len(sizes) > 1:
            raise ValueError(f"the terms of a sum see different sizes of lam: {sorted(sizes)}")
        self.n_lam = sizes.pop() if sizes else None

    def __repr__(self) -> str:
        return " + ".join(f"{c:.4g} {g!r}" for c, g in self.terms)

    def lacking(self, product: str) -> Missing | None:
        return next(filter(None, (g.lacking(product) for _, g in self.terms)), None)

    def value(self, w: Array, lam: Array) -> float:
        return sum(c * g.value(w, lam) for c, g in self.terms)

    def grad(self, w: Array, lam: Array) -> Array:
        return self._total(g.grad(w, lam) for _, g in self.terms)

    def grad_lam(self, w: Array, lam: Array) -> Array:
        return self._total(g.grad_lam(w, lam) for _, g in self.terms)

    def grad_vjp(self, w: Array, lam: Array, v: Array) -> tuple[Array, Array]:
        hessians, mixed = zip(*(g.grad_vjp(w, lam, v) for _, g in self.terms), strict=True)
        return self._total(hessians), self._total(mixed)

    def grad_jvp(self, w: Array, lam: Array, dw: Array, dlam: Array) -> Array:
        return self._total(g.grad_jvp(w, lam, dw, dlam) for _, g in self.terms)

    def value_with_grads(self, w: Array, lam: Array) -> tuple[float, Array, Array]:
        found = zip(*(g.value_with_grads(w, lam) for _, g in self.terms), strict=True)
        values, grads, grads_lam = found
        value = sum(c * part for (c, _), part in zip(self.terms, values, strict=True))
        return value, self._total(grads), self._total(grads_lam)

    def grad_with_vjp(self, w: Array, lam: Array, v: Array) -> tuple[Array, Array, Array]:
        found = zip(*(g.grad_with_vjp(w, lam, v) for _, g in self.terms), strict=True)
        grads, hessians, mixed = found
        return self._total(grads), self._total(hessians), self._total(mixed)

    def restrict(self, index: Array) -> Objective:
        if not self.restrictable:
            return super().restrict(index)
        part = copy.copy(self)
        part.terms = tuple((c, g.restrict(index) if g.restrictable else g) for c, g in self.terms)
        return part

    @property
    def restrictable(self) -> bool:
        return any(g.restrictable for _, g in self.terms)

    def _total(self, parts: Iterable[Array]) -> Array:
        """Return Σ_k c_k parts_k."""
        scaled = zip(self.terms, parts, strict=True)
        return reduce(add, (part if c == 1 else c * part for (c, _), part in scaled))


class OnBlock(Objective):
    """g(w, λ[block]) as a function of the whole λ."""

    def __init__(self, objective: Objective, block: slice) -> None:
        size, needed = block_size(block), objective.n_lam
        if None not in (size, needed) and size != needed:
            raise ValueError(f"the objective sees {needed} entries of lam, {block} has {size}")
        self.objective, self.block, self.dtype = objective, block, objective.dtype
        self.size = size if needed is None else needed

    def __repr__(self) -> str:
        return f"{self.objective!r}.on({self.block})"

    def _embed(self, lam: Array, h: Array) -> Array:
        whole = np.zeros_like(h, shape=lam.shape)
        whole[self.block] = h
        return whole

    def _part(self, lam: Array) -> Array:
        return take_block(lam, self.block, self.size)

    def lacking(self, product: str) -> Missing | None:
        return self.objective.lacking(product)

    def value(self, w: Array, lam: Array) -> float:
        return self.objective.value(w, self._part(lam))

    def grad(self, w: Array, lam: Array) -> Array:
        return self.objective.grad(w, self._part(lam))

    def grad_lam(self, w: Array, lam: Array) -> Array:
        return self._embed(lam, self.objective.grad_lam(w, self._part(lam)))

    def grad_vjp(self, w: Array, lam: Array, v: Array) -> tuple[Array, Array]:
        hessian, mixed = self.objective.grad_vjp(w, self._part(lam), v)
        return hessian, self._embed(lam, mixed)

    def grad_jvp(self, w: Array, lam: Array, dw: Array, dlam: Array) -> Array:
        return self.objective.grad_jvp(w, self._part(lam), dw, self._part(dlam))

    def value_with_grads(self, w: Array, lam: Array) -> tuple[float, Array, Array]:
        value, grad, grad_lam = self.objective.value_with_grads(w, self._part(lam))
        return value, grad, self._embed(lam, grad_lam)

    def grad_with_vjp(self, w: Array, lam: Array, v: Array) -> tuple[Array, Array, Array]:
        grad, hessian, mixed = self.objective.grad_with_vjp(w, self._part(lam), v)
        return grad, hessian, self._embed(lam, mixed)

    def restrict(self, index: Array) -> Objective:
        other = copy.copy(self)
        other.objective = self.objective.restrict(index)
        return other

    @property
    def restrictable(self) -> bool:
        return self.objective.restrictable


def _terms(g: Objective) -> tuple[tuple[float, Objective], ...]:
    return g.terms if isinstance(g, Sum) else ((1.0, g),)


def _number(factor: Any) -> float:
    """Check what scales an objective."""
    if np.ndim(factor) or not (isinstance(factor, Real) or hasattr(factor, "dtype")):
        raise TypeError(f"an objective scales by one real number, got {factor!r}")
    if not np.isfinite(float(factor)):
        raise ValueError(f"an objective scales by a finite number, got {factor!r}")
    return float(factor)


def _missing(objective: Objective, name: str) -> TypeError:
    return TypeError(f"{type(objective).__name__} has no {name}, which this computation needs")
