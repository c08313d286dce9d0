"""Whether a step size is within what the lower level's curvature allows."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array, like
from tinybilevel.errors import StabilityWarning
from tinybilevel.objectives import Objective
from tinybilevel.problem import BilevelProblem
from tinybilevel.transitions import Transition

__all__ = ["Stability", "check", "largest_curvature", "look", "stability"]

#: How far within the limits of two batches a step size is that is taken to be within that of all
#: data, which is at most their mean.
_FAR = 0.5


@dataclass(frozen=True)
class Stability:
    """A step size against the curvature at one state.

    Attributes
    ----------
    step_size : float
        γ, the largest entry where there are several; a negative one where there is one.
    beta : float
        Largest eigenvalue of ∇²_ww g, estimated from below; with a step size for each entry of w,
        that of Γ^½ ∇²_ww g Γ^½, over the largest of them.
    limit : float
        Largest γ with which the iteration does not grow: 2/β for gradient descent.
    place : str
        ``"w_0"`` or ``"w_T"``.
    """

    step_size: float
    beta: float
    limit: float
    place: str

    @property
    def stable(self) -> bool:
        """Whether γ is within the limit, and not below 0."""
        return 0 <= self.step_size <= self.limit

    @property
    def advice(self) -> float:
        """A step size that would do: half the limit."""
        return self.limit / 2

    def __str__(self) -> str:
        return (
            f"step size γ = {self.step_size:.3g} against smoothness β ≈ {self.beta:.3g} at "
            f"{self.place} (stable for {'0 < ' if self.step_size < 0 else ''}γ < {self.limit:.3g}; "
            f"γ = {self.advice:.2g} would do)"
        )


def check(
    problem: BilevelProblem, lam: Any = None, w: Array | None = None, *, stacklevel: int = 2
) -> Stability | None:
    """Warn where the step size is beyond what the curvature at w_0 or at w_T allows.

    Parameters
    ----------
    problem : BilevelProblem
        Its transition must have a step size, and a limit to it (`Transition.largest_step`).
    lam : array_like (N,), optional
        By default the problem's `lam0`.
    w : ndarray (M,), optional
        ŵ* = w_T without its buffers, where it is known; otherwise the lower level is run.
    stacklevel : int
        Frames up from here that the warning names; 2 is the caller.

    Returns
    -------
    Stability or None
        At the worse of the two states; None where the limit is not known. It takes up to 80
        Hessian products, and T steps without `w`.

    Warns
    -----
    StabilityWarning
        If γ is beyond the limit, with a step size that would do.

    Examples
    --------
    >>> import tinybilevel as tb
    >>> from tinybilevel.engine.stability import check
    >>> found = check(tb.problems.toy(step_size=0.5))
    >>> found.stable, f"{found.limit:.2f}"
    (True, '2.00')
    """
    worst = _worst(problem, lam, w, of_batches=False)
    if worst is not None and not worst.stable:
        warnings.warn(
            f"the lower level does not settle: {worst}",
            StabilityWarning,
            stacklevel=stacklevel,
        )
    return worst


def look(problem: BilevelProblem, lam: Any, w: Array, *, stacklevel: int = 2) -> None:
    """Do what `check` does after steps that swing and grow; on minibatches, they do so by chance.

    There the curvature of the first and the last batch is asked first: that of all data takes as
    long as many such runs. Arguments and warnings are those of `check`.
    """
    if getattr(problem.transition, "batches", None) is not None:
        found = _worst(problem, lam, w, of_batches=True)
        if found is None or 0 <= found.step_size <= _FAR * found.limit:
            return
    check(problem, lam, w, stacklevel=stacklevel + 1)


def _worst(
    problem: BilevelProblem, lam: Any, w: Array | None, *, of_batches: bool
) -> Stability | None:
    """Return the worse of the two states, w_0 and w_T, with all data or with the step's batch."""
    with np.errstate(over="ignore", invalid="ignore"):
        lam, move = problem.check(lam), problem.transition
        theta = problem.hyper_map(lam)
        state = start = move.initial(theta)
        if w is None:
            for t in range(problem.T):
                state = move.step(t, state, theta)
            w = move.readout(state)
        found = [
            stability(move, theta, t, x, place, move.at(t) if of_batches else None)  # type: ignore[attr-defined]
            for t, x, place in (
                (0, move.readout(start), "w_0"),
                (max(problem.T - 1, 0), w, "w_T"),
            )
            if bool(np.isfinite(x).all())
        ]
    known = [s for s in found if s is not None]
    return max(known, key=lambda s: abs(s.step_size) / s.limit) if known else None


def stability(
    transition: Transition, theta: Array, t: int, w: Array, place: str, g: Objective | None = None
) -> Stability | None:
    """Return how γ_t stands against the curvature at w (M,); None where that is not known.

    That of the lower level, or of `g` in its place.
    """
    step_size = getattr(transition, "step_size", None)
    g = transition.objective if g is None else g
    if step_size is None or g is None or g.lacking("grad_vjp"):
        return None
    if transition.largest_step(t, theta, 1.0) is None:
        return None
    gamma = step_size(t, theta)
    smallest, largest = float(np.min(gamma)), float(np.max(gamma))
    scale = gamma / largest if smallest >= 0 and largest > 0 else 1.0
    beta = largest_curvature(g, w, theta, scale)
    limit = transition.largest_step(t, theta, beta)
    return (
        None
        if limit is None
        else Stability(smallest if smallest < 0 else largest, beta, limit, place)
    )


def largest_curvature(
    g: Objective, w: Array, theta: Array, scale: Any = 1.0, *, iterations: int = 20
) -> float:
    """Return the largest eigenvalue of S^½ ∇²_ww g S^½ at w, from below, by power iteration.

    The eigenvalue that is largest in size may be negative; H is then shifted by it, so that the
    largest one comes out. S = diag(`scale`).
    """
    root = np.sqrt(scale)
    start = np.empty_like(w)
    start[...] = like(w, np.random.default_rng(0).standard_normal(w.size))

    def power(shift: float) -> tuple[float, bool]:
        """Return |e| and whether e > 0, for the eigenvalue e largest in size."""
        v, norm, positive = start, 0.0, True
        for _ in range(iterations):
            v = v / np.linalg.norm(v)
            Hv = root * g.grad_vjp(w, theta, root * v)[0] + shift * v
            norm, positive = float(np.linalg.norm(Hv)), bool(v @ Hv >= 0)
            if not np.isfinite(norm) or norm == 0:
                break
            v = Hv
        return norm, positive

    size, positive = power(0.0)
    return size if positive else power(size)[0] - size
