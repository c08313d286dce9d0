"""What can go wrong, by name."""

from __future__ import annotations

from typing import Any

__all__ = [
    "ConvergenceWarning",
    "DerivativeWarning",
    "DivergenceError",
    "StabilityWarning",
    "TruncationWarning",
    "missing_extra",
]

#: What pip has to install for each extra, as setup.cfg lists it.
PACKAGES = {
    "data": "pillow pooch scikit-learn",
    "fast": "numba",
    "gpu": 'cupy-cuda13x "numba-cuda[cu13]"',
    "plot": "matplotlib tqdm",
}


class DivergenceError(ArithmeticError):
    """The lower-level iteration, or an update of λ, left the finite numbers.

    Attributes
    ----------
    t : int or None
        First step that led to a state that is not finite; None if none did: w_0 itself is not
        finite, or only the upper level.
    norm : float
        Euclidean norm of the last finite state.
    lam : ndarray (N,) or None
        The hyperparameters at which it happened.
    last_good : ndarray (N,) or None
        The last hyperparameters with a finite hypergradient, set by `tinybilevel.minimize`.
    best_lam : ndarray (N,) or None
        Of those that `tinybilevel.minimize` had evaluated, the ones with the lowest value.
    best_value : float or None
        The value there.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> problem = tb.problems.toy(step_size=5.0, T=1000)  # stable below 2
    >>> try:
    ...     tb.RMD()(problem)
    ... except tb.DivergenceError as error:
    ...     print(error.t, error.lam)
    511 [1. 1.]
    """

    def __init__(self, message: str, *, t: int | None = None, norm: float = float("nan")) -> None:
        super().__init__(message)
        self.t = t
        self.norm = norm
        self.lam: Any = None
        self.last_good: Any = None
        self.best_lam: Any = None
        self.best_value: float | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions with keyword-only arguments do not survive a process pool otherwise.
        return _rebuild, (str(self), vars(self))


def _rebuild(message: str, attributes: dict[str, Any]) -> DivergenceError:
    error = DivergenceError(message)
    vars(error).update(attributes)
    return error


class ConvergenceWarning(UserWarning):
    """An iterative solver stopped before it reached the tolerance it was asked for.

    Examples
    --------
    >>> import warnings
    >>> import tinybilevel as tb
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("error", tb.ConvergenceWarning)
    ...     tb.ImplicitCG()(tb.problems.toy(T=10))  # 10 steps do not reach the minimum
    Traceback (most recent call last):
    tinybilevel.errors.ConvergenceWarning: ImplicitCG takes w_T for a minimum ...
    """


class DerivativeWarning(UserWarning):
    """A derivative of the user's own does not fit the function that it belongs to.

    Examples
    --------
    >>> import warnings
    >>> import numpy as np
    >>> import tinybilevel as tb
    >>> toy = tb.problems.toy()
    >>> g = tb.Objective.from_functions(
    ...     value=lambda w, lam: 0.5 * (w - lam) @ (w - lam),
    ...     grad=lambda w, lam: w - lam,
    ...     grad_vjp=lambda w, lam, v: (v, v),  # the second is −v
    ... )
    >>> descent = tb.GradientDescent(g, step_size=0.1, initial=np.zeros(2))
    >>> problem = tb.BilevelProblem(descent, upper=toy.upper, T=20, lam0=[1.0, 1.0])
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("error", tb.DerivativeWarning)
    ...     tb.minimize(problem, iterations=1)
    Traceback (most recent call last):
    tinybilevel.errors.DerivativeWarning: wrong derivatives, ... grad_vjp[1] of FunctionObjective
        (the mixed product) gives -1 along a direction in which differences give 1. ...
    """


class StabilityWarning(UserWarning):
    """The lower level's step size is beyond what its curvature allows: it does not settle.

    Examples
    --------
    >>> import warnings
    >>> import tinybilevel as tb
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("error", tb.StabilityWarning)
    ...     tb.RMD()(tb.problems.toy(step_size=2.1))  # the curvature is 1: stable below 2
    Traceback (most recent call last):
    tinybilevel.errors.StabilityWarning: the lower level does not settle: step size γ = 2.1 against
        smoothness β ≈ 1 at w_0 (stable for γ < 2; γ = 1 would do)
    """


class TruncationWarning(UserWarning):
    """The hypergradient leaves out a part that truncation does not make small.

    Examples
    --------
    >>> import warnings
    >>> import tinybilevel as tb
    >>> toy = tb.problems.toy()
    >>> g = tb.Quadratic([1.0, 0.5])
    >>> descent = tb.GradientDescent(g, step_size=0.1, initial=slice(0, 2))  # w_0 is λ itself
    >>> problem = tb.BilevelProblem(descent, upper=toy.upper, T=5, lam0=[1.0, 1.0])
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("error", tb.TruncationWarning)
    ...     tb.minimize(problem, method=tb.KRMD(K=5), iterations=1)
    Traceback (most recent call last):
    tinybilevel.errors.TruncationWarning: w_0 depends on lam, and KRMD leaves out what comes
        through it (B_0 α_0): ...
    """


def missing_extra(need: str, extra: str, cause: ImportError) -> ImportError:
    """Return the error of an optional import that failed: what needs what, and what installs it.

    Parameters
    ----------
    need : str
        Who needs which package, such as "figures need matplotlib".
    extra : str
        The extra that brings it.
    cause : ImportError
        What the import raised. What is installed and does not load is no matter of installing it.
    """
    if not isinstance(cause, ModuleNotFoundError):
        return ImportError(f"{need}, which is installed but cannot be imported: {cause}")
    return ImportError(
        f"{need}: pip install {PACKAGES[extra]} "
        f'(or, in a checkout of tinybilevel, pip install ".[{extra}]")'
    )
