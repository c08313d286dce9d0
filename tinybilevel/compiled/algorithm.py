"""A transition as compiled loops take it: numbers for each step, factors for each entry of w."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from tinybilevel.arrays.backend import Array, promote
from tinybilevel.transitions import (
    AdamTransition,
    GradientDescent,
    HeavyBall,
    Learned,
    Nesterov,
    PerEntry,
    PerStep,
    ProximalGradient,
    Transition,
)
from tinybilevel.transitions.coefficient import Coefficient, PlainSequence

__all__ = ["Algorithm", "algorithm", "known", "of_one_dtype", "with_one_number"]

#: The name in `kernels/updates.py` of each, and what it calls its second coefficient.
_NAMES: dict[type, tuple[str, str | None]] = {
    GradientDescent: ("DESCENT", None),
    HeavyBall: ("HEAVY_BALL", "momentum"),
    Nesterov: ("NESTEROV", "momentum"),
    AdamTransition: ("ADAM", None),
    ProximalGradient: ("PROXIMAL", "l1"),
}


@dataclass(frozen=True)
class Algorithm:
    """What `kernels/updates.py` calls kind, c of each step and each."""

    kind: int
    numbers: Array
    each: Array
    rates: tuple[Coefficient, ...]

    @property
    def uniform(self) -> bool:
        """Whether each coefficient is one fixed number for all of w at each step."""
        return not any(isinstance(rate, PerEntry | Learned) for rate in self.rates)

    @cached_property
    def learned(self) -> bool:
        """Whether a coefficient lies in θ."""
        return any(rate.learned for rate in self.rates)

    def at(self, theta: Array) -> Array | None:
        """Return `each` at θ; None where θ is too short."""
        if not self.learned:
            return self.each
        each = self.each.astype(theta.dtype)
        for row, rate in zip(each, self.rates, strict=False):
            if isinstance(rate, Learned):
                if theta[rate.block].shape != (rate.count,):
                    return None
                row[:] = rate(0, theta)
        return each

    def pull(self, along: Array, theta: Array, h: Array) -> None:
        """Add to h what it has along each entry of w."""
        for row, rate in zip(along, self.rates, strict=False):
            if rate.learned:
                h += rate.pull(row, theta)


def known(move: Transition) -> bool:
    """Return whether `algorithm` takes a transition."""
    kinds = Coefficient, PerStep, PlainSequence, PerEntry, Learned
    return type(move) in _NAMES and all(type(rate) in kinds for rate in _rates(move))


def with_one_number(move: Transition) -> bool:
    """Return whether it is gradient descent with one number as its step size, from a fixed w_0."""
    step = getattr(move, "step_size", None)
    fixed = move.fixed_start() is not None and isinstance(getattr(step, "values", None), float)
    return type(move) is GradientDescent and fixed


def algorithm(move: Any, T: int, M: int) -> Algorithm:
    """Return that of a transition that is `known`. Schedules are read here, once."""
    from tinybilevel.kernels import updates

    kind, rates = getattr(updates, _NAMES[type(move)][0]), _rates(move)
    each, numbers = np.ones((2, M)), np.ones((T, 2))
    for k, rate in enumerate(rates):
        if isinstance(rate, PerEntry):
            each[k] = rate.values
        elif not rate.learned:
            numbers[:, k] = [rate(t, each) for t in range(T)]
    if isinstance(move, AdamTransition):
        betas = move.beta1, move.beta2, move.eps
        numbers = updates.adam_numbers(numbers[:, 0], *betas, move._steps_before)
    return Algorithm(kind, numbers, each, rates)


def of_one_dtype(move: Any, dtype: Any) -> bool:
    """Return whether nothing that the transition holds widens a dtype."""
    held = [rate.values for rate in _rates(move) if isinstance(rate, PerEntry)]
    return promote(dtype, move.fixed_start(), move.dtype, move._buffers, *held) == dtype


def _rates(move: Any) -> tuple[Coefficient, ...]:
    second = _NAMES[type(move)][1]
    return (move.step_size, *([getattr(move, second)] if second else []))
