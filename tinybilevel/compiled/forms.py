"""Which objectives have a compiled form, by their type: all that compiled code knows of them.

A form is a tuple of a name and of data. What is computed of the data is in `kernels/dense.py`
under that name; for the upper level of a quadratic, in `kernels/loops.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array
from tinybilevel.compiled.registry import Registry
from tinybilevel.objectives import (
    L2Penalty,
    LeastSquares,
    LinearLoss,
    LogisticRegression,
    Quadratic,
    SoftmaxRegression,
)
from tinybilevel.objectives.base import FunctionObjective, OnBlock, Sum
from tinybilevel.problems.counterexample import Coupled
from tinybilevel.problems.toy import Rippled

__all__ = ["TooLarge", "dense_form", "step_work", "upper_form"]

Form = tuple[Any, ...]

# The largest of each kind that one scalar loop on one thread takes no longer over than NumPy does,
# forward and backward; `python -m benchmarks.rule` measures both sides of each limit.
_SOFTMAX = 50_000
_LINEAR = 40_000
_SQUARES = 25_000
_MATRIX = 200_000
_DIAGONAL = 400
_PENALTY = 4_000
_FUNCTIONS = 10_000


class TooLarge(Exception):
    """The plain code of an objective is faster than its compiled form."""


def _check(size: int, largest: int) -> None:
    if size > largest:
        raise TooLarge


dense_form = Registry("Return the form of an objective of M entries for `kernels.dense_loops`.")
upper_form = Registry("Return that of an upper level of M entries for `kernels.loops`.")


@dense_form.of(Quadratic)
def _(g: Quadratic, M: int) -> Form:
    C, diagonal = np.empty((0, 0)) if g.C is None else g.C, g.G.ndim == 1
    _check(C.size + (0 if diagonal else g.G.size), _MATRIX)
    _check(M if diagonal else 0, _DIAGONAL)
    return "quadratic", np.atleast_2d(g.G), C, np.zeros(len(g.G)) if g.d is None else g.d


@dense_form.of(L2Penalty)
def _(g: L2Penalty, M: int) -> Form | None:
    _check(M, _PENALTY)
    learned = g.strength is None
    fixed = np.zeros(1) if g.strength is None else np.atleast_1d(g.strength)
    if g.groups is None:
        return "l2", fixed, np.empty(0, int), learned
    if g.groups.min() >= 0:
        return "l2", fixed, g.groups, learned
    # What has no penalty is one more group, of strength 0; learned ones leave no room for it.
    free = np.where(g.groups < 0, fixed.size, g.groups)
    return None if learned else ("l2", np.append(fixed, fixed.dtype.type(0)), free, learned)


def step_work(g: SoftmaxRegression | LinearLoss) -> int:
    """Return what a step takes in multiply-adds, those for exponentials and for rows with them."""
    n, d = g.X.shape
    if isinstance(g, LinearLoss):
        return n * (d + (8 if type(g) is LeastSquares else 25))
    return n * (g.n_classes * (d + 15) + 50)


@dense_form.of(SoftmaxRegression)
def _(g: SoftmaxRegression, M: int) -> Form | None:
    if not g.whole_dense():
        return None
    _check(step_work(g), _SOFTMAX)
    return "softmax", g.X, g.y, g.scale, g.weighted


@dense_form.of(LeastSquares)
def _(g: LeastSquares, M: int) -> Form | None:
    return _linear("least squares", g, _SQUARES)


@dense_form.of(LogisticRegression)
def _(g: LogisticRegression, M: int) -> Form | None:
    return _linear("logistic", g, _LINEAR)


def _linear(name: str, g: LinearLoss, largest: int) -> Form | None:
    if not g.whole_dense():
        return None
    _check(step_work(g), largest)
    return name, g.X, g.y, g.scale, g.weighted


@dense_form.of(FunctionObjective)
def _(g: FunctionObjective, M: int) -> Form:
    _check(M, _FUNCTIONS)
    names = ("value", "grad", "grad_vjp", "grad_lam")
    return "functions", *((name, g._functions[name]) for name in names)


@dense_form.of(Sum)
def _(g: Sum, M: int) -> Form | None:
    forms = [(c, dense_form(term, M)) for c, term in g.terms]
    return None if any(form is None for _, form in forms) else ("sum", *forms)


@dense_form.of(OnBlock)
def _(g: OnBlock, M: int) -> Form | None:
    inner, start, stop = dense_form(g.objective, M), g.block.start or 0, g.block.stop
    simple = g.block.step in (None, 1) and stop is not None and 0 <= start <= stop
    return ("block", slice(start, stop), inner) if simple and inner is not None else None


@upper_form.of(Rippled)
def _(f: Rippled, M: int) -> Form:
    return "RIPPLED", np.array([f.coupling])


@upper_form.of(Coupled)
def _(f: Coupled, M: int) -> Form:
    return _squares(np.ones(M), np.zeros(M), f.coupling, f.target)


@upper_form.of(L2Penalty)
def _(f: L2Penalty, M: int) -> Form | None:
    if not isinstance(f.strength, float):
        return None
    twice = np.full(M, 2 * f.strength)
    if f.groups is not None:
        twice[f.groups < 0] = 0
    return _squares(twice, np.zeros(M))


@upper_form.of(Quadratic)
def _(f: Quadratic, M: int) -> Form | None:
    if f.G.ndim != 1 or f.C is None or f.C.any():
        return None
    return _squares(f.G, np.zeros_like(f.G) if f.d is None else f.d)


def _squares(a: Array, b: Array, coupling: float = 0.0, target: float = 0.0) -> Form:
    """½ Σ_j a_j (w_j − b_j)² + ½ρ Σ_i (λ_i − t)²."""
    return "SQUARES", np.concatenate([a, b, [coupling, target]])
