"""Small objectives in compiled form, of which `dense_loops` makes its loops.

A form is a tuple: a name, and what it is made of, as `Objective.form` gives it. `build` turns it
into the functions that `dense` describes, and their data.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from numba import njit
from numba.core.dispatcher import Dispatcher

from tinybilevel.kernels.dense import OWN, Functions, add
from tinybilevel.kernels.dense_linear import LINEAR
from tinybilevel.kernels.loops import RIPPLED, SQUARES

__all__ = ["build"]

_UPPER = {"RIPPLED": RIPPLED, "SQUARES": SQUARES}


def build(form: Any, dtype: Any) -> tuple[Functions, tuple[Any, ...]]:
    """Return the functions of a form, and its data in `dtype`.

    Raises
    ------
    TypeError
        If a plain function is not compiled by Numba, or for many threads.
    """
    name, *parts = form
    if name == "sum":
        (c, first), *rest = parts
        functions, data = build(first, dtype)
        data = (dtype.type(c), data)
        if not rest:
            return _scaled(functions), data
        others, more = build(("sum", *rest), dtype)
        return _sum(_scaled(functions), others), (data, more)
    if name == "block":
        block, inner = parts
        functions, data = build(inner, dtype)
        return _on_block(functions), (int(block.start), int(block.stop), data)
    if name == "upper":
        kind, numbers = parts
        return OWN[name], (_UPPER[kind], _as(numbers, dtype))
    if name == "functions":
        return _from_functions(*(_compiled(*pair) for pair in parts)), (0,)
    return {**OWN, **LINEAR}[name], tuple(_as(part, dtype) for part in parts)


def _as(part: Any, dtype: Any) -> Any:
    if isinstance(part, np.ndarray):
        # Numba would compile for an array that is read-only once more.
        kind = np.int64 if part.dtype.kind in "iu" else dtype
        return np.require(part, kind, ["C", "W"])
    return dtype.type(part) if isinstance(part, float) else part


def _compiled(name: str, function: Any) -> Any:
    if function is not None and not isinstance(function, Dispatcher):
        raise TypeError(f"{name} must be compiled, as by numba.njit, got {function!r}")
    if function is not None and function.targetoptions.get("parallel"):
        raise TypeError(f"{name} must not be parallel: λ are taken in parallel, got {function!r}")
    return function


@cache
def _scaled(functions: Functions) -> Functions:
    """Return c g; the data are (c, those of g)."""
    evaluate, grad, grad_vjp = functions

    @njit(nogil=True, inline="always")
    def scaled_evaluate(data, w, lam, scale, grad_w, grad_lam, work):  # type: ignore[no-untyped-def]
        return evaluate(data[1], w, lam, scale * data[0], grad_w, grad_lam, work)

    @njit(nogil=True, inline="always")
    def scaled_grad(data, w, lam, scale, out, work):  # type: ignore[no-untyped-def]
        grad(data[1], w, lam, scale * data[0], out, work)

    @njit(nogil=True, inline="always")
    def scaled_grad_vjp(data, w, lam, v, scale, hessian, mixed, work):  # type: ignore[no-untyped-def]
        grad_vjp(data[1], w, lam, v, scale * data[0], hessian, mixed, work)

    return _where_known(functions, Functions(scaled_evaluate, scaled_grad, scaled_grad_vjp))


@cache
def _sum(first: Functions, second: Functions) -> Functions:
    """Return g_1 + g_2; the data are those of either."""
    (evaluate_1, grad_1, grad_vjp_1), (evaluate_2, grad_2, grad_vjp_2) = first, second

    @njit(nogil=True, inline="always")
    def evaluate(data, w, lam, scale, grad_w, grad_lam, work):  # type: ignore[no-untyped-def]
        value = evaluate_1(data[0], w, lam, scale, grad_w, grad_lam, work)
        return value + evaluate_2(data[1], w, lam, scale, grad_w, grad_lam, work)

    @njit(nogil=True, inline="always")
    def grad(data, w, lam, scale, out, work):  # type: ignore[no-untyped-def]
        grad_1(data[0], w, lam, scale, out, work)
        grad_2(data[1], w, lam, scale, out, work)

    @njit(nogil=True, inline="always")
    def grad_vjp(data, w, lam, v, scale, hessian, mixed, work):  # type: ignore[no-untyped-def]
        grad_vjp_1(data[0], w, lam, v, scale, hessian, mixed, work)
        grad_vjp_2(data[1], w, lam, v, scale, hessian, mixed, work)

    both = Functions(*(a and b for a, b in zip(first, second, strict=True)))
    return _where_known(both, Functions(evaluate, grad, grad_vjp))


@cache
def _on_block(functions: Functions) -> Functions:
    """Return g of one block of λ; the data are (start, stop, those of g)."""
    inner_evaluate, inner_grad, inner_grad_vjp = functions

    @njit(nogil=True, inline="always")
    def evaluate(data, w, lam, scale, grad_w, grad_lam, work):  # type: ignore[no-untyped-def]
        a, b, inner = data
        return inner_evaluate(inner, w, lam[a:b], scale, grad_w, grad_lam[a:b], work)

    @njit(nogil=True, inline="always")
    def grad(data, w, lam, scale, out, work):  # type: ignore[no-untyped-def]
        a, b, inner = data
        inner_grad(inner, w, lam[a:b], scale, out, work)

    @njit(nogil=True, inline="always")
    def grad_vjp(data, w, lam, v, scale, hessian, mixed, work):  # type: ignore[no-untyped-def]
        a, b, inner = data
        inner_grad_vjp(inner, w, lam[a:b], v, scale, hessian, mixed[a:b], work)

    return _where_known(functions, Functions(evaluate, grad, grad_vjp))


@cache
def _from_functions(value: Any, slope: Any, products: Any, slope_lam: Any) -> Functions:
    """Return a user's own; see `Objective.from_functions`."""

    @njit(nogil=True, inline="always")
    def evaluate(data, w, lam, scale, grad_w, grad_lam, work):  # type: ignore[no-untyped-def]
        add(scale, slope(w, lam), grad_w)
        if slope_lam is not None:
            add(scale, slope_lam(w, lam), grad_lam)
        return scale * value(w, lam)

    @njit(nogil=True, inline="always")
    def grad(data, w, lam, scale, out, work):  # type: ignore[no-untyped-def]
        add(scale, slope(w, lam), out)

    @njit(nogil=True, inline="always")
    def grad_vjp(data, w, lam, v, scale, hessian, mixed, work):  # type: ignore[no-untyped-def]
        h, m = products(w, lam, v)
        add(scale, h, hessian)
        add(scale, m, mixed)

    return Functions(evaluate, grad, grad_vjp if products is not None else None)


def _where_known(of: Functions, made: Functions) -> Functions:
    """Return what was made of functions that are there, and None for the others."""
    return Functions(*(new if old is not None else None for old, new in zip(of, made, strict=True)))
