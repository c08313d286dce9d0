"""Small objectives in compiled form, as `dense` takes them.

A form is a tuple: a name, and what it is made of, as `dense_form` and `upper_form` give it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numba.core.dispatcher import Dispatcher

from tinybilevel.kernels.dense import L2, LEAST_SQUARES, LOGISTIC, OWN, QUADRATIC, SOFTMAX, UPPER
from tinybilevel.kernels.loops import RIPPLED, SQUARES
from tinybilevel.kernels.own import Own, own

__all__ = ["Level"]

_UPPER = {"RIPPLED": RIPPLED, "SQUARES": SQUARES}
_LINEAR = {"least squares": LEAST_SQUARES, "logistic": LOGISTIC}

Array = np.ndarray[Any, np.dtype[Any]]


class Level:
    """A form as a sum of terms.

    Parameters
    ----------
    form : tuple
        What to make it of.
    dtype : dtype
        Of all numbers.

    Raises
    ------
    TypeError
        If a function of the user's own is not compiled by Numba, or for many threads.
    """

    def __init__(self, form: Any, dtype: Any) -> None:
        terms: list[tuple[int, ...]] = []
        numbers, whole = [np.empty(0)], [np.empty(0, int)]
        self._own: list[tuple[int, Own]] = []
        for c, start, stop, leaf in _terms(form):
            kind, factor, data, integers, flag = _leaf(*leaf)
            first, first_whole = (sum(map(np.size, parts)) for parts in (numbers, whole))
            if kind == OWN:
                self._own.append((first_whole, own(*data, dtype)))
                data = ()
            numbers += [np.array([c * factor]), *map(np.ravel, data)]
            whole += [np.ravel(integers)]
            last, last_whole = (sum(map(np.size, parts)) for parts in (numbers, whole))
            terms.append((kind, start, stop, first, last, first_whole, last_whole, flag))
        self._terms = np.array(terms, np.int64)
        self._numbers = np.concatenate(numbers).astype(dtype)
        self._whole = np.concatenate(whole).astype(np.int64)

    @property
    def upper_only(self) -> bool:
        """Whether a term has no products of second derivatives."""
        return bool((self._terms[:, 0] == UPPER).any()) or not all(
            functions.has_products for _, functions in self._own
        )

    def data(self, *bodies: int) -> tuple[Array, Array, Array]:
        """Return what `dense` calls a level, with those bodies of functions of the user's own."""
        for at, functions in self._own:
            for which in bodies:
                if not self._whole[at + which]:
                    self._whole[at + which] = functions.address(which)
        return self._terms, self._numbers, self._whole


def _terms(
    form: Any, c: float = 1.0, start: int = 0, stop: int = -1
) -> Iterator[tuple[float, int, int, Any]]:
    """Yield the terms of sums within blocks within sums, each with its factor and block."""
    name, *parts = form
    if name == "sum":
        for factor, inner in parts:
            yield from _terms(inner, c * factor, start, stop)
    elif name == "block":
        block, inner = parts
        end = start + block.stop
        yield from _terms(inner, c, start + block.start, end if stop < 0 else min(end, stop))
    else:
        yield c, start, stop, form


def _leaf(name: str, *parts: Any) -> tuple[int, float, Any, Any, int]:
    """Return the kind of a form without others in it, a factor, numbers, integers and its flag."""
    if name == "quadratic":
        G, C, d = parts
        return QUADRATIC, 1.0, (d, G, C), (), int(len(G) < G.shape[1])
    if name == "l2":
        fixed, groups, learned = parts
        return L2, 1.0, (fixed,), groups, int(learned)
    if name == "softmax":
        X, y, scale, weighted = parts
        return SOFTMAX, scale, (X,), y, int(weighted)
    if name == "upper":
        kind, numbers = parts
        return UPPER, 1.0, (numbers,), (), _UPPER[kind]
    if name == "functions":
        return OWN, 1.0, [_compiled(*pair) for pair in parts], np.zeros(3, int), 0
    X, y, scale, weighted = parts
    return _LINEAR[name], scale, (y, X), (), int(weighted)


def _compiled(name: str, function: Any) -> Any:
    if function is not None and not isinstance(function, Dispatcher):
        raise TypeError(f"{name} must be compiled, as by numba.njit, got {function!r}")
    if function is not None and function.targetoptions.get("parallel"):
        raise TypeError(f"{name} must not be parallel: λ are taken in parallel, got {function!r}")
    return function
