"""A problem as a function of λ, for the solvers of SciPy."""

from __future__ import annotations

from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array, like, to_numpy
from tinybilevel.arrays.checks import as_float
from tinybilevel.errors import DivergenceError
from tinybilevel.methods.base import Method
from tinybilevel.outer.watch import warn_of_start
from tinybilevel.problem import BilevelProblem

__all__ = ["ValueAndGrad", "value_and_grad"]


class ValueAndGrad:
    """``lam → (value, grad)``, and what it has seen; see `value_and_grad`.

    Attributes
    ----------
    evaluations : int
        Calls, those that diverged included.
    divergences : int
        Calls at which the lower level diverged, or λ itself was not finite.
    best_lam : ndarray (N,) or None
        Of all λ with a finite value, the one with the lowest; None before there is one.
    best_value : float
        f there.
    """

    def __init__(self, problem: BilevelProblem, method: Method, on_divergence: str) -> None:
        if not isinstance(problem, BilevelProblem):
            hint = ": the method comes after it" if isinstance(problem, Method) else ""
            raise TypeError(f"problem must be a BilevelProblem, got {problem!r}{hint}")
        if not isinstance(method, Method):
            raise TypeError(f"method must be a Method such as KRMD(K=5), got {method!r}")
        if on_divergence not in ("raise", "inf"):
            raise ValueError(f'on_divergence must be "raise" or "inf", got {on_divergence!r}')
        self.problem, self.method, self.on_divergence = problem, method, on_divergence
        self.evaluations = self.divergences = 0
        self.best_lam: Array | None = None
        self.best_value = float("inf")

    def __call__(self, lam: Any) -> tuple[float, Array]:
        """Return f and its hypergradient at `lam` (N,), in float64."""
        back_off = self.on_divergence == "inf"
        lam0, lam = self.problem.lam0, as_float("lam", lam, ndim=1, finite=not back_off)
        self.evaluations += 1
        if not bool(np.isfinite(lam).all()):  # SciPy's interpolation between f and infinity
            self.divergences += 1
            return float("inf"), np.zeros(lam.size)
        try:
            r = self.method(self.problem, lam if lam0 is None else lam.astype(lam0.dtype))
        except DivergenceError as error:
            error.best_lam, error.best_value = self.best_lam, self.best_value
            self.divergences += 1
            if not back_off:
                raise
            return float("inf"), np.zeros(lam.size)
        if self.evaluations == self.divergences + 1:
            warn_of_start(self.method, [self.problem], like(r.grad, lam), stacklevel=3)
        if r.value < self.best_value:
            self.best_lam, self.best_value = lam.copy(), r.value
        return r.value, to_numpy(r.grad).astype(np.float64)


def value_and_grad(
    problem: BilevelProblem, method: Method, *, on_divergence: str = "raise"
) -> ValueAndGrad:
    """Return ``lam → (value, grad)`` for ``scipy.optimize.minimize(..., jac=True)``.

    Parameters
    ----------
    problem : BilevelProblem
        `lam` is cast to the dtype of its `lam0`, where it has one.
    method : Method
        How the hypergradient is computed.
    on_divergence : {"raise", "inf"}
        What becomes of a λ at which the lower level diverges: the `DivergenceError`, or infinity
        with a gradient of 0, from which a line search steps back. A solver that gives up there may
        call that convergence: where ``divergences`` is above 0, start it again at ``best_lam``
        and see whether f still falls.

    Returns
    -------
    ValueAndGrad
        Takes `lam` (N,); returns the value and the gradient (N,) in float64, as SciPy needs it. Its
        ``best_lam`` and ``best_value`` are the best seen.

    Raises
    ------
    TypeError, ValueError
        If an argument is wrong.

    Warns
    -----
    TruncationWarning
        At the first evaluation, if w_0 depends on λ and the method leaves that out.

    Examples
    --------
    >>> import scipy.optimize, tinybilevel as tb
    >>> fun = tb.value_and_grad(tb.problems.toy(), tb.RMD(), on_divergence="inf")
    >>> result = scipy.optimize.minimize(fun, [0.5, 0.5], jac=True, method="L-BFGS-B")
    >>> bool(result.success), fun.divergences
    (True, 0)
    >>> bool(fun.best_value == result.fun)
    True
    """
    return ValueAndGrad(problem, method, on_divergence)
