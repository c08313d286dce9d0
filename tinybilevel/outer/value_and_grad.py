"""A problem as a function of λ, for the solvers of SciPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array, to_numpy
from tinybilevel.methods.base import Method
from tinybilevel.problem import BilevelProblem

__all__ = ["value_and_grad"]


def value_and_grad(problem: BilevelProblem, method: Method) -> Callable[[Any], tuple[float, Array]]:
    """Return ``lam → (value, grad)`` for ``scipy.optimize.minimize(..., jac=True)``.

    Parameters
    ----------
    problem : BilevelProblem
        `lam` is cast to the dtype of its `lam0`, where it has one.
    method : Method
        How the hypergradient is computed.

    Returns
    -------
    callable
        Takes `lam` (N,); returns the value and the gradient (N,) in float64, as SciPy needs it.

    Examples
    --------
    >>> import scipy.optimize, tinybilevel as tb
    >>> fun = tb.value_and_grad(tb.problems.toy(), tb.RMD())
    >>> result = scipy.optimize.minimize(fun, [0.5, 0.5], jac=True, method="L-BFGS-B")
    >>> bool(result.success)
    True
    """

    def fun(lam: Any) -> tuple[float, Array]:
        lam = np.asarray(lam)
        r = method(problem, lam if problem.lam0 is None else lam.astype(problem.lam0.dtype))
        return r.value, to_numpy(r.grad).astype(np.float64)

    return fun
