"""What is known of an objective's curvature in closed form, and so need not be measured."""

from __future__ import annotations

from functools import singledispatch
from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array
from tinybilevel.objectives import L2Penalty, Objective, Quadratic, SoftmaxRegression
from tinybilevel.objectives.base import OnBlock, Sum
from tinybilevel.objectives.least_squares import LeastSquares
from tinybilevel.objectives.logistic import LogisticRegression

__all__ = ["strong_convexity"]


@singledispatch
def strong_convexity(g: Objective, lam: Array) -> float | None:
    """Return an α with ∇²_ww g(w, λ) ≽ α for every w; None where none is known.

    It need not be the largest. Register it for an objective of your own with
    ``@strong_convexity.register``.

    Parameters
    ----------
    g : Objective
        Lower level.
    lam : ndarray (N,)
        λ as g sees it.

    Examples
    --------
    >>> import numpy as np
    >>> import tinybilevel as tb
    >>> g = tb.SoftmaxRegression(np.eye(2), [0, 1]) + 0.1 * tb.L2Penalty(1.0)
    >>> strong_convexity(g, np.ones(2))
    0.2
    """
    return None


@strong_convexity.register
def _(g: Quadratic, lam: Array) -> float | None:
    return float(g.G.min()) if g.G.ndim == 1 else None


@strong_convexity.register(LeastSquares)
@strong_convexity.register(LogisticRegression)
@strong_convexity.register(SoftmaxRegression)
def _(g: Any, lam: Array) -> float | None:
    """Convex where no weight is negative; softmax no more than that: W + 1 vᵀ loses the same."""
    weights_hold = not g.weighted or bool((lam >= 0).all())
    return 0.0 if g.scale >= 0 and weights_hold else None


@strong_convexity.register
def _(g: L2Penalty, lam: Array) -> float | None:
    strengths = lam if g.strength is None else g.strength
    free = g.groups is not None and bool((g.groups < 0).any())  # entries without a penalty
    return 2 * float(np.min(strengths, initial=0.0 if free else np.inf))


@strong_convexity.register
def _(g: Sum, lam: Array) -> float | None:
    parts = [(c, strong_convexity(term, lam)) for c, term in g.terms]
    if any(part is None or c < 0 for c, part in parts):
        return None
    return sum(c * part for c, part in parts if part is not None)


@strong_convexity.register
def _(g: OnBlock, lam: Array) -> float | None:
    return strong_convexity(g.objective, lam[g.block])
