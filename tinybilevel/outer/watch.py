"""What a run looks at besides its updates: warnings, each given once."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

import numpy as np

from tinybilevel.arrays.backend import Array, like
from tinybilevel.engine import stability
from tinybilevel.errors import ConvergenceWarning, DerivativeWarning, TruncationWarning
from tinybilevel.methods.base import Method
from tinybilevel.methods.forward import FMD
from tinybilevel.methods.hypergradient import Hypergradient
from tinybilevel.outer.derivatives import wrong_derivatives
from tinybilevel.problem import BilevelProblem

__all__ = ["Watch"]

# Frames from here to the caller of `minimize`.
_CALLER = 4


class Watch:
    """Warns of what would make a run go wrong without an error.

    Parameters
    ----------
    method : Method
        What computes the hypergradients.
    check_derivatives : bool
        Look at the user's own derivatives.
    """

    def __init__(self, method: Method, check_derivatives: bool) -> None:
        self.method, self.check_derivatives = method, check_derivatives
        self._first = float("nan")
        self._looks = 0

    def __call__(
        self,
        problems: list[BilevelProblem],
        lam: Array,
        results: list[Hypergradient],
        value: float,
        fixed_start: bool,
    ) -> None:
        """Look at the first evaluation of a run closely, and again where f is far above it."""
        if self._looks == 0:
            self._first = value
            if not fixed_start:
                warn_of_start(self.method, problems, lam, stacklevel=_CALLER)
            self._look_at_derivatives(problems, lam, results)
        elif not self.wants(value):
            return
        self._looks += 1
        for problem, r in zip(problems, results, strict=True):
            found = stability.check(problem, lam, r.w, stacklevel=_CALLER)
            if found is not None and not found.stable:
                self._looks = 2
                return

    def wants(self, value: float) -> bool:
        """Return whether there is something to look at where f has this value."""
        far = not value - self._first <= 10 * max(abs(self._first), 1e-3)
        return self._looks == 0 or (self._looks == 1 and far)

    def _look_at_derivatives(
        self, problems: list[BilevelProblem], lam: Array, results: list[Hypergradient]
    ) -> None:
        if not self.check_derivatives:
            return
        forward = isinstance(self.method, FMD)
        for problem, r in zip(problems, results, strict=True):
            if wrong := wrong_derivatives(problem, lam, r.w, forward=forward):
                warnings.warn(
                    f"wrong derivatives, so that the hypergradient is wrong: {'; '.join(wrong)}. "
                    "tinybilevel.testing.assert_objective_derivatives and "
                    "assert_transition_adjoints look closer; check_derivatives=False skips this",
                    DerivativeWarning,
                    stacklevel=_CALLER,
                )
                return


def warn_of_start(
    method: Method, problems: Iterable[BilevelProblem], lam: Array, stacklevel: int
) -> None:
    """Warn, once, where w_0 depends on λ and the method leaves that out."""
    if method.sees_start:
        return
    rng = np.random.default_rng(0)
    for problem in problems:
        theta = problem.hyper_map(lam)
        w0 = problem.transition.initial(theta)
        alpha = like(w0, rng.standard_normal(w0.size).astype(w0.dtype))
        if bool(problem.transition.initial_vjp(theta, alpha).any()):
            warnings.warn(
                f"w_0 depends on lam, and {type(method).__name__} leaves out what comes through it "
                "(B_0 α_0): where that matters, use RMD(), with storage=Checkpoint() if memory is "
                "short",
                TruncationWarning,
                stacklevel=stacklevel,
            )
            return


def warn_of_zero_gradient(method: Method) -> None:
    """Warn where the first hypergradient is exactly 0: nothing has been minimised."""
    warnings.warn(
        f"the hypergradient by {type(method).__name__} at the first lam is exactly 0, so that "
        "nothing was done: either lam is stationary, or f does not see lam through what the method "
        "keeps (K too small, w_0 alone depends on lam, or a product that returns 0)",
        ConvergenceWarning,
        stacklevel=3,
    )
