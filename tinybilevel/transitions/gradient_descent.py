"""Gradient descent, on the whole objective or on batches of its examples."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from tinybilevel.arrays.backend import Array, bound, moved, on_device
from tinybilevel.arrays.checks import as_count
from tinybilevel.objectives import Objective
from tinybilevel.products import Missing
from tinybilevel.transitions.base import Transition
from tinybilevel.transitions.coefficient import Coefficient, as_coefficient
from tinybilevel.transitions.minibatches import as_batches

__all__ = ["GradientDescent", "GradientTransition"]


#: What each product of a transition takes of the objective.
_OF_OBJECTIVE = {"step": "grad", "vjp": "grad_vjp", "jvp": "grad_jvp"}


class GradientTransition(Transition):
    """What the transitions that follow an objective's gradient share.

    Parameters
    ----------
    objective : Objective
        g(w, λ).
    step_size : float, sequence of float, callable, slice or Learned
        γ; γ_0, γ_1, …; t → γ_t; or the block of θ that holds it.
    initial : array_like (M,), slice, pair or triple of callables
        See `Transition`.
    batches : sequence of ndarray (size,) of int, or callable, optional
        Rows of the data that step t sees, t = 0 … T−1; `minibatches` draws them. The backward
        pass at step t uses batch t again. A function τ → such a sequence, as `FreshMinibatches` is,
        gives each outer update τ = 1, 2, … batches of its own; a method that is called directly
        sees those of τ = 1. The default is the whole objective.
    """

    objective: Objective

    def __init__(
        self,
        objective: Objective,
        step_size: Any,
        initial: Any,
        *,
        batches: Sequence[Array] | None = None,
    ) -> None:
        super().__init__(initial)
        if not isinstance(objective, Objective):
            raise TypeError(f"objective must be an Objective, got {objective!r}")
        if batches is not None and not objective.restrictable:
            raise TypeError(
                f"batches need an objective over examples, and {type(objective).__name__} has no "
                "restrict: give it one (Objective.from_functions(…, restrict=…)), or leave batches"
            )
        self.objective = objective
        self.step_size = as_coefficient("step_size", step_size)
        self._draw = batches if callable(batches) else None
        self.batches = self._checked(batches(1) if callable(batches) else batches)

    def check_horizon(self, T: int) -> None:
        if self.batches is not None and len(self.batches) < T:
            raise ValueError(
                f"batches has {len(self.batches)} entries, one for each step, and T = {T} steps "
                "are run"
            )
        for part in vars(self).values():
            if isinstance(part, Coefficient):
                part.check(T, self._initial.size)

    def initial(self, lam: Array) -> Array:
        w = super().initial(lam)
        for part in vars(self).values():
            if isinstance(part, Coefficient):
                part.check(None, self.readout(w).size)
        return w

    def _shown(self) -> dict[str, Any]:
        parts = {n: part for n, part in vars(self).items() if isinstance(part, Coefficient)}
        shown: dict[str, Any] = {"objective": self.objective, **parts}
        if self.batches is not None:
            shown["batches"] = self._draw or f"<{len(self.batches)} batches>"
        return shown

    def at_iteration(self, tau: int) -> Self:
        if self._draw is None:
            return self
        other = copy.copy(self)
        other.batches = self._checked(self._draw(as_count("tau", tau, minimum=1)))
        if any(on_device(batch) for batch in self.batches or ()):
            other.batches = moved(other.batches, "cupy")
        return other

    def _checked(self, batches: Any) -> tuple[Array, ...] | None:
        return None if batches is None else as_batches(batches, self.objective)

    def lacking(self, product: str) -> Missing | None:
        own = next(kind for kind in type(self).__mro__ if product in vars(kind))
        missing = super().lacking(product)
        # What a product of the user's own takes of the objective is not known.
        if missing or product not in _OF_OBJECTIVE or not own.__module__.startswith("tinybilevel."):
            return missing
        return self.objective.lacking(_OF_OBJECTIVE[product])

    def bound(self) -> Self:
        other = copy.copy(self)
        other.objective = bound(self.objective)
        return other

    def at(self, t: int) -> Objective:
        """Return the objective that step t follows."""
        if self.batches is None:
            return self.objective
        if t >= len(self.batches):
            raise ValueError(f"batches has {len(self.batches)} entries; step t={t} needs one more")
        return self.objective.restrict(self.batches[t])


class GradientDescent(GradientTransition):
    """w_{t+1} = w_t − γ_t ∇_w g(w_t, λ).

    With H = ∇²_ww g and M = ∇²_λw g: A α = α − H γα and B α = −M γα − (∂γ/∂λ)ᵀ(∇g ∘ α).

    Parameters
    ----------
    objective, step_size, initial, batches
        See `GradientTransition`.

    Examples
    --------
    >>> import numpy as np
    >>> import tinybilevel as tb
    >>> g = tb.Quadratic([1.0, 0.5])
    >>> descent = tb.GradientDescent(g, step_size=0.1, initial=[2.0, 2.0])
    >>> lam = np.array([1.0, 1.0])
    >>> descent.step(0, descent.initial(lam), lam)
    array([1.9 , 1.95])
    """

    def step(self, t: int, w: Array, lam: Array) -> Array:
        return w - self.step_size(t, lam) * self.at(t).grad(w, lam)

    def vjp(self, t: int, w: Array, lam: Array, alpha: Array) -> tuple[Array, Array]:
        g, gamma = self.at(t), self.step_size(t, lam)
        if not self.step_size.learned:
            hessian, mixed = g.grad_vjp(w, lam, gamma * alpha)
            return alpha - hessian, -mixed
        grad, hessian, mixed = g.grad_with_vjp(w, lam, gamma * alpha)
        return alpha - hessian, -mixed - self.step_size.pull(grad * alpha, lam)

    def jvp(self, t: int, w: Array, lam: Array, dw: Array, dlam: Array) -> Array:
        g, gamma = self.at(t), self.step_size(t, lam)
        moved = dw - gamma * g.grad_jvp(w, lam, dw, dlam)
        if self.step_size.learned:
            moved = moved - self.step_size.push(dlam) * g.grad(w, lam)
        return moved

    def largest_step(self, t: int, lam: Array, beta: float) -> float | None:
        return 2 / beta if beta > 0 else np.inf  # where |1 − γβ| = 1
