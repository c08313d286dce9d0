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
    """An iterative solver stopped before it reached the tolerance it was asked for."""


class DerivativeWarning(UserWarning):
    """A derivative of the user's own does not fit the function that it belongs to."""


class StabilityWarning(UserWarning):
    """The lower level's step size is beyond what its curvature allows: it does not settle."""


class TruncationWarning(UserWarning):
    """The hypergradient leaves out a part that truncation does not make small."""


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
